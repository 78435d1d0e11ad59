"""Planes of an array as one grey image, since still-image formats know one plane or three."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.stage import ArrayStage, Layout, Shape
from vrekit.core.errors import CodecError

MAX_HEIGHT = 65500  # JPEG-LS and libjpeg end at 65535


@dataclass(frozen=True, slots=True)
class Planes(ArrayStage):
    """(..., H, W) → one image with the planes below each other. Exact.

    N planes of height H stand in K = ceil(N * H / 65500) columns of R = ceil(N / K) planes: plane n is at row
    (n mod R) * H, column (n div R) * W. Nearly always K = 1 and the image is (N * H, W); free places are zero.
    Arrays of one dimension are one row; a scalar is one pixel.
    """

    id: ClassVar[str] = "planes"

    def encoded_layout(self, dtype: np.dtype[Any], shape: Shape) -> Layout:
        """Return (R * H, K * W)."""
        _, height, width, rows, columns = _grid(shape)
        return dtype, (rows * height, columns * width)

    def encode(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the image."""
        count, height, width, rows, columns = _grid(array.shape)
        if columns == 1:
            return array.reshape(rows * height, width)
        places = np.zeros((columns * rows, height, width), array.dtype)
        places[:count] = array.reshape(count, height, width)
        grid = places.reshape(columns, rows, height, width).transpose(1, 2, 0, 3)
        return grid.reshape(rows * height, columns * width)

    def decode(self, array: NDArray[Any], out: NDArray[Any]) -> None:
        """Cut the planes out of the image."""
        count, height, width, rows, columns = _grid(out.shape)
        places = array.reshape(rows, height, columns, width).transpose(2, 0, 1, 3).reshape(-1, height, width)
        np.copyto(out.reshape(count, height, width), places[:count])

    def view(self, out: NDArray[Any]) -> NDArray[Any] | None:
        """Return `out` reshaped where there is one column."""
        _, height, width, rows, columns = _grid(out.shape)
        return out.reshape(rows * height, width) if columns == 1 else None


def _grid(shape: Shape) -> tuple[int, int, int, int, int]:
    """Return number of planes, their height and width, rows and columns of planes."""
    height, width = (1, 1, *shape)[-2:] if len(shape) < 2 else shape[-2:]
    count = math.prod(shape[:-2])
    if height > MAX_HEIGHT:
        raise CodecError(
            f"planes of height {height} do not fit images of at most {MAX_HEIGHT} rows", hint="npy.zst takes any size"
        )
    columns = max(1, math.ceil(count * height / MAX_HEIGHT))
    rows = math.ceil(count / columns)
    while rows * height > MAX_HEIGHT:
        columns += 1
        rows = math.ceil(count / columns)
    return count, height, width, rows, columns
