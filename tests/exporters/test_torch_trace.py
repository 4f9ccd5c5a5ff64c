"""What tracing would freeze is refused, also where the held-out rows do not show it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_iris
from torch import nn

from tritium.exporters import ConversionError, export_torch
from tritium.repository import Repository

Array = NDArray[Any]


@pytest.fixture(scope="module")
def rows() -> Array:
    """The flowers' four measures."""
    found: Array = load_iris().data.astype(np.float32)
    return found


def frozen(make: Any) -> nn.Module:
    class Frozen(nn.Module):
        def forward(self, measures: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = make(measures)
            return made

    return Frozen()


def set_aside(measures: torch.Tensor) -> torch.Tensor:
    """Hides what torch says of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return measures * float(measures.max())


@pytest.mark.parametrize(
    ("make", "quoted"),
    [
        (lambda x: x * 2 if x.sum() > 0 else x * 3, "Converting a tensor to a Python boolean might cause"),
        (lambda x: x * int(x.sum()), "Converting a tensor to a Python integer might cause"),
        (lambda x: x * x.mean().item(), "Converting a tensor to a Python number might cause"),
        (lambda x: x * sum(row.sum() for row in x), "Iterating over a tensor might cause"),
        (lambda x: x + torch.from_numpy(np.asarray(x.numpy())), "Converting a tensor to a NumPy array might cause"),
        (lambda x: x * torch.as_tensor(x), r"torch\.as_tensor of a tensor"),
        (lambda x: x * 2 if torch.equal(x, x.abs()) else x, r"torch\.equal of tensors"),
        (lambda x: x * [2.0, 3.0][x.sum() < 0], "Converting a tensor to a Python value"),
        (set_aside, "Converting a tensor to a Python value"),
        (lambda x: x if x.shape[0] < 1000 else x * 2, "Converting a tensor to a Python boolean might cause"),
    ],
)
def test_what_tracing_would_freeze_is_refused_in_its_words_even_where_the_rows_do_not_show_it(
    rows: Array, make: Any, quoted: str, tmp_path: Path
) -> None:
    """All measures are positive, so that comparing would find nothing."""
    with pytest.raises(ConversionError, match=rf"(?s)this Frozen would freeze .*: {quoted}.*{__file__}:.*script=True"):
        export_torch(
            frozen(make),
            {"measures": rows},
            outputs=["moved"],
            name="branch",
            repository=tmp_path / "models",
            formats="torchscript",
        )
    assert not (tmp_path / "models").exists()


def test_a_mask_that_torchs_own_layer_looks_at_is_a_branch_on_values(tmp_path: Path) -> None:
    """It takes another way for a causal mask, and torch warns of it as it does of shapes."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

        def forward(self, words: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            encoded: torch.Tensor = self.layers(words, mask[0])
            return encoded

    words = np.random.default_rng(0).normal(size=(4, 5, 8)).astype(np.float32)
    mask = np.zeros((4, 5, 5), np.float32)
    with pytest.raises(
        ConversionError, match=r"would freeze .*Converting a tensor to a Python value .*transformer\.py"
    ):
        export_torch(
            Masked(),
            {"words": words, "mask": mask},
            outputs=["y"],
            name="masked",
            repository=tmp_path / "models",
            formats="torchscript",
        )


@pytest.mark.parametrize(
    "module",
    [
        frozen(lambda x: nn.functional.group_norm(x * torch.tensor(2.0), 2)),
        frozen(lambda x: x * torch.tensor(x.shape[1], dtype=torch.float32)),
        nn.Sequential(nn.Unflatten(1, (2, 2)), nn.InstanceNorm1d(2), nn.Flatten()),
        nn.Sequential(
            nn.Unflatten(1, (1, 4)),
            nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 1),
            nn.Flatten(),
        ),
    ],
    ids=["constant", "shape", "layer", "transformer"],
)
@pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning")
def test_what_torch_warns_of_without_need_is_traced(rows: Array, module: nn.Module, tmp_path: Path) -> None:
    export_torch(
        module.eval(), {"measures": rows}, outputs=["moved"], name="one", repository=tmp_path, formats="torchscript"
    )
    assert Repository(tmp_path).versions("one") == [1]


def test_other_warnings_of_a_module_that_is_traced_are_still_heard(rows: Array, tmp_path: Path) -> None:
    def warns(measures: torch.Tensor) -> torch.Tensor:
        warnings.warn("measures are in cm", UserWarning, stacklevel=1)
        return measures * 2

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", message="measures are in cm")
        export_torch(
            frozen(warns), {"measures": rows}, outputs=["y"], name="one", repository=tmp_path, formats="torchscript"
        )
    assert {str(warning.message) for warning in heard} == {"measures are in cm"}
