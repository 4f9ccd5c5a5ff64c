"""Hostile artifacts and configs: they are found, and neither run nor followed."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tritium.repository.lint import lint

from .planting import archive, config, file, golden, graph, manifest, more, outside, warm_up


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.sentinel),)


@pytest.fixture
def sentinel(tmp_path: Path) -> Path:
    """What must not be there at the end."""
    return tmp_path / "was-here"


HOSTILE_FILES: dict[str, tuple[str, Callable[[bytes], bytes], set[str]]] = {
    "a pickle as a model": ("script/1/model.pt", lambda bomb: bomb, {"pickle", "artifact-broken"}),
    "a pickle beside a model": ("bare/1/scaler.pkl", lambda bomb: bomb, {"pickle"}),
    "weights as torch.save wrote them": (
        "script/1/model.pt",
        lambda bomb: archive(data_pkl=bomb),
        {"pickle", "artifact-broken"},
    ),
    "TorchScript with a pickle of its own": (
        "script/1/model.pt",
        lambda bomb: archive(data_pkl=bomb, constants_pkl=b"\x80\x02)."),
        {"pickle"},
    ),
    "a pickle for ONNX Runtime": ("bare/1/model.onnx", lambda bomb: bomb, {"pickle", "artifact-broken"}),
}


@pytest.mark.parametrize("name", HOSTILE_FILES)
def test_pickle_is_found_and_not_read(name: str, good: Path, sentinel: Path) -> None:
    path, made, codes = HOSTILE_FILES[name]
    file(path, made(pickle.dumps(Bomb(sentinel))))(good)
    assert {finding.code for finding in lint(good)} == codes
    assert not sentinel.exists()


def test_pickled_golden_cases_are_found_and_not_read(good: Path, sentinel: Path) -> None:
    array = np.empty(3, dtype=object)
    array[:] = [Bomb(sentinel)] * 3
    golden("inputs/x", lambda _: array)(good)
    assert {finding.code for finding in lint(good)} == {"golden-unfit"}
    assert not sentinel.exists()


@pytest.mark.parametrize(
    "location", ["../../plus_one/labels.txt", "/etc/passwd", "a/../../../etc/passwd", "", "..\\x", "x\0y"]
)
def test_weights_outside_the_folder_are_not_opened(location: str, good: Path) -> None:
    graph(outside(location))(good)
    assert {finding.code for finding in lint(good)} == {"external-data-outside"}


@pytest.mark.parametrize("places", [("model.onnx", "../../x"), ("../../x", "model.onnx")])
def test_weights_in_two_places_are_not_opened_if_one_is_outside(places: tuple[str, str], good: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        outside(places[0])(model)
        model.graph.initializer[-1].external_data.add(key="location", value=places[1])

    graph(change)(good)
    assert {finding.code for finding in lint(good)} == {"external-data-outside"}


def test_weights_behind_a_link_are_not_opened(good: Path) -> None:
    graph(outside("weights.bin"))(good)
    (good / "bare/1/weights.bin").symlink_to("/etc/passwd")
    assert {finding.code for finding in lint(good)} == {"external-data-missing", "link"}


def test_weights_of_a_loop_within_a_loop_are_found(good: Path) -> None:
    inner = helper.make_graph([], "inner", [], [])
    outside("../../x")(shell := onnx.ModelProto(graph=inner))
    body = helper.make_node("If", ["c"], ["z"], then_branch=shell.graph, else_branch=helper.make_graph([], "e", [], []))
    graph(lambda model: model.graph.node.append(body))(good)
    assert "external-data-outside" in {finding.code for finding in lint(good)}


@pytest.mark.parametrize("place", ["bare", "bare/1", "bare/1/model.onnx", "bare/config.pbtxt", "plus_one/labels.txt"])
def test_link_is_found_and_not_followed(place: str, good: Path, tmp_path: Path) -> None:
    (good / place).rename(tmp_path / "elsewhere")
    (good / place).symlink_to(tmp_path / "elsewhere")
    assert "link" in {finding.code for finding in lint(good)}


def test_links_in_a_circle_end(good: Path) -> None:
    (good / "bare/1/again").symlink_to(good)
    (good / "bare/1/self").symlink_to("self")
    assert {finding.code for finding in lint(good)} == {"link"}


@pytest.mark.parametrize("path", ["bare/1/pipe", "bare/pipe", "bare/1/model.onnx"])
def test_pipe_holds_nobody_up(path: str, good: Path) -> None:
    (good / path).unlink(missing_ok=True)
    os.mkfifo(good / path)
    assert "odd-file" in {finding.code for finding in lint(good)}


HOSTILE_TEXTS = {
    "$(touch /tmp/x)": "hostile-text",
    "`id`": "hostile-text",
    "a; rm -rf b": "hostile-text",
    "a | b": "hostile-text",
    "../../x": "hostile-text",
    "a\0b": "hostile-text",
    "x" * 5000: "hostile-text",
}


@pytest.mark.parametrize("text", HOSTILE_TEXTS, ids=lambda text: ascii(text[:20]))
@pytest.mark.parametrize(
    "field", ["instance_group", "host_policy", "runtime", "parameters", "label_filename", "default_model_filename"]
)
def test_hostile_text_is_found_wherever_it_is(text: str, field: str, good: Path) -> None:
    def change(found: Any) -> None:
        if field == "instance_group":
            found.instance_group[0].name = text
        elif field == "host_policy":
            found.instance_group[0].host_policy = text
        elif field == "parameters":
            found.parameters["model_path"].string_value = text
        elif field == "label_filename":
            found.output[0].label_filename = text
        else:
            setattr(found, field, text)

    config(change)(good)
    assert "hostile-text" in {finding.code for finding in lint(good)}


@pytest.mark.parametrize(
    "key",
    ["EXECUTION_ENV_PATH", "CPU_EXTENSION_PATH", "TF_INIT_OPS_FILE", "tokenizer_dir", "TRITON_ANYTHING", "DLL-PLUGINS"],
)
@pytest.mark.parametrize("text", ["$(touch /tmp/x)", "../../x", "x" * 5000], ids=lambda text: text[:20])
def test_hostile_text_is_found_where_a_parameter_is_a_path_or_a_command(key: str, text: str, good: Path) -> None:
    config(lambda found: setattr(found.parameters[key], "string_value", text))(good)
    assert "hostile-text" in {finding.code for finding in lint(good)}


def test_hostile_name_of_a_parameter_is_found(good: Path) -> None:
    config(lambda found: setattr(found.parameters["a; rm -rf b"], "string_value", "x"))(good)
    assert {finding.code for finding in lint(good)} == {"hostile-text"}


@pytest.mark.parametrize(
    "text",
    [
        "trained on a & b <2024>; see https://x/y",
        "two\r\n\tlines, `code` and $(x)",
        '{"from": "../data", "as": "a | b"}' * 100,
    ],
    ids=lambda text: ascii(text[:20]),
)
@pytest.mark.parametrize("key", ["note", "ENVIRONMENT", "profile"])
def test_parameter_that_is_neither_path_nor_command_may_say_anything(key: str, text: str, good: Path) -> None:
    config(lambda found: setattr(found.parameters[key], "string_value", text))(good)
    assert lint(good) == []


@pytest.mark.parametrize(
    ("field", "name", "code"),
    [
        ("default_model_filename", "../../plus_one/1/model.onnx", "model-file-outside"),
        ("default_model_filename", "/etc/passwd", "model-file-outside"),
        ("label_filename", "../plus_one/labels.txt", "label-outside"),
        ("label_filename", "/etc/passwd", "label-outside"),
        ("label_filename", "config.pbtxt", "label-outside"),
    ],
)
def test_file_name_that_leaves_the_folder_is_found(field: str, name: str, code: str, good: Path) -> None:
    config(lambda found: setattr(found if field.startswith("default") else found.output[0], field, name))(good)
    assert code in {finding.code for finding in lint(good)}


@pytest.mark.parametrize("name", ["../../1/model.onnx", "/etc/passwd"])
def test_warm_up_outside_its_folder_is_found(name: str, good: Path) -> None:
    more(warm_up(data=f"input_data_file: '{name}'"))(good)
    assert "warm-up-file" in {finding.code for finding in lint(good)}


def test_manifest_that_names_files_elsewhere_does_not_reach_them(good: Path) -> None:
    manifest(lambda content: content["files"].update({"../../script/1/model.pt": "0" * 64}))(good)
    (finding,) = lint(good)
    assert (finding.code, "none of the version's" in finding.message) == ("file-missing", True)


def test_archive_that_unpacks_to_more_than_a_memory_holds_is_not_unpacked(good: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as bomb:
        for name in ("data.pkl", "constants.pkl", "code/x.py"):
            bomb.writestr(f"model/{name}", bytes(32 * 2**20))
    file("script/1/model.pt", stream.getvalue())(good)
    (finding,) = lint(good)
    assert (finding.code, f"unpacks to {96 * 2**20} bytes" in finding.message) == ("artifact-broken", True)


def test_manifest_that_is_absurdly_large_is_not_read(good: Path) -> None:
    with (good / "plus_one/1/manifest.json").open("wb") as sparse:
        sparse.truncate(2**36)
    assert {finding.code for finding in lint(good)} == {"manifest-unreadable"}


def test_weights_of_a_terabyte_are_found_and_not_made(good: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        weight = model.graph.sparse_initializer.add(dims=[2**40])
        weight.values.CopyFrom(helper.make_tensor("huge", onnx.TensorProto.FLOAT, [1], [1.0]))
        weight.indices.CopyFrom(helper.make_tensor("where", onnx.TensorProto.INT64, [1], [0]))

    graph(change)(good)
    assert {finding.code for finding in lint(good)} == {"onnx-refused"}


def test_manifest_of_a_million_brackets_is_found(good: Path) -> None:
    file("plus_one/1/manifest.json", "[" * 1_000_000)(good)
    assert {finding.code for finding in lint(good)} == {"manifest-unreadable"}
