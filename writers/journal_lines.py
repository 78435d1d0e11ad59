"""One line of a journal: a sample's metadata rows as JSON, with a CRC-32 of the line at its end.

    {"end":<bytes of the file after the sample>,"rows":[{<the columns of SAMPLES_SCHEMA>}, …],"crc":<CRC-32>}

The CRC-32 is that of the line's text before `,"crc":`. Lines of earlier versions have none; only their form is checked.
A line counts only if it is, byte for byte, what the writer makes of its values: whatever parser reads the journal later
(Arrow does) then sees the same values.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from vrekit.core.checksum import crc32
from vrekit.core.names import MAX_NAME_LENGTH, REPRESENTATION_NAME
from vrekit.core.schema import SAMPLES_SCHEMA
from vrekit.core.spec import IMAGE_SUFFIX

MAX_LINE_BYTES = 64 << 20  # about 130,000 frames of a clip

Row = dict[str, Any]

_as_json = json.JSONEncoder(separators=(",", ":")).encode
_CHECKSUM = re.compile(rb',"crc":(0|[1-9][0-9]{0,9})\}\n\Z')
_LONGEST_CHECKSUM = len(b',"crc":4294967295}\n')
_NAME = re.compile(rf"(?:{REPRESENTATION_NAME.pattern})(?:{re.escape(IMAGE_SUFFIX)}(?:_[a-z]+)?)?")
_PLACE = ("byte_offset", "byte_size", "checksum")
_MAX_EXACT = 1 << 53


def make_line(end: int, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the line of a sample that ends at byte `end`."""
    body = _as_json({"end": end, "rows": rows})[:-1].encode()
    return b'%b,"crc":%d}\n' % (body, crc32(body))


def parse_line(line: bytes) -> tuple[int, list[Row]] | None:
    """Return `end` and the rows of a line, or None when it is torn, damaged or not a writer's."""
    if not line.endswith(b"}\n") or len(line) > MAX_LINE_BYTES:
        return None
    body = line[:-2]
    checksum = _CHECKSUM.search(line, max(0, len(line) - _LONGEST_CHECKSUM))
    if checksum is not None:
        body = line[: checksum.start()]
        if crc32(body) != int(checksum[1]):
            return None
    try:
        entry = json.loads(body + b"}")
    except (ValueError, RecursionError, MemoryError):
        return None
    if not isinstance(entry, dict) or list(entry) != ["end", "rows"]:
        return None
    end, rows = entry["end"], entry["rows"]
    if not _is_int64(end) or end < 0 or not isinstance(rows, list) or not rows or not all(map(_is_row, rows)):
        return None
    return (end, rows) if _as_json(entry)[:-1].encode() == body else None


def _is_row(row: object) -> bool:
    if not isinstance(row, dict) or not _REQUIRED <= row.keys() <= _COLUMNS.keys():
        return False
    if not all(_COLUMNS[name](value) for name, value in row.items()):
        return False
    if row["frame_index"] < 0 or len(row["representation"]) > 2 * MAX_NAME_LENGTH:
        return False
    if not _NAME.fullmatch(row["representation"]):
        return False
    place = [row[name] for name in _PLACE if row.get(name) is not None]
    if row["status"] == "ok":
        return len(place) == len(_PLACE) and min(place) >= 0
    return row["status"] == "failed" and not place


def _is_text(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False  # half of a surrogate pair
    return True


def _is_integer(low: int, high: int) -> Callable[[object], bool]:
    def check(value: object) -> bool:
        return type(value) is int and low <= value <= high

    return check


_is_int64 = _is_integer(-(1 << 63), (1 << 63) - 1)
_is_int32 = _is_integer(-(1 << 31), (1 << 31) - 1)


def _is_number(value: object) -> bool:
    return type(value) is float or (type(value) is int and abs(value) <= _MAX_EXACT)


def _is_shape(value: object) -> bool:
    return isinstance(value, list) and all(_is_int32(side) and side >= 0 for side in value)


def _check_of(field: pa.Field) -> Callable[[object], bool]:
    check: Callable[[object], bool]
    if pa.types.is_string(field.type):
        check = _is_text
    elif pa.types.is_boolean(field.type):
        check = lambda value: isinstance(value, bool)  # noqa: E731
    elif pa.types.is_floating(field.type):
        check = _is_number
    elif pa.types.is_list(field.type):
        check = _is_shape
    else:
        bits = field.type.bit_width
        signed = pa.types.is_signed_integer(field.type)
        check = _is_integer(-(1 << bits - 1), (1 << bits - 1) - 1) if signed else _is_integer(0, (1 << bits) - 1)
    return (lambda value: value is None or check(value)) if field.nullable else check


_COLUMNS = {field.name: _check_of(field) for field in SAMPLES_SCHEMA}
_REQUIRED = {field.name for field in SAMPLES_SCHEMA if not field.nullable}
