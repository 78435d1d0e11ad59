"""Samples for tests of writers, and a process that writes them until it is killed.

    python -m tests.contracts.writer_cells WRITER FOLDER RUN_ID POINT [NUMBER]

writes CELL, or the one that is NUMBER cells further, and dies by SIGKILL at POINT (one of POINTS[WRITER], or `never`).
"""

import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.storages import open_writer, read_samples
from vrekit.catalog.cells import Cell, DatasetWriter
from vrekit.catalog.storage import open_storage
from vrekit.testing import cells
from vrekit.testing.cells import (
    CELL,
    FRAMES,
    NAMES,
    expected_payloads,
    make_manifest,
    make_sample,
    payload_bytes,
    write_missing,
)

__all__ = [
    "CELL",
    "FRAMES",
    "NAMES",
    "POINTS",
    "STORAGES",
    "WRITERS",
    "expected_payloads",
    "identities",
    "make_manifest",
    "make_sample",
    "make_writer",
    "payload_bytes",
    "stored_payloads",
    "write_missing",
]

WRITERS = ("lance", "webdataset")
STORAGES = ("lance", "memory", "webdataset")


def make_writer(folder: Path, writer: str, **changes: Any) -> DatasetWriter:
    """Return the writer of such a dataset."""
    return open_writer(folder, make_manifest(writer, **changes))


def stored_payloads(folder: Path, writer: str, names: Iterable[str] = NAMES) -> dict[tuple[str, int, str], bytes]:
    """Return the payloads of a dataset as the readers see them, by (video, frame, representation)."""
    return cells.stored_payloads(open_storage(folder, make_manifest(writer, names)))


def identities(folder: Path) -> list[tuple[int, str, str]]:
    """Return (frame, representation, status) of every metadata row, sorted."""
    rows = read_samples(folder, columns=("frame_index", "representation", "status")).to_pylist()
    return sorted((row["frame_index"], row["representation"], row["status"]) for row in rows)


# -- the process that is killed ------------------------------------------------------------------------------------


def _kill(*_args: object, **_kwargs: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _then_kill(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        function(*args, **kwargs)
        _kill()

    return wrapped


def _torn(append: Callable[..., None]) -> Callable[..., None]:
    def wrapped(self: Any, *args: Any) -> None:
        append(self, *args)
        if self.last_frame == 19:
            self.flush()
        if self.last_frame == 24:
            self._write_chunks()  # bytes without their journal lines
            _kill()

    return wrapped


def _kill_at(point: str) -> None:
    import lance
    import lance.fragment

    from vrekit.writers import journal
    from vrekit.writers.lance import table as lance_table
    from vrekit.writers.lance import writer as lance_writer
    from vrekit.writers.webdataset import writer as webdataset

    def at_once(_function: object) -> Callable[..., None]:
        return _kill

    places: dict[str, tuple[Any, str, Callable[..., Any]]] = {
        "torn-flush": (journal.OpenShard, "append", _torn),
        "sealed": (journal.OpenShard, "seal", _then_kill),
        "linked": (webdataset, "_link", _then_kill),
        "sidecar": (webdataset, "write_atomic", _then_kill),
        "removing": (journal.OpenShard, "remove", at_once),
        "creating": (lance_table.LanceTable, "_create", at_once),
        "fragment": (lance.fragment, "write_fragments", _then_kill),
        "committed": (lance.LanceDataset, "commit", _then_kill),
        "tagged": (lance_table, "tag", _then_kill),
        "tidying": (lance_writer, "tidy", at_once),
    }
    if point != "never":
        owner, name, replace = places[point]
        changed = replace(getattr(owner, name))
        setattr(owner, name, staticmethod(changed) if owner is lance.LanceDataset else changed)


POINTS = {
    "webdataset": ("torn-flush", "sealed", "linked", "sidecar", "removing"),
    "lance": ("torn-flush", "creating", "fragment", "committed", "tagged", "removing", "tidying"),
}


def _main(writer: str, folder: str, run_id: str, point: str, number: str = "0") -> None:
    _kill_at(point)
    dataset = make_writer(Path(folder), writer)
    offset = 64 * int(number)
    cell = dataset.open_cell(Cell("car", "all", CELL.first + offset, CELL.last + offset))
    write_missing(cell, [frame + offset for frame in FRAMES], run_id=run_id)
    cell.commit()
    dataset.close()


if __name__ == "__main__":
    _main(*sys.argv[1:])
