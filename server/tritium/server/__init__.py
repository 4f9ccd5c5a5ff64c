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
        public = None if name.startswith("_") and name != "__all__" else importlib.import_module("._public", __name__)
        if not hasattr(public, name):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals().setdefault(name, getattr(public, name))

    def __dir__() -> list[str]:
        return [*globals(), *__getattr__("__all__")]
