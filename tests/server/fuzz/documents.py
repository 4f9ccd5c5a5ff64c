"""JSON documents, good and bad, and what Python's own reader, made strict, says of each."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from google.protobuf import json_format

from .models import Subject
from .request import FuzzError
from .tensors import packed, unpacked

MAX_DEPTH = 64
_AT_ONCE = 20_000
_NUMBERS = (
    "0",
    "-0",
    "1",
    "-1",
    "10",
    "1.5",
    "0.0",
    "1e5",
    "1E+5",
    "2e-7",
    "9223372036854775807",
    "-9223372036854775808",
)
_BIG_NUMBERS = ("9223372036854775808", "-9223372036854775809", "1" * 400, "1e99999", "0." + "3" * 200)
_NO_NUMBERS = ("01", "-", "+1", ".5", "1.", "1e", "1e+", "0x1", "--1", "NaN", "Infinity", "-Infinity", "1_0", "\uff11")
_CHARACTERS = (
    "a",
    " ",
    "é",
    "€",
    "𝄞",
    "\x7f",
    "\ufeff",
    "\uffff",
    "/",
    "name",
    '\\"',
    "\\\\",
    "\\/",
    "\\b\\f\\n\\r\\t",
)
_ESCAPES = ("\\u0000", "\\u0041", "\\u00e9", "\\u20AC", "\\uD834\\udd1e", "\\uffff", "\\u001f")
_NO_CHARACTERS = (
    "\n",
    "\x00",
    "\x1f",
    "\\u12",
    "\\uD834",
    "\\udd1e",
    "\\ud834\\u0041",
    "\\x41",
    "\\'",
    "\\u00g0",
    "\\",
)
_SPACES = ("", "", "", "", " ", "\n", "\t\r\n ")
_NO_SPACES = ("\x0b", "\x00", "\u00a0", "//x\n", "/**/", "\ufeff", ",")
_WORDS = ("true", "false", "null")
_NO_WORDS = ("True", "nul", "undefined", "'a'", "tru", "nullx", "")
_NO_UTF8 = (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xe2\x82", b"\xf4\x90\x80\x80", b"\x80", b"\xe0\x80\xaf", b"\xf5")


@dataclass(frozen=True)
class Number:
    """A number, by its text: no digit is lost."""

    text: str


def strict(document: bytes) -> Any:
    """What a document says.

    Raises:
        ValueError: it is no JSON, or has a key twice, half a surrogate pair, or too many levels.
    """
    try:
        value = json.loads(
            document.decode(), object_pairs_hook=_members, parse_int=Number, parse_float=Number, parse_constant=_refuse
        )
    except RecursionError as exc:
        raise ValueError("too many levels") from exc
    _look_through(value, 0)
    return value


def integer(value: Any) -> int | None:
    """The integer of 64 bits that a value is; in a string it counts too, as protobuf writes it."""
    text = value.text if isinstance(value, Number) else value
    if not isinstance(text, str) or not re.fullmatch(r"-?[0-9]+", text) or len(text) > 100:
        return None
    return int(text) if -(2**63) <= int(text) < 2**63 else None


def documents(count: int, seed: int, subjects: Sequence[Subject]) -> Iterator[bytes]:
    """So many documents: from the grammar, or a model's config; half of them changed somewhere."""
    configs = [
        json_format.MessageToJson(subject.config, preserving_proto_field_name=True).encode() for subject in subjects
    ]
    rng = Random(seed)
    former = b"[]"
    for _ in range(count):
        document = rng.choice(configs) if rng.random() < 0.1 else _Writer(rng).document()
        if rng.random() < 0.5:
            document = _changed(rng, document, former)
        former = document
        yield document


def compare(driver: Path, count: int, seed: int, subjects: Sequence[Subject]) -> tuple[int, int]:
    """Give the documents to the driver; how many it accepted and how many it refused.

    Raises:
        FuzzError: it died, or is of another opinion than Python.
    """
    accepted = refused = 0
    made = documents(count, seed, subjects)
    while batch := list(islice(made, _AT_ONCE)):
        done = subprocess.run([driver], input=packed(batch), capture_output=True)
        if done.returncode:
            raise FuzzError(f"the JSON reader ended with {done.returncode}:\n{done.stderr.decode(errors='replace')}")
        for document, answer in zip(batch, unpacked(done.stdout), strict=True):
            if _agrees(document, answer):
                accepted += 1
            else:
                refused += 1
    return accepted, refused


def _agrees(document: bytes, answer: bytes) -> bool:
    """Whether the driver accepts the document, which Python must do too, with the same value."""
    verdict, said = answer[:1], answer[1:].decode()
    try:
        value = strict(document)
    except ValueError as exc:
        if verdict == b"r":
            return False
        raise FuzzError(f"the JSON reader accepts {document!r}, which is wrong: {exc}") from exc
    if verdict == b"r":
        raise FuzzError(f"the JSON reader refuses {document!r}, which is right: {said}")
    number, _, written = said.partition("\n")
    if strict(written.encode()) != value:
        raise FuzzError(f"the JSON reader makes {written!r} of {document!r}")
    if number != str("" if integer(value) is None else integer(value)):
        raise FuzzError(f"the JSON reader takes {document!r} for the integer {number or 'none'}")
    return True


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key twice")
    return members


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _look_through(value: Any, depth: int) -> None:
    """Refuse what Python lets through: too many levels, and halves of surrogate pairs, which have no UTF-8."""
    if isinstance(value, str):
        value.encode()
    if isinstance(value, dict | list):
        if depth == MAX_DEPTH:
            raise ValueError("too many levels")
        for item in value:
            _look_through(item, depth + 1)
    if isinstance(value, dict):
        for item in value.values():
            _look_through(item, depth + 1)


class _Writer:
    """Writes a random document; now and then something in it is not JSON."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        # Most documents are right.
        self._slip = rng.choice((0.0, 0.0, 0.02))

    def document(self) -> bytes:
        text = self._space() + self._value(0) + self._space()
        if self._rng.random() < 0.02:
            levels = self._rng.choice((10, MAX_DEPTH - 2, MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 500, 20_000))
            text = self._nested(text, levels)
        return text.encode("utf-8", "surrogatepass")

    def _nested(self, text: str, levels: int) -> str:
        opening, closing = self._rng.choice((("[", "]"), ('{"a":', "}"), ('[1,{"":', "}]")))
        times = levels // (2 if opening.startswith("[1") else 1)
        return opening * times + (text if self._rng.random() < 0.5 or opening != "[" else "") + closing * times

    def _one(self, right: Sequence[str], wrong: Sequence[str]) -> str:
        return self._rng.choice(wrong if self._rng.random() < self._slip else right)

    def _space(self) -> str:
        return self._one(_SPACES, _NO_SPACES)

    def _value(self, depth: int) -> str:
        kind = self._rng.randrange(4 if depth >= 4 else 7)
        if kind == 0:
            return self._one((*_NUMBERS, *_BIG_NUMBERS, str(self._rng.getrandbits(64) - 2**63)), _NO_NUMBERS)
        if kind == 1:
            return self._one(_WORDS, _NO_WORDS)
        if kind <= 3:
            return self._string()
        items = [self._item(depth, named=kind == 6) for _ in range(self._rng.choice((0, 1, 2, 3, 5)))]
        brackets = "{}" if kind == 6 else "[]"
        return self._one((brackets[0],), "([{<") + self._one((",",), (";", ",,", " ")).join(items) + brackets[1]

    def _item(self, depth: int, *, named: bool) -> str:
        name = self._string() + self._space() + self._one((":",), ("=", "", "::")) if named else ""
        return self._space() + name + self._space() + self._value(depth + 1) + self._space()

    def _string(self) -> str:
        if self._rng.random() < 0.1:
            return f'"{self._one(_NUMBERS + _BIG_NUMBERS, _NO_NUMBERS)}"'
        parts = [self._one(_CHARACTERS + _ESCAPES, _NO_CHARACTERS) for _ in range(self._rng.choice((0, 1, 2, 8)))]
        return '"' + "".join(parts) + self._one(('"',), ("", "'"))


def _changed(rng: Random, document: bytes, former: bytes) -> bytes:
    """The document with a few bytes flipped, taken out, put in, or taken from another."""
    data = bytearray(document)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at : at + rng.choice((1, 2, 10))]
            case 2:
                data[at:at] = rng.choice((b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"0", b"e", b"\\u", b"-"))
            case 3:
                data[at:at] = rng.choice(_NO_UTF8)
            case 4:
                start = rng.randrange(len(former) + 1)
                data[at:at] = former[start : start + rng.randrange(20)]
            case _:
                del data[at:]
    return bytes(data)
