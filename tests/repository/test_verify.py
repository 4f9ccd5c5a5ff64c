"""Verification: of a version's folder, and of the real server over both protocols."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tritium.client import Client, Outputs
from tritium.repository import (
    ArtifactError,
    Candidate,
    Difference,
    GateError,
    GoldenCases,
    GoldenError,
    Manifest,
    ManifestError,
    Repository,
    Serving,
    Tolerance,
    Verdict,
    check_version,
    golden_batches,
    input_specs,
    load_golden,
    measure,
    model_config,
    named_outputs,
    output_specs,
    publish,
    verify_server,
)

from .conftest import X, Y

Array = NDArray[Any]

# check_version


def _rewrite_manifest(folder: Path) -> None:
    Manifest.load(folder).with_files(folder).save(folder)


def _drop_artifact(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    _rewrite_manifest(folder)


def _drop_golden(folder: Path) -> None:
    (folder / "golden.npz").unlink()
    _rewrite_manifest(folder)


def _change_golden(folder: Path) -> None:
    x = np.ones((2, 2), np.float32)
    GoldenCases({"x": x}, {"y": x}).save(folder / "golden.npz", [X, Y])
    _rewrite_manifest(folder)


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        pytest.param(
            lambda folder: (folder / "manifest.json").unlink(), ManifestError, "cannot be read", id="manifest"
        ),
        pytest.param(
            lambda folder: (folder / "model.onnx").write_bytes(b""), ManifestError, "was changed", id="changed"
        ),
        pytest.param(lambda folder: (folder / "more").touch(), ManifestError, "is not in the manifest", id="added"),
        pytest.param(_drop_artifact, ArtifactError, "There is no model file", id="artifact"),
        pytest.param(_drop_golden, GoldenError, "There are no golden cases", id="golden"),
        pytest.param(_change_golden, GateError, "y: max", id="wrong-golden"),
    ],
)
def test_version_that_is_not_whole_does_not_pass(
    damage: Callable[[Path], None],
    kind: type[Exception],
    message: str,
    repository: Repository,
    candidate: Candidate,
) -> None:
    folder = publish(repository, candidate).folder
    damage(folder)
    with pytest.raises(kind, match=message):
        check_version(folder, candidate.config)


@pytest.mark.parametrize("model", ["digits_cnn", "digits_mlp", "digits_svm"])
def test_reference_model_passes_the_gate(model: str, zoo: Repository) -> None:
    differences = check_version(zoo.version_folder(model), zoo.config(model))
    assert {difference.output for difference in differences} == {spec.name for spec in output_specs(zoo.config(model))}


# measuring

CASES = GoldenCases({"x": np.arange(100, dtype=np.float32)[:, None]}, {"y": np.arange(100, dtype=np.float32)[:, None]})


def sizes_that(ran: list[int], wrong_at: int = 0) -> Callable[[Mapping[str, Array], Sequence[str]], dict[str, Array]]:
    """A model that gives back what it gets, and tells the sizes of its batches; at one size it is wrong."""

    def run(inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        ran.append(len(inputs["x"]))
        return {"y": inputs["x"] + (len(inputs["x"]) == wrong_at)}

    return run


def test_a_model_runs_at_every_size_and_over_all_cases_in_the_largest() -> None:
    ran: list[int] = []
    (difference,) = measure(sizes_that(ran), CASES, 64, Tolerance())
    assert (difference.ok, set(ran)) == (True, {1, 2, 7, 64})
    assert (ran.count(64), ran.count(1)) == (2, 32)


def test_fewer_cases_than_a_batch_takes_are_repeated() -> None:
    ran: list[int] = []
    measure(sizes_that(ran), next(CASES.batches(3)), 64, Tolerance())
    assert set(ran) == {1, 2, 7, 64}


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_what_is_wrong_at_one_size_only_is_found(size: int) -> None:
    (difference,) = measure(sizes_that([], wrong_at=size), CASES, 64, Tolerance())
    assert not difference.ok
    assert ("in batches of" in difference.detail) == (size != 64)


def test_no_batch_is_larger_than_the_model_takes() -> None:
    ran: list[int] = []
    measure(sizes_that(ran), CASES, 5, Tolerance())
    assert set(ran) == {1, 2, 5}


def test_rows_that_may_disagree_do_not_weigh_more_in_small_batches() -> None:
    def run(inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        return {"y": inputs["x"] + (inputs["x"] == 3)}

    (difference,) = measure(run, CASES, 64, Tolerance(agreement=0.99))
    assert (difference.ok, difference.agreement) == (True, 0.99)


def test_a_case_without_axes_reaches_a_model_without_batch_axis_as_an_array() -> None:
    def run(inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        assert isinstance(inputs["x"], np.ndarray)
        return {"y": inputs["x"].reshape(1)}

    cases = GoldenCases({"x": np.ones(2, np.float32)}, {"y": np.ones((2, 1), np.float32)})
    assert measure(run, cases, 0, Tolerance())[0].ok


# batches and names


def test_cases_come_in_batches_that_the_model_takes(golden: GoldenCases) -> None:
    config = model_config("m", backend="onnxruntime", inputs=[X], outputs=[Y], serving=Serving(max_batch_size=2))
    assert [batch.inputs["x"].shape for batch in golden_batches(golden, config)] == [(2, 2), (1, 2)]


def test_cases_of_a_model_without_batch_axis_come_alone_and_without_it(golden: GoldenCases) -> None:
    whole = [replace(spec, shape=(2,)) for spec in (X, Y)]
    unbatched = Serving(max_batch_size=0)
    config = model_config("m", backend="onnxruntime", inputs=whole[:1], outputs=whole[1:], serving=unbatched)
    batches = list(golden_batches(golden, config))
    assert [batch.inputs["x"].tolist() for batch in batches] == golden.inputs["x"].tolist()


def test_only_answer_gets_the_name_of_the_output() -> None:
    assert named_outputs(np.ones(1), ["y"])["y"].tolist() == [1.0]


def test_several_answers_keep_their_names() -> None:
    answer = Outputs({"b": np.ones(1), "a": np.zeros(1)})
    assert {name: array.tolist() for name, array in named_outputs(answer, ["a", "b"]).items()} == {"a": [0], "b": [1]}


# verdicts


@pytest.mark.parametrize(
    ("verdict", "ok", "text"),
    [
        (
            Verdict("m", "3", 32, [Difference(output="label", ok=True, agreement=1.0)]),
            True,
            "m 3: ok, 32 cases, label: agreement 100.0%",
        ),
        (
            Verdict("m", "3", 32, [Difference(output="label", ok=False, agreement=0.0, detail="all")]),
            False,
            "m 3: WRONG, 32 cases, label: agreement 0.0% (all)",
        ),
        (Verdict("m", "-", 0, error="no such model"), False, "m -: NOT VERIFIED, no such model"),
    ],
    ids=["ok", "wrong", "error"],
)
def test_verdict_says_what_was_found(verdict: Verdict, ok: bool, text: str) -> None:
    assert (verdict.ok, str(verdict)) == (ok, text)


# verify_server


@pytest.fixture
def copy(zoo: Repository, tmp_path: Path) -> Repository:
    """A copy of what verification reads of `digits_mlp` and `digits_svm`, to tamper with."""
    for model in ("digits_mlp", "digits_svm"):
        version = zoo.version_folder(model)
        there = tmp_path / "copy" / model / version.name
        there.mkdir(parents=True)
        shutil.copy(version.parent / "config.pbtxt", there.parent)
        for name in ("golden.npz", "manifest.json"):
            shutil.copy(version / name, there)
    return Repository(tmp_path / "copy")


def tamper(repository: Repository, model: str, change: Callable[[GoldenCases], GoldenCases]) -> None:
    """Change the golden cases of a model's only version."""
    folder, config = repository.version_folder(model), repository.config(model)
    cases = change(load_golden(folder, config))
    cases.save(folder / "golden.npz", [*input_specs(config), *output_specs(config)])
    Manifest.load(folder).with_files(folder).save(folder)


def _shift_one_output(cases: GoldenCases) -> GoldenCases:
    probabilities = cases.outputs["probabilities__0"].copy()
    probabilities[-1, 3] += 0.5
    return GoldenCases(cases.inputs, {"probabilities__0": probabilities})


def _flip_one_label(cases: GoldenCases) -> GoldenCases:
    labels = cases.outputs["label"].copy()
    labels[0] += 1
    return GoldenCases(cases.inputs, {**cases.outputs, "label": labels})


def _swap_inputs(cases: GoldenCases) -> GoldenCases:
    return GoldenCases({name: array[::-1] for name, array in cases.inputs.items()}, cases.outputs)


def _answer_nan(cases: GoldenCases) -> GoldenCases:
    return GoldenCases(cases.inputs, {name: np.full_like(array, np.nan) for name, array in cases.outputs.items()})


def test_server_that_answers_as_it_should_is_ok(client: Client, zoo: Repository) -> None:
    verdicts = list(verify_server(client, zoo))
    assert [(verdict.model, verdict.ok) for verdict in verdicts] == [(model, True) for model in zoo.models()]
    assert [str(verdict) for verdict in verdicts if not verdict.cases] == []


def test_verdict_has_the_served_version_and_every_output(client: Client, zoo: Repository) -> None:
    (verdict,) = verify_server(client, zoo, ["digits_svm"])
    assert (verdict.version, verdict.cases) == (str(zoo.versions("digits_svm")[-1]), 32)
    assert [difference.output for difference in verdict.differences] == ["label", "probabilities"]


@pytest.mark.parametrize(
    ("model", "change", "output"),
    [
        pytest.param("digits_mlp", _shift_one_output, "probabilities__0", id="float"),
        pytest.param("digits_svm", _flip_one_label, "label", id="label"),
        pytest.param("digits_mlp", _swap_inputs, "probabilities__0", id="inputs"),
        pytest.param("digits_mlp", _answer_nan, "probabilities__0", id="nan"),
    ],
)
def test_answer_that_is_not_the_golden_one_is_wrong(
    model: str, change: Callable[[GoldenCases], GoldenCases], output: str, client: Client, copy: Repository
) -> None:
    tamper(copy, model, change)
    (verdict,) = verify_server(client, copy, [model])
    assert [difference.output for difference in verdict.differences if not difference.ok] == [output]
    assert str(verdict).startswith(f"{model} {verdict.version}: WRONG, 32 cases, ")


def test_one_wrong_model_does_not_hide_the_others(client: Client, copy: Repository) -> None:
    tamper(copy, "digits_mlp", _shift_one_output)
    assert [verdict.ok for verdict in verify_server(client, copy)] == [False, True]


def test_no_golden_case_proves_nothing(client: Client, copy: Repository) -> None:
    tamper(
        copy,
        "digits_mlp",
        lambda cases: GoldenCases(
            {name: array[:0] for name, array in cases.inputs.items()},
            {name: array[:0] for name, array in cases.outputs.items()},
        ),
    )
    (verdict,) = verify_server(client, copy, ["digits_mlp"])
    assert not verdict.ok


def test_repository_without_the_served_version_is_an_error(client: Client, copy: Repository) -> None:
    folder = copy.version_folder("digits_mlp")
    folder.rename(folder.with_name("999"))
    (verdict,) = verify_server(client, copy, ["digits_mlp"])
    assert not verdict.ok
    assert f"There is no version {folder.name} of 'digits_mlp'" in verdict.error
    assert "it has 999" in verdict.error


def test_golden_cases_that_were_changed_since_are_an_error(client: Client, copy: Repository) -> None:
    golden = copy.version_folder("digits_mlp") / "golden.npz"
    # Still a file that numpy reads: only the checksum knows.
    golden.write_bytes(golden.read_bytes() + b"\0")
    (verdict,) = verify_server(client, copy, ["digits_mlp"])
    assert "was changed: its sha256 is not the manifest's" in verdict.error


def test_golden_cases_without_their_manifest_are_not_passed_over(client: Client, copy: Repository) -> None:
    (copy.version_folder("digits_mlp") / "manifest.json").unlink()
    verdicts = {verdict.model: verdict for verdict in verify_server(client, copy)}
    assert (verdicts["digits_mlp"].ok, verdicts["digits_svm"].ok) == (False, True)
    assert "manifest.json cannot be read" in verdicts["digits_mlp"].error


def test_a_model_without_golden_cases_is_passed_over_unless_it_is_named(client: Client, copy: Repository) -> None:
    for name in ("manifest.json", "golden.npz"):
        (copy.version_folder("digits_mlp") / name).unlink()
    assert [verdict.model for verdict in verify_server(client, copy)] == ["digits_svm"]
    (verdict,) = verify_server(client, copy, ["digits_mlp"])
    assert "manifest.json cannot be read" in verdict.error


def test_broken_golden_file_is_an_error(client: Client, copy: Repository) -> None:
    (copy.version_folder("digits_mlp") / "golden.npz").write_bytes(b"broken")
    (verdict,) = verify_server(client, copy, ["digits_mlp"])
    assert "holds no golden cases" in verdict.error


def test_broken_manifest_is_an_error(client: Client, copy: Repository) -> None:
    (copy.version_folder("digits_mlp") / "manifest.json").write_text(json.dumps({}), encoding="utf-8")
    (verdict,) = verify_server(client, copy, ["digits_mlp"])
    assert "is no manifest" in verdict.error


@pytest.mark.parametrize("in_repository", [True, False], ids=["in-repository", "nowhere"])
def test_model_that_is_not_served_is_an_error(in_repository: bool, client: Client, copy: Repository) -> None:
    if in_repository:
        (copy.path / "digits_mlp").rename(copy.path / "digits_new")
    (verdict,) = verify_server(client, copy, ["digits_new"])
    assert (verdict.version, verdict.cases, verdict.ok) == ("-", 0, False)
    assert "unknown model: 'digits_new'" in verdict.error


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_server_that_is_not_there_is_an_error_for_each_model(scheme: str, copy: Repository) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and nobody listens
        with Client(f"{scheme}://127.0.0.1:{bound.getsockname()[1]}") as client:
            verdicts = list(verify_server(client, copy))
    assert [(verdict.model, verdict.ok) for verdict in verdicts] == [("digits_mlp", False), ("digits_svm", False)]
    assert all("No connection to" in verdict.error for verdict in verdicts)
