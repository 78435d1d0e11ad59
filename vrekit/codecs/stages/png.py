"""PNG, 8 and 16 bit (https://www.w3.org/TR/png-3/)."""

import zlib
from dataclasses import dataclass
from typing import Any, ClassVar

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.base import Bytes
from vrekit.codecs.stage import Shape
from vrekit.codecs.stages.image import ImageStage
from vrekit.core.errors import CodecError, UsageError
from vrekit.core.unfolding import PNG_SIGNATURE, png_sizes

_HAS_SPNG = bool(imagecodecs.SPNG.available)
_PLAIN_FORMS = tuple(bytes([8, color, 0, 0, 0]) for color in (0, 2, 6))  # 8 bits of grey, RGB or RGBA, not interlaced
_PALETTE = 3  # a colour type that is never written here


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
        # libspng stops at the last row; libpng goes on inflating whatever follows it, a GiB in 2 s. It has no 16 bit.
        is_plain = _HAS_SPNG and bytes(data[24:29]) in _PLAIN_FORMS
        decode = imagecodecs.spng_decode if is_plain and out.dtype == np.uint8 else imagecodecs.png_decode
        image: NDArray[Any] = decode(data, out=out)
        return image

    def _read_shape(self, data: Bytes) -> Shape:
        header = bytes(data[:29])
        if len(header) < 29 or header[:8] != PNG_SIGNATURE or header[12:16] != b"IHDR" or header[25] == _PALETTE:
            raise CodecError(f"not a PNG file of numbers: it starts with {header[:8]!r}")
        _check_chunks(memoryview(data))
        sizes = png_sizes(memoryview(data))
        try:
            sizes.check()
        except ValueError as error:
            raise CodecError(str(error)) from error
        shape = (sizes.height, sizes.width)
        return shape if sizes.channels == 1 else (*shape, sizes.channels)


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
