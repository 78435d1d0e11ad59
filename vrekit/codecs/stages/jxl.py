"""Lossless JPEG XL (ISO/IEC 18181) through libjxl."""

from dataclasses import dataclass
from typing import Any, ClassVar

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.stages.image import ImageStage
from vrekit.core.errors import UsageError

_EFFORTS = (1, 2, 7)

# libjxl's effort 1 keeps up to 512 colours in a table of 65536 hash values, and up to version 0.11 it overlooks some
# colours that have the same one: pixels then get another's colour (libjxl pull request 4291).
_MAX_COLOURS = 512
_HASH_BITS = 16
_HASH_MULTIPLIER = np.uint32(2654435761)
_SAMPLED_PIXELS = 2048  # pictures from a camera have more than 512 colours in these


@dataclass(frozen=True, slots=True)
class Jxl(ImageStage):
    """A JPEG XL file. Exact.

    float16 is refused on purpose: libjxl's lossless mode does not keep it (libjxl issue 3844).

    Attributes:
        effort: 1 (fast), 2 or 7 (small). The others are bigger *and* slower on such data (docs/codecs.md).
    """

    id: ClassVar[str] = "jxl"
    suffix: ClassVar[str] = "jxl"
    channels: ClassVar[tuple[int, ...]] = (3, 4)
    max_side: ClassVar[int] = 1 << 18  # of level 5, which every decoder reads

    effort: int = 1

    def __post_init__(self) -> None:
        if self.effort not in _EFFORTS:
            raise UsageError(f"jxl.effort is {self.effort}, expected one of {_EFFORTS}")

    def _encode_image(self, array: NDArray[Any]) -> bytes:
        effort = 2 if self.effort == 1 and _may_lose_colours(array) else self.effort
        return bytes(imagecodecs.jpegxl_encode(array, lossless=True, effort=effort, numthreads=1))

    def _decode_image(self, data: Any, out: NDArray[Any]) -> NDArray[Any]:
        image: NDArray[Any] = imagecodecs.jpegxl_decode(data, out=out, numthreads=1)
        return image


def _may_lose_colours(image: NDArray[Any]) -> bool:
    """Return whether a picture has so few colours that effort 1 lists them, and two of them have one hash value."""
    if image.dtype != np.uint8 or image.ndim == 2:  # grey values have hash values of their own
        return False
    pixels = image.reshape(-1, image.shape[2])
    sampled = _packed(pixels[:: len(pixels) // _SAMPLED_PIXELS + 1])
    if len(set(sampled.tolist())) > _MAX_COLOURS:
        return False
    colours = _packed(pixels)
    hashes = colours * _HASH_MULTIPLIER >> np.uint32(32 - _HASH_BITS)
    table = np.zeros(1 << _HASH_BITS, np.uint32)
    table[hashes] = colours
    return bool((table[hashes] != colours).any())


def _packed(pixels: NDArray[np.uint8]) -> NDArray[np.uint32]:
    packed = np.zeros((len(pixels), 4), np.uint8)
    packed[:, : pixels.shape[1]] = pixels
    return packed.view("<u4")[:, 0]
