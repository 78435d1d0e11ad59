"""What is left of a smooth image when each pixel is predicted from its neighbours."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.stage import ArrayStage, Layout, Shape, fits
from vrekit.core.errors import UsageError

_BIAS = 128  # puts residuals of -128..127 into the low byte, so that the high one is 0
_MAX_CHANNELS = 4


@dataclass(frozen=True, slots=True)
class Delta(ArrayStage):
    """uint8 or uint16 (..., W) → x - left - above + above left, modulo 256 or 65536. Exact.

    The array is one tall image (n / W, W), outside of which everything is 0; uint16 residuals have 128 added. Running
    sums undo it several times faster than an image format decodes:

        np.cumsum(np.cumsum(residual - bias, axis=0, dtype=dtype), axis=1, dtype=dtype)

    Attributes:
        down: False leaves the row above out (x - left): quicker to undo, larger where the image is smooth.
        across: False leaves the pixel to the left out (x - above). A last axis of up to 4 behind two others is then
            part of the row: (H, W, 3) counts as (H, 3 * W), so that channels need not be moved to the front and back.
    """

    id: ClassVar[str] = "delta"

    down: bool = True
    across: bool = True

    def __post_init__(self) -> None:
        if not (self.down or self.across):
            raise UsageError("delta: down and across are both false, expected at least one to be true")

    def config(self) -> dict[str, Any]:
        """Return the options; `across` only where it is false, since configs stored before it existed lack it."""
        config = ArrayStage.config(self)
        if self.across:
            del config["across"]
        return config

    def encoded_layout(self, dtype: np.dtype[Any], shape: Shape) -> Layout:
        """Return the same layout."""
        fits(
            dtype in (np.uint8, np.uint16) and len(shape) > 0,
            self,
            dtype,
            shape,
            "uint8 or uint16 of 1 or more axes",
            "a quantiser stage makes floats such; npy.zst takes any numbers",
        )
        return dtype, shape

    def encode(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the residuals."""
        image = self._tall(array)
        residual = image.copy()
        if self.across:
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
        rows, sums = self._tall(array), self._tall(out)
        if out.dtype == np.uint16:
            rows = np.subtract(rows, np.uint16(_BIAS), out=sums)
        if self.down:
            add_down(rows, sums)
            rows = sums
        if self.across:
            imagecodecs.delta_decode(rows, axis=1, out=sums)  # 5 GB/s, without the GIL

    def _tall(self, array: NDArray[Any]) -> NDArray[Any]:
        shape = array.shape
        behind = 2 if not self.across and len(shape) > 2 and shape[-1] <= _MAX_CHANNELS else 1
        return array.reshape(math.prod(shape[:-behind]), math.prod(shape[-behind:]))


def add_down(rows: NDArray[Any], out: NDArray[Any]) -> None:
    """Set `out = np.cumsum(rows, axis=0, dtype=rows.dtype)`, without the GIL; `out` may be `rows`.

    Args:
        rows: Unsigned integers, shape (H, W), H at least 1.
        out: C-contiguous array of the same dtype and shape.
    """
    # Blocks of rows, each summed by itself but all of them at once; then each gets the last row of the one before.
    height, width = rows.shape
    size = math.isqrt(height)
    count = height // size
    source = rows[: count * size].reshape(count, size, width)
    target = out[: count * size].reshape(count, size, width)
    target[:, 0] = source[:, 0]
    for row in range(1, size):
        np.add(source[:, row], target[:, row - 1], out=target[:, row])
    for block in range(1, count):
        target[block] += target[block - 1, -1]
    for row in range(count * size, height):
        np.add(rows[row], out[row - 1], out=out[row])
