"""`python -m tests.repository.mutations`: what lint misses of what a server refuses or misreads."""

# ruff: noqa: T201 - a command prints

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .judging import Judgement, judge
from .subjects import subjects

ROOT = Path(__file__).resolve().parents[3]
_OUTCOMES = ("good", "refused", "wrong", "metadata", "unverified", "died")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.repository.mutations", description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="the number of the first mutation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--zoo", type=Path, default=ROOT / "model_repository", help="a repository to mutate models of")
    parser.add_argument("--write", type=Path, help="the page to write")
    parser.add_argument("--verbose", action="store_true", help="say of each mutation what happened")
    options = parser.parse_args()
    started_s = time.monotonic()
    judgements = []
    with tempfile.TemporaryDirectory(prefix="tritium-mutations-") as name:
        made = subjects(Path(name), options.zoo)
        for judgement in judge(range(options.first, options.first + options.count), options.seed, made, Path(name)):
            judgements.append(judgement)
            if options.verbose or judgement.missed or judgement.mistaken:
                print(_line(judgement), flush=True)
    text = page(judgements, options.seed, [subject.name for subject in made])
    if options.write:
        options.write.write_text(text, encoding="utf-8")
    print(text)
    print(f"{time.monotonic() - started_s:.0f} s")
    return 0


def page(judgements: Sequence[Judgement], seed: int, names: Sequence[str]) -> str:
    """The page for the docs."""
    missed = [judgement for judgement in judgements if judgement.missed]
    mistaken = [judgement for judgement in judgements if judgement.mistaken]
    bad = sum(judgement.outcome != "good" for judgement in judgements)
    lines = [
        "# What lint misses",
        "",
        f"Written by `python -m tests.repository.mutations --count {len(judgements)} --write docs/lint-mutations.md` "
        f"(seed {seed}): {len(judgements)} random mutations of configs, manifests, model files and "
        f"folders of good models ({', '.join(names)}), each linted, then loaded into the embedded Triton "
        "and asked its golden cases.",
        "",
        f"{bad} of the mutants were refused, served wrongly or with other metadata, failed their own verification or "
        f"ended Triton. Lint found {bad - len(missed)} of these and missed **{len(missed)}**; a note does not count. "
        f"Of the {len(judgements) - bad} that answered as ever, lint found errors in {len(mistaken)}.",
        "",
        f"| mutation | {' | '.join(_OUTCOMES)} | missed |",
        f"|---|{'--:|' * (len(_OUTCOMES) + 1)}",
    ]
    for kind in sorted({judgement.mutation.kind for judgement in judgements}):
        of_kind = [judgement for judgement in judgements if judgement.mutation.kind == kind]
        counts = Counter(judgement.outcome for judgement in of_kind)
        cells = [*(counts[outcome] for outcome in _OUTCOMES), sum(judgement.missed for judgement in of_kind)]
        lines.append(f"| {kind} | {' | '.join(map(str, cells))} |")
    lines += ["", "## Missed", ""]
    lines += [
        "What is another model in all but its interface can be told only by golden cases, which these have not.",
        "",
    ]
    lines += [*([f"- {_line(judgement)}" for judgement in missed] or ["None."])]
    lines += ["", "## Errors where the server did as ever", ""]
    lines += ["Triton looks at no checksum, no golden case and no folder that it passes over; lint does.", ""]
    codes = Counter(finding.code for judgement in mistaken for finding in judgement.findings)
    lines += ["| code | mutants |", "|---|--:|", *(f"| `{code}` | {count} |" for code, count in sorted(codes.items()))]
    return "\n".join(lines) + "\n"


def _line(judgement: Judgement) -> str:
    found = ", ".join(sorted({finding.code for finding in judgement.findings})) or "nothing"
    reason = " ".join(judgement.reason.split("UNAVAILABLE state: ")[-1].split())[:160]
    detail = f": {reason}" if reason else ""
    return f"{judgement.mutation}: {judgement.outcome}{detail}; lint found {found}"


if __name__ == "__main__":
    sys.exit(main())
