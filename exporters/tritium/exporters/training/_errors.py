"""What can go wrong in training, arguments aside.

TritiumError
└── TrainingError                        the loss is no longer a finite number
"""

from __future__ import annotations

from tritium.client import TritiumError


class TrainingError(TritiumError):
    """The loss is no longer a finite number; the module holds weights that are of no use.

    Attributes:
        epoch: in which it happened; the first is 1.
    """

    def __init__(self, message: str, *, epoch: int) -> None:
        self.epoch = epoch
        super().__init__(message)
