"""Every bit of a Parquet file counts: a changed one never reads as another value."""

import os
import random
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vrekit.catalog.parquet_files import (
    CHECKSUM_KEY,
    check_parquet,
    checksum_of,
    parquet_writer,
    read_table,
    seal_file,
    table_bytes,
)
from vrekit.core.errors import DatasetError

TABLE = pa.table({"number": list(range(300)), "name": [f"frame {at % 7}" for at in range(300)]})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "rows.parquet"
    path.write_bytes(table_bytes(TABLE))
    return path


def test_the_checksum_is_that_of_the_file_with_zeros_for_its_digits(path: Path) -> None:
    data = path.read_bytes()
    digits = pq.ParquetFile(path).metadata.metadata[CHECKSUM_KEY.encode()]
    assert data.count(digits) == 1
    assert digits == b"%08x" % zlib.crc32(data.replace(digits, b"0" * 8))
    assert checksum_of(path) == digits.decode()
    assert check_parquet(path)


def test_other_programs_can_check_the_pages(path: Path) -> None:
    assert pq.ParquetFile(path, page_checksum_verification=True).read().equals(TABLE)
    data = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    data[column.dictionary_page_offset + column.total_compressed_size // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(OSError, match="CRC"):
        pq.ParquetFile(path, page_checksum_verification=True).read()


def test_equal_tables_give_equal_bytes_in_memory_and_on_disk(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.parquet"
    with parquet_writer(other, TABLE.schema) as writer:
        writer.write_table(TABLE)
    seal_file(other)
    assert other.read_bytes() == path.read_bytes() == table_bytes(TABLE)


def test_no_flipped_bit_gives_other_values(path: Path) -> None:
    whole = path.read_bytes()
    rng = random.Random(0)
    found = 0
    for _ in range(300):
        data = bytearray(whole)
        bit = rng.randrange(len(data) * 8)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            assert read_table(path).equals(TABLE)
        except (DatasetError, OSError, pa.ArrowException):
            found += 1
    assert found > 250  # a bit of the checksum's own name leaves a file without one


def test_a_file_without_a_checksum_is_read(path: Path) -> None:
    pq.write_table(TABLE, path)
    assert read_table(path).equals(TABLE)
    assert not check_parquet(path)
    assert checksum_of(path) is None


@pytest.mark.parametrize("what", ["pipe", "link"])
def test_only_regular_files_are_read(path: Path, what: str) -> None:
    other = path.with_name("other.parquet")
    if what == "pipe":
        os.mkfifo(other)
    else:
        other.symlink_to(path)
    with pytest.raises(DatasetError, match=r"is no regular file|is a link"):
        read_table(other)
    with pytest.raises(DatasetError, match=r"is no regular file|is a link"):
        check_parquet(other)


def test_a_large_file_is_not_read_whole_when_that_is_not_wanted(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)
    assert check_parquet(path, max_bytes=100)
    with pytest.raises(DatasetError, match="do not give its checksum"):
        check_parquet(path, max_bytes=len(data))


@pytest.mark.parametrize("kind", [pa.string(), pa.list_(pa.string())])
def test_a_small_file_with_gigabytes_of_text_is_refused(path: Path, kind: pa.DataType) -> None:
    count, long = 50_000, "x" * (64 << 10)
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([long]))
    if pa.types.is_list(kind):
        texts = pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32)), texts)
    path.write_bytes(table_bytes(pa.table({"text": texts})))
    assert path.stat().st_size < 100_000
    with pytest.raises(DatasetError, match="its column text has more than 1073741824 bytes"):
        read_table(path)


def test_a_small_file_with_very_many_rows_is_refused(path: Path) -> None:
    path.write_bytes(table_bytes(pa.table({"number": np.zeros(20_000_000, np.int64)})))
    assert path.stat().st_size < 100_000
    with pytest.raises(DatasetError, match="but claims 20000000 rows"):
        read_table(path)


def test_texts_that_repeat_are_read(path: Path) -> None:
    texts = [f"{'x' * 1000}{number % 3}" for number in range(50_000)]
    path.write_bytes(table_bytes(pa.table({"text": texts})))
    assert read_table(path)["text"].cast(pa.string()).to_pylist() == texts
