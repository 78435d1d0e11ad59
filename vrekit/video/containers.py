"""Whether a video file is cut off: its container says how long it is meant to be, and the file is shorter.

Only sizes are read, a few bytes each, so this costs nothing however large the file is. It covers MP4 and QuickTime,
Matroska and WebM, AVI, and MPEG transport streams; what FFmpeg warns of while it lists the packets covers others.
A file that was cut off exactly between two packets of a container that stores no sizes (MPEG) looks complete.
"""

import os
from pathlib import Path
from typing import BinaryIO

_MOST_BOXES = 100_000
_MPEGTS_PACKETS = (188, 192, 204)  # bytes: as broadcast, with a time code (Blu-ray), with error correction
_MATROSKA_UNKNOWN = 1 << 63  # a live recording: its size is not known
_FFMPEG_SAYS = ("File ended prematurely", "partial file")


def is_cut_off(path: str | os.PathLike[str], complaints: tuple[str, ...] = ()) -> bool:
    """Return whether a video file is shorter than its container says.

    Args:
        path: The file.
        complaints: What FFmpeg warned of while it listed the packets.
    """
    if any(phrase in line for line in complaints for phrase in _FFMPEG_SAYS):
        return True
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(1024)
        if head[:4] == b"\x1aE\xdf\xa3":
            return _matroska_end(head) > size
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            return _riff_end(file, size) > size
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return _boxes_end(file, size) > size
        return any(_is_mpegts(head, packet) and size % packet for packet in _MPEGTS_PACKETS)


def _boxes_end(file: BinaryIO, size: int) -> int:
    """Return where the last box at the top level of an MP4 file ends."""
    at = 0
    for _ in range(_MOST_BOXES):
        if at >= size:
            break
        file.seek(at)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 0:  # up to the end of the file
            return size
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8 or not header[4:8].isalnum():
            return size  # no box: bytes were appended, or it is damaged in another way
        at += length
    return at


def _riff_end(file: BinaryIO, size: int) -> int:
    """Return where the last of the RIFF chunks of an AVI file ends; behind the file if its size was never filled in."""
    at = 0
    for _ in range(_MOST_BOXES):
        file.seek(at)
        header = file.read(12)
        if header[:4] != b"RIFF" or at >= size:
            break
        length = int.from_bytes(header[4:8], "little")
        if length == 0:  # what a recorder writes before it knows
            return size + 1
        at += 8 + length + length % 2
    return at - 1 if at == size + 1 else at  # the padding of the last chunk may be left away


def _matroska_end(head: bytes) -> int:
    """Return where the segment of a Matroska file ends, 0 if it does not say."""
    at = 4
    length, width = _matroska_number(head[at:])
    at += width + length
    if head[at : at + 4] != b"\x18S\x80g":
        return 0
    length, width = _matroska_number(head[at + 4 :])
    return 0 if length == _MATROSKA_UNKNOWN else at + 4 + width + length


def _matroska_number(data: bytes) -> tuple[int, int]:
    """Return an EBML size and how many bytes it takes; all value bits set means unknown."""
    if not data or not data[0]:
        return _MATROSKA_UNKNOWN, 1
    width = 9 - data[0].bit_length()
    if len(data) < width:
        return _MATROSKA_UNKNOWN, width
    bits = 7 * width
    value = int.from_bytes(data[:width], "big") & ((1 << bits) - 1)
    return (_MATROSKA_UNKNOWN if value == (1 << bits) - 1 else value), width


def _is_mpegts(head: bytes, packet: int) -> bool:
    offset = 4 if packet == 192 else 0
    return len(head) > 4 * packet and all(head[offset + n * packet] == 0x47 for n in range(4))
