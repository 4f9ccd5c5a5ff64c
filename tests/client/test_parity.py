"""The two clients are one: the same names, parameters and defaults, one of them awaited."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

from tritium.client import (
    AsyncClient,
    AsyncModel,
    AsyncPreparedCall,
    AsyncSequence,
    Client,
    Model,
    PreparedCall,
    Sequence,
)

PAIRS = [(Client, AsyncClient), (Model, AsyncModel), (PreparedCall, AsyncPreparedCall), (Sequence, AsyncSequence)]
# What `with` and `async with` look for, and what is a property in one and has to be awaited in the other.
CONTEXT = {"__enter__": "__aenter__", "__exit__": "__aexit__"}
ASKED_FOR = ("metadata", "config")
# Words that say the same in the annotations of either.
WORDS = [
    (r"\bAsync(Client|Model|PreparedCall|Sequence|Iterator|Generator)\b", r"\1"),
    (r"Iterable\[Any\] \| AsyncIterable\[Any\]", "Iterable[Any]"),
]


def public(kind: type) -> dict[str, Any]:
    own = {name: item for base in reversed(kind.__mro__[:-1]) for name, item in vars(base).items()}
    special = {"__call__", "__repr__", *CONTEXT, *CONTEXT.values()}
    return {name: item for name, item in own.items() if not name.startswith("_") or name in special}


def function(item: Any) -> Callable[..., Any]:
    found: Callable[..., Any] = item.fget if isinstance(item, property) else inspect.unwrap(item)  # type: ignore[assignment]
    return found


def annotation(text: Any) -> str:
    said = str(text)
    for pattern, word in WORDS:
        said = re.sub(pattern, word, said)
    return said


MEMBERS = [
    pytest.param(sync, asynchronous, name, id=f"{sync.__name__}.{name}")
    for sync, asynchronous in PAIRS
    for name in sorted(public(sync))
]


@pytest.mark.parametrize(("sync", "asynchronous"), PAIRS, ids=lambda kind: kind.__name__)
def test_both_have_the_same_public_names(sync: type, asynchronous: type) -> None:
    assert {CONTEXT.get(name, name) for name in public(sync)} == set(public(asynchronous))


@pytest.mark.parametrize(("sync", "asynchronous"), PAIRS, ids=lambda kind: kind.__name__)
def test_both_are_made_the_same_way(sync: type, asynchronous: type) -> None:
    first, second = (inspect.signature(kind).parameters.values() for kind in (sync, asynchronous))
    assert [(p.name, p.kind, p.default) for p in first] == [(p.name, p.kind, p.default) for p in second]


@pytest.mark.parametrize(("sync", "asynchronous", "name"), MEMBERS)
def test_both_take_and_give_the_same(sync: type, asynchronous: type, name: str) -> None:
    first = function(public(sync)[name])
    second = function(public(asynchronous)[CONTEXT.get(name, name)])
    one, other = inspect.signature(first), inspect.signature(second)
    assert [(p.name, p.kind, p.default, annotation(p.annotation)) for p in one.parameters.values()] == [
        (p.name, p.kind, p.default, annotation(p.annotation)) for p in other.parameters.values()
    ]
    assert annotation(one.return_annotation) == annotation(other.return_annotation)


@pytest.mark.parametrize(("sync", "asynchronous", "name"), MEMBERS)
def test_what_asks_the_server_is_awaited(sync: type, asynchronous: type, name: str) -> None:
    item, twin = public(sync)[name], function(public(asynchronous)[CONTEXT.get(name, name)])
    assert not inspect.iscoroutinefunction(function(item))
    asks_nothing = isinstance(item, property) and name not in ASKED_FOR
    if asks_nothing or name in ("__repr__", "model", "sequence"):
        assert not inspect.iscoroutinefunction(twin)
    else:
        assert inspect.iscoroutinefunction(twin) or inspect.isasyncgenfunction(twin)


@pytest.mark.parametrize("kind", [kind for pair in PAIRS for kind in pair], ids=lambda kind: kind.__name__)
def test_everything_public_says_what_it_does_with_each_parameter(kind: type) -> None:
    assert kind.__doc__
    for name, item in public(kind).items():
        documented = inspect.getdoc(function(item)) or ""
        assert documented, name
        if "Args:" in documented:
            for parameter in list(inspect.signature(function(item)).parameters)[1:]:
                assert re.search(rf"^\s*{parameter}:", documented, re.MULTILINE), f"{name}: {parameter}"
