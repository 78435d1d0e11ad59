"""Tars put together from ranges of other tars, checked on the way."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vrekit.catalog.storage import Advance
from vrekit.core.checksum import crc32
from vrekit.core.errors import ChecksumError, DatasetError
from vrekit.core.files import open_regular, storage_errors
from vrekit.writers import file_ranges
from vrekit.writers.file_ranges import copy_data
from vrekit.writers.webdataset.tar_format import BLOCK, END_OF_ARCHIVE, header

_BUFFER = 4 << 20
_HEADERS_AT_ONCE = 4096
_MAX_LISTED = 5


@dataclass(frozen=True, slots=True)
class Members:
    """The members of a shard to be, in order, and where their payloads are now; arrays by member.

    Attributes:
        files: Tars to copy from.
        file: Number in `files`.
        offset: First byte of the payload there.
        size: Bytes of the payload.
        checksum: CRC-32 of the payload.
        names: Names in the new tar.
        same_name: Whether the member has that name already, so that its header can be copied too.
    """

    files: tuple[Path, ...]
    file: NDArray[np.int64]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    checksum: NDArray[np.int64]
    names: Sequence[str]
    same_name: NDArray[np.bool_]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Bytes of header, payload and padding."""
        return BLOCK + -(-self.size // BLOCK) * BLOCK

    @property
    def new_offsets(self) -> NDArray[np.int64]:
        """Where the payloads go in the new tar."""
        return np.cumsum(self.lengths) - self.lengths + BLOCK

    @property
    def total_bytes(self) -> int:
        """Bytes of the new tar."""
        return int(self.lengths.sum()) + len(END_OF_ARCHIVE)

    def ranges(self) -> list[tuple[int, int]]:
        """Return (first, last + 1) of each run of members that lie side by side in one source, header included."""
        if not len(self.file):
            return []
        begin = self.offset - BLOCK
        follows = (np.diff(self.file) == 0) & (begin[1:] == (begin + self.lengths)[:-1])
        starts = np.flatnonzero(np.append(True, ~(follows & self.same_name[1:] & self.same_name[:-1])))
        return list(zip(starts.tolist(), [*starts[1:].tolist(), len(self.file)], strict=True))

    def whole_file(self) -> Path | None:
        """Return the source tar that the new one equals byte for byte, if there is one."""
        if len(self.ranges()) != 1 or not self.same_name.all() or self.offset[0] != BLOCK:
            return None
        path = self.files[int(self.file[0])]
        return path if path.exists() and path.stat().st_size == self.total_bytes else None


def write_tar(members: Members, target: Path, advance: Advance, *, sync: bool = True) -> None:
    """Write the tar of `members` to `target`, and check it on the way.

    Every step is read back while it is still in the processor's cache, and then given to the disk, so that little is
    left to wait for at the end.

    Args:
        members: What goes in.
        target: The file to make.
        sync: Wait until the disk has it.
        advance: Called with the bytes written since the last call; what it raises stops the work.

    Raises:
        ChecksumError: If a payload does not have its CRC-32; the message names the file it came from.
        DatasetError: If a source is gone or ends too early.
    """
    ends = np.cumsum(members.lengths)
    with ExitStack() as stack, storage_errors(target):
        opened = {number: _open(members.files[number], stack) for number in np.unique(members.file).tolist()}
        target.unlink(missing_ok=True)  # what a killed call left may be a hard link to a shard of a source
        descriptor = open_regular(target, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        stack.callback(os.close, descriptor)
        os.ftruncate(descriptor, members.total_bytes)
        check = _Check(descriptor, members)
        at = told = 0
        for first, stop in members.ranges():
            number = int(members.file[first])
            start, end = int(members.offset[first]) - BLOCK, int(ends[stop - 1])
            if not members.same_name[first]:
                os.pwrite(descriptor, header(members.names[first], int(members.size[first])), at)
                start, at = start + BLOCK, at + BLOCK
            while at < end:
                step = min(file_ranges.STEP, end - at)
                try:
                    copy_data(opened[number], start, step, descriptor, at)
                except DatasetError as error:
                    raise DatasetError(f"{members.files[number]}: {error.message}", hint=error.hint) from None
                start, at = start + step, at + step
                if at - told >= file_ranges.STEP:
                    check.upto(at)
                    if sync:
                        _start_writing(descriptor, told, at - told)
                    advance(at - told)
                    told = at
        check.upto(at)
        os.pwrite(descriptor, END_OF_ARCHIVE, at)
        mend_headers(descriptor, members, check.wrong_headers)
        if sync:
            os.fsync(descriptor)
        advance(members.total_bytes - told)


def _start_writing(descriptor: int, start: int, size: int) -> None:
    """Let the kernel start writing a part of a file that nobody will read soon, without waiting for it."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, start, size, os.POSIX_FADV_DONTNEED)


def _open(path: Path, stack: ExitStack) -> int:
    try:
        descriptor = open_regular(path)
    except FileNotFoundError as error:
        raise DatasetError(
            f"{path} is gone, but its metadata is there", hint="`vrekit validate` lists what is wrong with a dataset"
        ) from error
    stack.callback(os.close, descriptor)
    return descriptor


class _Check:
    """Compares what a new tar holds with what it should hold, read in order a few megabytes at a time."""

    def __init__(self, descriptor: int, members: Members) -> None:
        self.wrong_headers: list[int] = []
        self._descriptor = descriptor
        self._members = members
        self._starts = members.new_offsets - BLOCK
        offsets = members.new_offsets
        self._places = list(
            zip(offsets.tolist(), (offsets + members.size).tolist(), members.checksum.tolist(), strict=True)
        )
        self._next = 0  # the first member whose payload is not checked to its end
        self._crc32 = 0  # of the part of it that is read
        self._at = 0  # everything before this was read
        self._buffer = memoryview(bytearray(min(members.total_bytes, _BUFFER)))

    def upto(self, end: int) -> None:
        """Read on to `end`, a multiple of BLOCK, and check the payloads that end there or before.

        Raises:
            ChecksumError: If a payload does not have its CRC-32.
        """
        damaged: list[int] = []
        while self._at < end:
            part = self._buffer[: min(len(self._buffer), end - self._at)]
            if not _read_into(self._descriptor, part, self._at):
                raise DatasetError("the file ends too early", hint="does another program change it?")
            self._check_headers(part)
            damaged += self._check_payloads(part)
            self._at += len(part)
        if damaged:
            members = self._members
            came_from = members.files[int(members.file[damaged[0]])]
            listed = ", ".join(members.names[one] for one in damaged[:_MAX_LISTED])
            raise ChecksumError(
                f"{came_from}: {len(damaged)} payloads do not have the CRC-32 their metadata says: {listed}",
                hint="`vrekit validate DATASET --repair` moves damaged samples aside",
            )

    def _check_payloads(self, part: memoryview) -> list[int]:
        damaged = []
        end = self._at + len(part)
        while self._next < len(self._places):
            start, stop, checksum = self._places[self._next]
            if start >= end and stop > start:
                break
            inside = part[max(start - self._at, 0) : max(stop - self._at, 0)]
            self._crc32 = crc32(inside, self._crc32)
            if stop > end:
                break
            if self._crc32 != checksum:
                damaged.append(self._next)
            self._next, self._crc32 = self._next + 1, 0
        return damaged

    def _check_headers(self, part: memoryview) -> None:
        """Note the members whose headers are not exactly what the writer makes."""
        names, sizes = self._members.names, self._members.size
        first, stop = np.searchsorted(self._starts, (self._at, self._at + len(part))).tolist()
        blocks = np.frombuffer(part, np.uint8).reshape(-1, BLOCK)
        for at in range(first, stop, _HEADERS_AT_ONCE):
            some = slice(at, min(at + _HEADERS_AT_ONCE, stop))
            found = blocks[(self._starts[some] - self._at) // BLOCK]
            differs = np.flatnonzero((found != _plain_headers(names[some], sizes[some])).any(axis=1))
            self.wrong_headers += [
                at + one
                for one in differs.tolist()
                if found[one].tobytes() != header(names[at + one], int(sizes[at + one]))
            ]

    def has_end(self) -> bool:
        """Return whether the file ends as a tar does."""
        end = os.pread(self._descriptor, len(END_OF_ARCHIVE), self._members.total_bytes - len(END_OF_ARCHIVE))
        return end == END_OF_ARCHIVE


def _read_into(descriptor: int, part: memoryview, at: int) -> bool:
    """Fill `part` from a place in a file; return False if the file ends before that."""
    while part:
        count = os.preadv(descriptor, [part], at)
        if not count:
            return False
        part, at = part[count:], at + count
    return True


def is_tar_of(path: Path, members: Members) -> bool:
    """Return whether a tar is byte for byte what `write_tar` would make, as far as checksums tell."""
    with os.fdopen(open_regular(path), "rb") as file:
        if os.fstat(file.fileno()).st_size != members.total_bytes:
            return False
        check = _Check(file.fileno(), members)
        try:
            check.upto(members.total_bytes)
            return check.has_end() and not check.wrong_headers
        except ChecksumError:
            return False


def mend_headers(descriptor: int, members: Members, wrong: Sequence[int]) -> None:
    """Write the headers of some members anew: what their payloads are is known from the metadata."""
    offsets = members.new_offsets
    for number in wrong:
        os.pwrite(descriptor, header(members.names[number], int(members.size[number])), int(offsets[number]) - BLOCK)


_DIGITS = 8 ** np.arange(10, -1, -1, dtype=np.int64)


def _plain_headers(names: Sequence[str], sizes: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the headers of members whose names fit the name field, uint8 (N, 512); of others, not theirs."""
    blocks = np.tile(np.frombuffer(header("x", 0), np.uint8), (len(names), 1))
    blocks[:, :100] = np.array([name.encode() for name in names], "S100").view(np.uint8).reshape(len(names), 100)
    blocks[:, 124:135] = sizes[:, None] // _DIGITS % 8 + ord("0")
    blocks[:, 148:156] = ord(" ")
    sums = blocks.sum(axis=1, dtype=np.int64)
    blocks[:, 148:154] = sums[:, None] // _DIGITS[-6:] % 8 + ord("0")
    blocks[:, 154] = 0
    return blocks
