"""Payloads out of Lance tables by row id: one planned read for each representation of a batch."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vrekit.catalog.storage import MISSING, PayloadPlaces
from vrekit.core.errors import DatasetError
from vrekit.core.files import place_inside
from vrekit.core.fork_lock import ForkSafeLock
from vrekit.writers.lance.blobs import read_payloads
from vrekit.writers.lance.errors import reading_lance
from vrekit.writers.lance.places import check_blobs
from vrekit.writers.lance.rows import column_name, open_table

if TYPE_CHECKING:
    import lance


class LancePayloads:
    """A PayloadReader over `lance/*.lance`; the index's offsets are row ids, which outlive compaction.

    Threads share one handle of a table. A process opens its own, as Lance's handles do not survive a fork.
    """

    def __init__(self, folder: Path, index: PayloadPlaces) -> None:
        self._folder = folder
        self._index = index
        self._lock = ForkSafeLock()
        self._tables: dict[tuple[int, int], tuple[lance.LanceDataset, set[str]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tables": {}}

    def read(self, rows: NDArray[np.int64], names: Sequence[str]) -> dict[str, list[memoryview | None]]:
        """Return the payloads of `rows` by representation name; see `PayloadReader.read`."""
        return {name: self._read(rows, name) for name in names}

    def _read(self, rows: NDArray[np.int64], name: str) -> list[memoryview | None]:
        shards = self._index.columns[name].shard[rows]
        payloads: list[memoryview | None] = [None] * len(rows)
        for shard in np.unique(shards[shards != MISSING]).tolist():
            positions = np.flatnonzero(shards == shard)
            for position, data in zip(positions.tolist(), self._read_blobs(shard, name, rows[positions]), strict=True):
                payloads[position] = memoryview(data)
        return payloads

    def _read_blobs(self, shard: int, name: str, rows: NDArray[np.int64]) -> list[bytes]:
        path = place_inside(self._folder, self._index.shards[shard])
        column = self._index.columns[name]
        ids, sizes = column.offset[rows].tolist(), column.size[rows].tolist()
        table = self._open(shard, path, column_name(name))
        try:
            with reading_lance(path):
                found = read_payloads(table, column_name(name), ids, sizes)
        except DatasetError as error:
            for row in range(len(rows)) if len(rows) > 1 else ():
                self._read_blobs(shard, name, rows[row : row + 1])  # raises the error that names the frame
            key = self._index.key(int(rows[0]))
            raise DatasetError(f"frame {key}: the payload of {name!r}: {error.message}", hint=error.hint) from error
        payloads = [data for data in found if data is not None]
        if len(payloads) != len(ids):
            raise DatasetError(
                f"{path}: {len(ids) - len(payloads)} of {len(ids)} payloads of {name!r} are gone, "
                "but the metadata says that they are there",
                hint="`vrekit validate` lists what is damaged",
            )
        return payloads

    def _open(self, shard: int, path: Path, column: str) -> "lance.LanceDataset":
        key = (os.getpid(), shard)
        with self._lock:
            table, checked = self._tables.get(key) or (open_table(path), set[str]())
            self._tables[key] = table, checked
            if column not in checked:
                check_blobs(table, path, [column])
                checked.add(column)
            return table
