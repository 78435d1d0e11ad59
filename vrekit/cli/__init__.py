"""The `vrekit` command: parse, call, print. Everything it does is a library call that a notebook can make too."""


def main() -> None:
    """Run the command line; the entry point of the `vrekit` script."""
    from vrekit.cli.app import app
    from vrekit.cli.interrupts import leave_statements

    try:
        app(prog_name="vrekit")
    except SystemExit as exit_:
        leave_statements(exit_.code)
        raise
