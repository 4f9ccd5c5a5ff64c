"""What publishing costs beside training: `digits_cnn` exported, verified and published, in seconds."""

from __future__ import annotations

import tempfile
import time

import torch

from tritium.exporters import export_torch
from tritium.exporters.training import seeded, train
from tritium.exporters.zoo import load_digits
from tritium.exporters.zoo.digits_cnn import DigitsCnn

ROUNDS = 3


def main() -> None:
    digits = load_digits()
    images = digits.train_pixels.reshape(-1, 1, 28, 28)
    held_out = digits.test_pixels.reshape(-1, 1, 28, 28)
    with seeded(0):
        model = DigitsCnn()
    started = time.perf_counter()
    train(model.layers, images / 255, digits.train_labels, loss=torch.nn.functional.cross_entropy, epochs=1)
    print(f"one epoch of training: {time.perf_counter() - started:.1f} s")
    for number in range(1, ROUNDS + 1):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            export_torch(model, {"image": held_out}, outputs=["probabilities"], name="digits_cnn", repository=folder)
            print(f"export, verify, publish, round {number}: {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
