"""PNG, 8 and 16 bit (https://www.w3.org/TR/png-3/)."""

import zlib
from dataclasses import dataclass
from typing import Any, ClassVar

import imagecodecs
from numpy.typing import NDArray

from vrekit.codecs.base import Bytes
from vrekit.codecs.stage import Shape
from vrekit.codecs.stages.image import ImageStage
from vrekit.core.errors import CodecError, UsageError

_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # PNG colour type → channels; palettes (3) are never written here


@dataclass(frozen=True, slots=True)
class Png(ImageStage):
    """A PNG file. Exact; each chunk has a CRC-32.

    Attributes:
        level: zlib level 0 (raw) .. 9 (small); decoding is about equally fast at all of them.
    """

    id: ClassVar[str] = "png"
    suffix: ClassVar[str] = "png"
    channels: ClassVar[tuple[int, ...]] = (3, 4)
    max_side: ClassVar[int] = 1_000_000  # libpng's default limit

    level: int = 6

    def __post_init__(self) -> None:
        if not 0 <= self.level <= 9:
            raise UsageError(f"png.level is {self.level}, expected 0..9")

    def _encode_image(self, array: NDArray[Any]) -> bytes:
        try:
            return bytes(imagecodecs.png_encode(array, level=self.level))
        except imagecodecs.PngError:  # narrow noise can grow beyond the memory it reserves
            return bytes(imagecodecs.png_encode(array, level=self.level, out=2 * array.nbytes + 2 * len(array) + 4096))

    def _decode_image(self, data: Any, out: NDArray[Any]) -> NDArray[Any]:
        image: NDArray[Any] = imagecodecs.png_decode(data, out=out)
        return image

    def _read_shape(self, data: Bytes) -> Shape:
        header = bytes(data[:29])
        if len(header) < 29 or header[:8] != b"\x89PNG\r\n\x1a\n" or header[12:16] != b"IHDR":
            raise CodecError(f"not a PNG file: it starts with {header[:8]!r}")
        _check_chunks(memoryview(data))
        width, height = int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")
        channels = _CHANNELS.get(header[25], 0)
        return (height, width) if channels == 1 else (height, width, channels)


def _check_chunks(data: memoryview) -> None:
    """Raise CodecError if a chunk's CRC is wrong: libpng only warns about some of them."""
    at, kind = 8, b""
    while at < len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        kind = bytes(data[at + 4 : at + 8])
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big") or end + 4 > len(data):
            raise CodecError(f"PNG chunk {kind!r} is damaged or truncated")
        at = end + 4
    if kind != b"IEND":
        raise CodecError("PNG file has no end: is it truncated?")
