"""Payloads out of tar shards by byte offset: one positioned read for neighbours, no tar header is ever parsed."""

import os
import resource
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrekit.catalog.storage import MISSING, PayloadPlaces
from vrekit.core.errors import DatasetError
from vrekit.core.files import open_regular, place_inside
from vrekit.core.fork_lock import ForkSafeLock

# Payloads of one shard with less than this between them are read in one go: tar headers and small neighbours. Larger
# gaps cost more than another positioned read does, and a sparse subset would read much that nobody asked for.
MAX_GAP_BYTES = 16 << 10
MAX_READ_BYTES = 64 << 20  # one go never grows beyond this, whatever lies side by side
MAX_OPEN_FILES = max(64, min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4))  # of the process's limit


class _File:
    """An open descriptor that closes with its last user."""

    def __init__(self, path: Path) -> None:
        self.descriptor = open_regular(path)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # at the interpreter's exit, `os` is gone
        if hasattr(self, "descriptor"):
            close(self.descriptor)


class TarPayloads:
    """A PayloadReader over `shards/**.tar`.

    Positioned reads share no file position, so threads and forked processes may use the same descriptors.
    """

    def __init__(self, folder: Path, index: PayloadPlaces) -> None:
        self._folder = folder
        self._index = index
        self._lock = ForkSafeLock()
        self._files: OrderedDict[int, _File] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": OrderedDict()}

    def read(self, rows: NDArray[np.int64], names: Sequence[str]) -> dict[str, list[memoryview | None]]:
        """Return the payloads of `rows` by representation name; see `PayloadReader.read`."""
        count = len(rows)
        columns = [self._index.columns[name] for name in names]
        shards = np.concatenate([column.shard[rows] for column in columns] or [np.empty(0, np.int32)])
        starts = np.concatenate([column.offset[rows] for column in columns] or [np.empty(0, np.int64)])
        ends = starts + np.concatenate([column.size[rows] for column in columns] or [np.empty(0, np.int64)])
        payloads: list[memoryview | None] = [None] * len(shards)
        for group in _neighbours(shards, starts, ends):
            start, end = int(starts[group[0]]), int(ends[group].max())
            data = memoryview(self._read_span(int(shards[group[0]]), start, end))
            for at in group.tolist():
                payloads[at] = data[int(starts[at]) - start : int(ends[at]) - start]
        return {name: payloads[at * count : (at + 1) * count] for at, name in enumerate(names)}

    def _read_span(self, shard: int, start: int, end: int) -> bytes:
        name = self._index.shards[shard]
        file = self._open(shard, name)
        parts = []
        try:
            if end - start > MAX_READ_BYTES:  # a damaged row may ask for more memory than there is
                size = os.fstat(file.descriptor).st_size
                if end > size:
                    raise _cut_off(self._folder / name, size, end)
            while start < end:
                part = os.pread(file.descriptor, end - start, start)
                if not part:
                    raise _cut_off(self._folder / name, start, end)
                parts.append(part)
                start += len(part)
        except OSError as error:
            raise DatasetError(f"{self._folder / name} cannot be read: {error.strerror or error}") from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _open(self, shard: int, name: str) -> _File:
        with self._lock:
            file = self._files.get(shard)
            if file is None:
                path = place_inside(self._folder, name)
                try:
                    file = self._files[shard] = _File(path)
                except OSError as error:
                    raise DatasetError(
                        f"{path} cannot be opened: {error.strerror or error}",
                        hint="its metadata is there, so it was part of the dataset; `vrekit validate` lists damage",
                    ) from error
                if len(self._files) > MAX_OPEN_FILES:
                    self._files.popitem(last=False)  # a thread that is reading from it keeps it open
            else:
                self._files.move_to_end(shard)
            return file


def _cut_off(path: Path, found: int, wanted: int) -> DatasetError:
    return DatasetError(
        f"{path} ends at byte {found}, but its metadata says that a payload goes on to byte {wanted}",
        hint="the shard was cut off after it was written; `vrekit validate` lists what is damaged",
    )


def _neighbours(
    shards: NDArray[np.int32], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """Return groups of positions to read in one go each, in storage order."""
    order = np.lexsort((starts, shards))
    order = order[shards[order] != MISSING]
    if not len(order):
        return []
    shard, start, end = shards[order], starts[order], ends[order]
    far = (np.diff(shard) != 0) | (start[1:] - end[:-1] >= MAX_GAP_BYTES)
    cuts = np.flatnonzero(far) + 1
    groups = []
    for group in np.split(order, cuts):
        first = 0
        for at in range(1, len(group)):
            if ends[group[at]] - starts[group[first]] > MAX_READ_BYTES:
                groups.append(group[first:at])
                first = at
        groups.append(group[first:])
    return groups
