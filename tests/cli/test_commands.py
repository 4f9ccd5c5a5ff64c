"""What each command that ends by itself says, in this process."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from tests.server.conftest import wait_until

from tritium.cli._infer import _parsed
from tritium.client import InputError, TensorSpec
from tritium.exporters.zoo import MODELS
from tritium.repository import GoldenCases, Manifest, Repository, load_golden
from tritium.server import TritonServer

Run = Callable[..., Result]


def golden(zoo: Repository, model: str) -> GoldenCases:
    return load_golden(zoo.version_folder(model), zoo.config(model))


class TestDoctor:
    def findings(self, result: Result) -> dict[str, dict[str, str]]:
        return {finding["check"]: finding for finding in json.loads(result.stdout)["findings"]}

    def test_a_machine_that_serves_is_found_well(self, run: Run, server: TritonServer) -> None:
        result = run("doctor", "--http-port", 0, "--grpc-port", 0, "--metrics-port", 0, "--json")
        assert result.exit_code == 0
        assert json.loads(result.stdout)["ok"] is True
        found = self.findings(result)
        assert found.keys() >= {"system", "python", "glibc", "libpython", "cache", "runtime", "onnxruntime", "/dev/shm"}
        assert {finding["status"] for finding in found.values()} <= {"ok", "warning"}
        assert "1.26.4" in found["backend numpy"]["detail"]

    def test_a_port_that_is_taken_is_a_warning_with_the_way_round_it(self, run: Run, server: TritonServer) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            result = run("doctor", "--http-port", port, "--grpc-port", 0, "--metrics-port", 0, "--json")
        assert result.exit_code == 0
        finding = self.findings(result)[f"port {port}"]
        assert finding["status"] == "warning"
        assert "--http-port 0" in finding["fix"]

    def test_people_get_a_mark_and_the_fix_below_it(self, run: Run, server: TritonServer) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            result = run("doctor", "--http-port", port, "--grpc-port", 0, "--metrics-port", 0)
        lines = result.stdout.splitlines()
        place = next(number for number, line in enumerate(lines) if line.startswith(f"! port {port}: http: "))
        assert lines[place + 1].startswith("    → Stop what listens there")
        assert any(line.startswith("✓ runtime: ") for line in lines)


class TestRuntime:
    @pytest.fixture
    def empty_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("TRITIUM_CACHE_DIR", str(tmp_path / "cache"))
        return tmp_path / "cache"

    def test_what_is_installed_is_shown_with_versions_and_checksums(self, run: Run, server: TritonServer) -> None:
        document = json.loads(run("runtime", "info", "--json").stdout)
        assert document["installed"] is True
        assert Path(document["path"]).is_dir()
        assert document["triton_version"] == "2.51.0"
        wheels = {wheel["project"]: wheel for wheel in document["wheels"]}
        assert {project: wheel["version"] for project, wheel in wheels.items()} == {
            "nvidia-pytriton": "0.7.0",
            "numpy": "1.26.4",
        }
        assert all(len(wheel["sha256"]) == 64 for wheel in wheels.values())
        assert document["backends"] == {"onnxruntime": server.onnx_backend, "pytorch": "python"}
        text = run("runtime", "info").stdout
        assert all(wheel["sha256"] in text for wheel in wheels.values())
        assert f"{document['native']['library']}, compiled by {document['native']['compiler']}" in text

    def test_an_empty_cache_is_shown_as_such_and_not_made(self, run: Run, empty_cache: Path) -> None:
        document = json.loads(run("runtime", "info", "--json").stdout)
        assert (document["installed"], document["path"], document["cache_bytes"]) == (False, None, 0)
        assert document["cache"] == str(empty_cache)
        assert document["backends"]["onnxruntime"] == "python"
        assert document["native"]["library"] is None
        text = run("runtime", "info").stdout
        assert "not installed" in text
        assert "Native    not used: not compiled yet" in text
        assert not empty_cache.exists()

    def test_removing_nothing_frees_nothing(self, run: Run, empty_cache: Path) -> None:
        result = run("runtime", "remove", "--json")
        assert (result.exit_code, json.loads(result.stdout)) == (0, {"freed_bytes": 0})
        assert not empty_cache.exists()

    def test_installing_from_a_folder_without_the_wheels_names_what_is_missing(
        self, run: Run, empty_cache: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "wheels").mkdir()
        result = run("runtime", "install", "--from", tmp_path / "wheels", "--json")
        assert result.exit_code == 1
        assert "nvidia_pytriton-0.7.0-*.whl" in json.loads(result.stdout)["error"]
        assert not [path for path in empty_cache.rglob("*") if path.is_file() and path.name != "lock"]

    def test_installing_what_is_installed_says_where_it_lies(self, run: Run, server: TritonServer) -> None:
        document = json.loads(run("runtime", "install", "--json").stdout)
        result = run("runtime", "install")
        assert result.exit_code == 0
        assert result.stderr.splitlines() == [
            f"Installed: {document['path']}",
            f"Compiled:  {document['native']['library']}",
        ]

    def test_installing_where_nothing_compiles_says_why_and_what_to_do(
        self, run: Run, server: TritonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "cache").mkdir()
        for part in ("runtime", "wheels"):
            (tmp_path / "cache" / part).symlink_to(server.folder.parents[1] / part)
        monkeypatch.setenv("TRITIUM_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setenv("CXX", "/nonexistent/c++")
        (tmp_path / "wheels").mkdir()
        for _ in range(2):  # here, unlike at a start, what has failed is tried again
            result = run("runtime", "install", "--from", tmp_path / "wheels")
            assert result.exit_code == 0
            assert "will run ONNX models: /nonexistent/c++ failed: No such file" in result.stderr
            assert "There is no ziglang-" in result.stderr
            assert "apt-get install g++" in result.stderr.splitlines()[-1]

    def test_installing_from_no_folder_is_wrong_usage(self, run: Run, empty_cache: Path) -> None:
        result = run("runtime", "install", "--from", "/nonexistent")
        assert result.exit_code == 2
        assert "/nonexistent" in result.stderr


class TestZoo:
    def test_the_list_has_each_model_with_what_its_manifest_says(self, run: Run, zoo: Repository) -> None:
        rows = json.loads(run("zoo", "list", "--repository", zoo.path, "--json").stdout)
        assert [row["name"] for row in rows] == list(MODELS)
        for row in (row for row in rows if row["name"] in zoo.models()):
            manifest = Manifest.load(zoo.version_folder(row["name"]))
            assert (row["version"], row["metrics"], row["baselines"]) == (
                zoo.versions(row["name"])[-1],
                manifest.metrics,
                manifest.baselines,
            )

    def test_people_get_the_list_as_a_table(self, run: Run, zoo: Repository) -> None:
        header, *lines = run("zoo", "list", "--repository", zoo.path).stdout.splitlines()
        assert header.split()[0] == "name"
        assert [line.split()[0] for line in lines] == list(MODELS)
        assert all(line.endswith("%" if line.split()[0] in zoo.models() else "-") for line in lines)

    def test_the_table_comes_as_markdown_too(self, run: Run, zoo: Repository) -> None:
        lines = run("zoo", "list", "--repository", zoo.path, "--markdown").stdout.splitlines()
        assert lines[:2] == [
            "| name | model | data | export | held-out | baseline |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        assert [line.split()[1] for line in lines[2:]] == list(MODELS)

    def test_the_page_of_the_reference_models_has_them_all_with_figures(self, run: Run, zoo: Repository) -> None:
        page = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
        written = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
        printed = run("zoo", "list", "--repository", zoo.path, "--markdown").stdout.splitlines()
        # Figures differ in their last digit from one processor to another; what the models are does not.
        assert [row[:4] for row in written] == [line.split(" | ")[:4] for line in printed]
        assert all(re.search("[0-9]", cell) for row in written[2:] for cell in row[4:])

    def test_a_repository_that_is_not_there_has_no_versions_and_is_not_made(self, run: Run, tmp_path: Path) -> None:
        rows = json.loads(run("zoo", "list", "--repository", tmp_path / "none", "--json").stdout)
        assert [(row["version"], row["metrics"]) for row in rows] == [(None, {})] * len(MODELS)
        assert not (tmp_path / "none").exists()

    def test_training_what_is_up_to_date_publishes_nothing(self, run: Run, zoo: Repository) -> None:
        before = {name: zoo.versions(name) for name in zoo.models()}
        rows = json.loads(run("zoo", "train", *zoo.models(), "--repository", zoo.path, "--json").stdout)
        assert [(row["name"], row["fresh"]) for row in rows] == [(name, False) for name in zoo.models()]
        assert {name: zoo.versions(name) for name in zoo.models()} == before

    def test_only_the_models_named_are_trained(self, run: Run, zoo: Repository) -> None:
        rows = json.loads(run("zoo", "train", "digits_mlp", "--repository", zoo.path, "--json").stdout)
        assert [row["name"] for row in rows] == ["digits_mlp"]

    def test_an_unknown_name_makes_no_repository(self, run: Run, tmp_path: Path) -> None:
        assert run("zoo", "train", "digits_cnm", "--repository", tmp_path / "none").exit_code == 2
        assert not (tmp_path / "none").exists()

    def test_a_file_in_the_repositorys_place_is_wrong_usage(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        result = run("zoo", "train", "digits_mlp", "--repository", tmp_path / "file")
        assert result.exit_code == 2
        assert str(tmp_path / "file") in result.stderr


@pytest.mark.parametrize("protocol", ["http", "grpc"])
class TestModels:
    def url(self, server: TritonServer, protocol: str) -> str:
        return server.http_url if protocol == "http" else server.grpc_url

    def test_each_served_version_is_listed_as_ready(
        self, run: Run, server: TritonServer, zoo: Repository, protocol: str
    ) -> None:
        statuses = json.loads(run("models", "--url", self.url(server, protocol), "--json").stdout)
        assert [status["name"] for status in statuses if status["state"] == "READY"] == zoo.models()

    def test_people_get_the_tensors_too(self, run: Run, server: TritonServer, protocol: str) -> None:
        result = run("models", "--url", self.url(server, protocol))
        (line,) = (line for line in result.stdout.splitlines() if line.startswith("digits_svm"))
        assert "READY" in line
        assert "pixels FP32[-1,784]" in line
        assert "label INT64[-1,1], probabilities FP32[-1,10]" in line


class TestInfer:
    @pytest.fixture(params=["http", "grpc"])
    def url(self, request: pytest.FixtureRequest, server: TritonServer) -> str:
        return server.http_url if request.param == "http" else server.grpc_url

    def check(self, result: Result, zoo: Repository, case: int) -> None:
        """The answer is that of a golden case of the SVM."""
        assert result.exit_code == 0, result.stderr
        document = json.loads(result.stdout)
        expected = golden(zoo, "digits_svm").outputs
        assert document["label"] == {
            "shape": [1, 1],
            "dtype": "int64",
            "data": expected["label"][case : case + 1].tolist(),
        }
        assert (document["probabilities"]["shape"], document["probabilities"]["dtype"]) == ([1, 10], "float32")
        np.testing.assert_allclose(
            document["probabilities"]["data"], expected["probabilities"][case : case + 1], atol=1e-4
        )

    def test_an_input_may_be_json(self, run: Run, zoo: Repository, url: str) -> None:
        pixels = json.dumps(golden(zoo, "digits_svm").inputs["pixels"][4:5].tolist())
        self.check(run("infer", "digits_svm", "--url", url, "--input", f"pixels={pixels}", "--json"), zoo, 4)

    def test_an_input_may_be_a_numpy_file(self, run: Run, zoo: Repository, url: str, tmp_path: Path) -> None:
        np.save(tmp_path / "digit.npy", golden(zoo, "digits_svm").inputs["pixels"][5:6])
        self.check(
            run("infer", "digits_svm", "--url", url, "--input", f"pixels=@{tmp_path / 'digit.npy'}", "--json"), zoo, 5
        )

    def test_a_golden_case_may_be_sent(self, run: Run, zoo: Repository, url: str) -> None:
        self.check(run("infer", "digits_svm", "--url", url, "--case", 31, "--repository", zoo.path, "--json"), zoo, 31)

    def test_the_version_may_be_named(self, run: Run, zoo: Repository, url: str) -> None:
        version = zoo.versions("digits_svm")[-1]
        arguments = ["infer", "digits_svm", "--url", url, "--case", 0, "--repository", zoo.path, "--json"]
        self.check(run(*arguments, "--model-version", version), zoo, 0)
        absent = run(*arguments, "--model-version", version + 1)
        assert absent.exit_code == 1
        assert f"It serves version {version}" in json.loads(absent.stdout)["error"]

    def test_a_single_row_may_come_without_its_batch_axis(self, run: Run, zoo: Repository, url: str) -> None:
        pixels = json.dumps(golden(zoo, "digits_mlp").inputs["pixels__0"][0].tolist())
        document = json.loads(
            run("infer", "digits_mlp", "--url", url, "--input", f"pixels__0={pixels}", "--json").stdout
        )
        assert document["probabilities__0"]["shape"] == [10]
        np.testing.assert_allclose(
            document["probabilities__0"]["data"], golden(zoo, "digits_mlp").outputs["probabilities__0"][0], atol=1e-5
        )

    def test_people_get_the_answer_beside_the_golden_one(self, run: Run, zoo: Repository, url: str) -> None:
        lines = run("infer", "digits_svm", "--url", url, "--case", 0, "--repository", zoo.path).stdout.splitlines()
        label = golden(zoo, "digits_svm").outputs["label"][0, 0]
        assert lines[:3] == ["label int64(1, 1)", f"  [[{label}]]", f"  golden: [[{label}]]"]
        assert lines[3] == "probabilities float32(1, 10)"


class TestInferRefuses:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "Give either --input, once for each input, or --case"),
            (["--case", "0", "--input", "pixels=[1]"], "Give either --input, once for each input, or --case"),
            (["--input", "pixels"], "--input must be NAME=VALUE, got 'pixels' instead"),
            (["--input", "pixels=[1, 2"], "The value of input 'pixels' cannot be read as JSON"),
            (["--input", "pixels=nonsense"], "The value of input 'pixels' cannot be read as JSON"),
            (["--input", "pixels=@/nonexistent.npy"], "The value of input 'pixels' cannot be read as an .npy file"),
            (["--input", "pixels=@{tmp}/text.npy"], "The value of input 'pixels' cannot be read as an .npy file"),
            (["--input", "pixels=@{tmp}/pickled.npy"], "The value of input 'pixels' cannot be read as an .npy file"),
            (["--input", "pixels=@{tmp}/several.npz"], "The value of input 'pixels' cannot be read as an .npy file"),
            (["--input", "pixels=@{tmp}/empty.npy"], "The value of input 'pixels' cannot be read as an .npy file"),
            (["--input", "pixel=[1]"], "'pixels"),
            (["--input", "pixels=[[1, 2, 3]]"], "must have shape"),
            (["--input", 'pixels=["a"]'], "pixels"),
            (["--input", "pixels=[[1, 2], [3]]"], "pixels"),
            (["--case", "32"], "'digits_svm' has golden cases 0 to 31, got 32 instead"),
            (["--case", "-1"], "-1 is not in the range x>=0"),
        ],
        ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else "",
    )
    def test_input_that_cannot_be_sent(
        self,
        run: Run,
        zoo: Repository,
        server: TritonServer,
        tmp_path: Path,
        arguments: list[str],
        message: str,
    ) -> None:
        (tmp_path / "text.npy").write_text("1, 2, 3", encoding="utf-8")
        (tmp_path / "empty.npy").touch()
        np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object))
        np.savez(tmp_path / "several.npz", a=np.zeros(784), b=np.zeros(784))
        filled = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
        result = run("infer", "digits_svm", "--url", server.http_url, "--repository", zoo.path, *filled)
        assert result.exit_code == 2
        assert message in result.stderr
        assert result.stdout == ""

    @pytest.mark.parametrize(
        ("spec", "example"),
        [
            (TensorSpec("x", "BYTES", (-1, 1)), """'x=[["good"]]'"""),
            (TensorSpec("x", "FP32", (-1, 3)), "'x=[[0, 0, 0]]'"),
            (TensorSpec("x", "BOOL", (-1, 1)), "'x=[[true]]'"),
            (TensorSpec("x", "FP32", (-1, 1, 28, 28)), "x=@FILE.npy"),
            (TensorSpec("another", "FP32", (-1, 3)), "'x=[0]'"),
        ],
        ids=str,
    )
    def test_what_is_no_json_is_answered_with_an_example_of_the_right_shape(
        self, spec: TensorSpec, example: str
    ) -> None:
        handle: Any = SimpleNamespace(metadata=SimpleNamespace(inputs=[spec]))
        with pytest.raises(InputError, match=re.escape(f"cannot be read as JSON, as in {example}: ")):
            _parsed(("x=good",), handle)


class TestVerify:
    @pytest.mark.parametrize("protocol", ["http", "grpc"])
    def test_a_server_that_answers_as_it_should_is_found_good(
        self, run: Run, zoo: Repository, server: TritonServer, protocol: str
    ) -> None:
        url = server.http_url if protocol == "http" else server.grpc_url
        result = run("verify", "--url", url, "--repository", zoo.path, "--json")
        assert result.exit_code == 0
        document = json.loads(result.stdout)
        assert (document["ok"], document["url"]) == (True, url)
        assert [(verdict["model"], verdict["cases"], verdict["ok"]) for verdict in document["verdicts"]] == [
            (name, 32, True) for name in zoo.models()
        ]
        for verdict in document["verdicts"]:
            for difference in verdict["differences"]:
                assert difference["agreement"] == 1.0
                assert 0 <= (difference["max_abs"] or 0) <= 1e-4

    def test_only_the_models_named_are_verified(self, run: Run, zoo: Repository, server: TritonServer) -> None:
        result = run("verify", "digits_cnn", "digits_svm", "--url", server.http_url, "--repository", zoo.path)
        assert result.exit_code == 0
        assert [line.split()[0] for line in result.stdout.splitlines()] == ["digits_cnn", "digits_svm"]
        assert all(": ok, 32 cases, " in line for line in result.stdout.splitlines())

    def test_a_wrong_answer_is_the_verdict_no_and_says_where(
        self, run: Run, tampered: Repository, server: TritonServer
    ) -> None:
        arguments = ["verify", "--url", server.http_url, "--repository", tampered.path]
        text = run(*arguments)
        assert text.exit_code == 1
        assert "digits_mlp" in text.stdout
        assert "WRONG" in text.stdout
        with_json = run(*arguments, "--json")
        assert with_json.exit_code == 1
        document = json.loads(with_json.stdout)
        ((verdict,), ok) = (document["verdicts"], document["ok"])
        assert (ok, verdict["ok"], verdict["error"]) == (False, False, "")
        (difference,) = verdict["differences"]
        assert difference["output"] == "probabilities__0"
        assert "of 320 differ, first at (3, " in difference["detail"]

    def test_a_name_that_is_not_in_the_repository_is_wrong_usage(
        self, run: Run, zoo: Repository, server: TritonServer
    ) -> None:
        result = run("verify", "digits_cnm", "--url", server.http_url, "--repository", zoo.path, "--json")
        assert result.exit_code == 2
        assert "Did you mean 'digits_cnn'?" in json.loads(result.stdout)["error"]

    def test_nothing_to_verify_is_no_success(self, run: Run, server: TritonServer, tmp_path: Path) -> None:
        result = run("verify", "--url", server.http_url, "--repository", tmp_path)
        assert result.exit_code == 1
        assert "nothing was verified" in result.stderr


class TestLoad:
    def arguments(self, server: TritonServer, repository: Repository) -> list[Any]:
        where = ["--url", server.http_url, "--repository", repository.path]
        return ["load", "smoke", *where, "--model", "digits_mlp", "--users", 2, "--duration", 1]

    def test_right_answers_are_the_verdict_yes(
        self, run: Run, zoo: Repository, server: TritonServer, tmp_path: Path
    ) -> None:
        result = run(*self.arguments(server, zoo), "--slo", "p99<30s, wrong=0", "--output", tmp_path / "result.json")
        assert result.exit_code == 0
        head, figures, *verdicts = result.stdout.splitlines()
        assert head.split()[:5] == ["requests/s", "p50", "ms", "p99", "ms"]
        assert figures.startswith("all ")
        assert [line.partition(":")[0] for line in verdicts] == ["p99<30s", "wrong=0"]
        assert all(": met, " in line for line in verdicts)
        assert result.stderr.splitlines()[0] == "smoke, run 1 of 1: 2 users"
        assert json.loads((tmp_path / "result.json").read_text())["ok"] is True

    def test_a_wrong_answer_is_the_verdict_no(self, run: Run, tampered: Repository, server: TritonServer) -> None:
        result = run(*self.arguments(server, tampered), "--json")
        assert result.exit_code == 1
        document = json.loads(result.stdout)
        assert document["ok"] is False
        found = document["runs"][0]["everywhere"]
        assert 0 < found["wrong"] == found["errors"] < found["requests"]
        assert {verdict["objective"]: verdict["ok"] for verdict in document["verdicts"]} == {
            "errors=0": False,
            "wrong=0": False,
        }

    @pytest.mark.parametrize("workers", [0, 1])
    def test_ctrl_c_ends_a_run_with_what_was_measured(
        self, zoo: Repository, server: TritonServer, tmp_path: Path, workers: int
    ) -> None:
        result, report = tmp_path / "result.json", tmp_path / "report.html"
        arguments = ["load", "soak", "--url", server.http_url, "--repository", zoo.path, "--model", "digits_mlp"]
        arguments += ["--users", 2, "--duration", 120, "--workers", workers, "--output", result, "--report", report]
        with (
            server.client() as client,
            subprocess.Popen(
                [sys.executable, "-m", "tritium.cli", *map(str, arguments)], stdout=subprocess.PIPE, text=True
            ) as process,
        ):
            model = client.model("digits_mlp")

            def answered() -> int:
                (counts,) = model.statistics()["model_stats"]
                return int(counts["inference_count"])

            # The first of them warm the server up; these are more than can be sent until the plan begins.
            enough = answered() + 4000
            try:
                wait_until(lambda: answered() > enough, timeout_s=90)
                process.send_signal(signal.SIGINT)
                printed, _ = process.communicate(timeout=60)
            finally:
                process.kill()
        assert process.returncode == 1
        document = json.loads(result.read_text())
        assert (document["interrupted"], document["ok"]) == (True, False)
        (run,) = document["runs"]
        assert (run["interrupted"], run["lost_workers"]) == (True, 0)
        assert run["everywhere"]["right"] > 0
        assert run["everywhere"]["errors"] == 0
        # Nothing is lost of the last seconds, when workers had not reported yet.
        whole = [second["right"] for second in run["timeline"]][:-1]
        assert whole
        assert min(whole) > 0.1 * max(whole)
        assert "the run was interrupted after " in printed
        assert "It was interrupted." in report.read_text()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--duration", 0), "'duration_s' parameter must be more than 0, got 0"),
            (("--duration", "nan"), "got nan"),
            (("--slo", "p99<fast"), "'p99<fast' is no objective"),
            (("--weight", "digits_cnn"), "--weight takes MODEL=NUMBER, as in digits_cnn=5, got 'digits_cnn'"),
            (("--weight", "digits_cnn=-1"), "got 'digits_cnn=-1'"),
            (("--users", 0), "'users' parameter must be 1 or more"),
        ],
    )
    def test_what_cannot_be_is_wrong_usage(
        self, run: Run, zoo: Repository, arguments: tuple[Any, ...], message: str
    ) -> None:
        result = run("load", "smoke", "--repository", zoo.path, *arguments)
        assert result.exit_code == 2
        assert message in result.stderr

    def test_a_suite_that_there_is_not_is_wrong_usage_and_names_those_that_there_are(
        self, run: Run, zoo: Repository
    ) -> None:
        result = run("load", "smok", "--repository", zoo.path)
        assert result.exit_code == 2
        assert "there are smoke, ramp, batching, spike, soak, mixed, bulk, overload, chaos. Did you mean 'smoke'?" in (
            result.stderr
        )
