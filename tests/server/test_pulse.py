"""Small parts of a supervisor, without a Triton."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Iterator
from subprocess import PIPE, Popen

import pytest

from tritium.server import ModelState
from tritium.server._health import HealthServer
from tritium.server._loop import keep_doing
from tritium.server._pulse import STRIKES, Deaths, Pulse
from tritium.server._states import States
from tritium.server._stubs import live_stubs, wanted_stubs

from .test_supervisor import ask

STRANGE_NAME = "import ctypes, sys; ctypes.CDLL(None).prctl(15, b'\\xff\\xfe', 0, 0, 0); print(flush=True); input()"


def test_one_late_look_after_a_long_sleep_ends_no_triton() -> None:
    pulse = Pulse(1, started=True)
    pulse.beat(False, asked_s=0, now_s=1000)
    assert pulse.is_silent
    assert not pulse.hangs
    pulse.beat(True, asked_s=1001, now_s=1001)
    for looks in range(2):
        pulse.beat(False, asked_s=1002 + looks, now_s=1100)
        assert not pulse.hangs
    pulse.beat(False, asked_s=1100, now_s=1102)
    assert pulse.hangs


def test_a_short_silence_is_none_and_many_short_looks_are_no_hang() -> None:
    pulse = Pulse(1, started=True)
    for tenths in range(19):
        pulse.beat(False, asked_s=tenths / 10, now_s=tenths / 10)
    assert not pulse.is_silent
    assert not pulse.hangs
    assert not pulse.answers


def test_what_has_not_answered_yet_starts_and_does_not_hang() -> None:
    pulse = Pulse(1)
    for second in range(100):
        pulse.beat(False, asked_s=second, now_s=second)
    assert not (pulse.answers or pulse.is_silent or pulse.hangs)
    pulse.beat(True, asked_s=100, now_s=100)
    assert pulse.answers


def test_only_deaths_that_follow_each_other_soon_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    deaths, now = Deaths(), [0.0]
    monkeypatch.setattr("tritium.server._pulse.time.monotonic", lambda: now[0])
    for _ in range(2 * STRIKES):
        assert not deaths.too_many("slowly")
        now[0] += 40
    assert [deaths.too_many("quickly") for _ in range(STRIKES)] == [*[False] * (STRIKES - 1), True]
    deaths.forget("quickly")
    assert not deaths.too_many("quickly")


def test_a_program_whose_name_is_no_utf_8_is_passed_over() -> None:
    with Popen(["python3", "-c", STRANGE_NAME], stdin=PIPE, stdout=PIPE, text=True) as program:
        assert program.stdout is not None
        program.stdout.readline()
        assert live_stubs(program.pid) == {}
        program.communicate("\n")


def test_every_instance_on_every_device_has_a_process_for_each_version() -> None:
    groups = [{"name": "a", "count": 2, "gpus": []}, {"name": "b", "count": 1, "gpus": [0, 1]}, {"name": "c"}]
    assert wanted_stubs({"instance_group": groups}, 2) == 2 * (2 + 2 + 1)


def test_trouble_is_told_once_until_it_changes_or_ends() -> None:
    stopping, told = threading.Event(), list[str]()
    troubles = iter(["a", "a", "b", "", "b", "b"])

    def step() -> None:
        trouble = next(troubles, None)
        if trouble is None:
            stopping.set()
        elif trouble:
            raise OSError(trouble)

    keep_doing(step, every_s=0, stopping=stopping, complain=told.append)
    assert told == ["OSError: a", "OSError: b", "OSError: b"]


def test_what_holds_for_all_hides_only_those_that_are_ready() -> None:
    states = States(["good", "bad"])
    states.set("good", ModelState.READY)
    states.set("bad", ModelState.QUARANTINED, "it is bad")
    states.silence("nothing is heard")
    assert [(report.state.value, report.reason) for report in states.all().values()] == [
        ("degraded", "nothing is heard"),
        ("quarantined", "it is bad"),
    ]
    assert b'tritium_model_state{model="good",state="degraded"} 1.0' in states.metrics()
    states.silence("")
    assert states.all() == states.own()
    states.stop()
    states.silence("")
    assert states.all()["good"].reason == "the server is stopping"


@pytest.fixture
def health() -> Iterator[str]:
    def reload(model: str) -> None:
        raise FileNotFoundError("no such repository")

    with HealthServer(("127.0.0.1", 0), States(["model"]), secret="s", reload=reload) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_model_that_there_is_not_is_refused_with_those_there_are(health: str) -> None:
    assert ask(f"{health}/ready/modle") == (404, {"error": "There is no model 'modle'; there are model"})


def test_a_reload_without_a_repository_is_answered(health: str) -> None:
    request = urllib.request.Request(f"{health}/models/model/reload", method="POST", headers={"tritium-admin": "s"})
    status, answer = ask(request)
    assert (status, answer["error"]) == (500, "FileNotFoundError: no such repository")
