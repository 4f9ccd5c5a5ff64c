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


class ParityError(ExportError):
    """The converted model does not answer as the framework does.

    Attributes:
        differences: how far apart they are, by output.
    """

    def __init__(self, model: str, differences: Sequence[Difference]) -> None:
        self.differences = list(differences)
        super().__init__(
            f"The converted {model!r} does not answer as the framework does on held-out data: "
            + "; ".join(map(str, self.differences))
            + ". Nothing was published. If a difference of this size is harmless, pass a wider `tolerance`"
        )
