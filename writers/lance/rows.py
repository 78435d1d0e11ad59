"""Lance tables of a dataset: how they are laid out, and their rows in the common form of SAMPLES_SCHEMA.

    lance/<group>.lance     one row a frame: the frame's columns, then for each representation of the group
                              <name>           the payload, a blob v2 column: scans read descriptors, never payloads
                              <name>:<field>   its metadata, one column a field of SAMPLES_SCHEMA

A `:` cannot occur in a representation's name, so no two columns collide; the `.` of `canny.image`, which Lance does not
allow in a column, is spelled `:` too. The metadata is flat because DuckDB cannot push a filter on a struct's field down
into Lance.

One table a group, not one for all: a group's representations are fixed once it exists, so every write is an append
and what is added later is a table of its own. In one wide table, filling a further column for some frames rewrites
their rows, payloads of all other columns included (measured: 1.5 MB of new payloads wrote 4.5 MB).

Rows have stable ids, which compaction keeps: the id stands in `byte_offset` of the common form, so that
(`shard`, `byte_offset`, `representation`) finds a payload in both storages. A frame of which some representations
failed and were stored later has several rows; a representation that a row is not about has a null `status` there.
"""

import logging
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vrekit.catalog.row_checks import check_rows
from vrekit.core.errors import DatasetError
from vrekit.core.files import check_folder
from vrekit.core.schema import FORMAT_VERSION, SAMPLES_SCHEMA
from vrekit.writers.lance.errors import REPAIR_HINT, is_damage, reading_lance
from vrekit.writers.lance.places import check_bases, check_files

if TYPE_CHECKING:
    import lance

logger = logging.getLogger(__name__)

TABLES_FOLDER = "lance"
OPEN_FOLDER = ".open"  # inside it; cells that are being written
PARTIAL_SUFFIX = "payloads"
FORMAT_KEY = b"vrekit.format_version"
FRAME_COLUMNS = ("video_id", "frame_index", "pts_seconds", "run_id")
# Fields of SAMPLES_SCHEMA with a column per representation. The others hold for the whole row, or are said by the
# name of the column, the table and the row id.
FIELDS = tuple(
    name for name in SAMPLES_SCHEMA.names if name not in (*FRAME_COLUMNS, "representation", "byte_offset", "shard")
)
_TYPES = {name: SAMPLES_SCHEMA.field(name).type for name in FRAME_COLUMNS}
_FIELD_TYPES = {name: SAMPLES_SCHEMA.field(name).type for name in FIELDS}
# One blob file for many payloads, however large they are: by default payloads over 4 MB get a file each.
DEDICATED_BLOB_BYTES = 1 << 30
_TEXT_FOR_ALL = 64 << 20  # bytes of text that any table may have as metadata
_TEXT_A_VALUE = 1024  # bytes, on average
_OLDER_VERSIONS = 16  # that are tried when the latest one is damaged
_LAST_VERSION = (1 << 64) - 1  # a version's file is named by its distance to this


@dataclass(frozen=True, slots=True)
class LostFragment:
    """A fragment of which the metadata cannot be read: its data file is lost or damaged.

    Attributes:
        fragment_id: Its number in the table.
        rows: How many frames it held.
        files: Its data files, relative to the table's folder `data`.
        reason: What Lance says about it.
    """

    fragment_id: int
    rows: int
    files: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        files = ", ".join(f"data/{name}" for name in self.files)
        return f"fragment {self.fragment_id} ({self.rows} frames, {files}): {self.reason}"


def table_path(folder: Path, group: str) -> Path:
    """Return where the table of a group lies."""
    return folder / TABLES_FOLDER / f"{group}.lance"


def find_tables(folder: Path) -> list[Path]:
    """Return the tables of a dataset, sorted by path."""
    if not check_folder(folder / TABLES_FOLDER):
        return []
    return [path for path in sorted((folder / TABLES_FOLDER).glob("*.lance")) if is_table(path)]


def is_table(path: Path) -> bool:
    """Return whether a table was made there; a process killed meanwhile leaves a folder without a version and data."""
    return any(path.glob("_versions/*.manifest")) or any(path.glob("data/*.lance"))


def version_files(path: Path) -> dict[int, Path]:
    """Return the files of a table's versions by number, the latest first."""
    folder = path / "_versions"
    files = {}
    for name in os.listdir(folder) if folder.is_dir() else ():
        if found := re.fullmatch(r"([0-9]{1,20})\.manifest", name):
            number = int(found[1])
            files[_LAST_VERSION - number if len(found[1]) == 20 else number] = folder / name
    return dict(sorted(files.items(), reverse=True))


def column_name(representation: str, field: str | None = None) -> str:
    """Return the column of a representation's payloads, or of a field of its metadata."""
    column = representation.replace(".", ":")
    return column if field is None else f"{column}:{field}"


def representations_of(schema: pa.Schema) -> list[str]:
    """Return the representations a table has columns for."""
    columns = [name.removesuffix(":status") for name in schema.names if name.endswith(":status")]
    return [column.replace(":", ".") for column in columns]


def table_schema(representations: Sequence[str]) -> pa.Schema:
    """Return the schema of a table for these representations."""
    import lance

    fields = [SAMPLES_SCHEMA.field(name) for name in FRAME_COLUMNS]
    for name in representations:
        fields.append(lance.blob_field(column_name(name), dedicated_size_threshold=DEDICATED_BLOB_BYTES))
        fields += [pa.field(column_name(name, field), SAMPLES_SCHEMA.field(field).type) for field in FIELDS]
    return pa.schema(fields, metadata={FORMAT_KEY: str(FORMAT_VERSION).encode()})


def open_table(path: Path) -> "lance.LanceDataset":
    """Return the latest version of a table; when that is damaged, the last one before it that is not, with a warning.

    Raises:
        DatasetError: If none can be read.
    """
    try:
        return open_version(path)
    except DatasetError as error:
        if not is_damage(error):
            raise
        versions = list(version_files(path))
        for version in versions[1 : 1 + _OLDER_VERSIONS]:
            try:
                table = open_version(path, version)
            except DatasetError:
                continue
            _warn_of_older(path, versions[0], version)
            return table
        raise


@cache  # once, however often it is opened
def _warn_of_older(path: Path, latest: int, version: int) -> None:
    logger.warning("%s: version %s is damaged; version %s is read instead", path, latest, version)


def open_version(path: Path, version: int | None = None) -> "lance.LanceDataset":
    """Return a version of a table, the latest one by default.

    Raises:
        DatasetError: If it cannot be read, or refers to other places.
    """
    import lance

    check_files(path)
    with reading_lance(path, "cannot be opened"):
        table = lance.dataset(str(path), version=version)
        schema = table.schema
        if "frame_index" not in schema.names:  # Lance takes zeros for a table without columns
            raise DatasetError(f"{path} cannot be opened: version {table.version} has no columns", hint=REPAIR_HINT)
        _check_types(schema, path)
        check_bases(table, path)
        return table


def _check_types(schema: pa.Schema, path: Path) -> None:
    for field in schema:
        _, colon, name = field.name.rpartition(":")
        expected = _TYPES.get(field.name) if not colon else _FIELD_TYPES.get(name)
        if expected is not None and field.type != expected:
            raise DatasetError(f"{path}: the column {field.name!r} has type {field.type}, expected {expected}")


def lance_samples(
    folder: Path,
    columns: Sequence[str] | None = None,
    video_ids: Sequence[str] | None = None,
    *,
    table: Path | None = None,
    lost: list[LostFragment] | None = None,
    checked: bool = True,
    without: Collection[int] = (),
) -> pa.Table:
    """Return the metadata rows of a dataset's tables: SAMPLES_SCHEMA, or the columns asked for.

    No payload is read. The rows of a representation are in the order they were written.

    Args:
        folder: The dataset.
        columns: Columns of SAMPLES_SCHEMA; None gives all.
        video_ids: Videos to read; None reads all.
        table: Only this table.
        lost: Fragments that cannot be read are added to it; their rows are left out.
        checked: Whether to check the rows; without, they may say anything.
        without: Fragments that count as lost without being read; with `table` only.

    Raises:
        DatasetError: If a table is damaged; the message names it. With `lost`, only if nothing of it can be read.
    """
    names = list(SAMPLES_SCHEMA.names if columns is None else columns)
    where = None if video_ids is None else " OR ".join(["false", *(f"video_id = {quoted(name)}" for name in video_ids)])
    tables = find_tables(folder) if table is None else [table]
    parts = [part for path in tables for part in _read_table(folder, path, names, where, lost, without)]
    schema = pa.schema([SAMPLES_SCHEMA.field(name) for name in names])
    if not parts:
        return schema.empty_table()
    rows = pa.concat_tables(parts)
    return check_rows(rows, lambda row: f"{folder / TABLES_FOLDER}: row {row}") if checked else rows


def _read_table(
    folder: Path,
    path: Path,
    names: list[str],
    where: str | None,
    lost: list[LostFragment] | None,
    without: Collection[int],
) -> list[pa.Table]:
    table = open_table(path)
    representations = representations_of(table.schema)
    columns = [name for name in FRAME_COLUMNS if name in names]
    fields = {name for name in FIELDS if name in names} | {"status", "byte_size"}
    if "byte_offset" in names:
        fields |= {"payload_index", "checksum"}
        columns = list(dict.fromkeys([*columns, "video_id"]))
    for representation in representations:
        columns += [column_name(representation, field) for field in sorted(fields)]
    rows = read_rows(table, path, columns, where, with_row_id="byte_offset" in names, lost=lost, without=without)
    shard = path.relative_to(folder).as_posix()
    return [_of_representation(rows, representation, names, shard) for representation in representations]


def read_rows(
    table: "lance.LanceDataset",
    path: Path,
    columns: list[str],
    where: str | None,
    *,
    with_row_id: bool = False,
    lost: list[LostFragment] | None = None,
    without: Collection[int] = (),
) -> pa.Table:
    """Return rows of a table. A damaged index is passed over, as it only is a copy of the rows.

    Args:
        table: The table.
        path: Where it lies.
        columns: Columns of the table.
        where: SQL that the rows fulfil.
        with_row_id: Add the column `_rowid`.
        lost: Fragments that cannot be read are added to it; their rows are left out.
        without: Fragments that count as lost without being read.

    Raises:
        DatasetError: If fragments cannot be read and `lost` is None; the message lists them.
    """
    if not without:
        try:
            with reading_lance(path):
                return _bounded(table.scanner(columns=columns, filter=where, with_row_id=with_row_id), path)
        except DatasetError as error:
            if not is_damage(error):
                raise
    found = [] if lost is None else lost
    parts = list(_by_fragment(table, path, columns, where, with_row_id, found, without))
    if found and lost is None:
        shown = "; ".join(map(str, found[:3])) + ("; …" if len(found) > 3 else "")
        raise DatasetError(
            f"{path}: {len(found)} of {len(table.get_fragments())} fragments are lost or damaged: {shown}",
            hint=REPAIR_HINT,
        )
    return pa.concat_tables(parts)


def _bounded(scanner: "lance.LanceScanner", path: Path) -> pa.Table:
    """Return the rows of a scan; DatasetError if their text is much longer than that of any export."""
    batches: list[pa.RecordBatch] = []
    rows = text = 0
    reader = scanner.to_reader()
    texts = [at for at, field in enumerate(reader.schema) if pa.types.is_string(field.type)]
    for batch in reader:
        rows += len(batch)
        text += sum(batch.column(at).nbytes for at in texts)
        if text > _TEXT_FOR_ALL + _TEXT_A_VALUE * len(texts) * rows:
            raise DatasetError(f"{path} has {text} bytes of text in {rows} rows of metadata", hint=REPAIR_HINT)
        batches.append(batch)
    return pa.Table.from_batches(batches, schema=reader.schema)


def _by_fragment(
    table: "lance.LanceDataset",
    path: Path,
    columns: list[str],
    where: str | None,
    with_row_id: bool,
    lost: list[LostFragment],
    without: Collection[int],
) -> Iterator[pa.Table]:
    def rows_of(some: Sequence["lance.LanceFragment"]) -> pa.Table:
        with reading_lance(path):
            scanner = table.scanner(
                columns=columns, filter=where, fragments=some, with_row_id=with_row_id, use_scalar_index=False
            )
            return _bounded(scanner, path)

    yield rows_of([])
    for fragment in table.get_fragments():
        files = tuple(file.path for file in fragment.data_files())
        if fragment.fragment_id in without:
            lost.append(
                LostFragment(fragment.fragment_id, fragment.metadata.num_rows, files, "Lance fails on its damage")
            )
            continue
        try:
            yield rows_of([fragment])
        except DatasetError as error:
            if not is_damage(error):
                raise
            reason = error.message.removeprefix(f"{path} cannot be read: ")
            lost.append(LostFragment(fragment.fragment_id, fragment.metadata.num_rows, files, reason))


def _of_representation(rows: pa.Table, representation: str, names: list[str], shard: str) -> pa.Table:
    status = rows[column_name(representation, "status")]
    if status.null_count:
        rows = rows.filter(status.is_valid())
    arrays: list[Any] = []
    for name in names:
        kind = SAMPLES_SCHEMA.field(name).type
        if name == "representation":
            arrays.append(pa.repeat(pa.scalar(representation, kind), len(rows)))
        elif name == "shard":
            arrays.append(pa.repeat(pa.scalar(shard, kind), len(rows)))
        elif name == "byte_offset":
            failed = rows[column_name(representation, "byte_size")].is_null()
            arrays.append(pa.array(_payload_rows(rows, representation), kind, mask=failed.to_numpy()))
        else:
            arrays.append(rows[name if name in FRAME_COLUMNS else column_name(representation, name)].cast(kind))
    return pa.table(arrays, schema=pa.schema([SAMPLES_SCHEMA.field(name) for name in names]))


def _payload_rows(rows: pa.Table, representation: str) -> NDArray[np.int64]:
    """Return the id of the row that has each row's payload: of a clip, the first row of the same one."""
    ids = np.array(rows["_rowid"].to_numpy(), np.int64)
    shared = np.flatnonzero(rows[column_name(representation, "payload_index")].is_valid().to_numpy())
    if len(shared):
        shared = shared[np.argsort(ids[shared], kind="stable")]  # ids rise as rows are written
        clips = rows.take(pa.array(shared))
        videos = clips["video_id"].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
        parts = (clips[column_name(representation, field)].to_numpy() for field in ("checksum", "byte_size"))
        same = np.stack([videos, *parts], axis=1).astype(np.int64)
        _, first, clip = np.unique(same, axis=0, return_index=True, return_inverse=True)
        ids[shared] = ids[shared[first]][clip.reshape(-1)]
    return ids


def quoted(text: str) -> str:
    """Return text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
