"""Write docs/cli.md from the commands' own help: `python -m tools.make_cli_docs` (a test checks it is current)."""

import os
import subprocess
import sys
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "docs" / "cli.md"

HEADER = """\
# Command line reference

Made from `vrekit … --help` by `python -m tools.make_cli_docs`; do not edit.

Data goes to stdout, everything for people to stderr. Exit codes: 0 done, 1 failed (or frames failed, or problems were
found), 2 wrong usage, 130 interrupted by Ctrl-C, 143 by SIGTERM. `vrekit --debug COMMAND` shows the traceback of an
error.
"""


def command_names() -> list[str]:
    """Return the commands in the order `vrekit --help` has them; groups give `group command`."""
    from typer.main import get_command

    from vrekit.cli.app import app

    names = []
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]  # the app is a group
        inner = getattr(command, "commands", None)
        if not inner or command.invoke_without_command:
            names.append(name)
        names += [f"{name} {sub}" for sub in inner or ()]
    return names


def help_text(arguments: list[str]) -> str:
    """Return the help of one command as plain text, 100 columns wide."""
    plain = {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb"}
    hidden = ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS")  # they make rich draw colours into a pipe
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | plain
    command = [sys.executable, "-m", "vrekit", *arguments, "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    return "\n".join(line.rstrip() for line in shown.strip().splitlines())


def render() -> str:
    """Return the whole page."""
    parts = [HEADER, f"## vrekit\n\n```text\n{help_text([])}\n```\n"]
    parts += [f"## vrekit {name}\n\n```text\n{help_text(name.split())}\n```\n" for name in command_names()]
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
