"""What metadata rows must be like before anything relies on them, checked for all rows of a table at once.

A dataset may come from a stranger, so a row may say anything: that a payload lies in another file, that it has no
checksum, or that a frame is an array larger than the memory.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vrekit.catalog.arrow_numpy import codes, is_valid, numbers
from vrekit.core.errors import DatasetError, UsageError
from vrekit.core.names import check_representation_name, check_video_id
from vrekit.core.schema import MAX_PAYLOAD_BYTES, SAMPLES_SCHEMA
from vrekit.core.spec import Kind, image_owner

MAX_FRAME_BYTES = 1 << 40
MAX_SIDES = 32
MAX_FRAME_INDEX = 2**53 - 1
DAMAGE_HINT = "`vrekit validate` lists what is wrong with a dataset; with --repair it takes that out"

Mistake = tuple[NDArray[np.bool_], str]  # which rows, and what is wrong with them

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,99}")
_SHARD = re.compile(r"(shards/[A-Za-z0-9][A-Za-z0-9_\-]*/[^/\0]+\.tar|lance/[^/\0]+\.lance)")
_DTYPE = re.compile(r"[a-z]{1,10}[0-9]{0,3}")
_MOST = {  # sums over all rows of a dataset stay below 2**63
    "byte_offset": 1 << 62,
    "byte_size": MAX_PAYLOAD_BYTES,
    "raw_bytes": MAX_FRAME_BYTES,
    "payload_index": 1 << 31,
}
_REQUIRED = tuple(field.name for field in SAMPLES_SCHEMA if not field.nullable)
_PAYLOAD = ("codec", "dtype", "shape", "raw_bytes", "byte_offset", "byte_size", "checksum", "shard")
_FREE_TEXT = ("error", "codec", "config_hash")


def check_rows(table: pa.Table, locate: Callable[[int], str], also: Iterable[Mistake] = ()) -> pa.Table:
    """Return the table, after checking its rows as far as their columns are there.

    Args:
        table: Columns of SAMPLES_SCHEMA; text may be dictionaries.
        locate: Returns the name of a row for messages.
        also: More mistakes.

    Raises:
        DatasetError: If a row cannot be true.
    """
    for rows, message in chain(row_mistakes(table), also):
        raise DatasetError(f"{locate(int(np.argmax(rows)))}: {message}", hint=DAMAGE_HINT)
    return table


def row_mistakes(table: pa.Table) -> Iterator[Mistake]:
    """Yield which rows cannot be true and why; nothing when all is well."""
    names = set(table.column_names)
    for name in _REQUIRED:
        if name in names and table[name].null_count:
            yield ~is_valid(table[name]), f"it has no {name}"
    for name, check in _TEXT_CHECKS.items():
        if name in names:
            yield from _wrong_text(name, table[name], check)
    for name in _FREE_TEXT:
        if name in names and not _is_utf8(table[name]):
            yield np.ones(len(table), np.bool_), f"the column {name} has text that is not UTF-8"
    if "frame_index" in names:
        frames = numbers(table["frame_index"], np.int64)
        yield from _outside("frame_index", frames, MAX_FRAME_INDEX)
    for name, most in _MOST.items():
        if name in names:
            yield from _outside(name, numbers(table[name], np.int64), most)
    if "status" in names:
        yield from _without_payload(table)
    if {"dtype", "shape", "raw_bytes"} <= names:
        yield from _wrong_layout(table)


def distinct(column: pa.ChunkedArray) -> list[str | None]:
    """Return the values of a column of text, in no order; of dictionaries, also values that no row has.

    Raises:
        UnicodeDecodeError: If one is not UTF-8.
    """
    found: dict[str | None, None] = {}
    if pa.types.is_dictionary(column.type):
        for chunk in column.chunks:
            found.update(dict.fromkeys(chunk.dictionary.to_pylist()))
        if column.null_count:
            found[None] = None
    else:
        found.update(dict.fromkeys(pc.unique(column).to_pylist()))
    return list(found)


@cache
def stored_dtype(name: str) -> np.dtype[Any] | None:
    """Return the dtype of a decoded array by its name; None if there are no such arrays."""
    if not _DTYPE.fullmatch(name):  # numpy itself also reads `i1,(99999999999)f8`
        return None
    try:
        dtype = np.dtype(name)
    except TypeError:
        return None
    return dtype if (dtype.kind in "biufc" or name == "str") and dtype.isnative else None


def _wrong_text(name: str, column: pa.ChunkedArray, check: Callable[[str], object]) -> Iterator[Mistake]:
    try:
        values = distinct(column)
    except UnicodeDecodeError:
        yield np.ones(len(column), np.bool_), f"the column {name} has text that is not UTF-8"
        return
    for value in values:
        if value is not None and not check(value):
            rows = numbers(pc.equal(column, pa.scalar(value)).fill_null(False), np.bool_)
            if rows.any():
                yield rows, f"{name} is {value[:100]!r}"


def _is_representation(name: str) -> bool:
    owner = image_owner(name)
    try:
        check_representation_name(name if owner is None else owner)
    except UsageError:
        return False
    return True


def _is_video(name: str) -> bool:
    try:
        check_video_id(name)
    except UsageError:
        return False
    return True


_TEXT_CHECKS: dict[str, Callable[[str], object]] = {
    "video_id": cache(_is_video),
    "representation": cache(_is_representation),
    "kind": frozenset(Kind).__contains__,
    "run_id": _RUN_ID.fullmatch,
    "status": frozenset(("ok", "failed")).__contains__,
    "dtype": stored_dtype,
    "shard": _SHARD.fullmatch,
}


def _is_utf8(column: pa.ChunkedArray) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _outside(name: str, values: NDArray[np.int64], high: int) -> Iterator[Mistake]:
    if len(values) and (int(values.min()) < 0 or int(values.max()) > high):
        rows = (values < 0) | (values > high)
        yield rows, f"{name} is {values[np.argmax(rows)]}, expected 0 to {high}"


def _without_payload(table: pa.Table) -> Iterator[Mistake]:
    """Yield the stored rows that lack something a payload needs, and the failed ones that have one."""
    lacking = [name for name in _PAYLOAD if name in table.column_names and table[name].null_count]
    status, statuses = codes(table["status"])
    is_ok = np.isin(status, [code for code, value in enumerate(statuses) if value == "ok"])
    if "byte_size" in table.column_names and not is_ok.all():
        rows = ~is_ok & is_valid(table["byte_size"])
        if rows.any():
            yield rows, "status is not 'ok', but it has a payload"
    for name in lacking:
        rows = is_ok & ~is_valid(table[name])
        if rows.any():
            yield rows, f"status is 'ok', but it has no {name}"


def _wrong_layout(table: pa.Table) -> Iterator[Mistake]:
    shapes = table["shape"].combine_chunks()
    if isinstance(shapes, pa.ChunkedArray):  # of an empty table
        return
    offsets, sides = numbers(shapes.offsets, np.int64), numbers(shapes.values, np.int64, -1)
    count = np.diff(offsets)
    has_shape = is_valid(shapes)
    if count.max(initial=0) > MAX_SIDES:
        rows = count > MAX_SIDES
        yield rows, f"shape has {count.max()} sides, expected at most {MAX_SIDES}"
        return
    # A 1 at the end, because `reduceat` takes no position behind it. Of a row without sides it gives nonsense.
    sides, is_array = np.append(sides, 1), count > 0
    elements = np.where(is_array, np.multiply.reduceat(sides, offsets[:-1], dtype=np.float64), 1.0)
    negative = is_array & (np.minimum.reduceat(sides, offsets[:-1]) < 0)
    dtypes = table["dtype"].cast(pa.string())
    sizes = {}
    for name in distinct(dtypes):
        dtype = None if name is None else stored_dtype(name)
        if dtype is not None:
            sizes[name] = np.nan if name == "str" else dtype.itemsize
    known = pa.array(list(sizes), pa.string())
    code = numbers(pc.index_in(dtypes, known), np.int64, -1)
    frame_bytes = elements * np.array([*sizes.values(), np.nan])[code]  # NaN: not known, or text
    rows = has_shape & (negative | (elements > MAX_FRAME_BYTES) | (frame_bytes > MAX_FRAME_BYTES))
    if rows.any():
        at = int(np.argmax(rows))
        yield rows, f"a frame is an array {dtypes[at].as_py()} {shapes[at].as_py()}, which no frame is"
    raw = numbers(table["raw_bytes"], np.float64)
    rows = has_shape & ~rows & is_valid(table["raw_bytes"]) & (np.abs(raw - frame_bytes) > 0)
    if rows.any():
        at = int(np.argmax(rows))
        yield rows, f"raw_bytes is {int(raw[at])}, but its array has {int(frame_bytes[at])} bytes"
