"""High bytes apart from low bytes: after prediction the high ones are nearly all zero."""

import sys
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.stage import ArrayStage, Layout, Shape, fits


@dataclass(frozen=True, slots=True)
class BytePlanes(ArrayStage):
    """uint16 of any shape → uint8 (2, ...): high bytes, then low bytes. uint8 stays as it is. Exact."""

    id: ClassVar[str] = "byteplanes"

    def encoded_layout(self, dtype: np.dtype[Any], shape: Shape) -> Layout:
        """Return uint8 with an axis of length 2 in front."""
        fits(
            dtype in (np.uint8, np.uint16),
            self,
            dtype,
            shape,
            "uint8 or uint16",
            "a quantiser stage makes floats such; npy.zst takes any numbers",
        )
        return np.dtype(np.uint8), (2, *shape) if dtype == np.uint16 else shape

    def encode(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the planes."""
        if array.dtype == np.uint8:
            return array
        planes = np.empty((2, *array.shape), np.uint8)
        np.right_shift(array, 8, out=planes[0, ...], casting="unsafe")
        np.bitwise_and(array, 0xFF, out=planes[1, ...], casting="unsafe")
        return planes

    def decode(self, array: NDArray[Any], out: NDArray[Any]) -> None:
        """Put the bytes together."""
        if out.dtype == np.uint8:
            np.copyto(out, array)
            return
        if sys.byteorder == "little" and out.size:
            high, low = (plane.reshape(1, -1) for plane in array)
            cv2.merge([low, high], dst=out.view(np.uint8).reshape(1, -1, 2))  # twice as fast as shift and or
            return
        np.left_shift(array[0], 8, out=out, dtype=np.uint16)
        np.bitwise_or(out, array[1], out=out)

    def view(self, out: NDArray[Any]) -> NDArray[Any] | None:
        """Return `out` itself where it is uint8."""
        return out if out.dtype == np.uint8 else None
