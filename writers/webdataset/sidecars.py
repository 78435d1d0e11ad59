"""The Parquet sidecars of tar shards: their metadata, which commits them.

A sidecar commits its tar: `<name>.parquet` beside `<name>.tar`. A tar without one is not part of the dataset.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vrekit.catalog.arrow_numpy import codes, numbers
from vrekit.catalog.parquet_files import check_text, open_parquet, parquet_writer, seal
from vrekit.catalog.row_checks import DAMAGE_HINT, MAX_FRAME_INDEX, Mistake, check_rows
from vrekit.catalog.storage import ShortShard
from vrekit.core.errors import DatasetError
from vrekit.core.files import check_folder, list_files, list_folders
from vrekit.core.memory import machine_memory
from vrekit.core.schema import FORMAT_VERSION, SAMPLES_SCHEMA
from vrekit.writers.webdataset.tar_format import BLOCK, END_OF_ARCHIVE

SHARDS_FOLDER = "shards"
PARTIAL_SUFFIX = "tar.partial"  # of the shard that is being written
FORMAT_KEY = b"vrekit.format_version"
_ROW_GROUP = 128 * 1024  # rows
MAX_FILE_NAME = 220  # a temporary file beside it has a longer name, and file systems allow 255 bytes
MAX_SHARD_ROWS = 1 << 24  # 5 GB of memory; equal rows take no space in the file
_RANGE = re.compile(r"-([0-9]{8,})-([0-9]{8,})(-[0-9]+)?\Z")  # at the end of a shard's name
_VALUE_BYTES = 8  # of a row's column in memory, about
_MANY = 16  # sidecars from which on they are read side by side, instead of the columns of each

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_DELTA = ("frame_index", "raw_bytes", "byte_offset", "byte_size", "payload_index")
_SPLIT = ("pts_seconds", "compute_seconds", "encode_seconds")


def sidecar_bytes(rows: pa.Table | Iterable[pa.Table]) -> bytes:
    """Return a sidecar: zstd Parquet, DELTA_BINARY_PACKED integers, BYTE_STREAM_SPLIT floats (40 % smaller).

    Rows that come in several tables need not be in memory at once.
    """
    tables = iter([rows] if isinstance(rows, pa.Table) else rows)
    first = next(tables)
    sink = pa.BufferOutputStream()
    encodings = dict.fromkeys(_DELTA, "DELTA_BINARY_PACKED") | dict.fromkeys(_SPLIT, "BYTE_STREAM_SPLIT")
    dictionary = [name for name in SAMPLES_SCHEMA.names if name not in encodings and name not in ("checksum", "shape")]
    schema = first.schema.with_metadata({FORMAT_KEY: str(FORMAT_VERSION).encode()})
    with parquet_writer(sink, schema, use_dictionary=dictionary, column_encoding=encodings) as writer:
        for group in _row_groups(chain([first], tables)):
            writer.write_table(group, row_group_size=_ROW_GROUP)
    return seal(sink.getvalue())


def _row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the same rows in tables of a row group each; the last one may have fewer."""
    waiting: list[pa.Table] = []
    count = 0
    for table in tables:
        waiting.append(table)
        count += len(table)
        while count > _ROW_GROUP:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, _ROW_GROUP).combine_chunks()
            waiting, count = [whole.slice(_ROW_GROUP)], count - _ROW_GROUP
    yield pa.concat_tables(waiting).combine_chunks()


def find_sidecars(folder: Path, video_ids: Sequence[str] | None = None) -> list[Path]:
    """Return the sidecars of all committed shards, sorted by path; optionally of some videos only.

    Raises:
        DatasetError: If one of them, or a folder of them, is a link or no regular file.
    """
    root = folder / SHARDS_FOLDER
    if video_ids is None:
        videos = list_folders(root)
    else:
        videos = [root / video_id for video_id in video_ids] if check_folder(root) else []
    return [video / entry.name for video in videos for entry in list_files(video, _is_sidecar)]


def split_shard_name(stem: str) -> tuple[str, int, int] | None:
    """Return the group, the first and the last frame in a shard's name without ending; None if it is no such name."""
    found = _RANGE.search(stem)
    return None if found is None else (stem[: found.start()], int(found[1]), int(found[2]))


def _is_sidecar(name: str) -> bool:
    return name.endswith(".parquet") and name[0] != "." and not is_too_long(name)


def is_too_long(name: str) -> bool:
    """Return whether a file has a longer name than any shard: readers pass over it, `repair` moves it aside."""
    return len(os.fsencode(name)) > MAX_FILE_NAME


def read_sidecars(
    paths: Sequence[Path], columns: Sequence[str] | None = None, *, dictionaries: bool = False
) -> pa.Table:
    """Return the rows of some shards, in that order, after checking them; arguments and errors as in `Storage.rows`.

    With `dictionaries`, text comes as Arrow dictionaries, in half the time.
    """
    return read_opened(open_sidecars(paths, columns), columns, dictionaries=dictionaries)


@dataclass(frozen=True, slots=True)
class OpenSidecar:
    """A sidecar whose bytes were read and checked, and whose rows were not.

    Attributes:
        path: The file.
        rows: How many it has.
    """

    path: Path
    rows: int
    file: pq.ParquetFile


def open_sidecars(paths: Sequence[Path], columns: Sequence[str] | None = None) -> list[OpenSidecar]:
    """Return sidecars whose rows can be counted before they take memory; errors as in `Storage.rows`."""
    schema = _schema(columns)
    return list(_side_by_side(lambda path: _open_file(path, schema), paths))


def read_opened(
    sidecars: Sequence[OpenSidecar], columns: Sequence[str] | None = None, *, dictionaries: bool = False
) -> pa.Table:
    """Return what `read_sidecars` does.

    Raises:
        DatasetError: If a row cannot be used, or if the rows need more than half of the machine's memory.
    """
    schema = _schema(columns, dictionaries)
    rows, paths = sum(sidecar.rows for sidecar in sidecars), [sidecar.path for sidecar in sidecars]
    if rows * len(schema) * _VALUE_BYTES > machine_memory() // 2:
        raise DatasetError(f"{paths[0]} and {len(paths) - 1} files after it have {rows} rows: too many for the memory")
    use_threads = len(paths) < _MANY
    tables = list(_side_by_side(lambda sidecar: _read_opened(sidecar, schema, use_threads=use_threads), sidecars))
    if not tables:
        return schema.empty_table()
    table, counts = pa.concat_tables(tables).combine_chunks(), [len(one) for one in tables]

    def locate(row: int) -> str:
        number = int(np.searchsorted(np.cumsum(counts), row, side="right"))
        return f"{paths[number]}: row {row - sum(counts[:number])}"

    return check_rows(table, locate, place_mistakes(table, paths, counts))


def read_sidecar(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of one shard; arguments and errors as in `Storage.rows`."""
    return read_sidecars([path], columns)


def read_unchecked_sidecar(path: Path) -> pa.Table:
    """Return the rows of one shard, which may say anything, for those who look for what is wrong with them.

    Raises:
        DatasetError: If the file is damaged.
    """
    return _read_file(path, _schema(None))


def _side_by_side(call: Callable[[_Item], _Result], items: Sequence[_Item]) -> Iterator[_Result]:
    """Yield the results of calls; many are made in threads."""
    if len(items) < _MANY:
        yield from map(call, items)
    else:  # pyarrow's dataset takes a third more CPU for the same, most of it for setting up each scan
        with ThreadPoolExecutor(pa.cpu_count()) as pool:
            yield from pool.map(call, items)


def _read_file(path: Path, schema: pa.Schema) -> pa.Table:
    return _read_opened(_open_file(path, schema), schema)


def _open_file(path: Path, schema: pa.Schema) -> OpenSidecar:
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    with _damage(path):
        # a long text that many rows have is in memory once
        file = open_parquet(path, max_rows=MAX_SHARD_ROWS, read_dictionary=texts)
        return OpenSidecar(path, file.metadata.num_rows, file)


def _read_opened(sidecar: OpenSidecar, schema: pa.Schema, *, use_threads: bool = True) -> pa.Table:
    with _damage(sidecar.path):
        table = sidecar.file.read(columns=schema.names, use_threads=use_threads).select(schema.names)
        table = table.replace_schema_metadata()
        check_text(table, sidecar.path)
        return table if table.schema == schema else table.cast(schema)  # a cast that changes nothing takes time too


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except DatasetError as error:
        raise DatasetError(error.message, hint=error.hint or DAMAGE_HINT) from None
    except PermissionError as error:
        raise DatasetError(f"{path} may not be read", hint="check its permissions") from error
    except (pa.ArrowException, KeyError, OSError, ValueError) as error:
        raise DatasetError(f"{path} is damaged: {error}", hint=DAMAGE_HINT) from error


def place_mistakes(table: pa.Table, paths: Sequence[Path], counts: Sequence[int]) -> Iterator[Mistake]:
    """Yield which rows say that they are of another video, shard or range of frames than their sidecar is, and how.

    Args:
        table: Rows of some sidecars, as far as their columns are there.
        paths: The sidecars.
        counts: Number of rows of each.
    """
    videos = [path.parent.name for path in paths]
    shards = [f"{SHARDS_FOLDER}/{path.parent.name}/{path.stem}.tar" for path in paths]
    for name, expected in (("video_id", videos), ("shard", shards)):
        if name in table.column_names:
            numbers_here, values = codes(table[name])
            places = {value: number for number, value in enumerate(values)}
            right = np.repeat([places.get(value, len(values)) for value in expected], counts)
            rows = (numbers_here != right) & (numbers_here >= 0)
            if rows.any():
                yield rows, f"{name} is another one than that of the file"
    if "frame_index" in table.column_names:
        frames = numbers(table["frame_index"], np.int64)
        ranges = [_RANGE.search(path.stem) for path in paths]
        first = np.repeat([int(match[1]) if match else 0 for match in ranges], counts)
        last = np.repeat([int(match[2]) if match else MAX_FRAME_INDEX for match in ranges], counts)
        rows = (frames < first) | (frames > last)
        if rows.any():
            yield rows, "frame_index is outside of the range in the file's name"


def _schema(columns: Sequence[str] | None, dictionaries: bool = False) -> pa.Schema:
    fields = [SAMPLES_SCHEMA.field(name) for name in (SAMPLES_SCHEMA.names if columns is None else columns)]
    if dictionaries:
        text = pa.dictionary(pa.int32(), pa.string())
        fields = [field.with_type(text) if pa.types.is_string(field.type) else field for field in fields]
    return pa.schema(fields)


def short_tars(folder: Path, table: pa.Table, size_of: Callable[[str], int] | None = None) -> list[ShortShard]:
    """Return the tars that are missing or end before their payloads do; nothing is read.

    Args:
        folder: The dataset.
        table: Rows with (at least) PLACE_COLUMNS.
        size_of: Returns the bytes of a tar by its path relative to the dataset, FileNotFoundError if it is missing; one
            `stat` by default.
    """
    shard, names = codes(table["shard"])
    ends = np.zeros(len(names), np.int64)
    last = numbers(table["byte_offset"], np.int64) + numbers(table["byte_size"], np.int64)
    np.maximum.at(ends, shard[shard >= 0], last[shard >= 0])
    found = []
    for name, end in zip(names, ends.tolist(), strict=True):
        if name.endswith(".tar"):
            expected = -(-end // BLOCK) * BLOCK + len(END_OF_ARCHIVE)
            try:
                size = (folder / name).stat().st_size if size_of is None else size_of(name)
            except FileNotFoundError:
                found.append(ShortShard(name, "is missing, but its metadata is there"))
                continue
            if size < expected:
                found.append(ShortShard(name, f"has {size} bytes, but its metadata says {expected}"))
    return found
