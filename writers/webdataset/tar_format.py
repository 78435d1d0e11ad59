"""Tar members, byte by byte: ustar headers with fixed owner and time, so equal samples give equal bytes.

Layout of a member (POSIX ustar, IEEE Std 1003.1): a 512-byte header, the payload, zeros up to a multiple of 512.
Names longer than 100 bytes are split at a `/` into the prefix field (155 bytes) and the name field (100 bytes).
The archive ends with two zero blocks.
"""

from vrekit.core.errors import UsageError
from vrekit.core.schema import MAX_PAYLOAD_BYTES

BLOCK = 512
END_OF_ARCHIVE = bytes(2 * BLOCK)


def header(name: str, size: int) -> bytes:
    """Return the 512-byte header of a regular file.

    Raises:
        UsageError: If the name does not fit ustar's fields or the payload is 8 GiB or more.
    """
    prefix, short = _split_name(name)
    if size > MAX_PAYLOAD_BYTES:
        raise UsageError(f"{name} has {size} bytes; a tar member holds less than 8 GiB")
    block = bytearray(BLOCK)
    block[0 : len(short)] = short
    block[100:108] = b"0000644\0"
    block[108:116] = b"0000000\0"  # owner and group: root, as GNU tar --owner=0 --group=0 does
    block[116:124] = b"0000000\0"
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"00000000000\0"  # modification time: the epoch
    block[148:156] = b" " * 8
    block[156:157] = b"0"
    block[257:265] = b"ustar\x0000"
    block[345 : 345 + len(prefix)] = prefix
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padding(size: int) -> bytes:
    """Return the zeros that follow a payload of `size` bytes."""
    return bytes(-size % BLOCK)


def _split_name(name: str) -> tuple[bytes, bytes]:
    raw = name.encode()
    if len(raw) <= 100:
        return b"", raw
    for at in range(len(raw) - 101, min(156, len(raw))):
        if at >= 0 and raw[at : at + 1] == b"/" and at <= 155 and 0 < len(raw) - at - 1 <= 100:
            return raw[:at], raw[at + 1 :]
    raise UsageError(
        f"the tar member name {name!r} is too long",
        hint="shorten the video id (--video-id) or the representation's name: each fits in about 80 characters",
    )
