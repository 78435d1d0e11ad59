"""Half the bytes of float32 for embeddings."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.stage import ArrayStage, Layout, Shape, fits
from vrekit.core.errors import CodecError


@dataclass(frozen=True, slots=True)
class Float16(ArrayStage):
    """float32 or float64 → float16 and back.

    Largest error: 2**-11 of the value or 2**-25, whichever is more. NaN and infinities stay what they are; finite
    values that round beyond 65504 are refused.
    """

    id: ClassVar[str] = "float16"
    exact: ClassVar[bool] = False

    @property
    def is_plain(self) -> bool:
        """True: the file holds the values, rounded."""
        return True

    def encoded_layout(self, dtype: np.dtype[Any], shape: Shape) -> Layout:
        """Return float16 of the same shape."""
        fits(dtype.kind == "f" and dtype.isnative, self, dtype, shape, "floats", "npy.zst takes any numbers")
        return np.dtype(np.float16), shape

    def encode(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the rounded values."""
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        lost = np.isinf(half) & np.isfinite(array)
        if lost.any():
            raise CodecError(
                f"value {array[lost].flat[0]} is beyond float16's 65504", hint="use the codec npy, or scale the values"
            )
        return half

    def decode(self, array: NDArray[Any], out: NDArray[Any]) -> None:
        """Widen."""
        np.copyto(out, array)
