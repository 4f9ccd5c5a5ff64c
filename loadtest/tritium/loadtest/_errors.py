"""Every exception of the load tests.

TritiumError
└── LoadError                            Locust did not run to its end
"""

from __future__ import annotations

from tritium.client import TritiumError


class LoadError(TritiumError):
    """Locust did not run to its end, so there is no result."""
