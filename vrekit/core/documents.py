"""JSON files of a dataset: written with a checksum, read as untrusted text.

The last key of such a file is `"checksum": "crc32:<8 hex digits>"`: the CRC-32 (ISO-HDLC) of all bytes of the file with
those eight digits written as zeros. A file without it is read, too: older versions wrote none, and a person who edits
a file by hand may delete the line.
"""

import json
import re
import sys
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from vrekit.core.errors import DatasetError
from vrekit.core.files import read_regular

CHECKSUM_KEY = "checksum"
MAX_DOCUMENT_BYTES = 256 << 20
MAX_DEPTH = 64
MAX_VALUES = 1 << 23  # or memory would grow to many times the file's size: `[[],[],…`
MAX_INTEGER = 2**63 - 1
_EXACT = 2**53
MAX_FLOAT = sys.float_info.max
_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**64 - 1  # of free-form values, such as seeds
_CHECKED = frozenset({int, dict, list, tuple})

_NO_DIGITS = "0" * 8
_TAIL = re.compile(rb'"checksum": "crc32:([0-9a-f]{8})"\s*\}\s*\Z')
_TAIL_BYTES = 64
_EDITED_HINT = 'if you changed it by hand, delete its line "checksum"; else restore the file from a backup'


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON object from a file.

    Attributes:
        fields: Its content, without the checksum.
        is_protected: Whether the file has a checksum (which then is right).
    """

    fields: "Fields"
    is_protected: bool


def document_bytes(data: Mapping[str, Any], where: str = "the file") -> bytes:
    """Return the text of a JSON file with its checksum; equal data gives equal bytes.

    Args:
        data: Its content, without a checksum.
        where: Names the file in messages.

    Raises:
        DatasetError: If `read_document` would refuse it.
    """
    _check_values(data, f"{where} cannot be written", None)
    whole = json.dumps({**data, CHECKSUM_KEY: f"crc32:{_NO_DIGITS}"}, indent=2, ensure_ascii=False)
    text = whole.encode() + b"\n"
    if len(text) > MAX_DOCUMENT_BYTES or _has_too_many_values(text):
        raise DatasetError(f"{where} cannot be written: it would have {len(text)} bytes, more than are read")
    at = text.rindex(_NO_DIGITS.encode())
    return text[:at] + b"%08x" % zlib.crc32(text) + text[at + len(_NO_DIGITS) :]


def read_document(path: Path, *, hint: str = _EDITED_HINT) -> Document:
    """Return the JSON object in a file.

    Args:
        path: The file; it must be a regular file of at most MAX_DOCUMENT_BYTES.
        hint: What to do when it is damaged.

    Raises:
        FileNotFoundError: If there is no such file.
        DatasetError: If it is damaged, too large or too deeply nested, or its checksum differs.
    """
    return parse_document(read_regular(path, max_bytes=MAX_DOCUMENT_BYTES), str(path), hint=hint)


def parse_document(text: bytes, where: str, *, hint: str = _EDITED_HINT) -> Document:
    """Return the JSON object that `text` is; errors as in `read_document`, `where` names it in messages."""
    if _has_too_many_values(text):
        raise DatasetError(f"{where} is damaged: it has more than {MAX_VALUES} values", hint=hint)
    tail = _TAIL.search(text, max(0, len(text) - _TAIL_BYTES))
    if tail is not None:
        first, last = tail.span(1)
        found = zlib.crc32(text[last:], zlib.crc32(_NO_DIGITS.encode(), zlib.crc32(text[:first])))
        if found != int(tail[1], 16):
            raise DatasetError(f"{where} is damaged: its bytes do not give its checksum", hint=hint)
    data = parse_json(text, where, hint=hint)
    if not isinstance(data, dict):
        raise DatasetError(f"{where} is damaged: it holds {_name_of(data)}, not an object", hint=hint)
    if data.pop(CHECKSUM_KEY, None) is not None and tail is None:
        raise DatasetError(f"{where} is damaged: its checksum cannot be read", hint=hint)
    return Document(Fields(data, where, hint=hint), tail is not None)


def _has_too_many_values(text: bytes) -> bool:
    return len(text) > MAX_VALUES and sum(map(text.count, (b",", b"[", b"{"))) > MAX_VALUES


def parse_json(text: bytes | str, where: str, *, hint: str | None = None, max_depth: int = MAX_DEPTH) -> Any:
    """Return what untrusted JSON text describes.

    Raises:
        DatasetError: If it is no JSON, is nested deeper than `max_depth`, has integers beyond 64 bits, or text that
            UTF-8 cannot keep.
    """
    damaged = f"{where} is damaged"
    try:
        whole = text if isinstance(text, str) else text.decode("utf-8-sig")
        data = json.loads(whole)
        if "\\u" in whole:  # half a surrogate pair
            json.dumps(data, ensure_ascii=False).encode()
    except RecursionError:
        raise DatasetError(f"{damaged}: it is nested too deeply", hint=hint) from None
    except ValueError as error:
        raise DatasetError(f"{damaged}: {error}", hint=hint) from None
    _check_values(data, damaged, hint, max_depth)
    return data


def _check_values(data: Any, problem: str, hint: str | None, max_depth: int = MAX_DEPTH) -> None:
    level, depth = [data], 0
    while level:
        if depth > max_depth:
            raise DatasetError(f"{problem}: it is nested deeper than {max_depth} levels", hint=hint)
        depth += 1
        below: list[Any] = []
        for value in [value for value in level if type(value) in _CHECKED]:  # most are text and floats
            if isinstance(value, int):
                if not _MIN_INTEGER <= value <= _MAX_INTEGER:
                    raise DatasetError(f"{problem}: it has an integer beyond 64 bits", hint=hint)
            else:
                below += value.values() if isinstance(value, dict) else value
        level = below


def _name_of(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "an integer", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


_PLURALS: dict[Any, str] = {None: "values", str: "text", int: "integers", Mapping: "objects"}
_MAX_PROBLEM = 500  # characters
REQUIRED: Any = object()


class Fields:
    """Typed and checked access to the keys of an untrusted JSON object.

    Every method raises a DatasetError that names the file, the key, what it holds and what it should hold. Without a
    `default` the key must be there; with one, an absent key gives the default. null counts as absent if the default
    is None.

    Args:
        data: The object.
        where: Names the file, and the place inside it, in messages.
        hint: What to do when something is wrong.
    """

    __slots__ = ("_above", "_data", "_hint", "_place")

    def __init__(self, data: Mapping[str, Any], where: str, *, hint: str | None = None) -> None:
        self._data = data
        self._above: Fields | None = None
        self._place = where
        self._hint = hint

    @property
    def where(self) -> str:
        """What names the file, and the place inside it, in messages."""
        if self._above is None:
            return self._place
        above = self._above.where
        return f"{above}{'.' if ': ' in above else ': '}{self._place}"

    def _inside(self, data: Mapping[str, Any], place: str) -> "Fields":
        fields = Fields(data, place, hint=self._hint)
        fields._above = self
        return fields

    @classmethod
    def of(cls, data: "Mapping[str, Any] | Fields", where: str) -> "Fields":
        """Return fields as they are, or those of an object that `where` names."""
        return data if isinstance(data, Fields) else cls(data, where)

    def __contains__(self, key: str) -> bool:
        return key in self._data

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def raw(self) -> dict[str, Any]:
        """Return the whole object as it is, for values that are free in form (depth and integers are bounded)."""
        return dict(self._data)

    def fail(self, key: str, expected: str) -> NoReturn:
        """Raise the error that says what a key should hold."""
        value = self._data.get(key)
        got = repr(value) if isinstance(value, (str, int, float, bool)) and len(repr(value)) <= 80 else _name_of(value)
        problem = f"{key!r} is {got}" if key in self._data else f"{key!r} is missing"
        raise self.error(f"{problem}, expected {expected}")

    def error(self, problem: str) -> DatasetError:
        """Return the error that says what is wrong with the object."""
        if len(problem) > _MAX_PROBLEM:
            problem = f"{problem[:_MAX_PROBLEM]}…"
        return DatasetError(f"{self.where} is damaged: {problem}", hint=self._hint)

    @contextmanager
    def checking(self) -> Iterator[None]:
        """Turn a ValueError into the error that says what is wrong with the object."""
        try:
            yield
        except DatasetError:
            raise
        except ValueError as error:
            raise self.error(str(error)) from None

    def _absent(self, key: str, value: Any, default: Any, expected: str) -> Any:
        """Return the default for a value that is not right if it is absent, else raise."""
        if value is not default or default is REQUIRED or (value is not None and key in self._data):
            self.fail(key, expected)
        return default

    def text(
        self, key: str, default: Any = REQUIRED, *, pattern: re.Pattern[str] | None = None, max_length: int = 1 << 20
    ) -> Any:
        """Return text of at most `max_length` characters that matches a pattern as a whole."""
        value = self._data.get(key, default)
        if value is None and default is None:
            return None
        if (
            isinstance(value, str)
            and len(value) <= max_length
            and (pattern is None or pattern.fullmatch(value) or value is default)
        ):
            return value
        expected = "text" if pattern is None else f"text like {pattern.pattern}"
        if isinstance(value, str) and len(value) > max_length:
            expected += f" of at most {max_length} characters"
        return self._absent(key, value, default, expected)

    def name(self, key: str, check: Callable[[str], object], default: Any = REQUIRED) -> Any:
        """Return text that `check` raises no ValueError for."""
        value = self.text(key, default)
        if value is not default:
            with self.checking():
                check(value)
        return value

    def choice(self, key: str, values: Collection[str], default: Any = REQUIRED) -> Any:
        """Return one of some texts."""
        value = self._data.get(key, default)
        if value is None and default is None:
            return None
        if isinstance(value, str) and value in values:
            return value
        return self._absent(key, value, default, " or ".join(map(repr, values)))

    def integer(self, key: str, default: Any = REQUIRED, *, low: int = 0, high: int = MAX_INTEGER) -> Any:
        """Return an integer from `low` to `high`, both included; booleans are none."""
        value = self._data.get(key, default)
        if value is None and default is None:
            return None
        if type(value) is int and low <= value <= high:
            return value
        return self._absent(key, value, default, f"an integer from {low} to {high}")

    def number(self, key: str, default: Any = REQUIRED, *, low: float = -MAX_FLOAT) -> Any:
        """Return a finite number of at least `low`, as it is written: an integer stays one, and is exact as a float."""
        value = self._data.get(key, default)
        if value is None and default is None:
            return None
        if (type(value) is float and low <= value <= MAX_FLOAT) or (
            type(value) is int and low <= value and abs(value) <= _EXACT
        ):
            return value
        return self._absent(
            key, value, default, "a finite number" + (f" of at least {low:g}" if low > -MAX_FLOAT else "")
        )

    def flag(self, key: str, default: Any = REQUIRED) -> Any:
        """Return a boolean."""
        value = self._data.get(key, default)
        if value is None and default is None:
            return None
        return value if isinstance(value, bool) else self._absent(key, value, default, "true or false")

    def items(
        self, key: str, default: Any = REQUIRED, *, kind: "type[Any] | None" = None, max_count: int = 1 << 20
    ) -> Any:
        """Return a list of values of one type; of `int`, booleans are none."""
        value = self._data.get(key, default)
        if value is None and default is None:
            return None
        if (
            isinstance(value, (list, tuple))
            and len(value) <= max_count
            and (kind is None or all(isinstance(item, kind) for item in value))
            and (kind is not int or not any(isinstance(item, bool) for item in value))
        ):
            return value
        expected = f"a list of {_PLURALS[kind]}"
        if isinstance(value, (list, tuple)) and len(value) > max_count:
            expected += f", at most {max_count}"
        return self._absent(key, value, default, expected)

    def free(self, key: str, default: Any = REQUIRED) -> Any:
        """Return the object under a key as it is: its form is free (depth and integers are bounded)."""
        value = self._data.get(key, default)
        return value if isinstance(value, Mapping) else self._absent(key, value, default, "an object")

    def fields(self, key: str, default: Any = REQUIRED) -> Any:
        """Return the object under a key as `Fields`."""
        value = self.free(key, default)
        return self._inside(value, key) if isinstance(value, Mapping) else value

    def each(self, key: str, *, check_name: Callable[[str], object] | None = None) -> "dict[str, Fields]":
        """Return the objects under a key by name.

        Args:
            key: Of an object whose values are objects.
            check_name: Raises a ValueError for a name that is not allowed.
        """
        return dict(self.each_of(key, check_name=check_name))

    def each_of(self, key: str, *, check_name: Callable[[str], object] | None = None) -> "Iterator[tuple[str, Fields]]":
        """Yield the objects under a key with their names, one at a time; arguments as for `each`."""
        inside: Fields = self.fields(key)
        for name, value in inside._data.items():
            if check_name is not None:
                try:
                    check_name(name)
                except ValueError as error:
                    raise inside.error(str(error)) from None
            if type(value) is not dict and not isinstance(value, Mapping):
                inside.fail(name, "an object")
            yield name, inside._inside(value, name)

    def list_of(self, key: str, default: Any = REQUIRED, *, max_count: int = 1 << 20) -> "list[Fields]":
        """Return the objects in the list under a key."""
        values = self.items(key, default, kind=Mapping, max_count=max_count)
        return [self._inside(value, f"{key}[{at}]") for at, value in enumerate(values)]
