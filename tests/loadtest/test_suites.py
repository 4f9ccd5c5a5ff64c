"""Every suite against an embedded server, a planted regression of each kind, and a run in several processes."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tests.server.conftest import wait_until
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritium.loadtest import SUITES, LoadReport, join_run, run_suite
from tritium.loadtest._observer import Observer, work
from tritium.loadtest._suites import Wish
from tritium.repository import GoldenCases, Manifest, Repository, Tolerance, config_text, input_specs, output_specs
from tritium.server import TritonServer

SUITES_FOLDER = Path(run_suite.__code__.co_filename).with_name("suites")


def test_every_suite_has_a_locustfile_and_every_locustfile_a_suite() -> None:
    files = {path.stem for path in SUITES_FOLDER.glob("*.py") if not path.stem.startswith("_")}
    assert files == set(SUITES)


@pytest.mark.parametrize("name", sorted(SUITES))
def test_the_stages_of_a_suite_take_the_time_asked_for(name: str) -> None:
    for rate in (None, 800.0):
        stages = SUITES[name].stages(Wish(users=32, duration_s=12, rate=rate, models=("digits_cnn",)))
        assert sum(stage.duration_s for stage in stages) == pytest.approx(12)
        assert len({stage.rate is None for stage in stages}) == 1
        assert any(stage.judged for stage in stages)


def test_a_ramp_doubles_up_to_what_was_asked_for() -> None:
    levels = [[stage.users for stage in SUITES["ramp"].stages(Wish(users=users))] for users in (1, 2, 24, 64)]
    assert levels == [[1], [1, 2], [1, 2, 4, 8, 16, 24], [1, 2, 4, 8, 16, 32, 64]]
    rates = [stage.rate for stage in SUITES["ramp"].stages(Wish(rate=800))]
    assert rates == [100, 200, 300, 400, 500, 600, 700, 800]


@pytest.mark.parametrize(
    ("suite", "options", "names"),
    [
        ("ramp", {"users": 4, "duration_s": 3, "models": ["digits_mlp"]}, ["1 user", "2 users", "4 users"]),
        ("spike", {"users": 8, "duration_s": 3, "protocol": "grpc"}, ["before", "spike", "after"]),
        ("soak", {"users": 4, "duration_s": 3, "objectives": "errors=0, wrong=0, memory<50%"}, ["all"]),
        ("mixed", {"rate": 50.0, "duration_s": 2, "weights": {"digits_cnn": 4}}, ["all"]),
        ("bulk", {"users": 2, "duration_s": 2, "protocol": "grpc"}, ["bulk"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_suite_ends_with_a_verdict(
    zoo: Repository, server: TritonServer, suite: str, options: dict[str, Any], names: list[str]
) -> None:
    url = server.grpc_url if options.pop("protocol", "http") == "grpc" else server.http_url
    report = run_suite(suite, url=url, repository=zoo, **options)
    assert report.ok, (report.verdicts, report.runs[0].errors)
    assert [level.name for level in report.levels] == names
    assert all(level.rounds[0].right for level in report.levels)
    assert all(level.work is not None and level.work.requests for level in report.levels)
    assert (report.runs[0].knee in names) is (suite == "ramp")
    if suite == "soak":
        assert report.runs[0].memory_rise_percent is not None
    if suite == "bulk":
        assert report.runs[0].judged.rows == 64 * report.runs[0].judged.right


def test_batching_compares_copies_of_a_model_with_other_configs(zoo: Repository) -> None:
    report = run_suite("batching", repository=zoo, models=["digits_cnn"], users=8, duration_s=6)
    assert report.ok, report.runs[0].errors
    levels = {level.name.removeprefix("digits_cnn."): level for level in report.levels}
    assert list(levels) == ["off", "0us", "500us", "2000us"]
    assert all(len(level.rounds) == 3 for level in levels.values())
    sizes = {name: level.work.batch_sizes for name, level in levels.items() if level.work}
    assert list(sizes["off"]) == [1], "without batching every row runs alone"
    assert max(sizes["2000us"]) > 1
    assert max(max(found) for found in sizes.values()) <= 8, "each user has one row under way"


def test_overload_finds_out_what_the_server_can_take_and_asks_for_more(slow: Repository) -> None:
    said: list[str] = []
    report = run_suite("overload", repository=slow, duration_s=6, users=8, progress=said.append)
    assert said[0] == "overload, run 1 of 1: what can the server take?"
    run = report.runs[0]
    rates = [item.stage.rate or 0.0 for item in run.stages]
    assert [rate / rates[2] for rate in rates] == [pytest.approx(factor) for factor in (0.5, 0.8, 1, 1.25, 1.5, 2)]
    assert run.everywhere.rejected > 0, "the queue holds two"
    assert run.everywhere.wrong == 0
    assert report.ok, (report.verdicts, run.errors)


def test_in_chaos_processes_die_and_versions_are_reloaded_and_no_answer_is_wrong(zoo: Repository) -> None:
    report = run_suite("chaos", repository=zoo, users=4, duration_s=8, objectives="wrong=0")
    assert report.ok, (report.verdicts, report.runs[0].errors)
    done = [text.split()[0] for _, text in report.runs[0].events]
    assert {"killed", "reloaded"} <= set(done)
    assert report.runs[0].everywhere.right > 0


def test_a_worker_that_is_lost_makes_a_run_no_good(zoo: Repository, server: TritonServer) -> None:
    def workers() -> list[psutil.Process]:
        children = psutil.Process().children(recursive=True)
        return [child for child in children if "--worker" in child.cmdline()]

    with ThreadPoolExecutor(1) as pool, server.client() as client:
        model = client.model("digits_mlp")

        def answered() -> int:
            return int(model.statistics()["model_stats"][0]["inference_count"])

        enough = answered() + 2000
        options = {"users": 4, "duration_s": 8, "workers": 2, "timeout_s": 2.0, "models": ["digits_mlp"]}
        running = pool.submit(run_suite, "smoke", url=server.http_url, repository=zoo, **options)  # type: ignore[arg-type]
        wait_until(lambda: answered() > enough, timeout_s=60)
        workers()[0].kill()
        report = running.result(timeout=60)
    assert all(verdict.ok for verdict in report.verdicts)
    assert not report.ok
    assert report.runs[0].lost_workers == 1
    assert "1 of the processes that were to send did not" in report.runs[0].remarks[0]


def test_one_master_and_two_workers_add_up_to_what_the_server_counted(zoo: Repository, server: TritonServer) -> None:
    with server.client() as client:
        observer = Observer(client, None)
        observer.look()
        report = run_suite(
            "smoke", url=server.http_url, repository=zoo, users=5, duration_s=2, workers=2, models=["digits_mlp"]
        )
        observer.look()
    assert report.ok, (report.verdicts, report.runs[0].errors)
    done = work(observer.looks, observer.looks[0].at_s, observer.looks[-1].at_s, ("digits_mlp",))
    assert done is not None
    counted = report.runs[0].everywhere.requests
    # The server counts what warmed it up, too: each worker's users send until all are there.
    assert counted <= done.requests
    assert done.requests - counted < 0.5 * done.requests


def test_a_worker_of_another_machine_joins_with_a_repository_of_its_own(
    zoo: Repository, server: TritonServer, tmp_path: Path
) -> None:
    elsewhere = Repository(shutil.copytree(zoo.path, tmp_path / "elsewhere"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    with ThreadPoolExecutor(1) as pool:
        joined = pool.submit(join_run, "smoke", address, repository=elsewhere)
        report = run_suite(
            "smoke",
            url=server.http_url,
            repository=zoo,
            models=["digits_mlp"],
            users=2,
            duration_s=1.5,
            remote_workers=1,
            bind=address,
        )
        assert joined.result(timeout=60) == 0
    assert report.ok, (report.verdicts, report.runs[0].errors)
    assert report.runs[0].everywhere.right > 0


# A model that adds one to each number; what it does beside that is planted.
ADDER = """
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    asked = 0

    def execute(self, requests):
        answers = []
        for request in requests:
            values = pb_utils.get_input_tensor_by_name(request, "values").as_numpy() + np.float32(1)
            TritonPythonModel.asked += 1
            {planted}
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("sums", values.astype(np.float32))]))
        return answers
"""


@pytest.fixture
def adder(tmp_path: Path) -> Callable[..., Repository]:
    """Makes a repository with a Python model that does a planted thing with each request."""

    def make(planted: str, queue: int = 0) -> Repository:
        folder = tmp_path / "models/adder/1"
        folder.mkdir(parents=True)
        config = ModelConfig(name="adder", backend="python", max_batch_size=4)
        config.input.add(name="values", data_type="TYPE_FP32", dims=[3])
        config.output.add(name="sums", data_type="TYPE_FP32", dims=[3])
        config.instance_group.add(count=1, kind="KIND_CPU")
        if queue:
            config.dynamic_batching.default_queue_policy.max_queue_size = queue
        (folder.parent / "config.pbtxt").write_text(config_text(config), encoding="utf-8")
        (folder / "model.py").write_text(ADDER.format(planted=planted), encoding="utf-8")
        values = np.arange(24, dtype=np.float32).reshape(8, 3)
        golden = GoldenCases({"values": values}, {"sums": values + 1})
        golden.save(folder / "golden.npz", [*input_specs(config), *output_specs(config)])
        made = Manifest("adder", "a test", "2026-01-01T00:00:00+00:00", {}, {}, {}, {}, Tolerance(atol=1e-5))
        made.with_files(folder).save(folder)
        return Repository(tmp_path / "models")

    return make


@pytest.fixture
def slow(adder: Callable[..., Repository]) -> Repository:
    return adder("time.sleep(0.02)", queue=2)


def missed(report: LoadReport) -> list[str]:
    return [verdict.objective for verdict in report.verdicts if not verdict.ok]


def test_ten_milliseconds_more_in_a_backend_fail_the_line_about_latency(adder: Callable[..., Repository]) -> None:
    goals = "p50<9ms, errors=0, wrong=0"
    report = run_suite("smoke", repository=adder("time.sleep(0.01)"), users=1, duration_s=3, objectives=goals)
    assert missed(report) == ["p50<9ms"]


def test_one_wrong_answer_in_a_thousand_fails_the_line_about_wrong_answers(adder: Callable[..., Repository]) -> None:
    goals = "p50<5s, rejected=0, timeouts=0, failed=0, wrong=0"
    planted = "values = values + (TritonPythonModel.asked % 1000 == 0)"
    report = run_suite("smoke", repository=adder(planted), users=8, duration_s=4, objectives=goals)
    assert missed(report) == ["wrong=0"]
    found = report.runs[0].everywhere
    assert found.wrong == pytest.approx(found.requests / 1000, abs=1 + found.requests / 2000)
