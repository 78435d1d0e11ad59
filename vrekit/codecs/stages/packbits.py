"""Eight booleans a byte."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.stage import ArrayStage, Layout, Shape, fits


@dataclass(frozen=True, slots=True)
class PackBits(ArrayStage):
    """Booleans of any shape → uint8 (ceil(n / 8),), first element in the highest bit, as `np.unpackbits` reads it.

    Exact.
    """

    id: ClassVar[str] = "packbits"

    def encoded_layout(self, dtype: np.dtype[Any], shape: Shape) -> Layout:
        """Return the packed length."""
        fits(dtype == np.bool_, self, dtype, shape, "booleans", "png and npy.zst take integers, npy.zst any numbers")
        return np.dtype(np.uint8), (-(-math.prod(shape) // 8),)

    def encode(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the packed bytes."""
        return np.packbits(array.reshape(-1))

    def decode(self, array: NDArray[Any], out: NDArray[Any]) -> None:
        """Unpack as many bits as `out` has elements."""
        np.copyto(out.reshape(-1), np.unpackbits(array, count=out.size).view(np.bool_))
