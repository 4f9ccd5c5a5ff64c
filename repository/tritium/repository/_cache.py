"""Where Tritium keeps, per user, what was fetched and made once: the server's runtime, data sets."""

from __future__ import annotations

import os
from pathlib import Path

from tritium.client import InputError


def cache_dir() -> Path:
    """`$TRITIUM_CACHE_DIR`, else `$XDG_CACHE_HOME/tritium`, else `~/.cache/tritium`; it need not exist yet.

    Raises:
        InputError: nothing names one, and the user has no home.
    """
    if chosen := os.environ.get("TRITIUM_CACHE_DIR"):
        return Path(chosen).expanduser().absolute()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "tritium"
    try:
        return Path("~/.cache/tritium").expanduser()
    except RuntimeError as exc:
        raise InputError("There is no home folder for the cache; name a folder in TRITIUM_CACHE_DIR") from exc
