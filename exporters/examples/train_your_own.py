"""Train a network on what scikit-learn prepares, and publish both as one model: raw measures in, progression out.

Its penalty is chosen by cross-validation, its epochs by early stopping; the learning curve lies beside the model.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from tritium.exporters import Provenance, export_onnx, join_onnx, sklearn_to_onnx, torch_to_onnx
from tritium.exporters.training import cross_validate, seeded, train
from tritium.repository import Tolerance


def make() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 1))


def main(repository: str) -> int:
    torch.set_num_threads(1)  # a network this small only waits for more of them
    data = load_diabetes(scaled=False)
    measures, progression = data.data.astype(np.float32), data.target[:, np.newaxis].astype(np.float32)
    measures, held_out, progression, truth = train_test_split(measures, progression, random_state=0)

    # Whoever calls the model may leave a measure out (NaN), and need not scale any.
    prepare = make_pipeline(SimpleImputer(), StandardScaler())
    rows = prepare.fit_transform(measures)

    settings: dict[str, Any] = {
        "loss": nn.functional.mse_loss,
        "learning_rate": 0.02,
        "epochs": 100,
        "validation": 0.2,
        "patience": 10,
    }
    errors = {l2: cross_validate(make, rows, progression, l2=l2, **settings).mean["loss"] for l2 in (0.0, 1.0, 10.0)}
    l2 = min(errors, key=lambda candidate: errors[candidate])
    with seeded(0):
        net = make()
    history = train(net, rows, progression, l2=l2, **settings, progress=partial(print, "  "))

    with torch.inference_mode():
        predicted = net(torch.from_numpy(prepare.transform(held_out))).numpy()
    prepare_onnx = sklearn_to_onnx(prepare, {"measures": held_out}, ["prepared"])
    net_onnx = torch_to_onnx(net, {"prepared": held_out}, ["progression"])
    joined = join_onnx(prepare_onnx, net_onnx, {"prepared": "prepared"})
    with tempfile.TemporaryDirectory() as folder:
        published = export_onnx(
            joined,
            {"measures": held_out},
            {"progression": predicted},
            name="diabetes_progression",
            repository=repository,
            files={"learning_curve.png": history.draw(Path(folder) / "learning_curve.png")},
            tolerance=Tolerance(atol=1e-4, rtol=1e-5),
            provenance=Provenance(
                source=Path(__file__).name,
                metrics={"rmse": rmse(predicted, truth)},
                baselines={"rmse": rmse(progression.mean(), truth)},
                training=history.to_dict(),
            ),
            frameworks=("scikit-learn", "skl2onnx", "torch"),
        )
    print(
        f"{published.folder}: rmse {rmse(predicted, truth):.1f}, the mean reaches {rmse(progression.mean(), truth):.1f}"
    )
    return 0


def rmse(predicted: np.ndarray | np.floating, truth: np.ndarray) -> float:
    return float(np.sqrt(np.square(predicted - truth).mean()))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:] or ["models"]))
