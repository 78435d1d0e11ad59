"""`runs/<run_id>.log`: everything vrekit logs while a run lasts."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vrekit.catalog.runs import RUNS_FOLDER
from vrekit.core.files import storage_errors


@contextmanager
def run_log(dataset: Path, run_id: str) -> Iterator[None]:
    """Write vrekit's log messages of level INFO and above to the run's log file."""
    path = dataset / RUNS_FOLDER / f"{run_id}.log"
    with storage_errors(path):
        handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("vrekit")
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()
