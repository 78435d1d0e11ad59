"""Bytes that are not what encode wrote: CodecError, or an array of the promised dtype and shape; never a crash."""

import json
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.codecs.codec_samples import CASES, Array, arrays
from vrekit.codecs.registry import codec_from_config
from vrekit.core.errors import CodecError, UsageError

NAMES = sorted(CASES)
CHECKED = ("bits.npy.zst", "coco-rle", "json.zst", "npy.zst", "png", "rgb-delta", "oct-delta", "mm-delta", "u16-delta")


def sample(name: str) -> Array:
    return max(arrays(name), key=lambda array: array.size)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_damaged_bytes_never_crash(name: str, data: st.DataObject) -> None:
    codec = codec_from_config({"id": name, **CASES[name].options})
    array = sample(name)
    damaged = bytearray(codec.encode(array))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged))) :]
    for _ in range(data.draw(st.integers(0, 5))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    damaged += data.draw(st.binary(max_size=3))
    try:
        decoded = codec.decode(bytes(damaged), dtype=array.dtype, shape=array.shape)
    except CodecError:
        pass
    else:
        assert (decoded.dtype, decoded.shape) == (array.dtype, array.shape)


@pytest.mark.parametrize("name", NAMES)
@given(junk=st.binary(max_size=200))
@settings(deadline=None, max_examples=30)
def test_junk_never_crashes(name: str, junk: bytes) -> None:
    codec = codec_from_config({"id": name, **CASES[name].options})
    array = sample(name)
    with pytest.raises(CodecError):
        codec.decode(junk, dtype=array.dtype, shape=array.shape)


@pytest.mark.parametrize("name", NAMES)
def test_every_truncation_is_noticed(name: str) -> None:
    codec = codec_from_config({"id": name, **CASES[name].options})
    array = sample(name)
    data = codec.encode(array)
    lengths = {0, 1, len(data) - 1, len(data) - 2, len(data) - 4, *range(0, len(data), max(1, len(data) // 50))}
    for length in lengths:
        with pytest.raises(CodecError):
            codec.decode(data[:length], dtype=array.dtype, shape=array.shape)


@pytest.mark.parametrize("name", CHECKED)
def test_every_flipped_bit_is_noticed_where_the_format_has_a_checksum(name: str) -> None:
    codec = codec_from_config({"id": name, **CASES[name].options})
    array = arrays(name)[-1]
    data = codec.encode(array)
    expected = codec.decode(data, dtype=array.dtype, shape=array.shape).tobytes()
    step = max(1, len(data) * 8 // 800)
    for position in range(0, len(data) * 8, step):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        try:
            decoded = codec.decode(bytes(flipped), dtype=array.dtype, shape=array.shape)
        except CodecError:
            continue
        assert decoded.tobytes() == expected, f"bit {position} changed the array and nobody noticed"


@pytest.mark.parametrize("name", ["jls", "jpg", "jxl", "npy.zst", "pco", "png"])
def test_a_bomb_is_refused_before_it_unpacks(name: str) -> None:
    dtype = np.dtype(np.uint16 if name == "pco" else np.uint8)
    codec = codec_from_config(name)
    bomb = codec.encode(np.zeros((3000, 4000), dtype))
    assert len(bomb) < 250_000
    tracemalloc.start()
    try:
        with pytest.raises(CodecError):
            codec.decode(bomb, dtype=dtype, shape=(10, 10))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_an_arrow_stream_is_never_unpacked() -> None:
    import pyarrow as pa

    schema = pa.schema([pa.field(name, pa.float32(), nullable=False) for name in ("x", "y")])
    zeros = pa.array(np.zeros(1 << 20, np.float32))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(pa.record_batch([zeros, zeros], schema=schema))
    bomb = bytes(sink.getvalue())
    assert len(bomb) < 5000
    codec = codec_from_config({"id": "arrow", "columns": ["x", "y"]})
    before = pa.total_allocated_bytes()
    with pytest.raises(CodecError, match="compressed"):
        codec.decode(bomb, dtype=np.dtype(np.float32), shape=(1 << 20, 2))
    assert pa.total_allocated_bytes() == before


def test_an_arrow_stream_of_something_else_is_refused() -> None:
    import pyarrow as pa

    def stream(columns: dict[str, pa.Array], *, nullable: bool = False) -> bytes:
        fields = [pa.field(name, column.type, nullable=nullable) for name, column in columns.items()]
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, pa.schema(fields)) as writer:
            writer.write_batch(pa.record_batch(list(columns.values()), schema=pa.schema(fields)))
        return bytes(sink.getvalue())

    ints, halves = pa.array([1, 2], pa.int32()), pa.array([1, 2, 3, 4], pa.int32())
    dtype = np.dtype(np.int32)
    codec = codec_from_config({"id": "arrow", "columns": ["x", "y"]})
    good = stream({"x": ints, "y": ints})
    assert codec.decode(good, dtype=dtype, shape=(2, 2)).tolist() == [[1, 1], [2, 2]]
    start = int.from_bytes(good[4:8], "little") + 8  # where the record batch begins
    cases = {
        "has columns x: int32": stream({"x": ints}),
        "expected x: int32, y: int32": stream({"y": ints, "x": ints}),
        "has columns x: int64": stream({"x": ints.cast(pa.int64()), "y": ints}),
        "4 rows": stream({"x": halves, "y": halves}),
        "nulls": stream({"x": ints, "y": pa.array([1, None], pa.int32())}),
        "expected 'schema'": good[start:],  # pyarrow's read_schema crashes on it
        "expected 'record batch'": good[:start] + good,
        "has columns": stream({"x": ints, "y": ints}, nullable=True),
        "goes on": good[:-8] + good[start:],  # a second batch
        "is damaged": good[:start],
        "no end": good[:-8],
    }
    for message, data in cases.items():
        with pytest.raises(CodecError, match=message):
            codec.decode(data, dtype=dtype, shape=(2, 2))
    for columns in ([], ["x", "x"]):
        with pytest.raises(UsageError, match="different names"):
            codec_from_config({"id": "arrow", "columns": columns})


def test_sizes_in_headers_are_not_believed() -> None:
    array = np.zeros((4, 5), np.uint8)
    zstd = bytearray(codec_from_config("npy.zst").encode(array))
    zstd[4:6] = b"\xe0" + zstd[5:6]  # 8-byte content size
    npy = codec_from_config("npy").encode(array).replace(b"(4, 5), }", b"(4, 5**9)}")
    huge = codec_from_config("npy").encode(array).replace(b"(4, 5), }  ", b"(40000, 50)}")
    rle = json.dumps({"size": [4, 5], "counts": "_" * 12 + "3"}).encode()
    png = bytearray(codec_from_config("png").encode(array))
    png[16:20] = b"\x7f\xff\xff\xff"
    png[29:33] = zlib.crc32(png[12:29]).to_bytes(4, "big")
    for name, data in (("npy.zst", zstd), ("npy", npy), ("npy", huge), ("png", png)):
        with pytest.raises(CodecError):
            codec_from_config(name).decode(bytes(data), dtype=array.dtype, shape=array.shape)
    with pytest.raises(CodecError, match="coco-rle"):
        codec_from_config({"stages": ["coco-rle"]}).decode(rle, dtype=np.dtype(bool), shape=(4, 5))


def test_npy_never_unpickles() -> None:
    pickled = b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    pickled += b" " * (128 - len(pickled)) + b"cos\nsystem\n(S'false'\ntR."
    with pytest.raises(CodecError, match="does not parse"):
        codec_from_config("npy").decode(pickled, dtype=np.dtype(np.float32), shape=(1,))


def test_codes_that_are_never_written_are_refused() -> None:
    npy = codec_from_config("npy")
    cases: tuple[tuple[str, dict[str, Any], Array, tuple[int, ...]], ...] = (
        ("gaplog", {}, np.full((2, 3, 4), 200, np.uint8), (2, 3, 4)),
        ("octahedral", {"bits": 9}, np.full((2, 3, 4), 512, np.uint16), (3, 4, 3)),
        ("uniform", {"minimum": 0, "maximum": 1, "bits": 12}, np.full((3, 4), 4096, np.uint16), (3, 4)),
        ("topk", {"k": 1}, np.full((2, 3, 4), 7, np.uint8), (5, 3, 4)),
        ("kitti-flow", {}, np.full((3, 4, 3), 2, np.uint16), (3, 4, 2)),
    )
    for stage, options, codes, shape in cases:
        codec = codec_from_config({"stages": [{"id": stage, **options}, "npy"]})
        with pytest.raises(CodecError):
            codec.decode(npy.encode(codes), dtype=np.dtype(np.float32), shape=shape)


@pytest.mark.parametrize("descr", [b"<f4,(2f", b"(2,01)f4", b"O", b"<f4,<f4", b"<M8[s]", b"", b"<f400", b"f\xff"])
def test_npy_dtypes_that_are_no_numbers_are_refused(descr: bytes) -> None:
    header = b"{'descr': '" + descr + b"', 'fortran_order': False, 'shape': (3,), }"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(12)
    with pytest.raises(CodecError, match="npy"):
        codec_from_config("npy").decode(data, dtype=np.dtype(np.float32), shape=(3,))


def test_a_number_of_thousands_of_digits_is_damage() -> None:
    codec = codec_from_config({"stages": ["coco-rle"]})
    data = b'{"size":[' + b"1" * 5000 + b',3],"counts":"0"}'
    with pytest.raises(CodecError, match="damaged"):
        codec.decode(data, dtype=np.dtype(np.bool_), shape=(3, 3))
