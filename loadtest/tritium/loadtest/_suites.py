"""The suites: what each asks, as stages, and what it must reach if nobody says. Pure, and without Locust."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tritium.client import InputError

from ._plan import Stage

# Requests that an open loop may have under way: more than a server's queue takes, so that it is the server who says no.
_MOST_UNDER_WAY = 2_000
# Of what the server can take, in the suite that asks for more.
_OVERLOADS = (0.5, 0.8, 1.0, 1.25, 1.5, 2.0)
# Users that keep a server busy with whole batches.
_BUSY = 16
_OPEN_LEVELS = 8
# How long a batch may wait for more requests, in the suite that compares; None is dynamic batching switched off.
DELAYS_US: tuple[int | None, ...] = (None, 0, 500, 2_000)
_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a caller asks of a suite; what is None, the suite decides.

    Attributes:
        users: requests under way at once, at most where the suite has several levels.
        duration_s: of all stages.
        rate: requests a second, for an open loop; at most where the suite has several levels.
        models: what is sent to; every model of the repository if empty.
    """

    users: int | None = None
    duration_s: float | None = None
    rate: float | None = None
    models: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A way to load a server.

    Attributes:
        name: what it is called.
        summary: what it is for.
        plan: makes the stages of a wish without gaps.
        users: that it has by default.
        duration_s: that it takes by default.
        objectives: what must be reached if nobody says.
        own_server: why it cannot use a server that is there already; empty if it can.
        retries: whether its users send again what may be.
    """

    name: str
    summary: str
    plan: Callable[[Wish, int, float], tuple[Stage, ...]]
    users: int = 16
    duration_s: float = 10.0
    objectives: str = "errors=0, wrong=0"
    own_server: str = ""
    retries: bool = False

    def stages(self, wish: Wish) -> tuple[Stage, ...]:
        """What a wish comes to."""
        return self.plan(wish, wish.users or self.users, wish.duration_s or self.duration_s)


def _even(wish: Wish, users: int, duration_s: float) -> tuple[Stage, ...]:
    return (_stage("all", wish, users, duration_s),)


def _stage(name: str, wish: Wish, users: int, duration_s: float) -> Stage:
    under_way = users if wish.rate is None else max(users, _MOST_UNDER_WAY)
    return Stage(name=name, duration_s=duration_s, users=under_way, rate=wish.rate, models=wish.models)


def _ramp(wish: Wish, users: int, duration_s: float) -> tuple[Stage, ...]:
    if wish.rate is not None:
        rates = [wish.rate * (level + 1) / _OPEN_LEVELS for level in range(_OPEN_LEVELS)]
        steps = [_stage("", replace(wish, rate=rate), users, duration_s / _OPEN_LEVELS) for rate in rates]
        return tuple(replace(step, name=step.load) for step in steps)
    levels = [1]
    while levels[-1] * 2 < users:
        levels.append(levels[-1] * 2)
    levels += [users] if users > 1 else []
    steps = [_stage("", wish, level, duration_s / len(levels)) for level in levels]
    return tuple(replace(step, name=step.load) for step in steps)


def _spike(wish: Wish, users: int, duration_s: float) -> tuple[Stage, ...]:
    calm = replace(wish, rate=None if wish.rate is None else wish.rate / 8)
    few = max(1, users // 8)
    return (
        replace(_stage("before", calm, few, 0.3 * duration_s), judged=False),
        replace(_stage("spike", wish, users, 0.3 * duration_s), judged=False),
        # What it is about: whether all is as before when the spike is over.
        _stage("after", calm, few, 0.4 * duration_s),
    )


def _bulk(wish: Wish, users: int, duration_s: float) -> tuple[Stage, ...]:
    return (replace(_stage("bulk", wish, users, duration_s), rows=0),)


def _overload(wish: Wish, users: int, duration_s: float) -> tuple[Stage, ...]:
    # Whole batches in a request, so that it is the server who has too much to do, and not the load generator.
    if wish.rate is None:  # to find out what the server can take
        return (replace(_stage("capacity", wish, min(users, _BUSY), duration_s), rows=0),)
    stages = {
        factor: _stage(f"{factor:g} × capacity", replace(wish, rate=wish.rate * factor), users, duration_s / 6)
        for factor in _OVERLOADS
    }
    return tuple(replace(stage, rows=0, judged=factor > 1) for factor, stage in stages.items())


def variant(model: str, delay_us: int | None) -> str:
    """What a copy of a model with another delay of its batches is called."""
    return f"{model}.{'off' if delay_us is None else f'{delay_us}us'}"


def _batching(wish: Wish, users: int, duration_s: float) -> tuple[Stage, ...]:
    if len(wish.models) != 1:
        got = ", ".join(wish.models) or "none"
        raise InputError(f"The suite 'batching' compares one model with itself, so name one; got {got}")
    turn_s = duration_s / (_ROUNDS * len(DELAYS_US))
    names = [variant(wish.models[0], delay_us) for delay_us in DELAYS_US]
    return tuple(
        # In turns, so that a slow moment of the machine meets all of them.
        _stage(name, replace(wish, models=(name,)), users, turn_s)
        for _ in range(_ROUNDS)
        for name in names
    )


SUITES: Mapping[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite(name="smoke", summary="every model's golden cases in turn: does it work at all?", plan=_even),
        Suite(
            name="ramp",
            summary="more and more users, or requests a second: where is the knee?",
            plan=_ramp,
            users=128,
            duration_s=40.0,
        ),
        Suite(
            name="batching",
            summary="one model with dynamic batching off and on, with several delays, in turns",
            plan=_batching,
            users=16,
            duration_s=36.0,
            own_server="it serves copies of the model with other configs",
        ),
        Suite(
            name="spike",
            summary="eight times the load for a while: is all as before when it is over?",
            plan=_spike,
            users=64,
            duration_s=20.0,
        ),
        Suite(
            name="soak",
            summary="the same load for a long time: does memory grow, do answers slow down?",
            plan=_even,
            duration_s=600.0,
            objectives="errors=0, wrong=0, memory<5%",
        ),
        Suite(name="mixed", summary="all models at random, weighted", plan=_even, duration_s=20.0),
        Suite(name="bulk", summary="as many rows in each request as the model takes", plan=_bulk, users=4),
        Suite(
            name="overload",
            summary="up to twice of what the server can take: what becomes of the goodput?",
            plan=_overload,
            users=64,
            duration_s=30.0,
            objectives="wrong=0, failed=0",
        ),
        Suite(
            name="chaos",
            summary="backend processes are killed and versions reloaded under load: is it still right?",
            plan=_even,
            users=8,
            duration_s=30.0,
            objectives="wrong=0, errors<5%",
            own_server="it kills processes of the server",
            retries=True,
        ),
    )
}
