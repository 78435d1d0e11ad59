"""Red and blue as differences to green, which they follow closely."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.stage import ArrayStage, Layout, Shape, fits


@dataclass(frozen=True, slots=True)
class Green(ArrayStage):
    """RGB uint8 (H, W, 3) → planes (3, H, W): R - G, G, B - G, modulo 256. Exact."""

    id: ClassVar[str] = "green"

    def encoded_layout(self, dtype: np.dtype[Any], shape: Shape) -> Layout:
        """Return (3, H, W)."""
        fits(
            dtype == np.uint8 and len(shape) == 3 and shape[2] == 3,
            self,
            dtype,
            shape,
            "uint8 of shape (H, W, 3)",
            "png takes grey and 16-bit images, npy.zst any numbers",
        )
        return dtype, (3, *shape[:2])

    def encode(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the planes."""
        planes = np.array(np.moveaxis(array, 2, 0), order="C")  # always a copy: it is changed below
        planes[0] -= planes[1]
        planes[2] -= planes[1]
        return planes

    def decode(self, array: NDArray[Any], out: NDArray[Any]) -> None:
        """Add green back."""
        np.add(array[0], array[1], out=out[..., 0])
        out[..., 1] = array[1]
        np.add(array[2], array[1], out=out[..., 2])
