"""Every exception of the exporters.

TritiumError
└── ExportError                          nothing was published
    ├── ConversionError                  the model cannot be converted; the message says what to do
    └── ParityError                      the converted model does not answer as the framework does
"""

from __future__ import annotations

from collections.abc import Sequence

from tritium.client import TritiumError
from tritium.repository import Difference


class ExportError(TritiumError):
    """A model was not exported. Nothing was published."""


class ConversionError(ExportError):
    """The converter does not take this model."""


_RIGHT_TOGETHER = ". It is right in the largest batches only: does a row's answer depend on the rows beside it?"
_NEARLY = ". If a difference of this size is harmless, pass a wider `tolerance`"


class ParityError(ExportError):
    """The converted model does not answer as the framework does.

    Attributes:
        differences: how far apart they are, by output.
    """

    def __init__(self, model: str, differences: Sequence[Difference]) -> None:
        self.differences = list(differences)
        wrong = [difference for difference in self.differences if not difference.ok]
        super().__init__(
            f"The converted {model!r} does not answer as the framework does on held-out data: "
            + "; ".join(map(str, self.differences))
            + ". Nothing was published"
            + (_RIGHT_TOGETHER if all(found.detail.startswith("in batches of") for found in wrong) else "")
            + (_NEARLY if all((found.max_rel or 1.0) < 1e-2 for found in wrong) else ""),
            model=model,
        )
