"""What is sent, and what must come back: the golden cases of the versions that a server serves."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tritium.client import Client, InputError, Model
from tritium.repository import (
    GoldenCases,
    Manifest,
    Repository,
    Tolerance,
    compare,
    golden_batches,
    has_manifest,
    load_golden,
    named_outputs,
)

# Different batches that are made of a model's golden cases, where one holds more rows than there are cases.
_BATCHES = 8
# Right answers to one request that are known by their bytes. The batch that a row ran in decides its last bits.
_KNOWN_ANSWERS = 64


class WrongAnswerError(Exception):
    """A server answered, but not with the golden outputs."""


class Case:
    """One request: inputs that are encoded once, and how to tell a right answer.

    Args:
        model: the handle that is called.
        golden: the inputs and the outputs.
        tolerance: how far answers may be off.
        rows: golden cases in it.

    Attributes:
        inputs: by name, the same arrays for every request.
        send: asks the server; returns what the model's handle does.
    """

    __slots__ = ("_known", "_names", "_outputs", "_tolerance", "inputs", "name", "rows", "send")

    def __init__(self, model: Model, golden: GoldenCases, tolerance: Tolerance, rows: int) -> None:
        self._outputs = golden.outputs
        self._names = list(golden.outputs)
        self._tolerance = tolerance
        self._known: set[Any] = set()
        self.name = model.name
        self.inputs = {name: np.ascontiguousarray(array) for name, array in golden.inputs.items()}
        self.send = model.prepare(self.inputs)
        self.rows = rows

    def check(self, answer: Any) -> None:
        """Compare an answer with the golden outputs.

        An answer that is byte for byte one that was compared before is known to be right, which takes a hundredth of
        the time: checking must not be what is measured.

        Raises:
            WrongAnswerError: they differ by more than the version's tolerance.
        """
        key = _told_by(answer)
        if key is not None and key in self._known:
            return
        outputs = named_outputs(answer, self._names)
        wrong = [d for d in compare(self._outputs, outputs, self._tolerance) if not d.ok]
        if wrong:
            raise WrongAnswerError("; ".join(map(str, wrong)))
        if key is not None and len(self._known) < _KNOWN_ANSWERS:
            self._known.add(key)


class GoldenTraffic:
    """The golden cases of a repository's models, as requests in an endless order that a seed decides.

    Args:
        repository: the model repository whose versions the server runs.
        client: the server, which is asked for the versions that it serves.
        models: whose cases to send; all that have golden cases by default.
        weights: how often each model comes beside the others; those that are not named, once. Without weights the
            models come in turn, with them at random.

    Raises:
        TritiumError: a model has no golden cases, or the server does not serve it.
    """

    def __init__(
        self,
        repository: Repository,
        client: Client,
        models: Sequence[str] = (),
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self._repository = repository
        self._client = client
        self.models = tuple(models or [name for name in repository.models() if has_manifest(repository, name)])
        self._weights = dict(weights or {})
        self._cases: dict[tuple[str, int], list[Case]] = {}
        if unknown := [name for name in self._weights if name not in self.models]:
            raise InputError(
                f"There is a weight for {', '.join(unknown)}, which is not sent to; there are {', '.join(self.models)}"
            )
        for name in self.models:
            self.cases(name)

    def cases(self, model: str, rows: int = 1) -> list[Case]:
        """Ready-made requests to a model.

        Args:
            model: its name.
            rows: golden cases in each; 0 for as many as it takes at once. Where it takes no batches, one.
        """
        if (model, rows) not in self._cases:
            self._cases[model, rows] = self._made(model, rows)
        return self._cases[model, rows]

    def requests(self, seed: int | str, *, models: Sequence[str] = (), rows: int = 1) -> Iterator[Case]:
        """Requests without end, the cases of each model from a place that the seed chooses."""
        chance = random.Random(seed)  # noqa: S311 — traffic, no secret
        names = models or self.models
        cases = {name: itertools.cycle(_rotated(self.cases(name, rows), chance)) for name in names}
        if not self._weights:
            for name in itertools.cycle(names):
                yield next(cases[name])
        shares = [self._weights.get(name, 1.0) for name in names]
        while True:
            for name in chance.choices(names, shares, k=256):
                yield next(cases[name])

    def _made(self, name: str, rows: int) -> list[Case]:
        handle = self._client.model(name)
        # The version that is served, which need not be the newest in the repository.
        folder = self._repository.version_folder(name, handle.metadata.versions[-1])
        config = self._repository.config(name)
        tolerance = Manifest.load(folder).tolerance_on(handle.config)
        golden = load_golden(folder, config)
        size = min(rows or config.max_batch_size, config.max_batch_size) or 1
        if size <= len(golden):
            made = list(golden_batches(golden, config, rows=size))
            # The last one may be short.
            made = made[: len(golden) // size] if config.max_batch_size else made
        else:
            made = [_gathered(golden, size, start) for start in range(min(_BATCHES, len(golden)))]
        return [Case(handle, case, tolerance, size) for case in made]


def _gathered(golden: GoldenCases, rows: int, start: int) -> GoldenCases:
    places = (np.arange(rows) + start) % len(golden)
    return GoldenCases(
        {name: array[places] for name, array in golden.inputs.items()},
        {name: array[places] for name, array in golden.outputs.items()},
    )


def _told_by(answer: Any) -> Any:
    """What tells an answer from all that differ from it; None where there are objects, whose bytes are addresses."""
    if isinstance(answer, np.ndarray):
        return None if answer.dtype.hasobject else (answer.dtype, answer.shape, answer.tobytes())
    told = tuple((name, _told_by(array)) for name, array in answer.items())
    return None if any(by is None for _, by in told) else told


def _rotated(cases: list[Case], chance: random.Random) -> list[Case]:
    place = chance.randrange(len(cases))
    return cases[place:] + cases[:place]
