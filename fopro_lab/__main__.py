"""`python -m fopro_lab` is `fopro`."""

from fopro_lab.cli import main

main()
