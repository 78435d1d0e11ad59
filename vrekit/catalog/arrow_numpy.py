"""Arrow columns as numpy arrays, without pyarrow's own conversions: those import pandas where it is installed.

Importing pandas takes longer than opening a dataset of 100,000 samples does.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray


def numbers(column: pa.Array | pa.ChunkedArray, dtype: DTypeLike, null: float = 0) -> NDArray[Any]:
    """Return a column of numbers or booleans as `dtype`, with `null` where it is null. It may be read-only."""
    parts = [_numbers(chunk, dtype, null) for chunk in _chunks(column)]
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype), *parts])


def is_valid(column: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
    """Return where a column is not null."""
    return np.concatenate([np.empty(0, np.bool_), *(_valid(chunk) for chunk in _chunks(column))])


def codes(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], list[Any]]:
    """Return the number of each value (-1 for null) in the list of values; the list may have some that do not occur."""
    if not len(column):
        return np.empty(0, np.int32), []
    encoded = column.combine_chunks().dictionary_encode()
    return numbers(encoded.indices, np.int32, -1), encoded.dictionary.to_pylist()


def take(table: pa.Table, rows: NDArray[np.int64]) -> pa.Table:
    """Return these rows of a table."""
    rows = np.ascontiguousarray(rows, np.int64)
    return table.take(pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(rows)]))


def _chunks(column: pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    if not isinstance(column, pa.ChunkedArray):
        return [column]
    if column.num_chunks > 1:  # shards may be tiny: one copy here is quicker than a look at each
        whole = column.combine_chunks()
        column = whole if isinstance(whole, pa.ChunkedArray) else pa.chunked_array([whole])
    return list(column.chunks)


def _numbers(array: pa.Array, dtype: DTypeLike, null: float) -> NDArray[Any]:
    data = array.buffers()[1]
    if data is None or not len(array):
        return np.full(len(array), null, dtype)
    if pa.types.is_boolean(array.type):
        values: NDArray[Any] = _bits(data, array.offset, len(array))
    else:
        kind = "f" if pa.types.is_floating(array.type) else "i" if pa.types.is_signed_integer(array.type) else "u"
        stored = np.dtype(f"<{kind}{array.type.bit_width // 8}")
        values = np.frombuffer(data, stored, len(array), array.offset * stored.itemsize)
    if array.null_count:
        values = np.where(_valid(array), values, np.asarray(null, values.dtype))
    return np.asarray(values, dtype)


def _valid(array: pa.Array) -> NDArray[np.bool_]:
    bitmap = array.buffers()[0]
    return np.ones(len(array), np.bool_) if bitmap is None else _bits(bitmap, array.offset, len(array))


def _bits(data: pa.Buffer, offset: int, length: int) -> NDArray[np.bool_]:
    """Return `length` bits from bit `offset` on, the lowest bit of a byte first."""
    first = offset // 8
    octets = np.frombuffer(data, np.uint8, -(-(offset + length) // 8) - first, first)
    return np.unpackbits(octets, bitorder="little")[offset - 8 * first :][:length].view(np.bool_)
