"""What several subcommands print: tables, and what a supervisor says of a model that is not ready."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tritium.cli._shared import print_table
from tritium.repository import Repository
from tritium.server import Supervisor, TritonServer

HEADER = ("model", "inputs", "outputs", "")
ROWS = [
    ("words", "text BYTES[-1, 1]", "label INT64[-1], probabilities FP32[-1, 2], logits FP32[-1, 2]", ""),
    ("iris", "features FP32[-1, 4]", "label INT64[-1]", ""),
]


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_a_table_that_is_too_wide_for_the_terminal_is_wrapped_and_loses_no_word(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((columns, 24)))
    print_table(HEADER, ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    assert sorted(" ".join(lines).split()) == sorted(" ".join(" ".join(row) for row in (HEADER, *ROWS)).split())


def test_a_table_that_another_program_reads_has_a_row_in_each_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(HEADER, ROWS)
    assert capsys.readouterr().out.splitlines() == [
        "model  inputs                outputs",
        "words  text BYTES[-1, 1]     label INT64[-1], probabilities FP32[-1, 2], logits FP32[-1, 2]",
        "iris   features FP32[-1, 4]  label INT64[-1]",
    ]


def test_whoever_asks_a_quarantined_model_is_told_why_and_what_to_do(zoo: Repository, run: Callable[..., Any]) -> None:
    with Supervisor(TritonServer(zoo.path, models=["digits_mlp"], onnx_backend="native")) as supervisor:
        ask = ("infer", "digits_mlp", "--case", "0", "--url", supervisor.server.http_url, "--repository", zoo.path)
        assert run(*ask).exit_code == 0
        with supervisor._changing:
            supervisor._healer.quarantine("digits_mlp", "it died too often")
        result = run(*ask)
        assert result.exit_code == 1
        assert result.stderr.endswith(
            "Its supervisor says that it is quarantined: it died too often. "
            "`tritium reload digits_mlp` gives it another chance\n"
        )
