"""What is left of a smooth image when each pixel is predicted from its neighbours."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.scratch import scratch
from vrekit.codecs.stage import ArrayStage, Layout, Shape, fits

_BIAS = 128  # puts residuals of -128..127 into the low byte, so that the high one is 0


@dataclass(frozen=True, slots=True)
class Delta(ArrayStage):
    """uint8 or uint16 (..., W) → x - left - above + above left, modulo 256 or 65536. Exact.

    The array is one tall image (n / W, W), outside of which everything is 0; uint16 residuals have 128 added. Running
    sums undo it several times faster than an image format decodes:

        np.cumsum(np.cumsum(residual - bias, axis=0, dtype=dtype), axis=1, dtype=dtype)

    Attributes:
        down: False leaves the row above out (x - left): quicker to undo, larger where the image is smooth.
    """

    id: ClassVar[str] = "delta"

    down: bool = True

    def encoded_layout(self, dtype: np.dtype[Any], shape: Shape) -> Layout:
        """Return the same layout."""
        fits(dtype in (np.uint8, np.uint16) and len(shape) > 0, self, dtype, shape, "uint8 or uint16 of 1 or more axes")
        return dtype, shape

    def encode(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the residuals."""
        image = _tall(array)
        residual = image.copy()
        residual[:, 1:] -= image[:, :-1]
        if self.down:
            across = residual
            residual = across.copy()
            residual[1:] -= across[:-1]
        if residual.dtype == np.uint16:
            residual += np.uint16(_BIAS)
        return residual.reshape(array.shape)

    def decode(self, array: NDArray[Any], out: NDArray[Any]) -> None:
        """Add up."""
        if out.size == 0:
            return
        rows = _tall(array)
        if out.dtype == np.uint16:
            rows = np.subtract(rows, np.uint16(_BIAS), out=scratch("delta rows", rows.dtype, rows.shape))
        if self.down:
            # imagecodecs sums along rows at 5 GB/s without the GIL, but down columns at a fifth of that
            columns = scratch("delta columns", rows.dtype, rows.shape[::-1])
            imagecodecs.delta_decode(cv2.transpose(rows, dst=columns), axis=1, out=columns)
            rows = cv2.transpose(columns, dst=scratch("delta rows", rows.dtype, rows.shape))
        imagecodecs.delta_decode(rows, axis=1, out=_tall(out))


def _tall(array: NDArray[Any]) -> NDArray[Any]:
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])
