"""A storage that keeps samples in memory: they are gone when the process ends. See `Storage` for each method."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vrekit.catalog.cells import Cell, CellWriter, Clip, DatasetWriter, Sample
from vrekit.catalog.garbage import GarbageCollector
from vrekit.catalog.payload_checks import PayloadChecker, PayloadInMemory, Problem
from vrekit.catalog.repairs import Repair, key_of
from vrekit.catalog.rows import by_payload
from vrekit.catalog.storage import MISSING, LostPart, PayloadPlaces, Storage, StoredPart
from vrekit.core.checksum import crc32
from vrekit.core.errors import DatasetError, LockedError
from vrekit.core.files import write_atomic
from vrekit.core.schema import SampleRow, rows_to_table


@dataclass(slots=True)
class _Group:
    """Samples of one group: rows, and payloads by their place."""

    rows: list[SampleRow] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)

    def keep(self, data: bytes | None) -> tuple[int | None, int | None]:
        """Keep a payload; return its place and checksum."""
        if data is None:
            return None, None
        self.payloads.append(data)
        return len(self.payloads) - 1, crc32(data)


@dataclass(slots=True)
class _Store:
    """One dataset: its groups, and cells that are open or were left open."""

    groups: dict[str, _Group] = field(default_factory=dict)
    open: dict[Cell, list[Sample | Clip]] = field(default_factory=dict)
    owned: set[Cell] = field(default_factory=set)
    version: int = 0


_STORES: dict[Path, _Store] = {}  # by folder


class MemoryStorage(Storage):
    """Samples in a dictionary of this process."""

    name = "memory"
    folder_name = "memory"
    outlives_process = False

    @property
    def _store(self) -> _Store:
        return _STORES.setdefault(self.folder.absolute(), _Store())

    def rows(self, columns: Sequence[str] | None = None, video_ids: Sequence[str] | None = None) -> pa.Table:
        """See Storage."""
        table = rows_to_table(row for group in self._store.groups.values() for row in group.rows)
        if video_ids is not None:
            table = table.filter(pc.is_in(table["video_id"], pa.array(video_ids, pa.string())))
        return table if columns is None else table.select(list(columns))

    def tables(
        self,
        columns: Sequence[str] | None = None,
        *,
        dictionaries: bool = False,
        lost: list[LostPart] | None = None,
    ) -> Iterator[pa.Table]:
        """See Storage."""
        yield self.rows(columns)

    def state(self) -> Iterator[bytes]:
        """See Storage."""
        yield f"{id(self._store)} {self._store.version}".encode()

    def shards(self) -> list[str]:
        """See Storage."""
        return [f"{self.folder_name}/{group}" for group in self._store.groups]

    def open_cells(self) -> list[Path]:
        """See Storage."""
        return [self.folder / self.folder_name / str(cell) for cell in self._store.open]

    @classmethod
    def is_in(cls, folder: Path) -> bool:
        """See Storage."""
        return folder.absolute() in _STORES

    @classmethod
    def parts(cls, folder: Path) -> list[StoredPart]:
        """See Storage."""
        store = _STORES.get(folder.absolute(), _Store())
        return [StoredPart(name, None, partial(_columns_of, group)) for name, group in store.groups.items()]

    def payloads(self, places: PayloadPlaces) -> "MemoryPayloads":
        """See Storage."""
        return MemoryPayloads({f"{self.folder_name}/{name}": one for name, one in self._store.groups.items()}, places)

    def writer(self) -> "MemoryWriter":
        """See Storage."""
        return MemoryWriter(self._store, self.folder_name)

    def check(self, checker: PayloadChecker) -> None:
        """See Storage."""
        for group in self._store.groups.values():
            table = rows_to_table(group.rows)
            promised = pa.array([checker.has_payload(row) for row in table.to_pylist()], pa.bool_())
            table = table.filter(promised)
            for row in table.filter(pc.is_null(table["payload_index"])).to_pylist():
                checker.check(row, PayloadInMemory(group.payloads[row["byte_offset"]]))
            for rows in by_payload(table):
                checker.check_clip(rows, PayloadInMemory(group.payloads[rows[0]["byte_offset"]]))

    def repair(self, path: str, problems: Sequence[Problem], work: Repair) -> None:
        """See Storage."""
        group = self._store.groups[path.removeprefix(f"{self.folder_name}/")]
        bad = {key_of(problem) for problem in problems}
        for row in [row for row in group.rows if (row.video_id, row.frame_index, row.representation) in bad]:
            if row.byte_offset is not None:
                write_atomic(work.place(work.manifest.member_name(row.to_dict())), group.payloads[row.byte_offset])
            group.rows.remove(row)
        self._store.version += 1
        work.report.shards.append(path)

    def collect_garbage(self, collector: GarbageCollector) -> None:
        """See Storage; the process's end frees everything."""

    def card_text(self) -> str:
        """See Storage."""
        return "The samples were in the memory of a process, and are gone with it."


class MemoryPayloads:
    """A PayloadReader over payloads in memory."""

    def __init__(self, groups: dict[str, _Group], places: PayloadPlaces) -> None:
        self._groups = groups
        self._places = places

    def read(self, rows: NDArray[np.int64], names: Sequence[str]) -> dict[str, list[memoryview | None]]:
        """See PayloadReader."""
        return {name: [self._read(int(row), name) for row in rows] for name in names}

    def _read(self, row: int, name: str) -> memoryview | None:
        column = self._places.columns[name]
        if column.shard[row] == MISSING:
            return None
        shard = self._places.shards[int(column.shard[row])]
        try:
            return memoryview(self._groups[shard].payloads[int(column.offset[row])])
        except (KeyError, IndexError):
            raise DatasetError(
                f"{shard}: the payload of {self._places.key(row)} is gone",
                hint="it was in the memory of another process",
            ) from None


class MemoryWriter(DatasetWriter):
    """Writes into memory."""

    def __init__(self, store: _Store, folder_name: str) -> None:
        self._store = store
        self._folder_name = folder_name

    def open_cell(self, cell: Cell) -> "MemoryCellWriter":
        """See DatasetWriter."""
        if cell in self._store.owned:
            raise LockedError(f"{cell} is being written by another process")
        return MemoryCellWriter(self._store, cell, f"{self._folder_name}/{cell.group}")

    def sweep(self, video_id: str) -> None:
        """See DatasetWriter: nothing outlives a commit."""

    def close(self) -> None:
        """See DatasetWriter: nothing spans cells."""


class MemoryCellWriter(CellWriter):
    """An open cell: a list of samples until it is committed."""

    def __init__(self, store: _Store, cell: Cell, shard: str) -> None:
        self._store = store
        self._cell = cell
        self._shard = shard
        store.owned.add(cell)
        self._added = store.open.setdefault(cell, [])
        found: dict[int, dict[str, str]] = {}
        for row in self._stored():
            if row.status == "ok":  # a stored frame that failed may be tried again
                found.setdefault(row.frame_index, {})[row.representation] = row.status
        for one in self._added:
            for row in one.rows if isinstance(one, Clip) else [payload.row for payload in one.payloads]:
                found.setdefault(row.frame_index, {})[row.representation] = row.status
        self._recovered = found

    def _stored(self) -> list[SampleRow]:
        group, cell = self._store.groups.get(self._cell.group, _Group()), self._cell
        return [
            row for row in group.rows if row.video_id == cell.video_id and cell.first <= row.frame_index <= cell.last
        ]

    @property
    def recovered(self) -> dict[int, dict[str, str]]:
        """See CellWriter."""
        return self._recovered

    def append(self, sample: Sample) -> None:
        """See CellWriter."""
        self._added.append(sample)

    def append_clip(self, clip: Clip) -> None:
        """See CellWriter."""
        self._added.append(clip)

    def flush(self) -> None:
        """See CellWriter: what is in memory is as durable as it gets here."""

    def commit(self) -> None:
        """See CellWriter."""
        if self._added:
            group = self._store.groups.setdefault(self._cell.group, _Group())
            for one in self._added:
                if isinstance(one, Clip):
                    place, checksum = group.keep(one.data)
                    group.rows += one.placed(shard=self._shard, byte_offset=place, checksum=checksum)
                    continue
                for payload in one.payloads:
                    place, checksum = group.keep(payload.data)
                    group.rows.append(payload.placed(shard=self._shard, byte_offset=place, checksum=checksum))
            self._store.version += 1
        self._store.open.pop(self._cell, None)
        self._store.owned.discard(self._cell)

    def suspend(self) -> None:
        """See CellWriter."""
        if not self._added:
            self._store.open.pop(self._cell, None)
        self._store.owned.discard(self._cell)


def _columns_of(group: _Group, columns: Sequence[str]) -> pa.Table:
    return rows_to_table(group.rows).select(list(columns))
