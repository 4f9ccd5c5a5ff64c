"""What a training run was, and its learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tritium.client import MissingExtraError


@dataclass(frozen=True, kw_only=True)
class History:
    """A training run.

    Attributes:
        settings: the optimizer and its settings, as they were given to ``train``.
        seed: of the order of the rows, of the split and of dropout.
        curves: for each epoch ``loss`` (training rows, as they were met, without penalties) and, where there are
            validation rows, ``validation_loss`` and each metric.
        best_epoch: the epoch of the lowest validation loss, from 1; None without validation rows.
        stopped_early: whether the validation loss ended it; the module then has the weights of ``best_epoch``.
        rows: how many were trained on.
        validation_rows: how many were not.
        seconds: what it took.
        versions: of Python, numpy and torch, and torch's number of threads: what the last bits depend on.
    """

    settings: Mapping[str, Any]
    seed: int
    curves: Mapping[str, Sequence[float]]
    best_epoch: int | None
    stopped_early: bool
    rows: int
    validation_rows: int
    seconds: float
    versions: Mapping[str, str | int]

    @property
    def epochs(self) -> int:
        """How many there were."""
        return len(self.curves["loss"])

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON takes it, for a manifest's ``training``."""
        return asdict(self)

    def draw(self, path: str | Path) -> Path:
        """Write the curves as a PNG: losses on the left; metrics, if there are any, on the right.

        Returns:
            The path.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
            from matplotlib.ticker import MaxNLocator
        except ImportError as exc:
            raise MissingExtraError("matplotlib", "zoo") from exc
        losses = [name for name in self.curves if name.endswith("loss")]
        panels = [names for names in (losses, [name for name in self.curves if name not in losses]) if names]
        # A figure of its own, not pyplot's: no display is asked for and no state is shared.
        figure = Figure(figsize=(5 * len(panels), 3.5), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, names in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for name in names:
                axes.plot(range(1, self.epochs + 1), self.curves[name], marker=".", label=name.replace("_", " "))
            if self.best_epoch is not None:
                axes.axvline(self.best_epoch, color="grey", linestyle=":", label=f"best epoch ({self.best_epoch})")
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.legend()
        path = Path(path)
        figure.savefig(path, format="png", dpi=100, metadata={"Software": None})
        return path
