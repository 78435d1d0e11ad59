"""Tar datasets behind URLs: metadata from the local mirror, payloads by ranged reads, shards by conditional writes."""

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vrekit.catalog.manifest import Manifest
from vrekit.catalog.remote import RemoteDataset, refuse_remote
from vrekit.catalog.storage import MISSING, PayloadPlaces, ShortShard
from vrekit.core.errors import DatasetError, MissingObjectError
from vrekit.core.files import storage_errors
from vrekit.core.fork_lock import ForkSafeLock
from vrekit.core.stores import RangeReader, Store
from vrekit.writers.open_frames import count_open_frames
from vrekit.writers.webdataset.remote_scratch import open_partials, scratch_homes
from vrekit.writers.webdataset.sidecars import SHARDS_FOLDER, short_tars
from vrekit.writers.webdataset.storage import TarStorage
from vrekit.writers.webdataset.tars import Tars

if TYPE_CHECKING:
    from vrekit.catalog.garbage import GarbageCollector
    from vrekit.catalog.payload_checks import Problem
    from vrekit.catalog.repairs import Repair
    from vrekit.writers.webdataset.writer import WebDatasetWriter

_SHARDS_AT_ONCE = 8  # of one batch; the ranges inside of each are requested at once, too
_MAX_TAR_BYTES = 1 << 43
_LOST_HINT = "its metadata is there, so it was part of the dataset; `vrekit validate` lists damage"


class RemoteTarStorage(TarStorage):
    """WebDataset tars behind a URL."""

    def __init__(self, remote: RemoteDataset, manifest: Manifest) -> None:
        super().__init__(remote.folder, manifest)
        self.remote = remote

    def short_shards(self, rows: pa.Table) -> list[ShortShard]:
        """See Storage; it takes one listing, and nothing behind HTTP, which has none."""
        if not len(rows) or self.remote.store.location.scheme in ("http", "https"):
            return []
        return short_tars(self.folder, rows, RemoteTars(self.remote).size)

    def open_cells(self) -> list[Path]:
        """See Storage: those of this machine."""
        return [path for home in scratch_homes(self.remote) for path in open_partials(home)]

    def open_frames(self) -> dict[str, int]:
        """See Storage: those of this machine."""
        found: dict[str, int] = {}
        for home in scratch_homes(self.remote):
            for video_id, count in count_open_frames(home / SHARDS_FOLDER).items():
                found[video_id] = max(count, found.get(video_id, 0))
        return found

    def payloads(self, places: PayloadPlaces) -> "RemoteTarPayloads":  # type: ignore[override]  # another PayloadReader
        """See Storage."""
        return RemoteTarPayloads(self.remote.store, places)

    def writer(self) -> "WebDatasetWriter":
        """See Storage."""
        from vrekit.writers.webdataset.remote_writer import RemoteWebDatasetWriter

        return RemoteWebDatasetWriter(self.remote, self.manifest)

    def repair(self, path: str, problems: "Sequence[Problem]", work: "Repair") -> None:
        """Raise UsageError."""
        refuse_remote(self.folder, "repaired")

    def collect_garbage(self, collector: "GarbageCollector") -> None:
        """Raise UsageError."""
        refuse_remote(self.folder, "cleared up")

    def _tars(self) -> Tars:
        return RemoteTars(self.remote)


class RemoteTarPayloads:
    """A PayloadReader over tars in a store. Pickles; worker processes are spawned, as stores do not survive a fork."""

    def __init__(self, store: Store, index: PayloadPlaces) -> None:
        self._store = store
        self._index = index
        self._lock = ForkSafeLock()
        self._readers: dict[int, RangeReader] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": {}}

    def read(self, rows: NDArray[np.int64], names: Sequence[str]) -> dict[str, list[memoryview | None]]:
        """Return the payloads of `rows` by representation name; see `PayloadReader.read`."""
        count = len(rows)
        columns = [self._index.columns[name] for name in names]
        shards = np.concatenate([column.shard[rows] for column in columns] or [np.empty(0, np.int32)])
        starts = np.concatenate([column.offset[rows] for column in columns] or [np.empty(0, np.int64)])
        sizes = np.concatenate([column.size[rows] for column in columns] or [np.empty(0, np.int64)])
        payloads: list[memoryview | None] = [None] * len(shards)

        def read_shard(shard: int) -> None:
            places = np.flatnonzero(shards == shard).tolist()
            ranges = [(int(starts[at]), int(sizes[at])) for at in places]
            for at, data in zip(places, self._read_ranges(shard, ranges), strict=True):
                payloads[at] = data

        wanted = np.unique(shards[shards != MISSING]).tolist()
        if len(wanted) < 2:
            for shard in wanted:
                read_shard(shard)
        else:
            with ThreadPoolExecutor(min(len(wanted), _SHARDS_AT_ONCE)) as pool:
                list(pool.map(read_shard, wanted))
        return {name: payloads[at * count : (at + 1) * count] for at, name in enumerate(names)}

    def _read_ranges(self, shard: int, ranges: Sequence[tuple[int, int]]) -> list[memoryview]:
        name = self._index.shards[shard]
        with self._lock:
            if (reader := self._readers.get(shard)) is None:
                reader = self._readers[shard] = self._store.reader(name)
        try:
            return reader.read_ranges(ranges)
        except MissingObjectError:
            raise DatasetError(f"{self._store.where(name)} is gone", hint=_LOST_HINT) from None


class RemoteTars(Tars):
    """The tars in a store; one that is opened is copied to an unnamed file until it is closed."""

    def __init__(self, remote: RemoteDataset) -> None:
        self._store, self._cache = remote.store, remote.folder.parent
        self._sizes: dict[str, int] | None = None

    def open(self, name: str) -> int:
        """See Tars."""
        try:
            with storage_errors(self._cache), tempfile.TemporaryFile(dir=self._cache) as file:
                self._store.download(name, file, max_bytes=_MAX_TAR_BYTES)
                file.flush()
                return os.dup(file.fileno())
        except MissingObjectError:
            raise FileNotFoundError(name) from None

    def size(self, name: str) -> int:
        """See Tars."""
        if self._store.location.scheme in ("http", "https"):
            return self._store.head(name).size_bytes
        if self._sizes is None:
            listed = self._store.list(SHARDS_FOLDER)
            self._sizes = {info.name: info.size_bytes for info in listed if info.name.endswith(".tar")}
        if name not in self._sizes:
            raise FileNotFoundError(name)
        return self._sizes[name]

    def names(self) -> list[str]:
        """See Tars; behind HTTP, nobody can tell."""
        if self._store.location.scheme in ("http", "https"):
            return []
        return sorted(info.name for info in self._store.list(SHARDS_FOLDER) if info.name.endswith(".tar"))
