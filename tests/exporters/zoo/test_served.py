"""Every reference model behind the embedded Triton: its answers, over both protocols, and what lint says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from tritium.cli._main import tritium
from tritium.exporters.zoo import MODELS
from tritium.repository import Repository
from tritium.repository.lint import lint
from tritium.server import TritonServer


@pytest.fixture(scope="module")
def everything(whole_zoo: Repository) -> Iterator[TritonServer]:
    with TritonServer(whole_zoo.path, models=list(MODELS)) as running:
        yield running


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_tritium_verify_passes_for_every_model(protocol: str, everything: TritonServer, whole_zoo: Repository) -> None:
    url = everything.http_url if protocol == "http" else everything.grpc_url
    done = CliRunner().invoke(tritium, ["verify", *MODELS, "--url", url, "--repository", str(whole_zoo.path)])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(MODELS)
    assert all(": ok, " in line for line in lines)


def test_lint_is_silent(whole_zoo: Repository) -> None:
    assert list(map(str, lint(whole_zoo))) == []
