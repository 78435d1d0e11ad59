"""The `vrekit` command: parse, call, print. Everything it does is a library call that a notebook can make too."""


def main() -> None:
    """Run the command line; the entry point of the `vrekit` script."""
    from vrekit.cli.app import app

    app(prog_name="vrekit")
