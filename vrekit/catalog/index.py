"""The consolidated index: all metadata of a dataset in two Parquet files that open in milliseconds.

    index/samples.parquet   one row per (video, frame, representation), SAMPLES_SCHEMA; a stored sample hides failures
    index/frames.parquet    one row per (video, frame), FRAMES_SCHEMA; statistics joined in

Rows are sorted by (video_id, frame_index, representation), so that the minima and maxima of the row groups locate a
video or a frame. Both files are a cache of the shards' own metadata: each carries the digest of what it was made from
(names, sizes and modification times; the statistics count for frames only, so that readers, which need the samples, are
not slower after `vrekit stats`), is rebuilt when that differs, and may be deleted at any time.
"""

import errno
import hashlib
import logging
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow.compute import call_function

from vrekit.catalog.arrow_numpy import numbers, take
from vrekit.catalog.parquet_files import (
    ALWAYS_CHECKED_BYTES,
    check_parquet,
    map_parquet,
    parquet_writer,
    seal_file,
    written_out,
)
from vrekit.catalog.row_checks import check_rows
from vrekit.catalog.rows import byte_shares, prefer, ranks, repeats
from vrekit.catalog.statistics import STATISTICS_COLUMNS, STATISTICS_FOLDER, STATISTICS_SCHEMA, read_statistics
from vrekit.catalog.storage import LostPart, Storage
from vrekit.core.errors import DatasetError
from vrekit.core.files import check_folder, listing, make_folder
from vrekit.core.schema import SAMPLES_SCHEMA

logger = logging.getLogger(__name__)

INDEX_FOLDER = "index"
INDEX_VERSION = 1  # raised when the columns or their meaning change: older indexes are then rebuilt
_DIGEST_KEY = b"vrekit.index_digest"

FRAMES_SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("frame_index", pa.int64(), nullable=False),
        pa.field("pts_seconds", pa.float64()),
        pa.field("representations", pa.list_(pa.string()), nullable=False),
        pa.field("failed", pa.list_(pa.string()), nullable=False),
        pa.field("total_bytes", pa.int64(), nullable=False),
        pa.field("total_raw_bytes", pa.int64(), nullable=False),
        pa.field("total_seconds", pa.float32(), nullable=False),
        *(STATISTICS_SCHEMA.field(name) for name in STATISTICS_COLUMNS),
    ]
)
_ROW_GROUP = 1 << 17  # rows; smaller ones make the footer slow to read, larger ones make one frame slow
_DELTA = ("frame_index", "raw_bytes", "byte_offset", "byte_size", "payload_index", "total_bytes", "total_raw_bytes")
_PLAIN = ("checksum", "phash")
_CANNOT_WRITE = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EEXIST, errno.ENOTDIR}


@dataclass(frozen=True, slots=True)
class Index:
    """Where the two tables are: Parquet files, or in memory when the dataset's folder cannot be written to."""

    samples: Path | pa.Table
    frames: Path | pa.Table
    digest: str  # of all it is made from

    def read_samples(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return rows of the samples table; optionally some columns only."""
        return _read(self.samples, columns)

    def read_frames(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return rows of the frames table; optionally some columns only."""
        return _read(self.frames, columns)


def _read(where: Path | pa.Table, columns: Sequence[str] | None) -> pa.Table:
    if isinstance(where, Path):
        names = None if columns is None else list(columns)
        return written_out(map_parquet(where, dictionaries=True).read(columns=names), where)
    return where if columns is None else where.select(list(columns))


def load_index(storage: Storage) -> Index:
    """Return the index of a dataset, rebuilt first if it is stale.

    Fragments of Lance tables that are lost are left out, with a warning.

    Raises:
        DatasetError: If the metadata of a shard is damaged; the message names it.
    """
    folder, digests = storage.folder, source_digests(storage)
    try:
        check_folder(folder / INDEX_FOLDER)
    except DatasetError:  # a link or a file in its place: the index is only a cache
        return _in_memory(storage, digests)
    samples, frames = (folder / INDEX_FOLDER / f"{name}.parquet" for name in ("samples", "frames"))
    if index_digest(samples) == digests.samples and index_digest(frames) == digests.frames:
        return Index(samples, frames, digests.frames)
    try:
        _write(samples, frames, digests, storage)
    except DatasetError:
        return _in_memory(storage, digests)  # of what is whole: never kept, it would hide what is repaired
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        return _in_memory(storage, digests)
    return Index(samples, frames, digests.frames)


def _in_memory(storage: Storage, digests: "SourceDigests") -> Index:
    lost: list[LostPart] = []
    parts = list(_parts(storage, lost))
    _warn_of_lost(storage.folder, lost)
    return Index(
        pa.concat_tables([SAMPLES_SCHEMA.empty_table(), *(part[0] for part in parts)]),
        pa.concat_tables([FRAMES_SCHEMA.empty_table(), *(part[1] for part in parts)]),
        digests.frames,
    )


def _warn_of_lost(folder: Path, lost: Sequence[LostPart]) -> None:
    if lost:
        frames = sum(part.rows for part in lost)
        logger.warning("%s: %s rows are lost, and left out: %s", folder, frames, "; ".join(map(str, lost[:3])))


def indexed_rows(storage: Storage, columns: Sequence[str]) -> Iterator[pa.Table] | None:
    """Return the rows of the samples table if the index is there and not stale, else None; nothing is ever written.

    The rows are those of the shards as they are at the call, whatever is written or rebuilt meanwhile. They come some
    at a time, text as dictionaries.

    Args:
        storage: The dataset.
        columns: Columns of SAMPLES_SCHEMA.
    """
    texts = [name for name in columns if pa.types.is_string(SAMPLES_SCHEMA.field(name).type)]
    path = storage.folder / INDEX_FOLDER / "samples.parquet"
    try:
        digest = source_digests(storage).samples  # it fails where something is deleted at the same time
        if not check_folder(path.parent) or not path.exists():
            return None
        check_parquet(path)
        file = map_parquet(path, read_dictionary=texts)
        found = _digest_of(file, _with_dictionaries(texts))
    except (OSError, pa.ArrowException, DatasetError, KeyError, ValueError):
        return None
    if found != digest:
        file.close()
        return None
    return (
        check_rows(file.read_row_group(number, list(columns)), lambda row: f"{path}: row {row}")
        for number in range(file.num_row_groups)
    )


def _with_dictionaries(texts: Sequence[str]) -> pa.Schema:
    """Return SAMPLES_SCHEMA with dictionaries for these columns of text."""
    text = pa.dictionary(pa.int32(), pa.string())
    return pa.schema([field.with_type(text) if field.name in texts else field for field in SAMPLES_SCHEMA])


def consolidated_rows(storage: Storage, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the rows that `indexed_rows` would, from the shards' own metadata.

    Fragments of Lance tables that are lost are left out, with a warning.

    Raises:
        DatasetError: If the metadata of a shard is damaged; the message names it.
    """
    needed = list(dict.fromkeys([*columns, *_ORDER_COLUMNS]))
    lost: list[LostPart] = []
    for table in storage.tables(needed, dictionaries=True, lost=lost):
        yield consolidate(table).select(list(columns))
    _warn_of_lost(storage.folder, lost)


@dataclass(frozen=True, slots=True)
class SourceDigests:
    """64 hex digits that change whenever a file is added, removed or replaced that a table of the index is made from.

    Attributes:
        samples: The metadata of the shards.
        frames: That and the statistics, so everything.
    """

    samples: str
    frames: str


def source_digests(storage: Storage) -> SourceDigests:
    """Return the digests of what the index of a dataset is made from, as it is now."""
    state = hashlib.sha256(f"vrekit index {INDEX_VERSION}\n".encode())
    for part in storage.state():
        state.update(part)
    samples = state.hexdigest()
    state.update(listing(storage.folder / STATISTICS_FOLDER, storage.folder, ".parquet"))
    return SourceDigests(samples, state.hexdigest())


def false_files(storage: Storage) -> Iterator[Path]:
    """Yield the files of an index that count as fresh, but do not hold what the metadata of the shards says.

    The digest tells names, sizes and times of what an index was made from: a stranger can ship one that lies.
    """
    digests = source_digests(storage)
    for at, (name, digest) in enumerate([("samples", digests.samples), ("frames", digests.frames)]):
        path = storage.folder / INDEX_FOLDER / f"{name}.parquet"
        if index_digest(path) != digest:
            continue
        with map_parquet(path, dictionaries=True) as file:
            indexed = (written_out(file.read_row_group(number), path) for number in range(file.num_row_groups))
            lost: list[LostPart] = []  # an index that was made before knows their rows
            true = (part[at] for part in _parts(storage, lost))
            same = all(a is not None and a.equals(b) for a, b in zip_longest(_evenly(indexed), _evenly(true)))
            if not same and not lost:
                yield path


def _evenly(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the same rows, without metadata, so many at a time that two sources can be compared piece by piece."""
    waiting: list[pa.Table] = []
    count = 0
    for table in tables:
        waiting.append(table.replace_schema_metadata())
        count += len(table)
        while count >= _ROW_GROUP:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, _ROW_GROUP).combine_chunks()
            waiting, count = [whole.slice(_ROW_GROUP)], count - _ROW_GROUP
    if count:
        yield pa.concat_tables(waiting).combine_chunks()


def index_digest(path: Path) -> str | None:
    """Return the digest that an index file was made with, None if it is no readable index.

    A file up to ALWAYS_CHECKED_BYTES is checked whole.
    """
    try:
        check_parquet(path, max_bytes=ALWAYS_CHECKED_BYTES)
        with map_parquet(path) as file:
            return _digest_of(file, SAMPLES_SCHEMA if path.stem == "samples" else FRAMES_SCHEMA)
    except (OSError, pa.ArrowException, DatasetError, ValueError):
        return None


def _digest_of(file: pq.ParquetFile, schema: pa.Schema) -> str | None:
    """Return the digest in an index file, None if its columns are not those of `schema`."""
    found = file.schema_arrow
    if not found.equals(schema):
        return None
    return str((found.metadata or {}).get(_DIGEST_KEY, b"").decode(errors="replace"))


# -- writing -----------------------------------------------------------------------------------------------------


def _write(samples: Path, frames: Path, digests: SourceDigests, storage: Storage) -> None:
    try:
        make_folder(storage.folder, INDEX_FOLDER)
    except DatasetError as error:  # a link, or a file
        raise NotADirectoryError(errno.ENOTDIR, error.message) from error
    token = secrets.token_hex(4)  # several processes and threads may build it at once; the last one stays
    temporaries = [path.with_name(f".{path.name}.{token}.tmp") for path in (samples, frames)]
    try:
        with (
            _writer(temporaries[0], SAMPLES_SCHEMA, digests.samples) as samples_writer,
            _writer(temporaries[1], FRAMES_SCHEMA, digests.frames) as frames_writer,
        ):
            for part, part_frames in _parts(storage):
                samples_writer.write_table(part, row_group_size=_ROW_GROUP)
                frames_writer.write_table(part_frames, row_group_size=_ROW_GROUP)
        for temporary in temporaries:
            seal_file(temporary)
        for temporary, path in zip(temporaries, (samples, frames), strict=True):
            temporary.replace(path)  # no fsync: an index that a power cut tears does not parse, and is made anew
    except BaseException:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
        raise


def _writer(path: Path, schema: pa.Schema, digest: str) -> AbstractContextManager[pq.ParquetWriter]:
    floats = [field.name for field in schema if pa.types.is_floating(field.type)]
    encodings = dict.fromkeys((name for name in schema.names if name in _DELTA), "DELTA_BINARY_PACKED")
    encodings |= dict.fromkeys(floats, "BYTE_STREAM_SPLIT")
    dictionary = [name for name in schema.names if name not in encodings and name not in _PLAIN]
    schema = schema.with_metadata({_DIGEST_KEY: digest.encode()})
    return parquet_writer(path, schema, use_dictionary=dictionary, column_encoding=encodings)


# -- consolidating -----------------------------------------------------------------------------------------------


def _parts(storage: Storage, lost: list[LostPart] | None = None) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield (samples, frames) of some videos at a time, in the order of the index."""
    for table in storage.tables(lost=lost):
        samples = consolidate(table)
        yield samples, _with_statistics(frames_of(samples), storage.folder)


_ORDER_COLUMNS = ("video_id", "frame_index", "representation", "status", "run_id")  # what `consolidate` looks at


def consolidate(table: pa.Table) -> pa.Table:
    """Return rows sorted by (video_id, frame_index, representation), the one that counts of each; see `prefer`."""
    frame = numbers(table["frame_index"], np.int64)
    order = prefer(table, ranks(table["video_id"]), frame, ranks(table["representation"])).winners
    return table if np.array_equal(order, np.arange(len(table))) else take(table, order)


def frames_of(samples: pa.Table) -> pa.Table:
    """Return one row with FRAMES_SCHEMA per (video, frame) of consolidated rows; the statistics are null."""
    if not samples.num_rows:
        return FRAMES_SCHEMA.empty_table()
    everything = np.arange(samples.num_rows)
    frame = samples["frame_index"].to_numpy()
    starts = np.flatnonzero(~repeats(everything, ranks(samples["video_id"]), frame))
    is_ok = call_function("equal", [samples["status"], "ok"]).to_numpy()
    seconds = _floats(samples["compute_seconds"]) + _floats(samples["encode_seconds"])
    pts = samples["pts_seconds"].to_numpy()
    columns = {
        "video_id": samples["video_id"].take(pa.array(starts)),
        "frame_index": frame[starts],
        "pts_seconds": pa.array(np.fmax.reduceat(pts, starts), from_pandas=True),
        "representations": _names(samples["representation"], is_ok, starts),
        "failed": _names(samples["representation"], ~is_ok, starts),
        "total_bytes": np.add.reduceat(byte_shares(samples), starts),
        "total_raw_bytes": np.add.reduceat(_integers(samples["raw_bytes"]), starts),
        "total_seconds": np.add.reduceat(seconds, starts).astype(np.float32),
    }
    for name in STATISTICS_COLUMNS:
        columns[name] = pa.nulls(len(starts), FRAMES_SCHEMA.field(name).type)
    return pa.table(columns, schema=FRAMES_SCHEMA)


def _names(representation: pa.ChunkedArray, mask: NDArray[np.bool_], starts: NDArray[np.int64]) -> pa.ListArray:
    """Return the names in each frame where `mask` holds."""
    counts = np.add.reduceat(mask.astype(np.int64), starts)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    values = representation.filter(pa.array(mask)).combine_chunks()
    return pa.ListArray.from_arrays(
        pa.array(offsets), values if isinstance(values, pa.Array) else pa.array([], pa.string())
    )


def _integers(column: pa.ChunkedArray) -> NDArray[np.int64]:
    return np.asarray(column.fill_null(0).to_numpy(), np.int64)


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(column.fill_null(0.0).to_numpy(), np.float64)


def _with_statistics(frames: pa.Table, folder: Path) -> pa.Table:
    if not (folder / STATISTICS_FOLDER).is_dir():
        return frames
    found = [read_statistics(folder, video).table for video in frames["video_id"].unique().to_pylist()]
    statistics = pa.concat_tables([STATISTICS_SCHEMA.empty_table(), *found])
    if not statistics.num_rows:
        return frames
    # one list of both, so that a video has the same number in either
    videos = ranks(pa.chunked_array([*frames["video_id"].chunks, *statistics["video_id"].chunks], pa.string()))
    numbers = np.concatenate([frames["frame_index"].to_numpy(), statistics["frame_index"].to_numpy()])
    places = np.unique(numbers, return_inverse=True)[1]
    keys = videos * len(places) + places
    wanted, there = keys[: frames.num_rows], keys[frames.num_rows :]
    order = np.argsort(there, kind="stable")
    at = order[np.minimum(np.searchsorted(there, wanted, sorter=order), len(there) - 1)]
    rows = pa.array(at, mask=there[at] != wanted)
    for name in STATISTICS_COLUMNS:
        position = frames.column_names.index(name)
        frames = frames.set_column(position, FRAMES_SCHEMA.field(name), statistics[name].take(rows))
    return frames
