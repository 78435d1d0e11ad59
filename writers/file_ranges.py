"""Copying byte ranges between files inside the kernel."""

import errno
import os

from vrekit.core.errors import DatasetError
from vrekit.core.files import data_ranges

STEP = 16 << 20  # what is copied is read back, and a stop looked for, after so many bytes
_BUFFER = 4 << 20
_NOT_HERE = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.ETXTBSY, errno.EPERM}


def copy_range(source: int, start: int, size: int, target: int, at: int) -> None:
    """Copy `size` bytes of one file to a place in another, sharing or copying blocks in the kernel where it can.

    Args:
        source: Descriptor to read from.
        start: First byte to copy.
        size: How many.
        target: Descriptor to write to.
        at: Where they go.

    Raises:
        DatasetError: If the source ends before them.
    """
    for step in (_copy_file_range, _sendfile):
        while size > 0:
            count = step(source, start, min(size, STEP), target, at)
            if count == 0:  # not possible here, or the source ends: the next way finds out
                break
            start, at, size = start + count, at + count, size - count
    buffer = memoryview(bytearray(min(size, _BUFFER)))
    while size > 0:
        count = os.preadv(source, [buffer[:size]], start)
        if not count:
            raise DatasetError(f"it ends {size} bytes before its metadata says", hint="`vrekit validate` says more")
        written = 0
        while written < count:
            written += os.pwrite(target, buffer[written:count], at + written)
        start, at, size = start + count, at + count, size - count


def copy_data(source: int, start: int, size: int, target: int, at: int) -> None:
    """Copy to a place that holds nothing yet: a hole stays one; see `copy_range`."""
    end = min(start + size, os.fstat(source).st_size)
    for first, stop in data_ranges(source, start, end):
        copy_range(source, first, stop - first, target, at + first - start)
    if end < start + size:
        copy_range(source, end, start + size - end, target, at + end - start)  # which says that it is not there


def _copy_file_range(source: int, start: int, size: int, target: int, at: int) -> int:
    if not hasattr(os, "copy_file_range"):  # not Linux
        return 0
    try:
        return os.copy_file_range(source, target, size, start, at)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        return 0


def _sendfile(source: int, start: int, size: int, target: int, at: int) -> int:
    if not hasattr(os, "copy_file_range"):  # other systems send to sockets only
        return 0
    try:
        os.lseek(target, at, os.SEEK_SET)
        return os.sendfile(target, source, start, size)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        return 0
