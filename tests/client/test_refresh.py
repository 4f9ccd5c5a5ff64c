"""What is known of a model: asked for once, kept, and asked for again when the model is not what it was."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tritium.client import (
    AsyncClient,
    Client,
    InputError,
    ModelNotReadyError,
    Outputs,
    RequestRecord,
    ServerError,
    TensorSpec,
)
from tritium.server import ADMIN_GROUPS, TritonServer

from .table_models import write_echo

TWO = np.array([[1, 2]], dtype=np.float32)
THREE = np.array([[1, 2, 3]], dtype=np.float32)
_NAMES = (f"changing{i}" for i in itertools.count())


@pytest.fixture(scope="module")
def changing_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A Triton whose models may be written anew."""
    repository = tmp_path_factory.mktemp("refresh")
    write_echo(repository / "steady", [TensorSpec("x", "FP32", (2,))])
    with TritonServer(repository, open_groups=ADMIN_GROUPS) as running:
        yield running


@pytest.fixture(params=["http", "grpc"])
def url(request: pytest.FixtureRequest, changing_server: TritonServer) -> str:
    """Where it is, over each protocol."""
    return changing_server.http_url if request.param == "http" else changing_server.grpc_url


@pytest.fixture
def watched(url: str) -> Iterator[tuple[Client, list[str]]]:
    """A client of it, and the operations that it has done."""
    operations: list[str] = []

    def note(record: RequestRecord) -> None:
        operations.append(record.operation)

    with Client(url, on_request=note) as client:
        yield client, operations


class Published:
    """A model of the server that can be published again, by somebody else than the client under test."""

    def __init__(self, server: TritonServer) -> None:
        self.name = next(_NAMES)
        self._server = server

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self._server.repository.path / self.name

    def write(self, *shapes: int, **options: Any) -> None:
        """Write it with an input of each length, `x`, `x1`, …, in the place of what is there."""
        specs = [TensorSpec(f"x{i or ''}", "FP32", (n,)) for i, n in enumerate(shapes)]
        write_echo(self.folder, specs, **options)

    def publish(self, *shapes: int, version: int = 1, **options: Any) -> None:
        """Write it, and let the server load it."""
        self.write(*shapes, **options)
        if version != 1:
            (self.folder / "1").rename(self.folder / str(version))
        with self._server.client(protocol="grpc") as client:
            client.load(self.name)


@pytest.fixture
def model(changing_server: TritonServer) -> Published:
    """A model that is published with an input `x` FP32 of shape (rows, 2) and its output `same_x`; at most 4 rows."""
    published = Published(changing_server)
    published.publish(2)
    return published


# asked for once


def test_handle_asks_nothing_before_its_first_use(watched: tuple[Client, list[str]]) -> None:
    client, operations = watched
    client.model("steady")
    assert operations == []


def test_model_is_asked_about_at_the_first_use_and_never_again(watched: tuple[Client, list[str]]) -> None:
    client, operations = watched
    steady = client.model("steady")
    steady(TWO)
    assert sorted(operations) == ["ModelConfig", "ModelMetadata", "ServerMetadata", "infer"]
    operations.clear()
    steady(TWO)
    steady.predict(np.concatenate([TWO] * 8))
    assert steady.metadata.name == steady.config["name"] == "steady"
    assert operations == ["infer"] * 3


def test_second_handle_of_the_same_model_asks_nothing(watched: tuple[Client, list[str]]) -> None:
    client, operations = watched
    client.model("steady")(TWO)
    operations.clear()
    client.model("steady")(TWO)
    assert operations == ["infer"]


def test_another_version_is_asked_about_and_the_server_is_not(watched: tuple[Client, list[str]]) -> None:
    client, operations = watched
    client.model("steady")(TWO)
    operations.clear()
    client.model("steady", 1)(TWO)
    assert sorted(operations) == ["ModelConfig", "ModelMetadata", "infer"]


def test_call_that_is_wrong_asks_whether_the_model_has_changed_and_is_not_sent(
    watched: tuple[Client, list[str]],
) -> None:
    client, operations = watched
    steady = client.model("steady")
    steady(TWO)
    operations.clear()
    with pytest.raises(InputError, match=r"must have shape \(rows, 2\)"):
        steady(THREE)
    assert sorted(operations) == ["ModelConfig", "ModelMetadata"]


# asked for again


def _call(handle: Any) -> Any:
    return handle(THREE)


def _predict(handle: Any) -> Any:
    return handle.predict(THREE)


def _map(handle: Any) -> Any:
    (answer,) = handle.map([THREE])
    return answer


@pytest.mark.parametrize("version", [1, 2], ids=["same-version", "next-version"])
@pytest.mark.parametrize("use", [_call, _predict, _map])
def test_handle_takes_the_new_shape_of_a_model_that_was_published_again(
    use: Callable[[Any], Any], version: int, model: Published, url: str
) -> None:
    with Client(url) as client:
        handle = client.model(model.name)
        handle(TWO)
        model.publish(3, version=version)
        np.testing.assert_array_equal(use(handle), THREE)
        assert (handle.metadata.inputs[0].shape, handle.metadata.versions) == ((-1, 3), (str(version),))
        with pytest.raises(InputError, match=r"must have shape \(rows, 3\)"):
            handle(TWO)


@pytest.mark.parametrize("version", [1, 2], ids=["same-version", "next-version"])
def test_async_handle_takes_the_new_shape_of_a_model_that_was_published_again(
    version: int, model: Published, url: str
) -> None:
    async def run() -> None:
        async with AsyncClient(url) as client:
            handle = client.model(model.name)
            await handle(TWO)
            model.publish(3, version=version)
            np.testing.assert_array_equal(await handle(THREE), THREE)
            assert (await handle.metadata()).inputs[0].shape == (-1, 3)

    asyncio.run(run())


@pytest.mark.parametrize("use", ["predict", "classify"])
def test_async_handle_that_knew_another_shape_does_not_refuse(use: str, model: Published, url: str) -> None:
    async def run() -> None:
        async with AsyncClient(url) as client:
            handle = client.model(model.name)
            await handle(TWO)
            model.publish(3)
            assert len(await getattr(handle, use)(THREE)) == 1

    asyncio.run(run())


def test_old_input_that_the_new_model_does_not_take_is_refused_with_the_new_shape(model: Published, url: str) -> None:
    with Client(url) as client:
        handle = client.model(model.name)
        handle(TWO)
        model.publish(3)
        with pytest.raises(InputError, match=r"must have shape \(rows, 3\)"):
            handle(TWO)


@pytest.mark.parametrize("version", [1, 2], ids=["same-version", "next-version"])
def test_output_that_was_renamed_is_never_left_out(version: int, model: Published, url: str) -> None:
    with Client(url) as client:
        handle = client.model(model.name)
        handle(TWO)
        model.publish(2, version=version, prefix="other_")
        for _ in range(2):
            np.testing.assert_array_equal(handle(TWO), TWO)
        assert [spec.name for spec in handle.metadata.outputs] == ["other_x"]


def test_output_that_is_asked_for_by_its_new_name_is_known(model: Published, url: str) -> None:
    with Client(url) as client:
        handle = client.model(model.name)
        handle(TWO)
        model.publish(2, prefix="other_")
        np.testing.assert_array_equal(handle(TWO, outputs="other_x"), TWO)
        with pytest.raises(InputError, match="has no output 'same_x'; it has other_x"):
            handle(TWO, outputs="same_x")


def test_input_that_was_added_is_asked_for_and_taken(model: Published, url: str) -> None:
    with Client(url) as client:
        handle = client.model(model.name)
        handle(TWO)
        model.publish(2, 3)
        with pytest.raises(InputError, match=f"Input 'x1' of '{model.name}' is missing"):
            handle(TWO)
        answer = handle(TWO, THREE)
        assert isinstance(answer, Outputs)
        np.testing.assert_array_equal(answer["same_x1"], THREE)


def test_larger_batches_are_sent_once_the_model_takes_them(model: Published, url: str) -> None:
    eight = np.concatenate([TWO] * 8)
    with Client(url) as client:
        handle = client.model(model.name)
        with pytest.raises(InputError, match="at most 4 rows"):
            handle(eight)
        model.publish(2, max_batch_size=8)
        np.testing.assert_array_equal(handle(eight), eight)
        assert handle.metadata.max_batch_size == 8


def test_smaller_batches_are_sent_once_the_model_takes_no_larger_ones(model: Published, url: str) -> None:
    eight = np.concatenate([TWO] * 8)
    with Client(url) as client:
        handle = client.model(model.name)
        handle(TWO)
        model.publish(2, max_batch_size=2)
        with pytest.raises(InputError, match="at most 2 rows"):
            handle(eight[:4])
        np.testing.assert_array_equal(handle.predict(eight), eight)


def test_numbered_handle_takes_what_its_version_takes_after_another_was_published(model: Published, url: str) -> None:
    with Client(url) as client:
        handle = client.model(model.name, 1)
        handle(TWO)
        model.publish(3)
        np.testing.assert_array_equal(handle(THREE), THREE)


def test_model_that_this_client_loads_again_is_known_as_it_is_now(model: Published, url: str) -> None:
    with Client(url) as client:
        handle = client.model(model.name)
        assert handle.metadata.inputs[0].shape == (-1, 2)
        model.write(3)
        client.load(model.name)
        assert handle.metadata.inputs[0].shape == (-1, 3)


def test_model_that_is_loaded_with_a_config_of_its_own_does_not_ask_for_that_of_its_folder(
    model: Published, url: str
) -> None:
    with Client(url) as client:
        handle = client.model(model.name)
        config = handle.config | {"max_batch_size": 3}
        (model.folder / "config.pbtxt").write_text("no config at all", encoding="utf-8")
        with pytest.raises(ServerError):
            client.load(model.name)
        client.load(model.name, config=config)
        assert handle.config["max_batch_size"] == 3
        np.testing.assert_array_equal(handle(TWO), TWO)


def test_model_that_was_taken_away_and_came_back_is_used_again(model: Published, url: str) -> None:
    with Client(url) as client:
        handle = client.model(model.name)
        handle(TWO)
        client.unload(model.name)
        with pytest.raises(ModelNotReadyError, match="not loaded"):
            while True:  # unloading goes on in the background
                handle(TWO)
        model.publish(3)
        np.testing.assert_array_equal(handle(THREE), THREE)
