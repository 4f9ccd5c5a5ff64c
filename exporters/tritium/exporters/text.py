"""Text for models: a tokenizer that is itself an ONNX graph, so that training and serving cannot disagree about it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tritium.client import InputError, MissingExtraError

from ._onnx import OPSET

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["PADDING", "UNKNOWN", "WORDS", "Tokenizer"]

# Words of any script with their apostrophes, and the two marks that say how a sentence is meant.
WORDS = r"[\pL\pN']+|[!?]"
PADDING = 0
UNKNOWN = 1
Texts = Sequence[str] | NDArray[Any]
_OPSETS = {"": OPSET, "ai.onnx.ml": 4, "com.microsoft": 1}
_IR_VERSION = 10
_CONSTANTS: dict[str, Any] = {"flat": [-1], "along": [1], "start": [0], "one": [1], "blank": np.array(" ", object)}
# RE2 counts no further.
_MOST_CHARACTERS = 1000


@dataclass(frozen=True)
class Tokenizer:
    """Turns text into the ids of its words, by a graph that ONNX Runtime runs, here as on the server.

    Text is UTF-8; the letters A to Z are lowered, all others are taken as they are, because what else a server lowers
    depends on the languages that are installed on it. Id 0 is padding, id 1 every word that is not in the vocabulary.

    Attributes:
        vocabulary: the words that have ids, from id 2 on.
        max_length: most words of a text that count; what comes after them is cut.
        max_characters: most characters of a text that are looked at, up to 1000; None for all. ONNX Runtime keeps the
            words of a batch in a table as wide as its longest text: without a limit, one text of a megabyte among 63
            short ones takes more than a gigabyte.
        pattern: a regular expression (RE2) that matches one word; everything between two matches is dropped.

    Raises:
        InputError: a word is there twice, is empty or has a line break, or a number is out of its range.
    """

    vocabulary: tuple[str, ...]
    max_length: int = 64
    max_characters: int | None = _MOST_CHARACTERS
    pattern: str = WORDS

    def __post_init__(self) -> None:
        if self.max_length < 1:
            raise InputError(
                f"The 'max_length' parameter of Tokenizer must be 1 or more, got {self.max_length} instead"
            )
        if self.max_characters is not None and not 1 <= self.max_characters <= _MOST_CHARACTERS:
            raise InputError(
                f"The 'max_characters' parameter of Tokenizer must be from 1 to {_MOST_CHARACTERS}, or None for no "
                f"limit, got {self.max_characters}"
            )
        wrong = [word for word, count in Counter(self.vocabulary).items() if count > 1 or not word or "\n" in word]
        if wrong:
            raise InputError(
                "The 'vocabulary' parameter of Tokenizer must have each word once, and none that is empty or has a "
                f"line break, got {wrong[0]!r}"
            )

    @classmethod
    def fit(
        cls,
        texts: Texts,
        *,
        size: int = 10_000,
        max_length: int = 64,
        max_characters: int | None = _MOST_CHARACTERS,
        pattern: str = WORDS,
    ) -> Tokenizer:
        """Take the most frequent words of some texts as the vocabulary; of equally frequent ones the first by alphabet.

        Args:
            texts: what to learn from; texts of the held-out part do not belong here.
            size: how many ids there are at most, padding and the unknown word among them.
            max_length: most words of a text that count.
            max_characters: most characters of a text that are looked at; None for all.
            pattern: a regular expression (RE2) that matches one word.

        Raises:
            InputError: `size` leaves no id for a word, or the pattern is no regular expression.
            MissingExtraError: onnx or onnxruntime is not installed.
        """
        if size <= UNKNOWN + 1:
            raise InputError(f"The 'size' parameter of Tokenizer.fit must be 3 or more, got {size} instead")
        empty = cls((), max_length, max_characters, pattern)
        splitter = _session(_model(empty._split(), {}, "words", _onnx().TensorProto.STRING), pattern)
        words = splitter.run(None, {"text": _column(texts)})[0] if len(texts) else np.array([], object)
        counts = Counter(words.ravel().tolist())
        counts.pop("", None)
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return replace(empty, vocabulary=tuple(ranked[: size - UNKNOWN - 1]))

    def __len__(self) -> int:
        """How many ids there are: the rows of an embedding."""
        return len(self.vocabulary) + UNKNOWN + 1

    def __call__(self, texts: Texts) -> NDArray[np.int64]:
        """The ids of the words of some texts.

        Args:
            texts: strings, or an array of them of shape (rows,) or (rows, 1).

        Returns:
            Ids of shape (rows, length), padded with 0 behind the last word. `length` is one more than the longest text
            has words, and at most `max_length`.

        Raises:
            InputError: a text is no string.
            MissingExtraError: onnx or onnxruntime is not installed.
        """
        if not len(texts):
            return np.zeros((0, 1), np.int64)
        ids: NDArray[np.int64] = self._session.run(None, {"text": _column(texts)})[0]
        return ids

    def to_onnx(self) -> ModelProto:
        """The tokenizer as a model of its own, to be put before a network by `join_onnx`.

        Returns:
            A model from ``text``, strings of shape (rows, 1), to ``token_ids``, int64 of shape (rows, length), as the
            call gives them. It uses ONNX Runtime's own operator ``com.microsoft.Tokenizer``, which every build has.

        Raises:
            MissingExtraError: onnx is not installed.
        """
        helper = _onnx().helper
        nodes = [
            *self._split(),
            helper.make_node(
                "LabelEncoder",
                ["words"],
                ["ids"],
                domain="ai.onnx.ml",
                keys_strings=["", *self.vocabulary],
                values_int64s=[PADDING, *range(UNKNOWN + 1, len(self))],
                default_int64=UNKNOWN,
            ),
            # A column of padding more: a batch in which nobody says a word has a length too.
            helper.make_node("Pad", ["ids", "one_behind", "padding", "along"], ["padded"]),
            helper.make_node("Slice", ["padded", "start", "end", "along"], ["token_ids"]),
        ]
        constants = {"one_behind": [0, 1], "padding": PADDING, "end": [self.max_length]}
        return _model(nodes, constants, "token_ids", _onnx().TensorProto.INT64)

    def save(self, folder: str | Path) -> dict[str, Path]:
        """Write ``vocabulary.txt``, a word a line in the order of their ids, and ``tokenizer.json``, the rest.

        Returns:
            The files by name, as the `files` parameter of `export_onnx` takes them.
        """
        files = {name: Path(folder) / name for name in ("vocabulary.txt", "tokenizer.json")}
        files["vocabulary.txt"].write_bytes("".join(f"{word}\n" for word in self.vocabulary).encode())
        settings = {
            "max_length": self.max_length,
            "max_characters": self.max_characters,
            "pattern": self.pattern,
            "lower_case": "A to Z",
            "padding_id": PADDING,
            "unknown_id": UNKNOWN,
            "first_word_id": UNKNOWN + 1,
        }
        files["tokenizer.json"].write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        return files

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """The tokenizer that `save` wrote into a folder, a model's version for one.

        Raises:
            InputError: there is none, or its files are damaged.
        """
        try:
            words = (Path(folder) / "vocabulary.txt").read_bytes().decode().split("\n")[:-1]
            settings = json.loads((Path(folder) / "tokenizer.json").read_bytes())
            return cls(tuple(words), settings["max_length"], settings["max_characters"], settings["pattern"])
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise InputError(
                f"There is no tokenizer in {folder}: {exc!r}. It needs the vocabulary.txt and the tokenizer.json that "
                "Tokenizer.save wrote together"
            ) from exc

    def _split(self) -> list[NodeProto]:
        """From `text`, of shape (rows, 1), to `words`, of shape (rows, most words), with empty strings behind them."""
        make_node = _onnx().helper.make_node
        cut = [
            # Never nothing: in a batch of empty texts too, each has a first piece.
            make_node("StringConcat", ["rows", "blank"], ["not_empty"]),
            _matches("not_empty", f"(?s).{{1,{self.max_characters}}}", "pieces"),
            make_node("Slice", ["pieces", "start", "one", "along"], ["first_piece"]),
            make_node("Reshape", ["first_piece", "flat"], ["cut"]),
        ]
        limited = self.max_characters is not None
        return [
            make_node("Reshape", ["text", "flat"], ["rows"]),
            *(cut if limited else []),
            # Without a locale it asks for American English, and does not load where that is not installed.
            make_node(
                "StringNormalizer", ["cut" if limited else "rows"], ["lowered"], case_change_action="LOWER", locale="C"
            ),
            _matches("lowered", self.pattern, "words"),
        ]

    @cached_property
    def _session(self) -> Any:
        return _session(self.to_onnx(), self.pattern)


def _matches(text: str, pattern: str, output: str) -> NodeProto:
    """From strings of shape (rows,) to all that matches in each, (rows, most), with empty strings behind the last."""
    options = {"tokenexp": pattern, "mark": 0, "mincharnum": 1, "pad_value": ""}
    node: NodeProto = _onnx().helper.make_node("Tokenizer", [text], [output], domain="com.microsoft", **options)
    return node


def _model(nodes: list[NodeProto], constants: Mapping[str, Any], output: str, dtype: int) -> ModelProto:
    onnx = _onnx()
    make_info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "tokenizer",
        [make_info("text", onnx.TensorProto.STRING, ["batch", 1])],
        [make_info(output, dtype, ["batch", "length"])],
        [
            onnx.numpy_helper.from_array(np.array(value), name)
            for name, value in {**_CONSTANTS, **constants}.items()
            if any(name in node.input for node in nodes)
        ],
        # No schema says what Tokenizer gives, and onnx's shape inference dies of a LabelEncoder on what it knows not.
        value_info=[make_info("words", onnx.TensorProto.STRING, ["batch", "most_words"])],
    )
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in _OPSETS.items()]
    model: ModelProto = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
    return model


def _session(model: ModelProto, pattern: str) -> Any:
    try:
        import onnxruntime
    except ImportError as exc:
        raise MissingExtraError("onnxruntime", "onnxruntime") from exc
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised
    options.intra_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as exc:
        raise InputError(
            f"The tokenizer does not load in ONNX Runtime {onnxruntime.__version__}: {exc}. Is {pattern!r} a regular "
            "expression as RE2 has them (without look-around and back-references)?"
        ) from exc


def _column(texts: Texts) -> NDArray[Any]:
    """Texts as ONNX Runtime takes them, of shape (rows, 1)."""
    column = np.array(texts, dtype=object)
    if column.shape not in ((len(column),), (len(column), 1)):
        raise InputError(f"Texts must be of shape (rows,) or (rows, 1), got {column.shape} instead")
    for row, text in enumerate(column.ravel()):
        if not isinstance(text, str):
            raise InputError(f"Texts must be str, got {text!r} in row {row} instead")
    return column.reshape(-1, 1)


def _onnx() -> ModuleType:
    try:
        import onnx
    except ImportError as exc:
        raise MissingExtraError("onnx", "exporters") from exc
    return onnx
