"""A request, and what may come back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np

from .models import Arrays, Subject
from .tensors import Tensor


class FuzzError(Exception):
    """The server did what it must not do."""


@dataclass(frozen=True)
class Lie:
    """Something done to a message on its way out.

    Attributes:
        stage: the form of the message in which it is done.
        tell: changes the message.
        fails: the message must then be refused; otherwise any answer will do.
    """

    stage: type
    tell: Callable[[Random, Any], None]
    fails: bool = True


@dataclass
class Request:
    """What is sent, and what may come back.

    Attributes:
        kind: what was done to it, for the figures.
        protocol: ``http`` or ``grpc``.
        outputs: those that are asked for; all if none is named.
        good: it must be answered.
        free: any answer will do.
        expected: what is right; None if it must be an error.
        shared: inputs and outputs lie in shared memory.
        torn: the inputs lie in shared memory and change while they are read.
    """

    number: int
    subject: Subject
    kind: str
    protocol: str
    inputs: list[Tensor]
    outputs: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    good: bool = False
    free: bool = False
    expected: Arrays | None = None
    lie: Lie | None = None
    shared: bool = False
    torn: bool = False

    def __str__(self) -> str:
        """As in ``request 7 (odd size) to 'echo' over http``."""
        kind = f"{self.kind} {self.lie.tell.__name__}" if self.lie else self.kind
        return f"request {self.number} ({kind}) to {self.subject.name!r} over {self.protocol}"

    def lie_about(self, message: object) -> None:
        """Tell the lie, if it is one about a message in this form."""
        if self.lie is not None and isinstance(message, self.lie.stage):
            self.lie.tell(Random(self.number), message)

    def check(self, answer: list[Tensor] | str) -> None:
        """Hold an answer, or the text of an error, against what may come back.

        Raises:
            FuzzError: it is wrong.
        """
        if self.free:
            return
        if isinstance(answer, str):
            if self.good:
                raise FuzzError(f"{self} is good, and got the error {answer!r}")
            return
        if self.expected is None:
            raise FuzzError(f"{self} must be refused, and got {answer} for {self.inputs}")
        try:
            arrays = {tensor.name: tensor.array() for tensor in answer}
        except ValueError as exc:
            raise FuzzError(f"{self} got an answer that cannot be read: {answer}") from exc
        if arrays.keys() != self.expected.keys():
            raise FuzzError(f"{self} asked for {sorted(self.expected)} and got {sorted(arrays)}")
        for name, array in arrays.items():
            right = self.expected[name]
            floats = np.issubdtype(right.dtype, np.floating)
            if array.dtype != right.dtype or not np.array_equal(array, right, equal_nan=bool(floats)):
                raise FuzzError(f"{self} got the wrong {name}: {array!r} in the place of {right!r}")
