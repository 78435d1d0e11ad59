"""CRC-32 of stored payloads: the checksum of zlib, gzip and PNG, so any tool can verify a dataset."""

import os
import zlib
from collections.abc import Callable
from functools import cache

from vrekit.core.errors import ChecksumError

_STEP_BYTES = 1 << 20  # fits a processor's cache


@cache
def _implementation() -> Callable[[bytes | memoryview, int], int]:
    # libdeflate's CRC runs at 10 GB/s where zlib's takes 1 GB/s; same polynomial, same values.
    try:
        from imagecodecs import deflate_crc32
    except ImportError:
        return zlib.crc32

    def fast(data: bytes | memoryview, before: int) -> int:
        return int(deflate_crc32(data, before))  # type: ignore[arg-type]  # takes any buffer; its stub names three

    return fast


def crc32(data: bytes | memoryview, before: int = 0) -> int:
    """Return the CRC-32 of `data` as an unsigned 32-bit integer; equal to `zlib.crc32(data, before)`.

    Args:
        data: The bytes.
        before: CRC-32 of what comes before them.
    """
    return _implementation()(data, before)


def check_crc32(
    payload: bytes | memoryview, expected: int, place: Callable[[], str], *, hint: str | None = None
) -> None:
    """Check a payload that was read.

    Args:
        payload: What was read.
        expected: The CRC-32 that its metadata says.
        place: Returns where it is, for the message.
        hint: What to do about it.

    Raises:
        ChecksumError: If it is not what was written.
    """
    found = crc32(payload)
    if found != expected:
        raise ChecksumError(
            f"{place()}: the stored bytes have CRC-32 {found:08x}, expected {expected:08x}: "
            "they changed since they were written",
            hint=hint,
        )


def crc32_of_range(descriptor: int, offset: int, size: int) -> int | None:
    """Return the CRC-32 of a part of a file, read in small steps; None if the file ends before it.

    Args:
        descriptor: The file.
        offset: First byte of the part.
        size: Its length, bytes.
    """
    found = 0
    buffer = memoryview(bytearray(min(size, _STEP_BYTES)))
    while size > 0:
        count = os.preadv(descriptor, [buffer[:size]], offset)
        if count == 0:
            return None
        found = crc32(buffer[:count], found)
        offset, size = offset + count, size - count
    return found
