"""What a rule is, and the table that each is registered in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, TypeVar


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """Triton refuses it, misreads it or ends because of it, or it reaches where it must not."""
    WARNING = "warning"
    """It serves, but not as somebody would think who reads it."""
    NOTE = "note"
    """Worth knowing; nothing is wrong with it."""


@dataclass(frozen=True)
class Finding:
    """What a rule found.

    Attributes:
        code: which rule it was; `docs/lint.md` has them all.
        place: the file or the folder.
        fix: what to do about it.
    """

    code: str
    severity: Severity
    place: Path
    message: str
    fix: str

    def __str__(self) -> str:
        """As in ``error name-differs: /srv/models/iris/config.pbtxt: the config says …; call both alike``."""
        return f"{self.severity} {self.code}: {self.place}: {self.message}; {self.fix}"


class Problem(NamedTuple):
    """What a rule's function says of it; the rule has the rest."""

    place: Path
    message: str
    fix: str


Scope = TypeVar("Scope")
Check = Callable[[Scope], Iterator[Problem]]


@dataclass(frozen=True)
class Rule:
    """A check of a repository, a model or a version, as the type of what it takes says.

    Attributes:
        about: what it finds, in a sentence.
    """

    code: str
    severity: Severity
    about: str
    scope: type[Any]
    check: Check[Any]


RULES: dict[str, Rule] = {}


def rule(scope: type[Scope], code: str, severity: Severity) -> Callable[[Check[Scope]], Check[Scope]]:
    """Register a function that looks at a repository, a model or a version; its docstring says what it finds.

    Raises:
        ValueError: the code is taken, or there is no docstring.
    """

    def register(check: Check[Scope]) -> Check[Scope]:
        if code in RULES or not check.__doc__:
            raise ValueError(f"The rule {code!r} must have a code and a docstring of its own")
        RULES[code] = Rule(code, severity, " ".join(check.__doc__.split()), scope, check)
        return check

    return register


def shown(text: str, most: int = 80) -> str:
    """What somebody else wrote, as it can stand in a message."""
    return repr(text if len(text) <= most else f"{text[:most]}…")
