"""A supervisor on a real Triton, of which something takes long, hangs for a while or is taken away."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tritium.client import TritiumError
from tritium.server import ModelState, Supervisor, TritonServer
from tritium.server._stubs import stubs

from .conftest import DOUBLER_CONFIG, doubler, wait_until
from .test_drain import SLOW, SLOW_CONFIG, pending
from .test_supervisor import ask, metric, quick_to_judge, stub_of

# It takes as long to load as there is a file that says so.
HELD = """
    def initialize(self, args):
        while os.path.exists({hold!r}):
            time.sleep(0.02)
"""


class Held:
    """A supervisor of `doubler`, in a process of its own, and of `slow`, whose loading can be held up."""

    def __init__(self, supervisor: Supervisor, hold: Path) -> None:
        self.supervisor = supervisor
        self.server = supervisor.server
        self.hold = hold

    @contextmanager
    def loading(self) -> Iterator[Future[None]]:
        """Be in the middle of a reload of `slow`, which goes on to its end when the block ends."""
        with ThreadPoolExecutor(1) as pool:
            self.hold.touch()
            try:
                reload = pool.submit(self.supervisor.reload, "slow")
                wait_until(lambda: self.supervisor._healer.being_loaded == "slow")
                yield reload
            finally:
                self.hold.unlink()

    def report(self, model: str = "doubler") -> Any:
        return ask(f"{self.supervisor.url}/ready/{model}")[1]["models"][model]

    def is_ready(self) -> bool:
        return ask(f"{self.supervisor.url}/ready")[0] == 200

    def heals(self) -> float:
        return metric(self.supervisor, 'tritium_model_heals_total{model="doubler"}')

    def restarts(self) -> float:
        return metric(self.supervisor, "tritium_triton_restarts_total")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    folder, hold = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("hold") / "hold"
    slow = f"import os\n{SLOW}{HELD.format(hold=str(hold))}".encode()
    for name, config, file, content in (
        ("doubler", DOUBLER_CONFIG, "model.onnx", doubler()),
        ("slow", SLOW_CONFIG, "model.py", slow),
    ):
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(config, encoding="utf-8")
        (folder / name / "1" / file).write_bytes(content)
    with Supervisor(TritonServer(folder, onnx_backend="python"), progress=print) as supervisor:
        yield Held(supervisor, hold)


@pytest.fixture
def held(shared: Held) -> Held:
    wait_until(shared.is_ready)
    for model in shared.server.models:
        shared.supervisor._healer.forgive(model)
    return shared


def test_a_death_is_noticed_while_another_model_is_being_loaded(held: Held) -> None:
    before = held.heals()
    with held.loading() as reload:
        stub_of(held.server, "doubler").kill()
        wait_until(lambda: held.report()["state"] == "degraded", timeout_s=5)
        assert "1 of its 1 backend processes died" in held.report()["reason"]
        assert not reload.done()
    reload.result(10)
    wait_until(lambda: held.heals() == before + 1)
    wait_until(held.is_ready)


def test_a_triton_that_hangs_while_a_model_is_loaded_is_started_again(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_to_judge(monkeypatch)
    old = held.server.pid
    with held.loading() as reload:
        os.kill(old, signal.SIGSTOP)
        with pytest.raises(TritiumError):
            reload.result(15)
    wait_until(lambda: held.server.pid != old and held.is_ready())
    assert metric(held.supervisor, 'tritium_model_quarantines_total{model="slow"}') == 0


def test_a_triton_that_dies_while_a_model_is_healed_quarantines_nobody(held: Held) -> None:
    old = held.server.pid
    held.hold.touch()
    (slow,) = (pid for pid, model in stubs(old).items() if model == "slow")
    os.kill(slow, signal.SIGKILL)
    wait_until(lambda: held.supervisor._healer.being_loaded == "slow" and len(stubs(old)) == 2)
    os.kill(old, signal.SIGKILL)
    held.hold.unlink()
    wait_until(lambda: held.server.pid != old and held.is_ready())


def test_a_triton_that_is_silent_for_a_while_is_not_ready_for_as_long(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_to_judge(monkeypatch)
    monkeypatch.setattr("tritium.server._pulse._HANG_S", 60)
    before = held.restarts()
    os.kill(held.server.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: held.report()["reason"].startswith("Triton has not answered for"), timeout_s=5)
    finally:
        os.kill(held.server.pid, signal.SIGCONT)
    wait_until(held.is_ready, timeout_s=5)
    assert held.restarts() == before


def test_a_model_that_was_healed_and_could_not_be_asked_is_asked_again(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, client, refused = held.heals(), held.server.client, list[str]()

    def fails_at_first(*, protocol: str = "http", **options: Any) -> Any:
        if protocol == "http" and len(refused) < 4:
            refused.append(held.report()["reason"])
            raise TritiumError("no time")
        return client(protocol=protocol, **options)

    stub_of(held.server, "doubler").kill()
    monkeypatch.setattr(held.server, "client", fails_at_first)
    wait_until(lambda: len(refused) == 4)
    assert any("does not say what it is: no time" in reason for reason in refused)
    wait_until(held.is_ready, timeout_s=5)
    assert held.heals() == before, "it was loaded once, and then only asked"


def test_a_model_that_cannot_be_asked_keeps_no_other_from_coming_back(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = held.supervisor._healer.serving

    def fails_for_one(model: str, remark: str = "") -> None:
        if model == "doubler":
            raise TritiumError("no time")
        serving(model, remark)

    monkeypatch.setattr(held.supervisor._healer, "serving", fails_for_one)
    for model in ("doubler", "slow"):
        held.supervisor._states.set(model, ModelState.DEGRADED, "not asked yet")
    wait_until(lambda: held.report("slow")["state"] == "ready", timeout_s=5)
    assert held.report("doubler")["reason"] == "not asked yet"


@pytest.mark.parametrize("again", ["reload", "load"])
def test_a_model_that_somebody_unloads_is_not_ready_until_it_is_loaded_again(held: Held, again: str) -> None:
    before = held.heals()
    held.server.unload("doubler")
    wait_until(lambda: held.report()["state"] == "quarantined", timeout_s=5)
    assert "it was unloaded" in held.report()["reason"]
    assert held.supervisor.states()["slow"].state is ModelState.READY
    assert held.heals() == before
    (held.supervisor.reload if again == "reload" else held.server.load)("doubler")
    wait_until(held.is_ready, timeout_s=5)


def test_nothing_is_ready_any_more_from_the_moment_that_it_stops(tmp_path: Path) -> None:
    (tmp_path / "slow" / "1").mkdir(parents=True)
    (tmp_path / "slow" / "config.pbtxt").write_text(SLOW_CONFIG, encoding="utf-8")
    (tmp_path / "slow" / "1" / "model.py").write_text(SLOW, encoding="utf-8")
    with (
        ThreadPoolExecutor(3) as pool,
        Supervisor(TritonServer(tmp_path)) as supervisor,
        supervisor.server.client() as client,
    ):
        slow = client.model("slow")
        assert slow.metadata.name == "slow"
        sent = [pool.submit(slow, np.array([1, 5], np.float32)) for _ in range(2)]
        wait_until(lambda: pending(supervisor.server, "slow") == 1)
        stopped = pool.submit(supervisor.__exit__, None, None, None)
        wait_until(lambda: ask(f"{supervisor.url}/ready")[0] == 503, timeout_s=1)
        status, document = ask(f"{supervisor.url}/ready/slow")
        assert (status, document["models"]["slow"]["reason"]) == (503, "the server is stopping")
        assert not sent[1].done() or not sent[0].done()
        for answer in sent:
            assert np.array_equal(answer.result(10), np.full(5, 5, np.float32))
        stopped.result(20)
