"""The tokenizer: what its graph makes of any text, alone and in company, and that it travels with its files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import tritium.exporters.text
from tritium.client import InputError
from tritium.exporters.text import PADDING, UNKNOWN, Tokenizer

TEXTS = ["The film, the FILM!", "a film? isn't the best", "best"]


def test_the_module_publishes_exactly_its_names_and_importing_it_loads_no_framework() -> None:
    assert tritium.exporters.text.__all__ == ["PADDING", "UNKNOWN", "WORDS", "Tokenizer"]
    heavy = ("torch", "sklearn", "skl2onnx", "onnx", "onnxruntime")
    code = f"import sys, tritium.exporters.text; print(*(name for name in {heavy} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.fit(TEXTS, size=6, max_length=5)


def test_the_vocabulary_has_the_most_frequent_words_and_of_equals_the_first_by_alphabet() -> None:
    assert Tokenizer.fit(TEXTS).vocabulary == ("film", "the", "best", "!", "?", "a", "isn't")
    assert Tokenizer.fit(TEXTS, size=6).vocabulary == ("film", "the", "best", "!")
    assert len(Tokenizer.fit(TEXTS, size=6)) == 6


def test_words_have_ids_others_are_unknown_and_the_rest_is_padding(tokenizer: Tokenizer) -> None:
    ids = tokenizer(["The best film!", "BEST story"])
    assert ids.dtype == np.int64
    np.testing.assert_array_equal(ids, [[3, 4, 2, 5, PADDING], [4, UNKNOWN, PADDING, PADDING, PADDING]])


def test_a_text_is_cut_at_max_length(tokenizer: Tokenizer) -> None:
    np.testing.assert_array_equal(tokenizer(["the " * 4 + "film best best"]), [[3, 3, 3, 3, 2]])


def test_characters_beyond_the_limit_do_not_count() -> None:
    tokenizer = Tokenizer(("a", "b", "bb"), max_length=600, max_characters=10)
    np.testing.assert_array_equal(tokenizer(["a a   a bbbbb", "é" * 9 + "a"]), [[2, 2, 2, 4, 0], [1, 0, 0, 0, 0]])
    assert tokenizer(["a " * 1_000_000, *["b"] * 63]).shape == (64, 6)
    boundless = Tokenizer(("a", "b"), max_length=600, max_characters=None)
    assert boundless([" " * 2000 + "b " * 600]).tolist() == [[3] * 600]
    assert boundless(["", ""]).tolist() == [[0], [0]]


@pytest.mark.parametrize("texts", [[""], ["", ""], ["...", " \t\n "], ["-" * 100_000]])
def test_texts_without_a_word_are_one_column_of_padding(tokenizer: Tokenizer, texts: list[str]) -> None:
    np.testing.assert_array_equal(tokenizer(texts), [[PADDING]] * len(texts))


def test_no_texts_at_all_are_no_rows(tokenizer: Tokenizer) -> None:
    assert tokenizer([]).shape == (0, 1)
    assert Tokenizer.fit([]).vocabulary == ()


def test_a_row_is_in_company_what_it_is_alone(tokenizer: Tokenizer) -> None:
    texts = ["", "the best film ever made by anybody", "film", "best film"]
    for row, text in zip(tokenizer(texts), texts, strict=True):
        (alone,) = tokenizer([text])
        np.testing.assert_array_equal(np.trim_zeros(row, "b"), np.trim_zeros(alone, "b"))


def test_letters_beyond_a_to_z_make_words_and_are_not_lowered() -> None:
    tokenizer = Tokenizer.fit(["été été 日本 Été"])
    assert tokenizer.vocabulary == ("été", "Été", "日本")
    np.testing.assert_array_equal(tokenizer(["ÉTÉ été 😀 日本 \0 x"]), [[1, 2, 4, 1, 0]])


def test_the_graph_gives_the_same_as_the_call(tokenizer: Tokenizer) -> None:
    model = tokenizer.to_onnx()
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (given,) = session.run(["token_ids"], {"text": np.array(TEXTS, dtype=object).reshape(-1, 1)})
    np.testing.assert_array_equal(given, tokenizer(TEXTS))


def test_texts_may_be_a_column(tokenizer: Tokenizer) -> None:
    column = np.array(TEXTS, dtype=object).reshape(-1, 1)
    np.testing.assert_array_equal(tokenizer(column), tokenizer(TEXTS))


def test_what_was_saved_is_loaded(tokenizer: Tokenizer, tmp_path: Path) -> None:
    files = tokenizer.save(tmp_path)
    assert {name: path.parent for name, path in files.items()} == dict.fromkeys(
        ("vocabulary.txt", "tokenizer.json"), tmp_path
    )
    assert files["vocabulary.txt"].read_text(encoding="utf-8").splitlines() == list(tokenizer.vocabulary)
    settings = json.loads(files["tokenizer.json"].read_bytes())
    assert (settings["max_length"], settings["padding_id"], settings["unknown_id"]) == (5, PADDING, UNKNOWN)
    assert Tokenizer.load(tmp_path) == tokenizer


def test_words_with_other_line_ends_survive_the_file(tmp_path: Path) -> None:
    tokenizer = Tokenizer(("a\rb", "c\x85d", "e\u2028f"), pattern=".+")
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path) == tokenizer


@pytest.mark.parametrize("damage", ["missing", "no json", "no pattern", "no utf-8"])
def test_a_folder_without_a_whole_tokenizer_is_refused(tokenizer: Tokenizer, tmp_path: Path, damage: str) -> None:
    files = tokenizer.save(tmp_path)
    if damage == "missing":
        files["vocabulary.txt"].unlink()
    elif damage == "no utf-8":
        files["vocabulary.txt"].write_bytes(b"\xff\n")
    else:
        files["tokenizer.json"].write_text("{" if damage == "no json" else '{"max_length": 5}', encoding="utf-8")
    with pytest.raises(InputError, match=r"There is no tokenizer in .*Tokenizer\.save"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("vocabulary", "options", "message"),
    [
        (("a", "a"), {}, "got 'a'"),
        (("",), {}, "got ''"),
        (("a\nb",), {}, "line break"),
        (("a",), {"max_length": 0}, "'max_length' parameter of Tokenizer must be 1 or more, got 0"),
        (("a",), {"max_characters": 1001}, "'max_characters' parameter .* from 1 to 1000, or None .*, got 1001"),
    ],
)
def test_a_vocabulary_or_length_that_cannot_be_is_refused(
    vocabulary: tuple[str, ...], options: dict[str, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Tokenizer(vocabulary, **options)  # type: ignore[arg-type]


def test_a_pattern_that_is_no_regular_expression_is_refused_with_a_hint() -> None:
    with pytest.raises(InputError, match=r"Is '\(' a regular expression as RE2 has them"):
        Tokenizer.fit(TEXTS, pattern="(")


def test_a_size_without_room_for_a_word_is_refused() -> None:
    with pytest.raises(InputError, match=r"'size' parameter of Tokenizer\.fit must be 3 or more, got 2"):
        Tokenizer.fit(TEXTS, size=2)


@pytest.mark.parametrize("texts", [[b"bytes"], ["fine", None], [1.5]])
def test_what_is_no_text_is_refused_with_its_row(tokenizer: Tokenizer, texts: list[str]) -> None:
    with pytest.raises(InputError, match=rf"must be str, got .* in row {len(texts) - 1}"):
        tokenizer(texts)


def test_a_table_of_texts_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match=r"of shape \(rows,\) or \(rows, 1\), got \(2, 2\)"):
        tokenizer(np.array([["a", "b"], ["c", "d"]], dtype=object))
