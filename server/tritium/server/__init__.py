"""A real Triton Inference Server from `pip install` alone."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._public import *  # noqa: F403
    from ._public import __all__ as __all__
else:
    # Every run of pytest imports this package for its plugin, wherever Tritium is installed: so nothing else is loaded
    # before somebody asks for it. A type checker does not see these two, or it would believe in any name.
    def __getattr__(name: str) -> object:
        try:
            return getattr(importlib.import_module("._public", __name__), name)
        except AttributeError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None

    def __dir__() -> list[str]:
        return [*globals(), *__getattr__("__all__")]
