"""The example of training a model of one's own does what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from tritium.repository import Manifest, Repository, open_artifact

ROOT = Path(__file__).resolve().parents[3]


def test_the_example_publishes_a_model_that_beats_the_mean_and_takes_missing_measures(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-W",
        "error",
        str(ROOT / "exporters/examples/train_your_own.py"),
        str(tmp_path / "mine"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "took the weights of epoch" in done.stdout
    folder = Repository(tmp_path / "mine").version_folder("diabetes_progression")
    manifest = Manifest.load(folder)
    assert manifest.metrics["rmse"] < 0.9 * manifest.baselines["rmse"]
    assert (folder / "learning_curve.png").is_file()
    row = np.array([[50, np.nan, 25, 90, 190, 110, 50, 4, 4.6, 90]], np.float32)
    answer = open_artifact(folder / "model.onnx", "onnxruntime")({"measures": row}, ["progression"])
    assert 25 < answer["progression"].item() < 346  # between the least and the most of anybody
