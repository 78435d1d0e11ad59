"""`vrekit`, pausing in the main thread before the so-many-th call of a function, until a signal comes.

python -m tests.cli.paused MODULE:NAME NUMBER MARKER ARGUMENTS…

The file MARKER appears when the pause begins.
"""

import functools
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

PAUSE_SECONDS = 60


def pause(place: str, number: int, marker: Path) -> None:
    """Change the function at `place` (`module:name` or `module:Class.name`)."""
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner: Any = functools.reduce(getattr, owners, import_module(module))
    function = getattr(owner, name)
    calls = 0

    def paused(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            marker.touch()
            time.sleep(PAUSE_SECONDS)
        return function(*args, **kwargs)

    setattr(owner, name, paused)


if __name__ == "__main__":
    pause(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
    from vrekit.cli.app import app

    app(sys.argv[4:], prog_name="vrekit")
