"""`make conformance`: all of onnx's own tests with the native backend, a fixed tenth with the Python-based one."""

# ruff: noqa: T201 - a command prints

from __future__ import annotations

import argparse
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .cases import Case, collect
from .report import document
from .rules import asked_of, judge
from .serving import failures

BACKENDS = ("native", "python")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make conformance", description=__doc__)
    parser.add_argument("--backend", choices=BACKENDS, action="append", help="one of them only")
    parser.add_argument("--tenth", action="store_true", help="the tenth only, also natively")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the document, if nothing failed")
    options = parser.parse_args()

    reasons = judge()
    print(f"{len(reasons)} tests")
    for reason, count in Counter(reasons.values()).most_common():
        print(f"{count:6}  {reason or 'served'}")
    served = [case for case in collect() if reasons[case.name] is None and (case.in_tenth or not options.tenth)]
    failed = [run(backend, asked_of(backend, served)) for backend in options.backend or BACKENDS]
    if any(failed):
        return 1
    if options.write:
        options.write.write_text(document(reasons), encoding="utf-8")
    return 0


def run(backend: str, cases: Sequence[Case]) -> int:
    """Serve the cases, and print what fails and how many did."""
    started_s, failed = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder:
        for case, failure in failures(cases, Path(folder), backend=backend):
            if failure:
                failed += 1
                print(f"{backend}: {case.name}: {textwrap.shorten(failure, 500)}")
    print(f"{backend}: {len(cases) - failed} of {len(cases)} passed in {time.monotonic() - started_s:.0f} s")
    return failed


if __name__ == "__main__":
    sys.exit(main())
