"""Every exception of the load tests.

TritiumError
└── LoadError                            Locust did not run to its end

KeyboardInterrupt
└── LoadInterrupted                      Ctrl-C ended a run; it has what was measured until then
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tritium.client import TritiumError

if TYPE_CHECKING:
    from ._result import LoadReport


class LoadError(TritiumError):
    """Locust did not run to its end, so there is no result."""


class LoadInterrupted(KeyboardInterrupt):
    """Ctrl-C ended a run before its time.

    Attributes:
        report: of what was measured until then.
    """

    def __init__(self, report: LoadReport) -> None:
        super().__init__()
        self.report = report
