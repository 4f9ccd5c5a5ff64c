"""Golden cases: written, read, checked."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from tritium.client import TensorSpec, numpy_dtype
from tritium.repository import GoldenCases, GoldenError

Array = NDArray[Any]
NUMBERS = [
    "BOOL",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "FP16",
    "BF16",
    "FP32",
    "FP64",
]
X = TensorSpec("x", "FP32", (-1, 2))
Y = TensorSpec("y", "BYTES", (-1, 1))


def texts(*items: str | bytes) -> Array:
    array = np.empty((len(items), 1), dtype=object)
    array[:, 0] = items
    return array


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "golden.npz"


@pytest.fixture
def cases() -> GoldenCases:
    return GoldenCases({"x": np.arange(4, dtype=np.float32).reshape(2, 2)}, {"y": texts("a", "é")})


# there and back


@pytest.mark.parametrize("dtype", NUMBERS)
def test_numbers_survive_the_file(dtype: str, path: Path) -> None:
    array = np.array([[[0, 1], [1, 0]], [[1, 1], [0, 0]]]).astype(numpy_dtype(dtype))
    spec = TensorSpec("x", dtype, (-1, 2, 2))
    GoldenCases({"x": array}, {"x": 1 - array if dtype != "BOOL" else ~array}).save(path, [spec])
    read = GoldenCases.load(path, [spec], [spec])
    assert (read.inputs["x"].dtype, read.inputs["x"].tolist()) == (array.dtype, array.tolist())
    assert read.outputs["x"].tolist() == (1 - array if dtype != "BOOL" else ~array).tolist()


@pytest.mark.parametrize(
    "items",
    [
        pytest.param(("a", "é"), id="text"),
        pytest.param((b"\xff\x00", b""), id="bytes"),
        pytest.param(("a\x00", "\x00"), id="trailing-zeros"),
        pytest.param(("日本語" * 100,), id="long"),
    ],
)
def test_strings_come_back_as_bytes(items: tuple[str | bytes, ...], path: Path) -> None:
    x = np.zeros((len(items), 2), np.float32)
    GoldenCases({"x": x}, {"y": texts(*items)}).save(path, [X, Y])
    read = GoldenCases.load(path, [X], [Y]).outputs["y"]
    assert read.shape == (len(items), 1)
    assert read.ravel().tolist() == [item.encode() if isinstance(item, str) else item for item in items]


def test_strings_keep_their_shape(path: Path) -> None:
    spec = TensorSpec("y", "BYTES", (-1, 2, 2))
    array = np.array([[["a", "b"], ["c", "d"]]] * 3, dtype=object)
    GoldenCases({"y": array}, {}).save(path, [spec])
    assert GoldenCases.load(path, [spec], []).inputs["y"].shape == (3, 2, 2)


def test_special_bfloat16_survive_the_file(path: Path) -> None:
    spec = TensorSpec("x", "BF16", (-1, 1))
    array = np.array([[np.pi], [-0.0], [3e38]], dtype=ml_dtypes.bfloat16)
    GoldenCases({"x": array}, {}).save(path, [spec])
    assert GoldenCases.load(path, [spec], []).inputs["x"].tobytes() == array.tobytes()


def test_file_has_the_documented_members(cases: GoldenCases, path: Path) -> None:
    cases.save(path, [X, Y])
    with np.load(path, allow_pickle=False) as file:
        assert {name: (array.dtype.name, array.shape) for name, array in file.items()} == {
            "inputs/x": ("float32", (2, 2)),
            "outputs/y": ("uint8", (2 * 4 + len("aé".encode()),)),
            "outputs/y.shape": ("int64", (2,)),
        }


def test_file_is_never_pickled(path: Path) -> None:
    # The spec says numbers, and the array holds objects: numpy would pickle them.
    with pytest.raises(GoldenError, match="x"):
        GoldenCases({"x": np.array([[1, 2]], dtype=object)}, {"y": texts("a")}).save(path, [X, Y])


def test_cases_beyond_4_mib_are_refused(path: Path) -> None:
    noise = np.random.default_rng(0).random((600_000, 2), dtype=np.float32)
    with pytest.raises(GoldenError, match=r"must fit into 4 MiB, and 600000 take 4\.\d: use fewer"):
        GoldenCases({"x": noise}, {}).save(path, [X])


def test_cases_below_4_mib_are_written(path: Path) -> None:
    noise = np.random.default_rng(0).random((450_000, 2), dtype=np.float32)
    GoldenCases({"x": noise}, {}).save(path, [X])
    assert 3 * 2**20 < path.stat().st_size <= 4 * 2**20


# broken files


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _flipped(path: Path) -> None:
    with zipfile.ZipFile(path) as file:
        member = file.getinfo("inputs/x.npy")
    content = bytearray(path.read_bytes())
    # The first bytes of the compressed data say how the rest is coded.
    start = member.header_offset + 30 + len(member.filename)
    start += int.from_bytes(content[member.header_offset + 28 : member.header_offset + 30], "little")
    content[start : start + 8] = b"\xff" * 8
    path.write_bytes(content)


def _without(name: str) -> Callable[[Path], None]:
    def remove(path: Path) -> None:
        with np.load(path) as file:
            kept = {key: file[key] for key in file.files if key != name}
        np.savez(path, **kept)

    return remove


def _with(name: str, array: Array) -> Callable[[Path], None]:
    def put(path: Path) -> None:
        with np.load(path) as file:
            members = {key: file[key] for key in file.files}
        np.savez(path, **{**members, name: array})

    return put


def _array_file(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


BROKEN: list[Any] = [
    pytest.param(lambda path: path.write_bytes(b""), id="empty"),
    pytest.param(lambda path: path.write_bytes(b"golden"), id="text"),
    pytest.param(lambda path: path.write_bytes(pickle.dumps([1])), id="pickle"),
    pytest.param(_array_file, id="npy"),
    pytest.param(_truncated, id="truncated"),
    pytest.param(_flipped, id="flipped-bytes"),
    pytest.param(_with("inputs/x", np.array([{}], dtype=object)), id="pickled-member"),
    pytest.param(_with("outputs/y", np.array([200, 0, 0, 0, 65], np.uint8)), id="short-strings"),
    pytest.param(_with("outputs/y.shape", np.array([7, 1])), id="wrong-shape"),
]


@pytest.mark.parametrize("damage", BROKEN)
def test_broken_file_is_a_golden_error_with_its_path(
    damage: Callable[[Path], None], cases: GoldenCases, path: Path
) -> None:
    cases.save(path, [X, Y])
    damage(path)
    with pytest.raises(GoldenError, match=r"golden\.npz holds no golden cases"):
        GoldenCases.load(path, [X], [Y])


@pytest.mark.parametrize("name", ["inputs/x", "outputs/y", "outputs/y.shape"])
def test_missing_tensor_is_a_golden_error_with_its_name(name: str, cases: GoldenCases, path: Path) -> None:
    cases.save(path, [X, Y])
    _without(name)(path)
    with pytest.raises(GoldenError, match=rf"golden\.npz lacks the tensor {name}$"):
        GoldenCases.load(path, [X], [Y])


def test_missing_file_is_a_golden_error(path: Path) -> None:
    with pytest.raises(GoldenError, match=r"There are no golden cases at .*golden\.npz"):
        GoldenCases.load(path, [X], [Y])


# check


def test_cases_that_fit_pass(cases: GoldenCases) -> None:
    cases.check([X], [Y], batched=True)


def test_cases_of_a_model_without_batch_axis_have_one_axis_more() -> None:
    spec = TensorSpec("x", "FP32", (2,))
    GoldenCases({"x": np.zeros((5, 2), np.float32)}, {}).check([spec], [], batched=False)


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        pytest.param({}, {"y": texts("a")}, r"The golden inputs must be \['x'\], got \[\]", id="missing-input"),
        pytest.param({"x": np.zeros((1, 2), np.float32)}, {}, r"The golden outputs must be \['y'\]", id="no-output"),
        pytest.param(
            {"x": np.zeros((1, 2), np.float32), "z": np.zeros(1)},
            {"y": texts("a")},
            r"got \['x', 'z'\] instead",
            id="unknown-input",
        ),
        pytest.param(
            {"x": np.zeros((1, 2))}, {"y": texts("a")}, r"'x' must be FP32 \(float32\), got float64", id="wrong-dtype"
        ),
        pytest.param(
            {"x": np.zeros((1, 2), np.float32)},
            {"y": np.array([["a"]])},
            "'y' must be BYTES .*, got <U1",
            id="no-object",
        ),
        pytest.param(
            {"x": np.zeros((1, 3), np.float32)},
            {"y": texts("a")},
            r"'x' must have shape \(-1, 2\), got \(1, 3\)",
            id="width",
        ),
        pytest.param(
            {"x": np.zeros(2, np.float32)}, {"y": texts("a")}, r"'x' must have shape \(-1, 2\), got \(2,\)", id="rank"
        ),
        pytest.param(
            {"x": np.zeros((2, 2), np.float32)},
            {"y": texts("a")},
            r"the same number of cases, at least one, got {'x': 2, 'y': 1}",
            id="unequal-counts",
        ),
        pytest.param(
            {"x": np.zeros((0, 2), np.float32)}, {"y": texts()}, "the same number of cases, at least one", id="no-case"
        ),
    ],
)
def test_cases_that_do_not_fit_are_refused(inputs: dict[str, Array], outputs: dict[str, Array], message: str) -> None:
    with pytest.raises(GoldenError, match=message):
        GoldenCases(inputs, outputs).check([X], [Y], batched=True)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["FP16", "BF16", "FP32", "FP64"])
def test_value_that_is_not_finite_is_refused_with_its_case(dtype: str, value: float) -> None:
    array = np.zeros((4, 2)).astype(numpy_dtype(dtype))
    array[2, 1] = value
    with pytest.raises(GoldenError, match="The golden output 'y' is not finite in case 2;"):
        GoldenCases({"x": np.zeros((4, 2), np.float32)}, {"y": array}).check(
            [X], [TensorSpec("y", dtype, (-1, 2))], batched=True
        )


# batches


@pytest.mark.parametrize(("rows", "sizes"), [(1, [1, 1, 1]), (2, [2, 1]), (3, [3]), (64, [3])])
def test_batches_are_runs_of_all_cases_in_order(rows: int, sizes: list[int]) -> None:
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    batches = list(GoldenCases({"x": x}, {"y": -x}).batches(rows))
    assert [len(batch) for batch in batches] == sizes
    np.testing.assert_array_equal(np.concatenate([batch.outputs["y"] for batch in batches]), -x)
