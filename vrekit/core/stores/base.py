"""What every store offers: named objects below a location, read whole or by ranges, written whole, never appended to.

An object is a file, or what an object store keeps under a key. Its name is relative to the location, with `/` between
its parts. An etag is text that changes whenever the object does.
"""

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from vrekit.core.errors import AccessError, DatasetError, NetworkError, StorageError
from vrekit.core.stores.location import Location

MAX_OBJECT_BYTES = 256 << 20  # of one that is read whole, unless the caller says otherwise
MAX_LISTED = 10_000_000  # objects; a listing of more is refused
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """Name, size and etag of an object."""

    name: str
    size_bytes: int
    etag: str


@dataclass(frozen=True, slots=True)
class Versioned:
    """The content of an object and the etag that belongs to exactly this content."""

    data: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """How long a store on the network is waited for, and how often a request is tried.

    Attributes:
        timeout_seconds: Of one request; an upload gets a second more for each MB.
        attempts: How often a request is tried in all.
        first_wait_seconds: Wait before the second attempt; it doubles with each one, up to `max_wait_seconds`. The real
            wait is a random part of it, so that many processes do not come back at once.
        max_wait_seconds: The longest wait between two attempts.
        give_up_seconds: No further attempt begins after this time.
    """

    timeout_seconds: float = 30
    attempts: int = 6
    first_wait_seconds: float = 0.2
    max_wait_seconds: float = 10
    give_up_seconds: float = 180


class RangeReader(ABC):
    """Reads ranges of one object; threads may share it."""

    max_gap_bytes: int  # ranges with less than this between them are read in one go
    step_bytes: int  # one request never asks for more

    def __init__(self, where: str) -> None:
        self.where = where

    @abstractmethod
    def size_bytes(self) -> int:
        """Return the size of the object."""

    @abstractmethod
    def _read(self, start: int, length: int) -> bytes | memoryview:
        """Return `length` bytes, 1 to `step_bytes`; less where the object ends."""

    def _read_all(self, spans: Sequence[tuple[int, int]]) -> Sequence[bytes | memoryview]:
        """Return what `_read` gives for each (start, length)."""
        return [self._read(start, length) for start, length in spans]

    def read_range(self, start: int, length: int) -> memoryview:
        """Return exactly `length` bytes from `start` on.

        Raises:
            DatasetError: If the object ends before that.
            MissingObjectError: If there is no such object.
            StorageError: If it cannot be read.
        """
        if start < 0 or length < 0:
            raise DatasetError(f"{self.where} has no {length} bytes from byte {start} on")
        if length <= self.step_bytes:
            return self._whole(self._read(start, length), start, length) if length else memoryview(b"")
        # A damaged place may ask for more memory than there is.
        if start + length > (size := self.size_bytes()):
            raise self._ends_at(size, start + length)
        buffer = memoryview(bytearray(length))
        for at in range(0, length, self.step_bytes):
            count = min(self.step_bytes, length - at)
            buffer[at : at + count] = self._whole(self._read(start + at, count), start + at, count)
        return buffer.toreadonly()

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Return the bytes of several (start, length); neighbours are read in one go. Errors as in `read_range`."""
        found = [memoryview(b"")] * len(ranges)
        groups = coalesce(ranges, self.max_gap_bytes, self.step_bytes)
        small = [group for group in groups if group.length <= self.step_bytes]
        for group in groups:
            if group.length > self.step_bytes:
                found[group.members[0]] = self.read_range(group.start, group.length)
        parts = self._read_all([(group.start, group.length) for group in small])
        for group, part in zip(small, parts, strict=True):
            data = self._whole(part, group.start, group.length)
            for member in group.members:
                start, length = ranges[member]
                found[member] = data[start - group.start : start - group.start + length]
        return found

    def _whole(self, data: bytes | memoryview, start: int, length: int) -> memoryview:
        if len(data) != length:
            raise self._ends_at(start + len(data), start + length)
        return memoryview(data)

    def _ends_at(self, found: int, wanted: int) -> DatasetError:
        return DatasetError(
            f"{self.where} ends at byte {found}, but its metadata says that it goes on to byte {wanted}",
            hint="the file was cut off after it was written; `vrekit validate` lists what is damaged",
        )


@dataclass(frozen=True, slots=True)
class Span:
    """Ranges that are read in one go.

    Attributes:
        start: First byte.
        length: Number of bytes.
        members: Positions of the ranges in the list that was asked for.
    """

    start: int
    length: int
    members: list[int]


def coalesce(ranges: Sequence[tuple[int, int]], max_gap_bytes: int, max_bytes: int) -> list[Span]:
    """Return how to read ranges with few requests, in the order of their starts; empty ranges are left out.

    Args:
        ranges: (start, length) of each, in any order; they may overlap.
        max_gap_bytes: Ranges with less than this between them are read together.
        max_bytes: A span of several ranges is never longer.

    Raises:
        DatasetError: If a start or length is negative.
    """
    spans: list[Span] = []
    for member in sorted(range(len(ranges)), key=ranges.__getitem__):
        start, length = ranges[member]
        if start < 0 or length < 0:
            raise DatasetError(f"there are no {length} bytes from byte {start} on")
        if not length:
            continue
        if spans:
            last = spans[-1]
            end = max(last.start + last.length, start + length)
            if start - (last.start + last.length) < max_gap_bytes and end - last.start <= max_bytes:
                spans[-1] = Span(last.start, end - last.start, [*last.members, member])
                continue
        spans.append(Span(start, length, [member]))
    return spans


class Store(ABC):
    """Named objects below one location. Stores pickle, without secrets, and threads may share one.

    Attributes:
        location: Where it is.
        is_writable: Whether objects can be written and deleted.
    """

    is_writable: bool = True

    def __init__(self, location: Location) -> None:
        self.location = location

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.location)!r})"

    def where(self, name: str) -> str:
        """Return the path or URL of an object, for messages."""
        return f"{self.location}/{name}"

    def read(self, name: str, *, max_bytes: int = MAX_OBJECT_BYTES) -> bytes:
        """Return the content of an object.

        Raises:
            MissingObjectError: If there is none.
            DatasetError: If it has more than `max_bytes`, or is no regular file.
            StorageError: If it cannot be read.
        """
        return self.read_versioned(name, max_bytes=max_bytes).data

    def read_versioned(self, name: str, *, max_bytes: int = MAX_OBJECT_BYTES) -> Versioned:
        """Return the content of an object and its etag; errors as in `read`."""
        found = self.read_if_changed(name, None, max_bytes=max_bytes)
        assert found is not None
        return found

    @abstractmethod
    def read_if_changed(self, name: str, etag: str | None, *, max_bytes: int = MAX_OBJECT_BYTES) -> Versioned | None:
        """Return the content of an object and its etag, None if it still has `etag`; errors as in `read`."""

    @abstractmethod
    def reader(self, name: str, *, etag: str | None = None) -> RangeReader:
        """Return what reads ranges of an object; a local file stays open as long as the reader lives.

        Args:
            name: Of the object.
            etag: If given, reading another version of the object raises ObjectChangedError.
        """

    def read_range(self, name: str, start: int, length: int) -> memoryview:
        """Return exactly `length` bytes of an object; see `RangeReader.read_range`."""
        return self.reader(name).read_range(start, length)

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Return the bytes of several (start, length) of an object; see `RangeReader.read_ranges`."""
        return self.reader(name).read_ranges(ranges)

    def download(self, name: str, file: BinaryIO, *, max_bytes: int) -> ObjectInfo:
        """Write one version of an object to an open file, in steps, and return its size and etag.

        Raises:
            ObjectChangedError: If it changes meanwhile.
            DatasetError: If it has more than `max_bytes`.
        """
        info = self.head(name)
        self._check_size(name, info.size_bytes, max_bytes)
        reader = self.reader(name, etag=info.etag)
        for start in range(0, info.size_bytes, reader.step_bytes):
            file.write(reader.read_range(start, min(reader.step_bytes, info.size_bytes - start)))
        return info

    @abstractmethod
    def head(self, name: str) -> ObjectInfo:
        """Return size and etag of an object.

        Raises:
            MissingObjectError: If there is none.
        """

    @abstractmethod
    def list(self, prefix: str = "", *, max_count: int = MAX_LISTED) -> Iterator[ObjectInfo]:
        """Yield the objects below a folder and its folders, sorted by name (by code point); none if there are none.

        Args:
            prefix: Name of a folder; empty for all.
            max_count: More objects than this raise a DatasetError.
        """

    @abstractmethod
    def put_if_absent(self, name: str, data: bytes | Path) -> str:
        """Write a new object, whole or not at all, durable on return; return its etag.

        Args:
            name: Of the object.
            data: Its content, or a file with it. The file must not change afterwards: a local store may link to it.

        Raises:
            ObjectExistsError: If there is one of that name; of two that write at once, one gets this.
            NetworkError: If no answer came in time. Then it is not known whether it was written; to put the same again
                is safe.
        """

    @abstractmethod
    def compare_and_swap(self, name: str, data: bytes, etag: str) -> str:
        """Replace an object if it still has `etag`; return its new etag.

        Raises:
            ObjectChangedError: If it has another one, or is gone: read it again, and repeat the change on what it is
                now. After lost answers the change may already be in it.
            NetworkError: As for `put_if_absent`.
        """

    @abstractmethod
    def put(self, name: str, data: bytes) -> str:
        """Write an object, whatever was there; return its etag. For derived files, whose last writer may win."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete an object; that there is none is no error."""

    def _check_size(self, name: str, size_bytes: int, max_bytes: int) -> None:
        if size_bytes > max_bytes:
            raise DatasetError(f"{self.where(name)} has {size_bytes} bytes, at most {max_bytes} are read")

    def _check_count(self, count: int, max_count: int) -> None:
        if count > max_count:
            raise DatasetError(
                f"{self.location} has more than {max_count} files", hint="name the folder of one dataset"
            )

    def _read_only(self) -> AccessError:
        return AccessError(
            f"{self.location} is read-only: {self.location.scheme}:// cannot be written to",
            hint="write to a local folder, s3://, gs:// or az://",
        )


class ReadOnlyStore(Store):
    """A store whose writing methods say that it cannot be written to."""

    is_writable = False

    def put_if_absent(self, name: str, data: bytes | Path) -> str:
        """Raise AccessError."""
        raise self._read_only()

    def compare_and_swap(self, name: str, data: bytes, etag: str) -> str:
        """Raise AccessError."""
        raise self._read_only()

    def put(self, name: str, data: bytes) -> str:
        """Raise AccessError."""
        raise self._read_only()

    def delete(self, name: str) -> None:
        """Raise AccessError."""
        raise self._read_only()


def retry(limits: StoreLimits, attempt: Callable[[], _T]) -> _T:
    """Return what `attempt` returns; a NetworkError that may pass is tried again, after a wait that grows.

    Raises:
        StorageError: The last one.
    """
    deadline = time.monotonic() + limits.give_up_seconds
    wait = limits.first_wait_seconds
    for left in range(limits.attempts - 1, -1, -1):
        try:
            return attempt()
        except PassingError as error:
            pause = random.uniform(wait / 2, wait)
            if not left or time.monotonic() + pause > deadline:
                raise error.final() from None
        time.sleep(pause)
        wait = min(wait * 2, limits.max_wait_seconds)
    raise StorageError("a store needs at least one attempt")


class PassingError(NetworkError):
    """A fault of the network that may be over at the next attempt."""

    def final(self) -> NetworkError:
        """Return the error for the caller, when there is no further attempt."""
        return NetworkError(self.message, hint=self.hint)
