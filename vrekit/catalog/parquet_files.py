"""Parquet files with a checksum over all their bytes, so that a changed bit never reads as another value.

The footer's key-value metadata has `vrekit.checksum`: 8 hex digits, the CRC-32 (ISO-HDLC) of the whole file with these
digits written as zeros. The pages have checksums of their own, which other programs can check. A file without the key,
which an older version wrote, is read as it is.
"""

import mmap
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vrekit.catalog.parquet_pages import PageError, unfolded_bytes
from vrekit.core.checksum import crc32
from vrekit.core.documents import MAX_DEPTH, Fields, parse_json
from vrekit.core.errors import DatasetError
from vrekit.core.files import open_regular

CHECKSUM_KEY = "vrekit.checksum"
MAX_FILE_BYTES = 1 << 30  # of a file that is read into memory whole: tens of millions of rows
ALWAYS_CHECKED_BYTES = 256 << 20  # a file that is read in parts is checked whole up to this size: 12 ms of CPU

MAX_TEXT_BYTES = 1 << 30  # of a column of text
_ROWS_A_BYTE = 16  # a million frames that failed for one reason take 86 kB
_VALUES_A_BYTE = 64  # of lists, such as shapes
_FOR_ALL = 1 << 16
_UNFOLDED_A_BYTE = 256  # equal numbers and texts
_UNFOLDED_FOR_ALL = 256 << 20

_LARGE_BYTES = 1 << 20  # from which on it pays to import the faster CRC

_NO_DIGITS = b"0" * 8
# as the footer has it, in Thrift's compact form: length and text of the key, type and length of the value
_MARK = bytes([len(CHECKSUM_KEY)]) + CHECKSUM_KEY.encode() + bytes([0x18, len(_NO_DIGITS)])
_TRAILER_BYTES = 8  # the footer's length, and `PAR1`


@contextmanager
def parquet_writer(where: Any, schema: pa.Schema, **options: Any) -> Iterator[pq.ParquetWriter]:
    """Give a ParquetWriter whose file can be sealed when it is closed.

    Args:
        where: A path, or what pyarrow writes to.
        schema: Of the tables.
        options: More options of ParquetWriter.
    """
    with pq.ParquetWriter(where, schema, compression="zstd", write_page_checksum=True, **options) as writer:
        writer.add_key_value_metadata({CHECKSUM_KEY: _NO_DIGITS.decode()})
        yield writer


def table_bytes(table: pa.Table, **options: Any) -> bytes:
    """Return a sealed Parquet file of a table; options as for `parquet_writer`."""
    sink = pa.BufferOutputStream()
    with parquet_writer(sink, table.schema, **options) as writer:
        writer.write_table(table)
    return seal(sink.getvalue())


def seal(data: bytes | pa.Buffer) -> bytes:
    """Return what a `parquet_writer` wrote, with its checksum."""
    sealed = bytearray(data)
    at = _digits_at(sealed)
    assert at is not None, "not from parquet_writer"
    sealed[at : at + len(_NO_DIGITS)] = b"%08x" % zlib.crc32(sealed)
    return bytes(sealed)


def seal_file(path: Path) -> None:
    """Put the checksum into a file that a `parquet_writer` wrote."""
    with path.open("r+b") as file, _mapped(file, mmap.ACCESS_WRITE) as data:
        at = _digits_at(data)
        assert at is not None, "not from parquet_writer"
        data[at : at + len(_NO_DIGITS)] = b"%08x" % zlib.crc32(data)


def read_parquet_bytes(path: Path, *, follow_links: bool = False) -> bytes:
    """Return the content of a Parquet file, after checking it.

    Args:
        path: The file.
        follow_links: For a file that the user named; in a dataset, links are not followed.

    Raises:
        DatasetError: If its bytes do not give its checksum; or if it is no regular file, or too large.
        OSError: If it cannot be read.
    """
    with os.fdopen(_open(path, follow_links), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_FILE_BYTES:
            raise DatasetError(f"{path} has {size} bytes, at most {MAX_FILE_BYTES} are read")
        data = file.read()
    _check(data, path)
    return data


def open_parquet(
    path: Path,
    *,
    follow_links: bool = False,
    max_rows: int | None = None,
    dictionaries: bool = False,
    **options: Any,
) -> pq.ParquetFile:
    """Return a Parquet file that is read into memory whole; errors as in `read_parquet_bytes`, and ArrowException.

    Args:
        path: The file.
        follow_links: See `read_parquet_bytes`.
        max_rows: How many rows it may have.
        dictionaries: Whether text comes as dictionaries, see `written_out`.
        options: More options of ParquetFile.
    """
    data = read_parquet_bytes(path, follow_links=follow_links)
    file = _checked(pq.ParquetFile(pa.BufferReader(data), **options), data, path)
    if dictionaries:
        file = _with_dictionaries(file, pa.BufferReader(data))
    if max_rows is not None and file.metadata.num_rows > max_rows:
        raise DatasetError(f"{path} is damaged: it has {file.metadata.num_rows} rows, at most {max_rows} are read")
    return file


def map_parquet(path: Path, *, dictionaries: bool = False, **options: Any) -> pq.ParquetFile:
    """Return a Parquet file that is read in parts; `check_parquet` is the caller's business, arguments as above.

    Raises:
        DatasetError: If it unfolds to more than its size allows.
        ArrowException, OSError: If it cannot be read.
    """
    with os.fdopen(_open(path, follow_links=False), "rb") as file, _mapped(file, mmap.ACCESS_READ) as data:
        opened = _checked(pq.ParquetFile(path, **options), data, path)
    return _with_dictionaries(opened, path) if dictionaries else opened


def _checked(file: pq.ParquetFile, data: bytes | mmap.mmap, path: Path) -> pq.ParquetFile:
    """Return the file, unless a small one claims very many values: equal ones take no space, but memory when read."""
    metadata, size = file.metadata, len(data)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    columns = [[group.column(at) for at in range(group.num_columns)] for group in groups]
    values = sum(max((column.num_values for column in of_group), default=0) for of_group in columns)
    most_rows, most_values = (_FOR_ALL + a_byte * size for a_byte in (_ROWS_A_BYTE, _VALUES_A_BYTE))
    if metadata.num_rows > most_rows or values > most_values:
        count = f"{metadata.num_rows} rows, with {values} values in a column"
        raise DatasetError(f"{path} is damaged: it has {size} bytes, but claims {count}")
    try:
        unfolded = sum(unfolded_bytes(column, data) for of_group in columns for column in of_group)
    except PageError as error:
        raise DatasetError(f"{path} is damaged: {error}") from None
    if unfolded > _UNFOLDED_FOR_ALL + _UNFOLDED_A_BYTE * size:
        raise DatasetError(f"{path} is damaged: it has {size} bytes, but its pages claim {unfolded}")
    return file


def _with_dictionaries(file: pq.ParquetFile, source: Any) -> pq.ParquetFile:
    """Return a checked file, opened anew with all text as dictionaries: a text that many rows have is held once."""
    leaves = [file.schema.column(at) for at in range(len(file.schema))]
    if any(leaf.physical_type == "FIXED_LEN_BYTE_ARRAY" for leaf in leaves):
        raise pa.ArrowInvalid("it has bytes of fixed length, which are not read")
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    return pq.ParquetFile(source, metadata=file.metadata, read_dictionary=texts)


def written_out(table: pa.Table, path: Path) -> pa.Table:
    """Return rows with text in place of dictionaries: twice as fast as reading text; errors as in `check_text`."""
    check_text(table, path)
    fields = [field.with_type(_plain(field.type)) for field in table.schema]
    return table.cast(pa.schema(fields, metadata=table.schema.metadata))


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return kind.value_type
    return pa.list_(kind.value_type.value_type) if _lists_dictionaries(kind) else kind


def _lists_dictionaries(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) and pa.types.is_dictionary(kind.value_type))


def check_text(table: pa.Table, path: Path) -> None:
    """Raise DatasetError if the text in a table's dictionaries takes more than MAX_TEXT_BYTES when written out."""
    for name, column in zip(table.column_names, table.columns, strict=True):
        chunks = column.chunks if pa.types.is_dictionary(column.type) else ()
        if _lists_dictionaries(column.type):
            chunks = [chunk.flatten() for chunk in column.chunks]
        for chunk in chunks:
            if chunk.dictionary.nbytes * len(chunk) > MAX_TEXT_BYTES:  # it may be one long text, or many short ones
                lengths = pc.binary_length(chunk.dictionary).take(chunk.indices)
                if (pc.sum(lengths).as_py() or 0) > MAX_TEXT_BYTES:
                    raise DatasetError(f"{path} is damaged: its column {name} has more than {MAX_TEXT_BYTES} bytes")


def read_table(path: Path, columns: Sequence[str] | None = None, *, follow_links: bool = False) -> pa.Table:
    """Return the rows of a small Parquet file; errors as in `open_parquet` and `check_text`.

    Args:
        path: The file.
        columns: Columns to read; None reads all.
        follow_links: See `read_parquet_bytes`.
    """
    with open_parquet(path, follow_links=follow_links, dictionaries=True) as file:
        return written_out(file.read(columns=None if columns is None else list(columns)), path)


def check_parquet(path: Path, *, max_bytes: int | None = None) -> bool:
    """Check a file that other code will open, and return whether it has a checksum; it is not held in memory.

    Args:
        path: The file.
        max_bytes: Do not check a larger one, and return True.

    Raises:
        DatasetError: If its bytes do not give its checksum, or if it is no regular file.
        OSError: If it cannot be read.
    """
    with os.fdopen(_open(path, follow_links=False), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return False
        if max_bytes is not None and size > max_bytes:
            return True
        with _mapped(file, mmap.ACCESS_READ) as data:
            return _check(data, path)


def metadata_fields(schema: pa.Schema, key: bytes, where: str, *, max_depth: int = MAX_DEPTH) -> Fields | None:
    """Return the JSON object in a file's key-value metadata; None if it has no such key.

    Raises:
        DatasetError: If it is no JSON object, or nested deeper than `max_depth`.
    """
    text = (schema.metadata or {}).get(key)
    if text is None:
        return None
    data = parse_json(text, where, max_depth=max_depth)
    if not isinstance(data, dict):
        raise DatasetError(f"{where} is damaged: its metadata {key.decode()!r} is no object")
    return Fields(data, where)


def checksum_in(data: bytes | mmap.mmap) -> str | None:
    """Return the checksum that is written in a file's content, 8 hex digits, without checking it; None without one."""
    at = _digits_at(data)
    return None if at is None else data[at : at + len(_NO_DIGITS)].decode(errors="replace")


def checksum_of(path: Path) -> str | None:
    """Return the checksum that is written in a file, 8 hex digits, without checking it; None if it has none.

    Raises:
        OSError: If it cannot be read.
    """
    with os.fdopen(_open(path, follow_links=False), "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return None
        with _mapped(file, mmap.ACCESS_READ) as data:
            return checksum_in(data)


def _open(path: Path, follow_links: bool) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC) if follow_links else open_regular(path)


@contextmanager
def _mapped(file: BinaryIO, access: int) -> Iterator[mmap.mmap]:
    with mmap.mmap(file.fileno(), 0, access=access) as data:
        yield data


def _digits_at(data: bytes | bytearray | mmap.mmap) -> int | None:
    """Return where the digits of the checksum are; None if there is no checksum."""
    footer_bytes = int.from_bytes(data[-_TRAILER_BYTES:-4], "little")
    at = data.rfind(_MARK, max(0, len(data) - _TRAILER_BYTES - footer_bytes))
    end = at + len(_MARK) + len(_NO_DIGITS)
    return None if at < 0 or end > len(data) else at + len(_MARK)


def _check(data: bytes | mmap.mmap, path: Path) -> bool:
    at = _digits_at(data)
    if at is None:
        return False
    end = at + len(_NO_DIGITS)
    digest = zlib.crc32 if len(data) < _LARGE_BYTES else crc32
    with memoryview(data) as view, view[:at] as head, view[end:] as tail:
        found = digest(tail, digest(_NO_DIGITS, digest(head, 0)))
    if b"%08x" % found != data[at:end]:
        raise DatasetError(f"{path} is damaged: its bytes do not give its checksum")
    return True
