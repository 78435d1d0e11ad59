"""JSON files of a dataset: written with a checksum, read as untrusted text.

The last key of such a file is `"checksum": "crc32:<8 hex digits>"`: the CRC-32 (ISO-HDLC) of all bytes of the file with
those eight digits written as zeros. A file without it is read, too: older versions wrote none, and a person who edits
a file by hand may delete the line.
"""

import json
import re
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from vrekit.core.errors import DatasetError
from vrekit.core.files import read_regular

CHECKSUM_KEY = "checksum"
MAX_DOCUMENT_BYTES = 256 << 20
MAX_DEPTH = 64
MAX_INTEGER = 2**63 - 1

_NO_DIGITS = "0" * 8
_TAIL = re.compile(rb'"checksum": "crc32:([0-9a-f]{8})"\s*\}\s*\Z')
_TAIL_BYTES = 64
_EDITED_HINT = 'if you changed it by hand, delete its line "checksum"; else restore the file from a backup'

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON object from a file.

    Attributes:
        fields: Its content, without the checksum.
        is_protected: Whether the file has a checksum (which then is right).
    """

    fields: "Fields"
    is_protected: bool


def document_bytes(data: Mapping[str, Any]) -> bytes:
    """Return the text of a JSON file with its checksum; equal data gives equal bytes."""
    text = json.dumps({**data, CHECKSUM_KEY: f"crc32:{_NO_DIGITS}"}, indent=2, ensure_ascii=False).encode() + b"\n"
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


def parse_json(text: bytes | str, where: str, *, hint: str | None = None) -> Any:
    """Return what untrusted JSON text describes.

    Raises:
        DatasetError: If it is no JSON, is nested deeper than MAX_DEPTH, or has integers beyond 64 bits.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise DatasetError(f"{where} is damaged: {reason}", hint=hint) from None
    _check_values(data, where, hint)
    return data


def _check_values(data: Any, where: str, hint: str | None) -> None:
    level, depth = [data], 0
    while level:
        if depth > MAX_DEPTH:
            raise DatasetError(f"{where} is damaged: it is nested deeper than {MAX_DEPTH} levels", hint=hint)
        depth += 1
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, int) and not -MAX_INTEGER <= value <= MAX_INTEGER:
                raise DatasetError(f"{where} is damaged: it has an integer beyond 64 bits", hint=hint)
        level = below


def _name_of(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "an integer", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


_REQUIRED: Any = object()


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

    def __init__(self, data: Mapping[str, Any], where: str, *, hint: str | None = None) -> None:
        self._data = data
        self.where = where
        self._hint = hint

    def __contains__(self, key: str) -> bool:
        return key in self._data

    def __iter__(self) -> Any:
        return iter(self._data)

    def raw(self) -> dict[str, Any]:
        """Return the whole object as it is, for values that are free in form (depth and integers are bounded)."""
        return dict(self._data)

    def fail(self, key: str, expected: str) -> NoReturn:
        """Raise the error that says what a key should hold."""
        value = self._data.get(key)
        got = repr(value) if isinstance(value, (str, int, float, bool)) and len(repr(value)) <= 80 else _name_of(value)
        problem = f"{key!r} is {got}" if key in self._data else f"{key!r} is missing"
        raise DatasetError(f"{self.where} is damaged: {problem}, expected {expected}", hint=self._hint)

    def _get(self, key: str, default: Any, is_right: Callable[[Any], bool], expected: str) -> Any:
        value = self._data.get(key, default)
        if value is _REQUIRED:
            self.fail(key, expected)
        if (key not in self._data or value is None) and value is default:
            return default
        if not is_right(value):
            self.fail(key, expected)
        return value

    def text(
        self, key: str, default: Any = _REQUIRED, *, pattern: re.Pattern[str] | None = None, max_length: int = 1 << 16
    ) -> Any:
        """Return text of at most `max_length` characters that matches a pattern as a whole."""

        def is_right(value: Any) -> bool:
            return (
                isinstance(value, str)
                and len(value) <= max_length
                and (pattern is None or pattern.fullmatch(value) is not None)
            )

        expected = "text" if pattern is None else f"text like {pattern.pattern}"
        return self._get(key, default, is_right, f"{expected}, at most {max_length} characters")

    def choice(self, key: str, values: Collection[str], default: Any = _REQUIRED) -> Any:
        """Return one of some texts."""

        def is_right(value: Any) -> bool:
            return isinstance(value, str) and value in values

        return self._get(key, default, is_right, " or ".join(map(repr, values)))

    def integer(self, key: str, default: Any = _REQUIRED, *, low: int = 0, high: int = MAX_INTEGER) -> Any:
        """Return an integer from `low` to `high`, both included; booleans are none."""

        def is_right(value: Any) -> bool:
            return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

        return self._get(key, default, is_right, f"an integer from {low} to {high}")

    def number(self, key: str, default: Any = _REQUIRED, *, low: float = float("-inf")) -> Any:
        """Return a finite number of at least `low`, as it is written (an integer stays one)."""

        def is_right(value: Any) -> bool:
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            return is_number and low <= value < float("inf") and value > float("-inf")

        return self._get(key, default, is_right, "a finite number" + (f" of at least {low:g}" if low > -1e300 else ""))

    def flag(self, key: str, default: Any = _REQUIRED) -> Any:
        """Return a boolean."""
        return self._get(key, default, lambda value: isinstance(value, bool), "true or false")

    def items(
        self, key: str, default: Any = _REQUIRED, *, kind: "type[Any] | None" = None, max_count: int = 1 << 20
    ) -> Any:
        """Return a list of values of one type."""

        def is_right(value: Any) -> bool:
            return (
                isinstance(value, list)
                and len(value) <= max_count
                and all(
                    kind is None or (isinstance(item, kind) and not (kind is int and isinstance(item, bool)))
                    for item in value
                )
            )

        name = "values" if kind is None else f"{kind.__name__} values"
        return self._get(key, default, is_right, f"a list of at most {max_count} {name}")

    def fields(self, key: str, default: Any = _REQUIRED) -> Any:
        """Return the object under a key as `Fields`."""
        value = self._get(key, default, lambda value: isinstance(value, dict), "an object")
        return self._inside(key, value) if isinstance(value, dict) else value

    def each(self, key: str, *, check_name: Callable[[str], object] | None = None) -> "dict[str, Fields]":
        """Return the objects under a key by name.

        Args:
            key: Of an object whose values are objects.
            check_name: Raises a ValueError for a name that is not allowed.
        """
        found = {}
        for name, value in self.fields(key)._data.items():
            inside = self._inside(key, {name: value})
            if check_name is not None:
                try:
                    check_name(name)
                except ValueError as error:
                    raise DatasetError(f"{inside.where} is damaged: {error}", hint=self._hint) from None
            found[name] = inside.fields(name)
        return found

    def _inside(self, key: str, value: Mapping[str, Any]) -> "Fields":
        return Fields(
            value, f"{self.where}: {key}" if ": " not in self.where else f"{self.where}.{key}", hint=self._hint
        )
