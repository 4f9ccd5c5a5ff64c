"""Publishing what is right, and refusing what is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tritium.client import InputError, TensorSpec, TritiumError
from tritium.repository import (
    Candidate,
    ConfigError,
    GateError,
    GoldenCases,
    Manifest,
    PublishError,
    Repository,
    Serving,
    check_version,
    config_text,
    model_config,
    publish,
)

from .conftest import Snapshot, X, Y

Array = NDArray[Any]


def configured(candidate: Candidate, **changes: Any) -> Candidate:
    """The candidate with another config."""
    given: dict[str, Any] = {"backend": "onnxruntime", "inputs": [X], "outputs": [Y], **changes}
    return replace(candidate, config=model_config(given.pop("name", "plus_one"), **given), labels={})


def expecting(candidate: Candidate, **outputs: Array) -> Candidate:
    """The candidate with other golden outputs."""
    return replace(candidate, golden=GoldenCases(candidate.golden.inputs, outputs))


# what is right


def test_first_version_is_number_one(repository: Repository, candidate: Candidate) -> None:
    published = publish(repository, candidate)
    assert (published.model, published.version) == ("plus_one", 1)
    assert published.folder == repository.version_folder("plus_one", 1)


def test_published_model_is_whole(repository: Repository, candidate: Candidate, snapshot: Snapshot) -> None:
    publish(repository, candidate)
    files = snapshot(repository.path)
    assert set(files) == {
        "plus_one",
        "plus_one/1",
        "plus_one/1/golden.npz",
        "plus_one/1/manifest.json",
        "plus_one/1/model.onnx",
        "plus_one/config.pbtxt",
        "plus_one/labels.txt",
    }
    assert files["plus_one/config.pbtxt"] == config_text(candidate.config).encode()
    assert files["plus_one/labels.txt"] == b"first\nsecond\n"
    assert files["plus_one/1/model.onnx"] == candidate.artifact.read_bytes()


def test_published_version_passes_the_gate_again(repository: Repository, candidate: Candidate) -> None:
    published = publish(repository, candidate)
    assert check_version(published.folder, repository.config("plus_one")) == published.differences


def test_gate_reports_what_it_measured(repository: Repository, candidate: Candidate) -> None:
    assert [str(difference) for difference in publish(repository, candidate).differences] == [
        "y: max |Δ| 0 (relative 0)"
    ]


def test_manifest_is_the_candidates_with_the_files(repository: Repository, candidate: Candidate) -> None:
    folder = publish(repository, candidate).folder
    manifest = Manifest.load(folder)
    assert replace(manifest, files={}) == candidate.manifest
    assert set(manifest.files) == {"golden.npz", "model.onnx"}


def test_next_version_has_the_next_number(repository: Repository, candidate: Candidate) -> None:
    assert [publish(repository, candidate).version for _ in range(3)] == [1, 2, 3]


def test_number_follows_the_highest_even_over_a_gap(repository: Repository, candidate: Candidate) -> None:
    (publish(repository, candidate).folder).rename(repository.path / "plus_one" / "7")
    assert publish(repository, candidate).version == 8


def test_next_version_leaves_those_before_it_alone(
    repository: Repository, candidate: Candidate, next_candidate: Candidate, snapshot: Snapshot
) -> None:
    first = publish(repository, candidate).folder
    before = snapshot(first)
    publish(repository, next_candidate)
    assert snapshot(first) == before


def test_next_version_replaces_config_and_labels(
    repository: Repository, candidate: Candidate, next_candidate: Candidate
) -> None:
    publish(repository, candidate)
    publish(repository, next_candidate)
    assert repository.config("plus_one") == next_candidate.config
    assert (repository.path / "plus_one" / "labels.txt").read_text(encoding="utf-8") == "one\ntwo\n"


def test_first_version_fits_into_a_folder_that_has_only_a_config(
    repository: Repository, candidate: Candidate, next_candidate: Candidate
) -> None:
    # As after a clone: configs are committed, artifacts are not.
    (repository.path / "plus_one").mkdir()
    (repository.path / "plus_one" / "config.pbtxt").write_text(config_text(next_candidate.config), encoding="utf-8")
    assert publish(repository, candidate).version == 1
    assert repository.config("plus_one") == candidate.config


def test_unchanged_config_is_not_written_again(repository: Repository, candidate: Candidate) -> None:
    publish(repository, candidate)
    path = repository.path / "plus_one" / "config.pbtxt"
    before = path.stat()
    publish(repository, candidate)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_torchscript_is_published_under_its_own_file_name(
    repository: Repository, candidate: Candidate, torchscript_file: Path
) -> None:
    x = candidate.golden.inputs["x"]
    torchscript = replace(
        configured(candidate, backend="pytorch", outputs=[TensorSpec("y__0", "FP32", (-1, 2))]),
        artifact=torchscript_file,
        golden=GoldenCases({"x": x}, {"y__0": x + 1}),
    )
    assert (publish(repository, torchscript).folder / "model.pt").is_file()


def test_model_without_batch_axis_is_published(repository: Repository, candidate: Candidate) -> None:
    whole = TensorSpec("x", "FP32", (3, 2)), TensorSpec("y", "FP32", (3, 2))
    x = np.stack([candidate.golden.inputs["x"], -candidate.golden.inputs["x"]])
    unbatched = replace(
        configured(candidate, inputs=[whole[0]], outputs=[whole[1]], serving=Serving(max_batch_size=0)),
        golden=GoldenCases({"x": x}, {"y": x + 1}),
    )
    assert publish(repository, unbatched).version == 1


@pytest.mark.parametrize("items", [["a", "é"], [b"a", "é".encode()]], ids=["str", "bytes"])
def test_model_that_takes_strings_is_published(
    items: list[str | bytes], repository: Repository, candidate: Candidate, string_onnx_file: Path
) -> None:
    text = np.array([items, items], dtype=object)
    words = replace(
        configured(
            candidate, inputs=[TensorSpec("text", "BYTES", (-1, 2))], outputs=[TensorSpec("same", "BYTES", (-1, 2))]
        ),
        artifact=string_onnx_file,
        golden=GoldenCases({"text": text}, {"same": text}),
    )
    assert publish(repository, words).version == 1


def test_output_within_the_manifests_tolerance_is_published(repository: Repository, candidate: Candidate) -> None:
    near = candidate.golden.outputs["y"] + np.float32(5e-7)
    assert publish(repository, expecting(candidate, y=near)).version == 1


# what is not


def _gate_candidates(candidate: Candidate, folder: Path, frozen: Path) -> dict[str, tuple[Candidate, str]]:
    x, y = candidate.golden.inputs["x"], candidate.golden.outputs["y"]
    nan = y.copy()
    nan[1, 0] = np.nan
    first = GoldenCases({"x": x[:1]}, {"y": y[:1]})
    (folder / "corrupt.onnx").write_bytes(candidate.artifact.read_bytes()[:-30])
    (folder / "text.onnx").write_text("not a model", encoding="utf-8")
    rank3 = TensorSpec("x", "FP32", (-1, 2, 1)), TensorSpec("y", "FP32", (-1, 2, 1))
    loose = TensorSpec("x", "FP32", (-1, -1)), TensorSpec("y", "FP32", (-1, -1))
    named = model_config("plus_one", backend="onnxruntime", inputs=[X], outputs=[Y])
    named.backend, named.default_model_filename = "tensorrt", "model.plan"
    return {
        "wrong-output": (expecting(candidate, y=y + 1), r"y: max \|Δ\| 1\.0e\+00 .*first at \(0, 0\)"),
        "nan-in-golden": (expecting(candidate, y=nan), "golden output 'y' is not finite in case 1"),
        "corrupt-file": (replace(candidate, artifact=folder / "corrupt.onnx"), "does not load in ONNX Runtime"),
        "text-file": (replace(candidate, artifact=folder / "text.onnx"), "does not load in ONNX Runtime"),
        "no-file": (replace(candidate, artifact=folder / "absent.onnx"), r"no model file .*absent\.onnx"),
        "frozen-batch": (replace(candidate, artifact=frozen), "batch|does not run"),
        # With one case, the frozen axis meets exactly the row that it was frozen at.
        "frozen-batch-one-case": (replace(candidate, artifact=frozen, golden=first), "batch|axis|row"),
        "input-name": (
            replace(
                configured(candidate, inputs=[TensorSpec("z", "FP32", (-1, 2))]),
                golden=GoldenCases({"z": x}, {"y": y}),
            ),
            r"It has input x tensor\(float\)",
        ),
        "input-dtype": (
            replace(
                configured(candidate, inputs=[TensorSpec("x", "FP64", (-1, 2))]),
                golden=GoldenCases({"x": x.astype(np.float64)}, {"y": y}),
            ),
            r"It has input x tensor\(float\)",
        ),
        "rank": (
            replace(
                configured(candidate, inputs=[rank3[0]], outputs=[rank3[1]]),
                golden=GoldenCases({"x": x[..., np.newaxis]}, {"y": y[..., np.newaxis]}),
            ),
            "Invalid rank for input: x",
        ),
        "output-name": (
            replace(
                configured(candidate, outputs=[TensorSpec("z", "FP32", (-1, 2))]),
                golden=GoldenCases({"x": x}, {"z": y}),
            ),
            r"output y tensor\(float\)",
        ),
        # Triton refuses to load each of these.
        "output-dtype": (
            replace(
                configured(candidate, outputs=[TensorSpec("y", "FP64", (-1, 2))]),
                golden=GoldenCases({"x": x}, {"y": y.astype(np.float64)}),
            ),
            "y.*(FP64|float64)",
        ),
        "input-axis-too-free": (configured(candidate, inputs=[loose[0]], outputs=[loose[1]]), r"\bx\b"),
        "label-file-missing": (configured(candidate, label_files={"y": "names.txt"}), r"names\.txt"),
        "golden-output-unknown": (expecting(candidate, y=y, z=y), r"outputs must be \['y'\], got \['y', 'z'\]"),
        "golden-output-missing": (
            expecting(candidate),
            r"outputs must be \['y'\], got \[\]|lacks the tensor outputs/y",
        ),
        "golden-dtype": (expecting(candidate, y=y.astype(np.float64)), r"must be FP32 \(float32\), got float64"),
        "golden-strings": (
            configured(candidate, outputs=[TensorSpec("y", "BYTES", (-1, 2))]),
            "'y' must be BYTES .*, got float32",
        ),
        "file-that-no-server-loads": (
            replace(candidate, files={"vocabulary.bin": candidate.artifact}),
            "vocabulary.bin: it is no file that the backend 'onnxruntime' loads; remove it",
        ),
        "unknown-backend": (replace(candidate, config=named), "onnxruntime.*pytorch.*tensorrt"),
    }


GATE_CASES = [
    "wrong-output",
    "nan-in-golden",
    "corrupt-file",
    "text-file",
    "no-file",
    "frozen-batch",
    "frozen-batch-one-case",
    "input-name",
    "input-dtype",
    "rank",
    "output-name",
    "output-dtype",
    "input-axis-too-free",
    "label-file-missing",
    "file-that-no-server-loads",
    "golden-output-unknown",
    "golden-output-missing",
    "golden-dtype",
    "golden-strings",
    "unknown-backend",
]


@pytest.fixture(params=GATE_CASES)
def wrong(
    request: pytest.FixtureRequest, candidate: Candidate, tmp_path: Path, frozen_onnx_file: Path
) -> tuple[Candidate, str]:
    """A candidate that must not be published, and what its error must name."""
    return _gate_candidates(candidate, tmp_path, frozen_onnx_file)[request.param]


def test_wrong_version_is_refused_by_the_gate(wrong: tuple[Candidate, str], repository: Repository) -> None:
    with pytest.raises(GateError, match=wrong[1]) as caught:
        publish(repository, wrong[0])
    assert caught.value.model == "plus_one"
    assert str(caught.value).startswith("'plus_one' was not published: ")


def test_wrong_first_version_leaves_nothing(
    wrong: tuple[Candidate, str], repository: Repository, snapshot: Snapshot
) -> None:
    with pytest.raises(TritiumError):
        publish(repository, wrong[0])
    assert snapshot(repository.path) == {}


def test_wrong_next_version_leaves_the_repository_as_it_was(
    wrong: tuple[Candidate, str], repository: Repository, candidate: Candidate, snapshot: Snapshot
) -> None:
    publish(repository, candidate)
    before = snapshot(repository.path)
    with pytest.raises(TritiumError):
        publish(repository, wrong[0])
    assert snapshot(repository.path) == before


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"inputs": [X, TensorSpec("z", "FP32", (-1, 2))]}, id="input-added"),
        pytest.param({"inputs": [TensorSpec("z", "FP32", (-1, 2))]}, id="input-renamed"),
        pytest.param({"inputs": [TensorSpec("x", "FP64", (-1, 2))]}, id="input-dtype"),
        pytest.param({"inputs": [TensorSpec("x", "FP32", (-1, 3))]}, id="input-shape"),
        pytest.param({"outputs": [Y, TensorSpec("z", "FP32", (-1, 2))]}, id="output-added"),
        pytest.param({"outputs": [TensorSpec("y", "INT64", (-1, 2))]}, id="output-dtype"),
        pytest.param({"serving": Serving(max_batch_size=0)}, id="batch-axis"),
    ],
)
def test_version_that_breaks_the_clients_is_refused(
    changes: dict[str, Any], repository: Repository, candidate: Candidate, snapshot: Snapshot
) -> None:
    publish(repository, candidate)
    before = snapshot(repository.path)
    with pytest.raises(ConfigError, match="'plus_one'"):
        publish(repository, configured(candidate, **changes))
    assert snapshot(repository.path) == before


def test_version_that_breaks_the_clients_says_what_they_know(repository: Repository, candidate: Candidate) -> None:
    publish(repository, candidate)
    with pytest.raises(ConfigError) as caught:
        publish(repository, configured(candidate, inputs=[TensorSpec("x", "FP32", (-1, 3))]))
    assert str(caught.value) == (
        "The inputs of 'plus_one' are x FP32[-1,2], and the new version has x FP32[-1,3]. "
        "Clients rely on them: publish it under another name"
    )


def test_missing_artifact_is_not_blamed_on_the_repository(repository: Repository, candidate: Candidate) -> None:
    with pytest.raises(PublishError) as caught:
        publish(repository, replace(candidate, artifact=candidate.artifact.with_name("absent.onnx")))
    assert "cannot be written" not in str(caught.value)


def test_name_that_is_a_path_is_refused(repository: Repository, candidate: Candidate, snapshot: Snapshot) -> None:
    candidate.config.name = "../plus_one"
    with pytest.raises(InputError, match="A model's name must be"):
        publish(repository, candidate)
    assert snapshot(repository.path.parent) == {"repository": None}


# A file name that leaves the folder would write where nobody looks, or over what another file is for.
@pytest.mark.parametrize("name", ["../labels.txt", "/absent/labels.txt", "1/labels.txt", "config.pbtxt"])
def test_label_file_that_leaves_the_model_is_refused(
    name: str, repository: Repository, candidate: Candidate, snapshot: Snapshot
) -> None:
    candidate.config.output[0].label_filename = name
    with pytest.raises(TritiumError, match="label"):
        publish(repository, replace(candidate, labels={name: ["a", "b"]}))
    assert snapshot(repository.path) == {}


@pytest.mark.parametrize("name", ["../model.onnx", "/absent/model.onnx", "golden.npz", "manifest.json"])
def test_artifact_name_that_leaves_the_version_is_refused(
    name: str, repository: Repository, candidate: Candidate, snapshot: Snapshot
) -> None:
    candidate.config.default_model_filename = name
    with pytest.raises(TritiumError, match=r"default_model_filename|file name"):
        publish(repository, candidate)
    assert snapshot(repository.path) == {}
