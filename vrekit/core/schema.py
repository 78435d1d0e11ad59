"""The columnar metadata: one row per (video, frame, representation), the same for tar shards and Lance tables.

`checksum` is the CRC-32 (ISO-HDLC, the one of zlib, gzip and PNG) of the stored payload, so any tool can check it.
`payload_index` is set when several frames share one payload (a video clip): the frame's position inside it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

FORMAT_VERSION = 2
MAX_PAYLOAD_BYTES = 8**11 - 1  # 8 GiB: the size field of a tar member holds eleven octal digits

SAMPLES_SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("frame_index", pa.int64(), nullable=False),
        pa.field("pts_seconds", pa.float64()),
        pa.field("representation", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("config_hash", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("valid", pa.bool_(), nullable=False),
        pa.field("compute_seconds", pa.float32()),
        pa.field("encode_seconds", pa.float32()),
        pa.field("codec", pa.string()),
        pa.field("dtype", pa.string()),
        pa.field("shape", pa.list_(pa.int32())),
        pa.field("raw_bytes", pa.int64()),
        pa.field("byte_offset", pa.int64()),
        pa.field("byte_size", pa.int64()),
        pa.field("payload_index", pa.int32()),
        pa.field("checksum", pa.uint32()),
        pa.field("shard", pa.string()),
    ]
)

Status = Literal["ok", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRow:
    """One metadata row; the fields are the columns of SAMPLES_SCHEMA.

    A failed frame has `status="failed"`, an `error`, and no payload columns. `dtype` and `shape` are those of the
    array that decoding the payload gives; `raw_bytes` is that array's size. `byte_offset` and `byte_size` locate the
    payload inside `shard`, a path relative to the dataset; in a Lance table, `byte_offset` is the row's stable id.
    """

    video_id: str
    frame_index: int
    pts_seconds: float | None
    representation: str
    kind: str
    run_id: str
    config_hash: str
    status: Status = "ok"
    error: str | None = None
    valid: bool = True
    compute_seconds: float | None = None
    encode_seconds: float | None = None
    codec: str | None = None
    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    raw_bytes: int | None = None
    byte_offset: int | None = None
    byte_size: int | None = None
    payload_index: int | None = None
    checksum: int | None = None
    shard: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the columns by name."""
        return {
            name: getattr(self, name) for name in self.__slots__
        }  # `asdict` would copy all values, ten times slower


def rows_to_table(rows: Iterable[SampleRow | Mapping[str, Any]]) -> pa.Table:
    """Return rows as an Arrow table with SAMPLES_SCHEMA."""
    dicts = [row.to_dict() if isinstance(row, SampleRow) else dict(row) for row in rows]
    return pa.Table.from_pylist(dicts, schema=SAMPLES_SCHEMA)
