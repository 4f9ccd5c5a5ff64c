"""What is public is explained: each parameter by its name, how it fails, and in the same words for both clients."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tritium.client
from tritium.client import AsyncClient, AsyncModel, AsyncSequence, Client, Model, Sequence

PAIRS = [(Client, AsyncClient), (Model, AsyncModel), (Sequence, AsyncSequence)]
# What needs no explanation of its own: its class gives it, or Python.
UNEXPLAINED = ("__init__", "__exit__")
# What asks no server, or only ends.
SILENT = ("__enter__", "__exit__", "close", "model", "sequence", "url", "urls")
# How the words for a client that is awaited differ.
WORDS = {
    "async with": "with",
    "async for": "for",
    "await ": "",
    "AsyncClient": "Client",
    "AsyncModel": "Model",
    "AsyncSequence": "Sequence",
    "Yields:": "Returns:",
    "An iterator of what": "What",
}


def _function(member: Any) -> Callable[..., Any]:
    """The function behind a method or a property; what is wrapped, of a context manager."""
    function: Any = member.fget if isinstance(member, property) else member
    function = getattr(function, "__func__", function)
    unwrapped: Callable[..., Any] = inspect.unwrap(function)
    return unwrapped


def _public(cls: type) -> dict[str, Callable[..., Any]]:
    """The functions of a class that are public, and those that `with` and calls use."""
    return {
        name: _function(member)
        for name, member in vars(cls).items()
        if (not name.startswith("_") or re.fullmatch(r"__(call|a?enter|a?exit)__", name))
        and (callable(member) or isinstance(member, property | classmethod))
    }


def _published() -> Iterator[tuple[str, Any]]:
    """Every class and function of the package, and every public function of those classes."""
    for name in tritium.client.__all__:
        item = getattr(tritium.client, name)
        yield name, item
        if inspect.isclass(item):
            yield from ((f"{name}.{member}", function) for member, function in _public(item).items())


def _sections(item: Any) -> dict[str, list[str]]:
    """What the sections of a docstring name."""
    sections: dict[str, list[str]] = {}
    current = ""
    for line in (inspect.getdoc(item) or "").splitlines():
        if heading := re.fullmatch(r"(Args|Attributes|Raises|Returns|Yields):", line):
            current = heading[1]
            sections[current] = []
        elif line and not line.startswith(" "):
            current = ""
        elif current and (entry := re.match(r"    (\w+): \S", line)):
            sections[current].append(entry[1])
    return sections


def _parameters(item: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(item).parameters if name not in ("self", "cls")]


CALLS = [
    pytest.param(function, id=f"{cls.__name__}.{name}")
    for pair in PAIRS
    for cls in pair
    for name, function in _public(cls).items()
    if name not in UNEXPLAINED and not name.startswith("__a")
]
ASKING = [call for call in CALLS if str(call.id).partition(".")[2] not in SILENT]


@pytest.mark.parametrize("item", [pytest.param(item, id=name) for name, item in _published()])
def test_whatever_is_public_is_explained(item: Any) -> None:
    text = inspect.getdoc(item)
    assert text
    assert re.match(r"[A-Z`].*[.:;,]?", text.splitlines()[0])
    explained = _sections(item).get("Args")
    assert explained is None or explained == _parameters(item)


@pytest.mark.parametrize("call", CALLS)
def test_every_parameter_of_a_call_is_explained_by_its_name(call: Callable[..., Any]) -> None:
    text, explained = inspect.getdoc(call) or "", _sections(call).get("Args", [])
    if "as a call of the model" in text:
        explained = explained + _sections(Model.__call__)["Args"]
    unexplained = [name for name in _parameters(call) if name not in explained and f"`{name}`" not in text]
    assert not unexplained


@pytest.mark.parametrize("call", ASKING)
def test_what_asks_a_server_says_how_it_fails(call: Callable[..., Any]) -> None:
    raised = _sections(call).get("Raises")
    assert raised
    for error in raised:
        assert issubclass(getattr(tritium.client, error), tritium.client.TritiumError)


@pytest.mark.parametrize(("sync", "tasks"), PAIRS)
def test_both_clients_are_explained_in_the_same_words(sync: type, tasks: type) -> None:
    theirs = {name.replace("__a", "__"): function for name, function in _public(tasks).items()}
    for name, function in _public(sync).items():
        assert _same_words(theirs[name]) == _same_words(function), name


def _same_words(item: Any) -> str:
    """A docstring without what differs on purpose, and however its lines are broken."""
    text = inspect.getdoc(item) or ""
    for word, other in WORDS.items():
        text = text.replace(word, other)
    return " ".join(text.split())
