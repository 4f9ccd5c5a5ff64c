"""What a training run leaves: JSON for the manifest, and a picture."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from numpy.typing import NDArray
from torch import nn

from tritium.client import MissingExtraError
from tritium.exporters.training import History, seeded, train

Array = NDArray[Any]


@pytest.fixture(scope="module")
def history() -> History:
    rows = np.random.default_rng(0).normal(size=(40, 2))
    with seeded(0):
        module = nn.Linear(2, 1)
    return train(
        module,
        rows,
        rows.sum(axis=1, keepdims=True),
        loss=nn.functional.mse_loss,
        optimizer="rmsprop",
        learning_rate=0.05,
        epochs=6,
        l2=1e-4,
        validation=0.25,
        patience=3,
        schedule="cosine",
        metrics={"worst": lambda truth, given: np.abs(truth - given).max()},
        seed=5,
    )


def test_it_survives_json_and_says_how_the_weights_came_about(history: History) -> None:
    kept = json.loads(json.dumps(history.to_dict(), allow_nan=False))
    assert kept["settings"] == {
        "optimizer": "rmsprop",
        "learning_rate": 0.05,
        "schedule": "cosine",
        "batch_size": 32,
        "epochs": 6,
        "l1": 0.0,
        "l2": 1e-4,
        "patience": 3,
    }
    assert (kept["seed"], kept["rows"], kept["validation_rows"]) == (5, 30, 10)
    assert {name: len(curve) for name, curve in kept["curves"].items()} == {"loss": 6, "validation_loss": 6, "worst": 6}
    assert kept["best_epoch"] == history.best_epoch
    assert kept["seconds"] > 0
    assert kept["versions"]["torch"] == torch.__version__
    assert kept["versions"]["threads"] == torch.get_num_threads()


def test_the_curves_are_drawn_as_a_png_and_the_same_ones_again_byte_for_byte(history: History, tmp_path: Path) -> None:
    path = history.draw(tmp_path / "curve.png")
    assert path == tmp_path / "curve.png"
    picture = imread(path)
    assert picture.shape[:2] == (350, 1000)  # two panels: losses, and the metric
    assert np.unique(picture.reshape(-1, picture.shape[2]), axis=0).shape[0] > 10
    assert history.draw(str(tmp_path / "again.png")).read_bytes() == path.read_bytes()


def test_without_metrics_there_is_one_panel(tmp_path: Path) -> None:
    rows = np.ones((4, 1))
    history = train(nn.Linear(1, 1), rows, rows, loss=nn.functional.mse_loss, epochs=2)
    assert history.best_epoch is None
    assert imread(history.draw(tmp_path / "curve.png")).shape[:2] == (350, 500)


def test_drawing_without_matplotlib_says_what_brings_it(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"matplotlib.*pip install 'tritium\[zoo\]'"):
        history.draw(tmp_path / "curve.png")
    assert not list(tmp_path.iterdir())


def test_importing_the_training_kit_loads_no_framework() -> None:
    heavy = ("torch", "sklearn", "matplotlib", "skl2onnx", "onnx", "onnxruntime", "pandas")
    code = f"import sys, tritium.exporters.training; print(*(name for name in {heavy!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


def test_the_public_names_are_these() -> None:
    from tritium.exporters import training

    assert training.__all__ == [
        "CrossValidation",
        "History",
        "TrainingError",
        "cross_validate",
        "evaluate",
        "seeded",
        "train",
    ]
    assert all(hasattr(training, name) for name in training.__all__)
