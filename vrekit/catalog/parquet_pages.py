"""What the pages of a Parquet file unfold to, read from their headers: pyarrow takes memory for what a header claims.

A header is a struct in Thrift's compact form. Those that Arrow itself writes are matched by one regular expression,
which takes a microsecond; others are read field by field.
"""

import mmap
import re
from functools import lru_cache
from typing import Any

import pyarrow.parquet as pq

_BYTES = rb"([\x00-\x7f]|[\x80-\xff]{1,3}[\x00-\x7f]|[\x80-\xff]{4}[\x00-\x0f])"  # a number of up to 32 bits
_NUMBER = rb"[\x80-\xff]{0,9}[\x00-\x7f]"
_TEXTS = b"|".join(re.escape(bytes([length])) + b".{%d}" % length for length in range(80))  # after its length
_STATISTICS = rb"\x1c(?:[\x16\x26\x36]" + _NUMBER + rb"|[\x18\x28](?:" + _TEXTS + rb")|[\x11\x12])*\x00"
# type, unfolded bytes, stored bytes, checksum; then the values, their encoding, and statistics
_ARROW_HEADER = re.compile(
    rb"\x15(?:\x00\x15" + _BYTES + rb"\x15" + _BYTES + rb"(?:\x15" + _NUMBER + rb"\x1c|\x2c)\x15" + _NUMBER +
    rb"\x15[\x00\x04\x06\x0a\x0c\x10\x12]\x15[\x00-\x7f]\x15[\x00-\x7f](?:" + _STATISTICS + rb")?|"
    rb"\x04\x15" + _BYTES + rb"\x15" + _BYTES + rb"(?:\x15" + _NUMBER + rb"\x3c|\x4c)\x15" + _NUMBER +
    rb"\x15[\x00\x04][\x11\x12]?)\x00\x00",
    re.DOTALL,
)  # fmt: skip

_UNFOLDED, _STORED = 2, 3  # fields of a page's header
_ENCODING_OF = {5: 2, 8: 4}  # the header of a data page, of a second version: which field has the encoding
_DELTA_BYTE_ARRAY = 7  # a value repeats the beginning of the one before: a few bytes may become any number
_BOOLEANS, _NUMBERS, _TEXT, _STRUCT = (1, 2), (3, 4, 5, 6), 8, 12  # Thrift's types
_MAX_DEPTH = 4


class PageError(ValueError):
    """The headers of pages cannot be read, or name an encoding without a limit."""


def unfolded_bytes(chunk: pq.ColumnChunkMetaData, data: bytes | mmap.mmap) -> int:
    """Return how many bytes the pages of a column take when they are decompressed, as their headers say.

    Args:
        chunk: Of a row group and column.
        data: The whole file.

    Raises:
        PageError: If a header cannot be read.
    """
    at = chunk.data_page_offset
    dictionary = chunk.dictionary_page_offset
    if dictionary is not None and dictionary > 0 and (dictionary < at or not chunk.num_values):
        at = dictionary  # without values, there may be no other page
    end = at + chunk.total_compressed_size
    total = 0
    if not 0 <= at <= end <= len(data):
        raise PageError("a column lies outside of the file")
    while at < end:
        if found := _ARROW_HEADER.match(data, at):
            one, stored_one, two, stored_two = found.groups()
            unfolded, stored = _size(one or two), _size(stored_one or stored_two)
            at = found.end()
        else:
            header, at = _struct(data, at, end, 0)
            unfolded, stored = (header.get(field, -1) for field in (_UNFOLDED, _STORED))
            for field, encoding in _ENCODING_OF.items():
                if header.get(field, {}).get(encoding) == _DELTA_BYTE_ARRAY:
                    raise PageError("a column has the encoding DELTA_BYTE_ARRAY, which is not read")
        if unfolded < 0 or stored < 0:
            raise PageError("a page has no size")
        total += unfolded
        at += stored
    return total


@lru_cache(4096)
def _size(number: bytes) -> int:
    raw = 0
    for byte in reversed(number):
        raw = raw << 7 | byte & 0x7F
    return -1 if raw & 1 else raw >> 1


def _number(data: bytes | mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """Return a number without sign, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise PageError("the header of a page is cut off")


def _struct(data: bytes | mmap.mmap, at: int, end: int, depth: int) -> tuple[dict[int, Any], int]:
    """Return the numbers and structs in a struct by field, and where it ends."""
    fields: dict[int, Any] = {}
    field = 0
    while at < end:
        head = data[at]
        at += 1
        if not head:
            return fields, at
        step, kind = head >> 4, head & 0x0F
        if step:
            field += step
        else:
            field, at = _number(data, at, end)
            field = field >> 1 ^ -(field & 1)
        if field in fields or depth == _MAX_DEPTH:
            raise PageError("the header of a page has a field twice")
        fields[field] = None
        if kind in _NUMBERS:
            raw, at = _number(data, at, end)
            if kind in (4, 5) and raw >= 1 << 32:
                raise PageError("the header of a page has a number that is too large")
            fields[field] = raw >> 1 ^ -(raw & 1)
        elif kind == _TEXT:
            length, at = _number(data, at, end)
            at += length
        elif kind == _STRUCT:
            fields[field], at = _struct(data, at, end, depth + 1)
        elif kind not in _BOOLEANS:
            raise PageError("the header of a page has a field of an unknown type")
    raise PageError("the header of a page is cut off")
