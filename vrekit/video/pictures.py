"""Picture files that hold several pictures, of which a picture decoder gives the first one without a word."""

from typing import BinaryIO, Literal

HEAD_BYTES = 64 * 1024  # what comes before the pixels of a PNG or WebP
_MOST_PAGES = 64
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1")


def several_pictures(file: BinaryIO) -> str | None:
    """Return what kind of file with several pictures this is, None for one picture or any other file.

    Args:
        file: Open at its start, seekable.
    """
    head = file.read(HEAD_BYTES)
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and len(head) > 20 and head[20] & 2:
        return "animated WebP"
    if head[:8] == b"\x89PNG\r\n\x1a\n" and _animated_png_frames(head) > 1:
        return "animated PNG"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") and _tiff_pages(file, head) > 1:
        return "TIFF with several pages"
    return None


def is_heic(head: bytes) -> bool:
    """Return whether a file is a HEIC picture: it holds tiles, which FFmpeg takes for videos or does not read.

    Args:
        head: The first bytes of the file.
    """
    return head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS


def _animated_png_frames(head: bytes) -> int:
    at = 8
    while at + 16 <= len(head):
        kind = head[at + 4 : at + 8]
        if kind == b"acTL":
            return int.from_bytes(head[at + 8 : at + 12], "big")
        if kind == b"IDAT":
            break
        at += 12 + int.from_bytes(head[at : at + 4], "big")
    return 1


def _tiff_pages(file: BinaryIO, head: bytes) -> int:
    """Return how many pages of full size a TIFF has, at most `_MOST_PAGES`; previews are not counted."""
    order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
    is_big = head[2:4] in (b"+\0", b"\0+")
    wide, count_bytes, entry = (8, 8, 20) if is_big else (4, 2, 12)

    def number(data: bytes) -> int:
        return int.from_bytes(data, order)

    pages = 0
    at = number(head[8:16] if is_big else head[4:8])
    for _ in range(_MOST_PAGES):
        if not at:
            break
        file.seek(at)
        count = number(file.read(count_bytes))
        entries = file.read(count * entry) if count < 1 << 16 else b""
        following = file.read(wide)
        if not entries or len(following) < wide:
            break  # damaged: the decoder says so
        tags = (entries[start : start + entry] for start in range(0, len(entries), entry))
        is_preview = any(number(tag[:2]) == 254 and number(tag[-wide : -wide + 4 or None]) & 1 for tag in tags)
        pages += not is_preview
        at = number(following)
    return pages
