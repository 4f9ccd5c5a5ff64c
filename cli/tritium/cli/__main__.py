"""`python -m tritium.cli` is `tritium`."""

from tritium.cli import main

main()
