"""Metadata rows as Arrow tables, and the checksum they hold."""

import binascii
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrekit.core import checksum
from vrekit.core.checksum import crc32
from vrekit.core.schema import SAMPLES_SCHEMA, SampleRow, rows_to_table

ROW = SampleRow(
    video_id="car",
    frame_index=2**40,
    pts_seconds=1.5,
    representation="rgb",
    kind="color",
    run_id="r",
    config_hash="h",
    codec="png",
    dtype="uint8",
    shape=(2, 3, 3),
    raw_bytes=18,
    byte_offset=512,
    byte_size=2**33,
    checksum=2**32 - 1,
    shard="shards/car/all-0-1.tar",
)
FAILED = SampleRow(
    video_id="car",
    frame_index=1,
    pts_seconds=None,
    representation="rgb",
    kind="color",
    run_id="r",
    config_hash="h",
    status="failed",
    error="ValueError: bad",
)


def test_rows_and_columns_are_the_same() -> None:
    assert list(ROW.to_dict()) == SAMPLES_SCHEMA.names


def test_rows_survive_arrow() -> None:
    table = rows_to_table([ROW, FAILED.to_dict()])
    assert table.schema == SAMPLES_SCHEMA
    first, second = table.to_pylist()
    assert SampleRow(**{**first, "shape": tuple(first["shape"])}) == ROW
    assert SampleRow(**second) == FAILED
    assert rows_to_table([]).num_rows == 0


@given(st.binary(max_size=300))
def test_the_checksum_is_that_of_zlib(data: bytes) -> None:
    assert crc32(data) == zlib.crc32(data) == binascii.crc32(data)
    assert crc32(memoryview(data)) == zlib.crc32(data)


def test_the_checksum_without_libdeflate(monkeypatch: pytest.MonkeyPatch) -> None:
    assert crc32(b"123456789") == 0xCBF43926  # the check value of CRC-32/ISO-HDLC
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    checksum._implementation.cache_clear()
    try:
        assert crc32(b"123456789") == 0xCBF43926
    finally:
        checksum._implementation.cache_clear()
