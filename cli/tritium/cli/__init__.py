"""The `tritium` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the `tritium` command with the arguments of this process."""
    try:
        from ._main import tritium
    except ImportError as exc:
        if exc.name != "click":
            raise
        print(
            "The `tritium` command needs the package 'click'. Install it with: pip install 'tritium[cli]'",
            file=sys.stderr,
        )
        sys.exit(2)
    tritium(prog_name="tritium")
