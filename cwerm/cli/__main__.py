"""`python -m cwerm.cli` is `cwerm`."""

from cwerm.cli import main

main()
