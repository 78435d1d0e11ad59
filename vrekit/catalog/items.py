"""What lies inside frames as Arrow lists that queries can use: boxes, points, sensor values, captions.

    items/<video_id>/<representation>-<config_hash>.parquet    one row a frame: video_id, frame_index, items

`items` is a list of structs, one for each row of the frame's array: a box, a point; a frame of sensor values or a
caption has one. `vrekit items` writes the files (see `vrekit.jobs.items`); they only repeat what payloads hold.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vrekit.catalog.arrow_numpy import numbers
from vrekit.catalog.manifest import Manifest, RepresentationRecord
from vrekit.catalog.parquet_files import (
    ALWAYS_CHECKED_BYTES,
    check_parquet,
    map_parquet,
    parquet_writer,
    seal_file,
    written_out,
)
from vrekit.core.errors import DatasetError
from vrekit.core.files import fsync_folder, make_folder, storage_errors
from vrekit.core.spec import Kind, OutputSpec

ITEMS_FOLDER = "items"
_ROWS = (Kind.BOXES, Kind.POINTS, Kind.TABLE)
# Columns of the SQL table before those of the representations.
ITEMS_COLUMNS: Mapping[str, str] = {
    "key": "VARCHAR",
    "video_id": "VARCHAR",
    "frame_index": "BIGINT",
    "representation": "VARCHAR",
    "item": "BIGINT",
}
_HINT = "delete it and run `vrekit items` again: it only repeats payloads"
_ROW_GROUP_BYTES = 32 << 20


def holds_items(stored: OutputSpec) -> bool:
    """Return whether such frames consist of items: rows of numbers (boxes, points), named numbers, or a text."""
    if stored.kind is Kind.TEXT:
        return stored.shape == ()
    is_rows = stored.kind in _ROWS and len(stored.shape) in (1, 2) and stored.shape[-1] is not None
    return is_rows and _arrow_type(stored.dtype) is not None


def _arrow_type(dtype: str) -> pa.DataType | None:
    """Return Arrow's type of numbers, None if it has none: of complex ones, say."""
    try:
        return pa.from_numpy_dtype(np.dtype(dtype))
    except (pa.ArrowNotImplementedError, TypeError):
        return None


def items_schema(stored: OutputSpec) -> pa.Schema:
    """Return the schema of the file of a representation that `holds_items`."""
    if stored.kind is Kind.TEXT:
        fields = [pa.field("text", pa.string())]
    else:
        names = stored.columns or tuple(f"column_{at}" for at in range(stored.shape[-1] or 0))
        kind = _arrow_type(stored.dtype)
        fields = [pa.field(name, kind) for name in _distinct(names)]
    return pa.schema(
        [
            pa.field("video_id", pa.string(), nullable=False),
            pa.field("frame_index", pa.int64(), nullable=False),
            pa.field("items", pa.list_(pa.field("item", pa.struct(fields), nullable=False)), nullable=False),
        ]
    )


def _distinct(names: Sequence[str]) -> list[str]:
    """Return the names, with `_` at the end of those that SQL, where case does not count, takes for an earlier one."""
    taken = set(ITEMS_COLUMNS)
    found = []
    for name in names:
        while name.lower() in taken:
            name += "_"
        taken.add(name.lower())
        found.append(name)
    return found


def items_table(stored: OutputSpec, video_id: str, frames: Sequence[int], arrays: Sequence[NDArray[Any]]) -> pa.Table:
    """Return the rows of some frames: `items_schema(stored)`.

    Args:
        stored: What the arrays are.
        video_id: Their video.
        frames: Frame numbers.
        arrays: What decoding gave, one array a frame.
    """
    schema = items_schema(stored)
    struct = schema.field("items").type.value_type
    if stored.kind is Kind.TEXT:
        counts = [1] * len(arrays)
        columns = [pa.array([str(array) for array in arrays], pa.string())]
    else:
        rows = [array.reshape(-1, struct.num_fields) for array in arrays]
        counts = [len(one) for one in rows]
        whole = np.concatenate(rows) if rows else np.empty((0, struct.num_fields), stored.dtype)
        columns = [pa.array(np.ascontiguousarray(column)) for column in whole.T]
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts, dtype=np.int32)]), pa.int32())
    values = pa.StructArray.from_arrays(columns, fields=list(struct))
    items = pa.ListArray.from_arrays(offsets, values, type=schema.field("items").type)
    return pa.table([pa.repeat(video_id, len(frames)), pa.array(frames, pa.int64()), items], schema=schema)


def items_path(folder: Path, video_id: str, representation: str, record: RepresentationRecord) -> Path:
    """Return where the items of a video lie."""
    return folder / ITEMS_FOLDER / video_id / f"{representation}-{record.config_hash}.parquet"


def listed_frames(path: Path) -> NDArray[np.int64]:
    """Return the frames that a file has, in its order; none when there is no file.

    Raises:
        DatasetError: If it is damaged.
    """
    if not path.exists():
        return np.empty(0, np.int64)
    with _damage(path):
        check_parquet(path)
        with map_parquet(path) as file:
            frames = file.read(["frame_index"])["frame_index"].cast(pa.int64())
        if frames.null_count:
            raise ValueError("a row has no frame_index")
        return numbers(frames, np.int64)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except DatasetError as error:
        raise DatasetError(error.message, hint=error.hint or _HINT) from None
    except (pa.ArrowException, KeyError, OSError, ValueError) as error:
        raise DatasetError(f"{path} is damaged: {error}", hint=_HINT) from error


class ItemsWriter:
    """Writes the file of one video and representation anew: what it had, then what is added; all of it or nothing.

    Memory is bounded by the size of a row group, not by the video.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        """Begin with the rows of the file that is there.

        Raises:
            DatasetError: If that one is damaged.
            StorageError: If the folder cannot be written to.
        """
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._schema = schema
        self._waiting: list[pa.Table] = []
        self._waiting_bytes = 0
        with storage_errors(path):
            make_folder(path.parent.parent.parent, ITEMS_FOLDER, path.parent.name)
            self._temporary.unlink(missing_ok=True)
            self._open = ExitStack()
            self._writer = self._open.enter_context(parquet_writer(self._temporary, schema))
        try:
            if path.exists():
                with _damage(path):
                    check_parquet(path)
                    known = map_parquet(path, dictionaries=True)
                    for at in range(known.num_row_groups):
                        self._writer.write_table(written_out(known.read_row_group(at), path).cast(schema))
        except BaseException:
            self.abort()
            raise

    def add(self, table: pa.Table) -> None:
        """Add rows with this schema."""
        self._waiting.append(table)
        self._waiting_bytes += table.nbytes
        if self._waiting_bytes >= _ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if waiting:  # forgotten before it is written: Ctrl-C in between must not have it written twice
            with storage_errors(self._path):
                self._writer.write_table(pa.concat_tables(waiting))

    def commit(self) -> None:
        """Put the file in its place; durable on return."""
        try:
            self._flush()
            with storage_errors(self._path):
                self._open.close()
                seal_file(self._temporary)
                with self._temporary.open("rb") as file:
                    os.fsync(file.fileno())
                self._temporary.replace(self._path)
                fsync_folder(self._path.parent)
        finally:
            self._temporary.unlink(missing_ok=True)

    def abort(self) -> None:
        """Leave the file as it was."""
        with suppress(OSError):  # a full disk has no room for the footer
            self._open.close()
        self._temporary.unlink(missing_ok=True)


def items_view(folder: Path, manifest: Manifest) -> str:
    """Return the SELECT behind the table `items`: one row an item, with the columns of every representation."""
    from vrekit.catalog.sandbox import sql_literal  # imports DuckDB

    listed: dict[str, str] = {}
    kinds: dict[str, set[pa.DataType]] = {}
    for name, record in manifest.representations.items():
        if record.is_virtual or not holds_items(record.stored) or not (folder / ITEMS_FOLDER).is_dir():
            continue
        paths = [items_path(folder, video_id, name, record) for video_id in manifest.videos]
        paths = [path for path in paths if path.exists()]
        for path in paths:
            with _damage(path):
                check_parquet(path, max_bytes=ALWAYS_CHECKED_BYTES)
                with map_parquet(path) as file:
                    if not file.schema_arrow.equals(items_schema(record.stored)):
                        raise ValueError("its columns are not those of its representation")
        files = ", ".join(sql_literal(str(path.resolve())) for path in paths)
        if files:
            listed[name] = (
                "SELECT format('{}/{:08d}', video_id, frame_index) AS key, video_id, frame_index, "
                f"{sql_literal(name)} AS representation, unnest(range(len(items))) AS item, "
                f"unnest(items, max_depth := 2) FROM read_parquet([{files}])"
            )
            for field in _fields(record):
                kinds.setdefault(field.name.lower(), set()).add(field.type)
    parts = []
    for name, select in listed.items():
        # DuckDB would make a FLOAT of an integer and a float32, which rounds
        columns = [field.name for field in _fields(manifest.representations[name])]
        mixed = ['"' + one.replace('"', '""') + '"' for one in columns if _is_mixed(kinds[one.lower()])]
        casts = ", ".join(f"{column}::DOUBLE AS {column}" for column in mixed)
        parts.append(f"SELECT * REPLACE ({casts}) FROM ({select})" if casts else select)
    nothing = ", ".join(f"NULL::{kind} AS {name}" for name, kind in ITEMS_COLUMNS.items())
    return " UNION ALL BY NAME ".join(parts) or f"SELECT {nothing} WHERE false"


def _fields(record: RepresentationRecord) -> list[pa.Field]:
    return list(items_schema(record.stored).field("items").type.value_type)


def _is_mixed(kinds: set[pa.DataType]) -> bool:
    return len(kinds) > 1 and not any(pa.types.is_string(kind) for kind in kinds)
