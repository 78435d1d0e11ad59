"""Rows of cells as the rows of a Lance table: one a frame and run, its payloads in blob columns."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vrekit.writers.lance.rows import FIELDS, FRAME_COLUMNS, column_name, representations_of

_BATCH_BYTES = 8 << 20  # a batch is a second copy of its payloads; larger ones also take more CPU


def record_batches(
    tables: Iterable[pa.Table], read: Callable[[int, int], bytes], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of the table, frame by frame, with payloads up to a size."""
    written: set[tuple[str, int]] = set()  # payloads shared by frames that a row has already
    for rows in tables:
        run, frame = rows["run_id"].combine_chunks().dictionary_encode(), rows["frame_index"].to_numpy()
        starts_frame = np.ones(len(rows), np.bool_)
        starts_frame[1:] = (np.diff(frame) != 0) | (np.diff(run.indices.to_numpy()) != 0)
        starts = np.append(np.flatnonzero(starts_frame), len(rows))
        own = pc.if_else(rows["payload_index"].is_null(), pc.fill_null(rows["byte_size"], 0), 0).to_numpy()
        ends = np.cumsum(np.add.reduceat(own, starts[:-1]))
        first = 0
        while first < len(ends):
            before = ends[first - 1] if first else 0
            stop = max(first + 1, int(np.searchsorted(ends, before + _BATCH_BYTES)) + 1)
            bounds = starts[first : stop + 1]
            yield _batch(rows.slice(bounds[0], bounds[-1] - bounds[0]), bounds - bounds[0], read, schema, written)
            first = stop


def _batch(
    rows: pa.Table,
    starts: NDArray[np.int64],
    read: Callable[[int, int], bytes],
    schema: pa.Schema,
    written: set[tuple[str, int]],
) -> pa.RecordBatch:
    """Return frames as rows of the table.

    Args:
        rows: Metadata rows.
        starts: Where the rows of each frame start, and the end of all.
        read: Returns the payload at an offset, of a size.
        schema: Of the table.
        written: Clips that a row has already; added to.
    """
    count = len(starts) - 1
    frame_of = np.repeat(np.arange(count), np.diff(starts))
    names = representations_of(schema)
    name_of = pc.index_in(rows["representation"], pa.array(names)).to_numpy()
    arrays = {name: rows[name].take(pa.array(starts[:-1])).combine_chunks() for name in FRAME_COLUMNS}
    for number, name in enumerate(names):
        mine = np.flatnonzero(name_of == number)[::-1]  # of several, the first one counts
        at = np.full(count, -1)
        at[frame_of[mine]] = mine
        found = rows.take(pa.array(at, mask=at < 0))
        blob = schema.field(column_name(name)).type
        arrays[column_name(name)] = blob_array(_payloads(name, found, read, written), blob)
        for field in FIELDS:
            arrays[column_name(name, field)] = found[field].combine_chunks()
    return pa.RecordBatch.from_arrays([arrays[name] for name in schema.names], schema=schema)


def _payloads(
    name: str, rows: pa.Table, read: Callable[[int, int], bytes], written: set[tuple[str, int]]
) -> list[bytes | None]:
    """Return the payload of each row; of a clip, the first row written has it for all of them."""
    payloads: list[bytes | None] = []
    columns = (rows[column].to_pylist() for column in ("byte_offset", "byte_size", "payload_index"))
    for offset, size, payload_index in zip(*columns, strict=True):
        is_known = payload_index is not None and (name, offset) in written
        if payload_index is not None:
            written.add((name, offset))
        payloads.append(None if size is None or is_known else read(offset, size))
    return payloads


def blob_array(payloads: Sequence[bytes | None], blob: pa.ExtensionType) -> pa.ExtensionArray:
    """Return what `lance.blob_array` does, without a second copy of the payloads; of a single one, without any."""
    missing = pa.array([payload is None for payload in payloads], pa.bool_())
    present = [payload for payload in payloads if payload is not None]
    data = present[0] if len(present) == 1 else b"".join(present)
    ends: NDArray[np.int64] = np.zeros(len(payloads) + 1, np.int64)
    np.cumsum([0 if payload is None else len(payload) for payload in payloads], out=ends[1:])
    buffers = [pc.invert(missing).buffers()[1], pa.py_buffer(ends), pa.py_buffer(data)]
    columns = {"data": pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(payloads), buffers)}
    arrays = [columns.get(field.name, pa.nulls(len(payloads), field.type)) for field in blob.storage_type]
    storage = pa.StructArray.from_arrays(arrays, fields=list(blob.storage_type), mask=missing)
    return pa.ExtensionArray.from_storage(blob, storage)
