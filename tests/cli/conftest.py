"""`run`: the command line, called in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from vrekit.cli.app import app


@pytest.fixture
def run() -> Callable[..., Result]:
    """Return a function that runs `vrekit` with its arguments."""
    runner = CliRunner()

    def invoke(*arguments: str | Path) -> Result:
        return runner.invoke(app, [str(argument) for argument in arguments])

    return invoke
