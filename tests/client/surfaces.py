"""Both clients behind one face, so that a test of what they have in common is written once and run over each."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from tritium.client import AsyncClient, Client

SURFACES = ("sync", "async")


def use(
    surface: str,
    urls: str | Sequence[str],
    model: str,
    method: str,
    *inputs: Any,
    options: Mapping[str, Any] | None = None,
    **named: Any,
) -> Any:
    """What a method of a model returns, from a client that is made for it; of an iterator, the list of its items.

    Args:
        surface: ``sync`` or ``async``.
        urls: the client's.
        model: the model's name.
        method: the method's name.
        inputs: its arguments by position.
        options: those of the client.
        named: the method's arguments by name.
    """
    if surface == "sync":
        with Client(urls, **(options or {})) as client:
            result = getattr(client.model(model), method)(*inputs, **named)
            return list(result) if hasattr(result, "__next__") else result

    async def run() -> Any:
        async with AsyncClient(urls, **(options or {})) as client:
            result = getattr(client.model(model), method)(*inputs, **named)
            return [item async for item in result] if hasattr(result, "__anext__") else await result

    return asyncio.run(run())


def bulk_tasks() -> list[asyncio.Task[Any]]:
    """What runs in this loop for `predict` and `map` beside what is asking."""
    return [task for task in asyncio.all_tasks() if ".<locals>.run" in repr(task) and "_async_model" in repr(task)]
