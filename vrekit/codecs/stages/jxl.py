"""Lossless JPEG XL (ISO/IEC 18181) through libjxl."""

from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.stages.image import ImageStage
from vrekit.core.errors import UsageError

_EFFORTS = (1, 2, 7)

# libjxl up to 0.11.2 has faults in its effort 1 (pull requests of the same project):
# - It keeps up to 512 colours in a table of 65536 hash values and overlooks some that have the same one: pixels get the
#   colour of others (4291).
# - Four pixels side by side that all take 16 bits spoil what follows in their group of 256x256 (4027): only chroma and
#   numbers of colours can be that long.
# - It writes 16-bit images of one group behind the end of its memory (4829, 4885), and says of 16-bit alpha that it had
#   8 bits (4281).
_GROUP_SIDE = 256
_PIXELS_AT_ONCE = 1 << 16  # for the cache
_IS_RED, _IS_GREEN = (np.tile(np.array(mask, np.uint8), 1 << 15)[None] for mask in ([255, 0, 0], [0, 255, 0]))
_MAX_COLOURS = 512
_HASH_BITS = 16
_HASH_MULTIPLIER = np.uint32(2654435761)
_LONG_CODE = 256  # what chroma, -255..255, or a colour's number must differ from its prediction by to take 16 bits


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
        effort = 2 if self.effort == 1 and not _is_safe_at_effort_1(array) else self.effort
        return bytes(imagecodecs.jpegxl_encode(array, lossless=True, effort=effort, numthreads=1))

    def _decode_image(self, data: Any, out: NDArray[Any]) -> NDArray[Any]:
        image: NDArray[Any] = imagecodecs.jpegxl_decode(data, out=out, numthreads=1)
        return image


def _is_safe_at_effort_1(image: NDArray[Any]) -> bool:
    if image.dtype != np.uint8:
        return image.ndim == 2 and max(image.shape) > _GROUP_SIDE
    if image.ndim == 2:  # grey values have hash values of their own, and no chroma
        return True
    return not (_may_have_long_codes(image) or _may_lose_colours(image))


def _may_have_long_codes(image: NDArray[np.uint8]) -> bool:
    """Return whether four pixels side by side may all have a Co, or a Cg, that is far from its prediction."""
    # Co = R - B, and Cg is at most G - R or G - B: in most pictures, neither takes up 256 values.
    if image.shape[2] == 3 and _is_muted(image):
        return False
    most: dict[str, int] = dict.fromkeys(("R-B", "B-R", "G-R", "R-G", "G-B", "B-G"), 0)
    rows = max(1, _PIXELS_AT_ONCE // image.shape[1])
    for start in range(0, len(image), rows):
        planes = dict(zip("RGB", cv2.split(image[start : start + rows]), strict=False))
        for name, value in most.items():  # saturated: 0 where the other one is more
            most[name] = max(value, int(cv2.subtract(planes[name[0]], planes[name[2]]).max()))
    long_co = most["R-B"] + most["B-R"] >= _LONG_CODE
    long_cg = max(most["G-R"], most["G-B"]) + max(most["R-G"], most["B-G"]) >= _LONG_CODE
    if not (long_co or long_cg):
        return False
    red, green, blue = (plane.astype(np.int16) for plane in cv2.split(image)[:3])
    return _jumps_four_times(red - blue) or _jumps_four_times(green - blue - ((red - blue) >> 1))


def _is_muted(image: NDArray[np.uint8]) -> bool:
    """Return whether |R - G| + |G - B| is less than 128 all over a picture; much faster than looking closely."""
    values = image.reshape(1, -1)
    most_rg = most_gb = 0
    for start in range(0, image.size, _IS_RED.size):
        part = values[:, start : start + _IS_RED.size]
        differences = cv2.absdiff(part[:, 1:], part[:, :-1])
        size = differences.shape[1]
        most_rg = max(most_rg, int(cv2.bitwise_and(differences, _IS_RED[:, :size]).max()))
        most_gb = max(most_gb, int(cv2.bitwise_and(differences, _IS_GREEN[:, :size]).max()))
    return most_rg + most_gb < _LONG_CODE // 2


def _jumps_four_times(plane: NDArray[Any]) -> bool:
    # a prediction lies between the pixels to the left and above
    jumps: NDArray[np.bool_] = np.zeros(plane.shape, np.bool_)
    jumps[:, 1:] = np.abs(np.diff(plane, axis=1)) >= _LONG_CODE
    jumps[1:] |= np.abs(np.diff(plane, axis=0)) >= _LONG_CODE
    height, width = plane.shape
    return bool(jumps[:, : width // 4 * 4].reshape(height, width // 4, 4).all(2).any())


def _may_lose_colours(image: NDArray[Any]) -> bool:
    """Return whether a picture has so few colours that they are listed, and two have one hash value or long numbers."""
    pixels = image.reshape(-1, image.shape[2])
    for step in (len(pixels) // 2048 + 1, 16, 1):  # pictures from a camera have more colours at the first look
        packed = np.zeros((-(-len(pixels) // step), 4), np.uint8)
        packed[:, : image.shape[2]] = pixels[::step]
        colours = packed.view("<u4")[:, 0]
        hashes = colours * _HASH_MULTIPLIER >> np.uint32(32 - _HASH_BITS)
        table = np.zeros(1 << _HASH_BITS, np.uint32)
        table[hashes] = colours
        count = int(np.count_nonzero(table))
        if count > _MAX_COLOURS:
            return False
    return count >= _LONG_CODE or bool((table[hashes] != colours).any())
