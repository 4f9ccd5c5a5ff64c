"""A fixed tenth of onnx's own tests through a real server; `make conformance` runs all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from .cases import collect
from .report import document, documented
from .rules import OF_THE_MACHINE, asked_of, judge
from .serving import failures

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "conformance.md"


@pytest.mark.parametrize("backend", ["native", "python"])
def test_a_fixed_tenth_of_onnx_own_tests_gives_the_outputs_expected(tmp_path: Path, backend: str) -> None:
    served = [case for case in collect() if case.in_tenth and judge()[case.name] is None]
    asked = asked_of(backend, served)
    assert len(asked) > 100
    failed = [f"{case.name}: {what}" for case, what in failures(asked, tmp_path, backend=backend) if what]
    assert not failed, "\n".join(failed)


def test_the_document_names_what_is_left_out_and_counts_right() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    said = documented(text)
    assert document(said) == text, "write it again: make conformance WRITE=docs/conformance.md"
    # Another processor or locale may move a test between these; nothing else may move.
    of_the_machine = {None, *OF_THE_MACHINE}
    moved = {name: (said[name], found) for name, found in judge().items() if said[name] != found}
    assert all(of_the_machine.issuperset(pair) for pair in moved.values()), moved
