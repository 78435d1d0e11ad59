"""The flow encoding of the KITTI benchmark, for exchange with other software."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.stage import ArrayStage, Layout, Shape, fits
from vrekit.codecs.stages.quantiser import quantise
from vrekit.core.errors import CodecError


@dataclass(frozen=True, slots=True)
class KittiFlow(ArrayStage):
    """(H, W, 2) pixels → (H, W, 3) uint16: dx * 64 + 32768, dy * 64 + 32768, 1 where valid.

    Largest error: 1/128 pixel per component. A pixel with a NaN is stored as (0, 0, 0) and comes back all NaN;
    components outside of -512..511.98 are refused. Format: the KITTI 2015 flow development kit (stored as a 16-bit
    RGB PNG).
    """

    id: ClassVar[str] = "kitti-flow"
    exact: ClassVar[bool] = False

    def encoded_layout(self, dtype: np.dtype[Any], shape: Shape) -> Layout:
        """Return (H, W, 3) uint16."""
        fits(
            dtype.name in ("float16", "float32", "float64") and len(shape) == 3 and shape[2] == 2,
            self,
            dtype,
            shape,
            "floats of shape (H, W, 2)",
            "pco takes floats of any shape, npy.zst any numbers",
        )
        return np.dtype(np.uint16), (*shape[:2], 3)

    def encode(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the three planes."""
        valid = ~np.isnan(array).any(axis=2)
        codes = np.empty((*array.shape[:2], 3), np.uint16)
        codes[..., :2] = quantise(
            array,
            divisor=1 / 64,
            origin=0.0,
            zero=32768,
            top=65535,
            nan_code=0,
            dtype=np.dtype(np.uint16),
            what=self.id,
            hint="use pco for flow beyond 512 pixels",
        )
        codes[..., 2] = valid
        codes[~valid] = 0
        return codes

    def decode(self, array: NDArray[Any], out: NDArray[Any]) -> None:
        """Return to pixels."""
        valid = array[..., 2]
        if valid.size and valid.max() > 1:
            raise CodecError(f"kitti-flow: the validity plane holds {valid.max()}, expected 0 or 1")
        np.copyto(out, (array[..., :2].astype(np.float32) - 32768.0) * np.float32(1 / 64), casting="same_kind")
        out[valid == 0] = np.nan
