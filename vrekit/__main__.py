"""`python -m vrekit`: the same as the `vrekit` command."""

from vrekit.cli import main

main()
