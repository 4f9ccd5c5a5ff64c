"""What the suite covers, as the document that the project shows."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

import onnx
import onnxruntime as ort

from .cases import KINDS, Array, Case, collect
from .rules import OF_THE_MACHINE, asked_of

Reasons = Mapping[str, str | None]

# What sets served models apart from those that people usually serve.
ODD: Mapping[str, Callable[[Array], bool]] = {
    "scalars": lambda array: array.shape == (),
    "tensors without elements": lambda array: array.size == 0,
    "strings": lambda array: array.dtype == object,
    "FP16": lambda array: array.dtype.name == "float16",
    "BF16": lambda array: array.dtype.name == "bfloat16",
}

_INTRODUCTION = """\
# Conformance of the ONNX Runtime backends

ONNX brings its own backend tests: small models, each with inputs and the outputs that must come out. `make conformance`
serves every one that ONNX Runtime itself passes: all of them with the native backend, and a fixed tenth, chosen by a
hash of the name, with the Python-based one. Each model is loaded, asked over HTTP and over gRPC through
`tritium.client`, and compared as onnx's own runner compares: shapes, dtypes, strings, and values within the test's
tolerances. A scalar travels as a tensor of shape `[1]`, because Triton has none. `make test` runs the tenth with both.

`make conformance WRITE=docs/conformance.md` writes this page, and only if every model that was served gave the right
outputs. It counts the tests of onnx {onnx} with ONNX Runtime {ort}.
"""
_MACHINE = """\
What ONNX Runtime itself does depends on the processor and the system, so that on another machine tests may move between
being served and these:
"""


def document(reasons: Reasons) -> str:
    """The whole of `docs/conformance.md`: for every test by name why it is left out, or None."""
    cases = collect()
    served = [case for case in cases if reasons[case.name] is None]
    tenth = [case for case in served if case.in_tenth]
    python = asked_of("python", served)
    counts = Counter(reason for reason in reasons.values() if reason).most_common()
    parts = [
        _INTRODUCTION.format(onnx=onnx.__version__, ort=ort.__version__),
        _table(("kind", "tests", "left out", "served", "in the tenth"), _kinds(cases, served, tenth)),
        f"The Python-based backend, which has no BF16, serves {len(python)} of the {len(tenth)} of the tenth.\n",
        _table(("models served with", "number"), ((what, _having(served, odd)) for what, odd in ODD.items())),
        "## Left out\n",
        _table(("reason", "tests"), counts),
        _MACHINE + "\n".join(f"- {reason}" for reason in OF_THE_MACHINE) + "\n",
        *(_section(reason, [name for name in reasons if reasons[name] == reason]) for reason, _ in counts),
    ]
    return "\n".join(parts)


def documented(text: str) -> Reasons:
    """What a document says of every test there is now; None of those that it does not name."""
    sections = [section.partition("\n") for section in re.split("^### ", text, flags=re.MULTILINE)[1:]]
    named = {name: reason for reason, _, names in sections for name in names.split()}
    return {case.name: named.get(case.name) for case in collect()}


def _kinds(
    cases: Iterable[Case], served: Iterable[Case], tenth: Iterable[Case]
) -> Iterator[tuple[str, int, int, int, int]]:
    every, passed, chosen = (Counter(case.kind for case in group) for group in (cases, served, tenth))
    for kind in KINDS:
        yield kind, every[kind], every[kind] - passed[kind], passed[kind], chosen[kind]
    yield "all", every.total(), every.total() - passed.total(), passed.total(), chosen.total()


def _having(cases: Iterable[Case], odd: Callable[[Array], bool]) -> int:
    return sum(any(map(odd, [*case.inputs.values(), *case.outputs.values()])) for case in cases)


def _table(titles: tuple[str, ...], rows: Iterable[tuple[str | int, ...]]) -> str:
    lines = [titles, ("---",) + ("---:",) * (len(titles) - 1), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _section(reason: str, names: Iterable[str]) -> str:
    return f"### {reason}\n\n{textwrap.fill(' '.join(names), 120, break_on_hyphens=False)}\n"
