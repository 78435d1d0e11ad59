"""Images that libjxl up to 0.11.2 spoils at effort 1, its fast lossless mode (numbers: pull requests of that project).

- It keeps up to 512 colours in a table of 65536 hash values and overlooks some that have the same one: pixels get the
  colour of others (4291).
- Four pixels side by side that all take 16 bits spoil what follows in their group of 256x256 (4027): only chroma and
  numbers of colours can be that long.
- It writes 16-bit images of one group behind the end of its memory (4829, 4885), and says of 16-bit alpha that it had
  8 bits (4281).

This file can go when imagecodecs carries a libjxl with all of these.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

_GROUP_SIDE = 256
_PIXELS_AT_ONCE = 1 << 16  # for the cache
_MAX_COLOURS = 512
_HASH_BITS = 16
_HASH_MULTIPLIER = np.uint32(2654435761)
_LONG_CODE = 256  # what chroma, -255..255, or a colour's number must differ from its prediction by to take 16 bits


def is_safe_at_effort_1(image: NDArray[Any]) -> bool:
    """Return whether libjxl keeps an image exactly; some that it would keep are refused, too.

    Args:
        image: uint8 or uint16, (H, W), (H, W, 3) or (H, W, 4), not empty, in C order.
    """
    if image.dtype != np.uint8:
        return image.ndim == 2 and max(image.shape) > _GROUP_SIDE
    if image.ndim == 2:  # grey values have hash values of their own, and no chroma
        return True
    return not (_may_have_long_codes(image) or _may_lose_colours(image))


def _may_have_long_codes(image: NDArray[np.uint8]) -> bool:
    """Return whether four pixels side by side all have a Co, or a Cg, that is far from its prediction."""
    rows = max(1, _PIXELS_AT_ONCE // image.shape[1])
    for start in range(0, len(image), rows):
        first = max(0, start - 1)
        stretch = image[first : start + rows]
        red_green, green_blue, red_blue = _largest_differences(stretch)
        # neither can be farther from its prediction than from another; Cg lies between G - R and G - B
        may_co, may_cg = 2 * red_blue >= _LONG_CODE, 2 * max(red_green, green_blue) >= _LONG_CODE
        if not (may_co or may_cg):
            continue
        planes = cv2.split(stretch)[:3]
        if may_co and _has_four_long_codes(_co, planes, first):
            return True
        if may_cg and _has_four_long_codes(_cg, planes, first):
            return True
    return False


def _largest_differences(stretch: NDArray[np.uint8]) -> tuple[float, float, float]:
    """Return the largest |R - G|, |G - B| and |R - B| of a pixel; each value is compared with those behind it."""
    values = stretch.reshape(1, -1)
    is_red, is_green = _masks(stretch.size, stretch.shape[2])
    return (
        cv2.norm(values[:, :-1], values[:, 1:], cv2.NORM_INF, is_red[:, :-1]),
        cv2.norm(values[:, :-1], values[:, 1:], cv2.NORM_INF, is_green[:, :-1]),
        cv2.norm(values[:, :-2], values[:, 2:], cv2.NORM_INF, is_red[:, :-2]),
    )


@lru_cache(maxsize=8)  # stretches of a video are equal in size, but for the first and the last
def _masks(size: int, channels: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    is_red, is_green = np.zeros((2, 1, size), np.uint8)
    is_red[:, 0::channels] = is_green[:, 1::channels] = 255
    return is_red, is_green


def _co(red: MatLike, green: MatLike, blue: MatLike) -> NDArray[Any]:
    return red.astype(np.int16) - blue


def _cg(red: MatLike, green: MatLike, blue: MatLike) -> NDArray[Any]:
    return green - (blue + (_co(red, green, blue) >> 1))


def _has_four_long_codes(chroma: Callable[..., NDArray[Any]], planes: Sequence[MatLike], first: int) -> bool:
    """Return whether this is so in some rows, the first of them being row `first` of the picture.

    The first pixel of each four is not looked at.
    """
    fours = planes[0].shape[1] // 4
    left = chroma(*(plane[:, 0 : 4 * fours : 4] for plane in planes))
    are_long: NDArray[np.bool_] = np.ones(left.shape, np.bool_)
    for at in (1, 2, 3):
        here = chroma(*(plane[:, at : 4 * fours : 4] for plane in planes))
        are_long &= _is_long(here, left, first)
        if not are_long.any():
            return False
        left = here
    return True


def _is_long(here: NDArray[Any], left: NDArray[Any], first: int) -> NDArray[np.bool_]:
    errors = np.zeros_like(here)
    if min(here[1:].shape) > 0:
        top, corner = here[:-1], left[:-1]
        gradient = cv2.subtract(cv2.add(left[1:], top), corner)
        predicted = cv2.max(cv2.min(left[1:], top), cv2.min(cv2.max(left[1:], top), gradient))
        errors[1:] = cv2.absdiff(here[1:], predicted)
    tops = slice(-first % _GROUP_SIDE, None, _GROUP_SIDE)  # groups know nothing of their neighbours
    errors[tops] = np.abs(here[tops] - left[tops])
    return errors >= _LONG_CODE


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
