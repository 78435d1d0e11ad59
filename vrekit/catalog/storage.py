"""The seam between a dataset and how its samples lie on disk: everything that asks which storage it is, asks here.

A `Storage` is also the handle of a dataset: the folder, and the manifest in it. To add a storage, write a subclass in a
folder of its own in `writers/`, and one line in `storage_types.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vrekit.catalog.manifest import Manifest, read_manifest
from vrekit.catalog.remote import RemoteDataset, dataset_folder, remote_of
from vrekit.catalog.storage_types import STORAGES
from vrekit.core.errors import DatasetError, UsageError
from vrekit.core.files import check_folder

if TYPE_CHECKING:  # a reader needs none of these
    from vrekit.catalog.cells import DatasetWriter
    from vrekit.catalog.garbage import GarbageCollector
    from vrekit.catalog.payload_checks import PayloadChecker, Problem
    from vrekit.catalog.repairs import Repair
    from vrekit.catalog.rows import GroupedRows
    from vrekit.catalog.runs import ShardFacts

Advance = Callable[[int], None]  # called with the bytes that were done since the last call

PLACE_COLUMNS = ("byte_offset", "byte_size", "shard")  # what `short_shards` looks at
MISSING = -1  # number of the shard, in `PayloadPlaces`, where a frame has no payload


class StoredPlaces(Protocol):
    """Where one representation's payloads are, by row: number of the shard (or MISSING), first byte, bytes."""

    @property
    def shard(self) -> NDArray[np.int32]: ...  # noqa: D102
    @property
    def offset(self) -> NDArray[np.int64]: ...  # noqa: D102
    @property
    def size(self) -> NDArray[np.int64]: ...  # noqa: D102


class PayloadPlaces(Protocol):
    """Where payloads are, by row and representation; `shards` are paths relative to the dataset."""

    @property
    def shards(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def columns(self) -> Mapping[str, StoredPlaces]: ...  # noqa: D102
    def key(self, row: int, /) -> str: ...  # noqa: D102


class PayloadReader(Protocol):
    """Reads payloads; threads may call it at once, and it works after pickling and in forked processes."""

    def read(self, rows: NDArray[np.int64], names: Sequence[str]) -> dict[str, list[memoryview | None]]:
        """Return the payloads of `rows` by representation name; None where a row has none.

        Raises:
            DatasetError: If a shard is gone or ends too early.
        """
        ...


class LostPart(Protocol):
    """A part of a storage of which the metadata cannot be read; `str` says which and why."""

    @property
    def rows(self) -> int: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class ShortShard:
    """A committed shard that is not whole: its path relative to the dataset, and what is wrong with it."""

    path: str
    problem: str


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A shard or table whose rows can be read without a manifest.

    Attributes:
        group: Its group of representations.
        span: First and last frame that its name says, if it does.
        read: Returns its rows with some columns.
        endings: Returns the file name endings of some representations' payloads, as far as the storage keeps them.
    """

    group: str
    span: tuple[int, int] | None
    read: Callable[[Sequence[str]], pa.Table]
    endings: Callable[[Collection[str]], Mapping[str, str]] = lambda _: {}


@dataclass(frozen=True, slots=True)
class CopySource:
    """A dataset that samples are copied from.

    Attributes:
        number: What `source` says in rows of it.
        storage: Of the dataset.
        video_names: Its video ids → the id in the result, without videos that are left out.
        names: The representations that are taken.
    """

    number: int
    storage: "Storage"
    video_names: Mapping[str, str]
    names: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyPlan:
    """What a result is made of; nothing of it is encoded again.

    Attributes:
        sources: In order of preference.
        rows: Returns the rows of a video of the result, with all columns.
        left_out: `source`, `video_id`, `frame_index`, `run_id` of rows that are not part of the result.
        link: Use hard links for files that can be kept whole.
        sync: Wait until the disk has every byte.
        advance: Called with the bytes copied since the last call.
    """

    sources: Sequence[CopySource]
    rows: "Callable[[str], GroupedRows]"
    left_out: Collection[tuple[int, str, int, str]]
    link: bool
    sync: bool
    advance: Advance


@dataclass(slots=True, kw_only=True)
class Copied:
    """What `Storage.copy_from` did.

    Attributes:
        is_complete: Everything is in the result, and was read back; else the rest goes through the writer.
        shards: Shards or fragments written now.
        kept_whole: Those of them that equal one of a source.
        already: Those that an interrupted call had finished.
    """

    is_complete: bool = False
    shards: int = 0
    kept_whole: int = 0
    already: int = 0


class Storage(ABC):
    """The samples of one dataset on disk.

    Attributes:
        name: What `dataset.json` has in `writer`.
        folder_name: The folder of a dataset that is this storage's own.
        holds_runs_apart: Whether a sample holds the representations of one run only.
        outlives_process: Whether samples are on a disk.
        copies_whole_parts: Whether `copy_from` needs `CopyPlan.left_out`, because it copies parts as they are.
        folder: Of the dataset.
        manifest: Of the dataset.
    """

    name: ClassVar[str]
    folder_name: ClassVar[str]
    holds_runs_apart: ClassVar[bool] = False
    outlives_process: ClassVar[bool] = True
    copies_whole_parts: ClassVar[bool] = False

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r}, {len(self.manifest.videos)} videos)"

    @classmethod
    def behind_url(cls, remote: RemoteDataset, manifest: Manifest) -> "Storage":
        """Return the storage of a dataset behind a URL.

        Raises:
            UsageError: If this storage has none.
        """
        raise UsageError(
            f"{remote.store.location}: {cls.name} datasets are read and written in local folders only",
            hint="copy the dataset to a local folder first, or export with --writer webdataset",
        )

    # -- metadata ----------------------------------------------------------------------------------------------

    @abstractmethod
    def rows(self, columns: Sequence[str] | None = None, video_ids: Sequence[str] | None = None) -> pa.Table:
        """Return the metadata rows in stored order, checked.

        Args:
            columns: Columns of SAMPLES_SCHEMA; None reads all.
            video_ids: Videos to read; None reads all.

        Raises:
            DatasetError: If metadata is damaged, or is a link; the message names it.
        """

    @abstractmethod
    def tables(
        self,
        columns: Sequence[str] | None = None,
        *,
        dictionaries: bool = False,
        lost: list[LostPart] | None = None,
    ) -> Iterator[pa.Table]:
        """Yield all metadata rows, those of some whole videos at a time.

        Args:
            columns: Columns of SAMPLES_SCHEMA; None reads all.
            dictionaries: Text may come as Arrow dictionaries.
            lost: Parts that cannot be read are added to it and left out; without it, they raise.

        Raises:
            DatasetError: If metadata is damaged; the message names it.
        """

    @abstractmethod
    def state(self) -> Iterator[bytes]:
        """Yield text that changes whenever rows do, without reading them: names, sizes and times of files."""

    @abstractmethod
    def shards(self) -> list[str]:
        """Return the committed shards or tables, as paths relative to the dataset."""

    def short_shards(self, rows: pa.Table) -> list[ShortShard]:
        """Return the shards that are missing or end before their payloads do, without reading them.

        Args:
            rows: With (at least) PLACE_COLUMNS.
        """
        return []

    @abstractmethod
    def open_cells(self) -> list[Path]:
        """Return the files of cells that an interrupted or running process has not committed yet."""

    def open_frames(self) -> dict[str, int]:
        """Return how many frames of each video wait in open cells; of several representations, the most of one.

        Raises:
            DatasetError: If one of the files or folders is a link.
        """
        return {}

    @classmethod
    def is_in(cls, folder: Path) -> bool:
        """Return whether a dataset has something of this storage.

        Raises:
            DatasetError: If the storage's folder is a link or no folder.
        """
        return check_folder(folder / cls.folder_name)

    @classmethod
    @abstractmethod
    def parts(cls, folder: Path) -> list[StoredPart]:
        """Return what is stored in a dataset without looking at its manifest, which may be lost."""

    # -- payloads ----------------------------------------------------------------------------------------------

    @abstractmethod
    def payloads(self, places: PayloadPlaces) -> PayloadReader:
        """Return what reads payloads."""

    @abstractmethod
    def writer(self) -> "DatasetWriter":
        """Return what adds samples."""

    # -- upkeep ------------------------------------------------------------------------------------------------

    @abstractmethod
    def check(self, checker: "PayloadChecker") -> None:
        """Check every row and payload, and report what belongs to nobody."""

    def recorded(self) -> "Iterator[Problem]":
        """Yield what differs from what runs recorded when they committed it."""
        yield from ()

    def shard_facts(self, paths: Collection[str] | None = None) -> "dict[str, dict[str, ShardFacts]]":
        """Return shards as they are now, for the records of runs: by path, under the id of the run of their first row.

        Args:
            paths: Of the shards; None takes all.
        """
        return {}

    def checksums(self) -> Iterator[tuple[Path, bool]]:
        """Yield the metadata files, and whether each has a checksum; damaged ones are passed over."""
        yield from ()

    @abstractmethod
    def repair(self, path: str, problems: "Sequence[Problem]", work: "Repair") -> None:
        """Set aside what is damaged of a shard or table; what is good stays.

        Args:
            path: The shard or table (or its sidecar), relative to the dataset.
            problems: What `check` found wrong with it.
            work: The repair that this is part of.

        Raises:
            LockedError: If a process is writing there.
            DatasetError: If it cannot be read.
        """

    @abstractmethod
    def collect_garbage(self, collector: "GarbageCollector") -> None:
        """Remove, through the collector, what no reader and no `resume` needs."""

    # -- from dataset to dataset -------------------------------------------------------------------------------

    def copied_bytes(self, rows: "GroupedRows", sources: Sequence["Storage"]) -> int:
        """Return how many bytes copying these rows from these storages takes, as `CopyPlan.advance` counts them."""
        return rows.payload_bytes

    def copy_from(self, plan: CopyPlan) -> Copied:
        """Copy what can be copied without decoding metadata and payloads one by one; the same call goes on."""
        return Copied()

    def finish(self, run_ids: Sequence[str]) -> None:
        """Do what spans cells when a result is complete.

        Args:
            run_ids: The runs that it has samples of.
        """
        return

    # -- for people and other programs -------------------------------------------------------------------------

    def card_configs(self) -> list[str]:
        """Return lines of the card's YAML front matter that tell Hugging Face `datasets` how to load the dataset."""
        return []

    @abstractmethod
    def card_text(self) -> str:
        """Return what the card says on reading the dataset without vrekit."""


def open_storage(folder: str | Path, manifest: Manifest | None = None) -> Storage:
    """Return the storage of a dataset.

    Args:
        folder: The dataset; a path or a URL.
        manifest: Of the dataset; None reads it.

    Raises:
        DatasetError: If it is no dataset, or its manifest is damaged.
    """
    folder = dataset_folder(folder)
    manifest = read_manifest(folder) if manifest is None else manifest
    kind, remote = storage_type(manifest.writer), remote_of(folder)
    return kind(folder, manifest) if remote is None else kind.behind_url(remote, manifest)


def storage_type(name: str) -> type[Storage]:
    """Return the storage of a name.

    Raises:
        UsageError: If there is none.
    """
    if name not in STORAGES:
        raise UsageError(f"unknown writer {name!r}", hint=f"known writers: {', '.join(STORAGES)}")
    kind = STORAGES.load(name)
    if not (isinstance(kind, type) and issubclass(kind, Storage)):
        raise DatasetError(f"the storage {name!r} is no subclass of Storage")
    return kind


def storage_types() -> list[type[Storage]]:
    """Return all storages."""
    return [storage_type(name) for name in STORAGES]


def stored_types(folder: Path) -> list[type[Storage]]:
    """Return the storages that a dataset has something of."""
    return [kind for kind in storage_types() if kind.is_in(folder)]


def whole_bytes(payload: memoryview) -> bytes:
    """Return a payload as bytes, without a copy where it was read by itself."""
    owner = payload.obj
    return owner if isinstance(owner, bytes) and len(owner) == payload.nbytes else bytes(payload)
