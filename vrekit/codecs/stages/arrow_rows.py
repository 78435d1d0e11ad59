"""Ragged rows as an Arrow table: boxes, keypoints, point clouds."""

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.base import Bytes
from vrekit.codecs.stage import ArrayToBytesStage, Shape, fits
from vrekit.core.errors import CodecError, UsageError
from vrekit.core.spec import OutputSpec

if TYPE_CHECKING:
    import pyarrow as pa

_NAMELESS = "values"
# Fields of the flatbuffers in an IPC message (Schema.fbs, Message.fbs of the Arrow format): Message.header and
# RecordBatch.compression.
_HEADER, _COMPRESSION = 2, 3


@dataclass(frozen=True, slots=True)
class ArrowRows(ArrayToBytesStage):
    """An Arrow IPC stream of one record batch: a row of the table for each item of the first axis.

    With `columns` there is a column for each name, the last axis; a frame that is one row only (a table of sensors)
    has no axis for rows. Axes between become nested fixed-size lists. Without names there is one column, `values`, of
    lists. Exact: every bit of a float is kept, and no value is null.

    Attributes:
        columns: Names of the last axis, all different.
    """

    id: ClassVar[str] = "arrow"
    suffix: ClassVar[str] = "arrow"

    columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.columns is not None and (not self.columns or len(set(self.columns)) < len(self.columns)):
            raise UsageError(f"arrow.columns is {list(self.columns)}, expected different names")

    @classmethod
    def options_for(cls, spec: OutputSpec) -> dict[str, Any]:
        """Return the names of the columns."""
        return {"columns": spec.columns} if spec.columns and spec.shape and spec.shape[-1] == len(spec.columns) else {}

    def check(self, dtype: np.dtype[Any], shape: Shape) -> None:
        """Accept numbers and booleans with an axis of rows; with columns, as many as the last axis has."""
        is_number = dtype.kind in "biuf" and dtype.itemsize <= 8 and dtype.isnative
        fits(
            is_number and 1 <= len(shape) <= 8,
            self,
            dtype,
            shape,
            "numbers or booleans with one axis or more",
            "npy.zst takes any numbers",
        )
        if self.columns is not None:
            fits(
                shape[-1] == len(self.columns),
                self,
                dtype,
                shape,
                f"arrays whose last axis has {len(self.columns)}",
                "name each column in `columns`; npy.zst takes any numbers",
            )

    def max_encoded_size(self, dtype: np.dtype[Any], shape: Shape) -> int:
        """Return room for the numbers and for the schema, which says much about each column."""
        names = sum(1024 + 8 * len(name) for name in self.columns or ())
        return ArrayToBytesStage.max_encoded_size(self, dtype, shape) + names

    def encode(self, array: NDArray[Any]) -> bytes:
        """Return the stream."""
        import pyarrow as pa

        schema, rows, inner = self._layout(array.dtype, array.shape)
        sources = [array] if self.columns is None else [array[..., at] for at in range(len(self.columns))]
        batch = pa.record_batch([_column(source, rows, inner) for source in sources], schema=schema)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as writer:
            writer.write_batch(batch)
        return bytes(sink.getvalue())

    def decode(self, data: Bytes, out: NDArray[Any]) -> None:
        """Fill `out` from the columns."""
        import pyarrow as pa

        schema, rows, _ = self._layout(out.dtype, out.shape)
        try:
            reader = pa.ipc.MessageReader.open_stream(pa.py_buffer(data))
            found = pa.ipc.read_schema(_next_message(reader, "schema"))
            if not found.equals(schema):
                raise CodecError(f"arrow stream has columns {_described(found)}, expected {_described(schema)}")
            message = _next_message(reader, "record batch")
            if _is_compressed(memoryview(message.metadata)):
                raise CodecError("arrow stream is compressed, which is never written: it may unpack to any size")
            batch = pa.ipc.read_record_batch(message, schema)
            batch.validate(full=True)
            if batch.num_rows != rows:
                raise CodecError(f"arrow stream has {batch.num_rows} rows, expected {rows}")
            if bytes(data[-8:]) != _END or next(reader, None) is not None:
                raise CodecError("arrow stream goes on behind its record batch, or has no end")
            if any(_has_nulls(column) for column in batch.columns):
                raise CodecError("arrow stream has nulls, which are never written")
            columns = [_values(column, out.dtype) for column in batch.columns]
            if self.columns is None:
                out[...] = columns[0].reshape(out.shape)
            for at in range(0 if self.columns is None else len(self.columns)):
                out[..., at] = columns[at].reshape(out.shape[:-1])
        except (pa.ArrowException, OSError, StopIteration, ValueError, TypeError, MemoryError, struct.error) as error:
            raise CodecError(f"arrow stream is damaged or not {out.dtype} {out.shape}: {error}") from error

    def _layout(self, dtype: np.dtype[Any], shape: Shape) -> tuple["pa.Schema", int, Shape]:
        """Return the schema, the number of rows, and the axes inside a value."""
        import pyarrow as pa

        outer = shape if self.columns is None else shape[:-1]
        rows, inner = (outer[0], outer[1:]) if outer else (1, ())
        kind = _list_type(pa.from_numpy_dtype(dtype), inner)
        names = (_NAMELESS,) if self.columns is None else self.columns
        return pa.schema([pa.field(name, kind, nullable=False) for name in names]), rows, inner


def _next_message(reader: "pa.ipc.MessageReader", kind: str) -> "pa.ipc.Message":
    message = reader.read_next_message()
    if message.type != kind:  # pyarrow does not look, and reads past the end of other messages
        raise CodecError(f"arrow stream has a message {message.type!r}, expected {kind!r}")
    return message


_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"  # the end-of-stream marker


def _list_type(kind: "pa.DataType", inner: Shape) -> "pa.DataType":
    import pyarrow as pa

    for size in reversed(inner):
        kind = pa.list_(pa.field("item", kind, nullable=False), size)
    return kind


def _column(values: NDArray[Any], rows: int, inner: Shape) -> "pa.Array":
    import pyarrow as pa

    column = pa.array(np.ascontiguousarray(values).reshape(-1))
    for at in reversed(range(len(inner))):
        count = rows * int(np.prod(inner[:at], dtype=np.int64))
        kind = _list_type(column.type, inner[at : at + 1])
        column = pa.Array.from_buffers(kind, count, [None], children=[column])
    return column


def _has_nulls(column: "pa.Array") -> bool:
    while True:
        if column.null_count:
            return True
        if not _is_list(column):
            return False
        column = column.values


def _values(column: "pa.Array", dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the numbers of a column without nulls, in one axis."""
    while _is_list(column):
        column = column.flatten()
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    if values.dtype != dtype:
        raise CodecError(f"arrow stream holds {values.dtype}, expected {dtype}")
    return values


def _is_list(column: "pa.Array") -> bool:
    import pyarrow as pa

    return bool(pa.types.is_fixed_size_list(column.type))


def _described(schema: "pa.Schema") -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)[:200]


def _is_compressed(metadata: memoryview) -> bool:
    """Return whether a record batch says so: Arrow would then allocate whatever size its buffers claim."""
    message = int(struct.unpack_from("<I", metadata, 0)[0])
    header = _field(metadata, message, _HEADER)
    batch = header + int(struct.unpack_from("<I", metadata, header)[0])
    return _field(metadata, batch, _COMPRESSION) > 0


def _field(data: memoryview, table: int, index: int) -> int:
    """Return where a flatbuffer's table has a field, 0 if it has none."""
    vtable = table - int(struct.unpack_from("<i", data, table)[0])
    if vtable < 0:
        raise CodecError("arrow stream is damaged: a table of its header starts before it")
    slot = 4 + 2 * index
    if slot >= struct.unpack_from("<H", data, vtable)[0]:
        return 0
    offset = int(struct.unpack_from("<H", data, vtable + slot)[0])
    return table + offset if offset else 0
