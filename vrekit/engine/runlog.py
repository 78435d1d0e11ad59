"""`runs/<run_id>.log`: everything vrekit logs while a run lasts."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vrekit.catalog.remote import RemoteDataset, remote_of
from vrekit.catalog.runs import RUNS_FOLDER
from vrekit.core.files import storage_errors

logger = logging.getLogger(__name__)


@contextmanager
def run_log(dataset: Path, run_id: str) -> Iterator[None]:
    """Write vrekit's log messages of level INFO and above to the run's log file."""
    path = dataset / RUNS_FOLDER / f"{run_id}.log"
    with storage_errors(path):
        handler = _LogFile(path, encoding="utf-8")
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
        if (remote := remote_of(dataset)) is not None:
            _put(remote, path)


def _put(remote: RemoteDataset, path: Path) -> None:
    try:
        remote.put(f"{RUNS_FOLDER}/{path.name}")
    except OSError as error:  # a log must not hide the error that is already on its way
        logger.warning("could not upload the log %s: %s", path.name, error)


class _LogFile(logging.FileHandler):
    """A log file that ends with one warning when the disk is full, instead of a traceback for every message."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message, unless an earlier one could not be written."""
        if self.stream is not None:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # the name is logging's
        """Give the file up, and say so where messages go that no handler takes: to stderr."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self._give_up()
        if logging.lastResort is not None:
            message = f"warning: the log {self.baseFilename} ends here: {os.strerror(error.errno or 0).lower()}"
            logging.lastResort.emit(logging.makeLogRecord({"msg": message, "levelno": logging.WARNING}))

    def close(self) -> None:
        """Close the file; what it has not written by then stays unwritten."""
        try:
            super().close()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        stream, self.stream = self.stream, None
        with suppress(OSError):
            if stream is not None:
                stream.close()
