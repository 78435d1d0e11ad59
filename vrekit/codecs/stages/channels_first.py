"""Move the channel axis to the front, where neighbours in memory are neighbours in the image."""

from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.stage import ArrayStage, Layout, Shape, fits
from vrekit.core.errors import UsageError
from vrekit.core.spec import OutputSpec

_CV_DTYPES = ("uint8", "uint16", "int16", "int32", "float32", "float64")


@dataclass(frozen=True, slots=True)
class ChannelsFirst(ArrayStage):
    """(H, W, C) → (C, H, W). Exact. Channel-last flow takes a third more bytes with pco.

    Attributes:
        axis: Where the channels are; 0 leaves the array as it is.
    """

    id: ClassVar[str] = "channels-first"

    axis: int = 0

    def __post_init__(self) -> None:
        if self.axis < 0:
            raise UsageError(f"channels-first.axis is {self.axis}, expected 0 or more")

    @property
    def is_plain(self) -> bool:
        """Whether nothing moves."""
        return self.axis == 0

    @classmethod
    def options_for(cls, spec: OutputSpec) -> dict[str, Any]:
        """Return where the spec has its C."""
        return {"axis": class_axis(spec)}

    def encoded_layout(self, dtype: np.dtype[Any], shape: Shape) -> Layout:
        """Return the shape with the channels in front."""
        fits(
            self.axis == 0 or self.axis < len(shape),
            self,
            dtype,
            shape,
            f"arrays with an axis {self.axis}",
            "without channels leave the stage away; npy.zst takes any shape",
        )
        return dtype, (*shape[self.axis : self.axis + 1], *shape[: self.axis], *shape[self.axis + 1 :])

    def encode(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the array with its channels in front."""
        return array if self.axis == 0 else np.ascontiguousarray(np.moveaxis(array, self.axis, 0))

    def decode(self, array: NDArray[Any], out: NDArray[Any]) -> None:
        """Put the channels back."""
        if self.axis == 2 and array.ndim == 3 and 1 < len(array) <= 4 and out.dtype.name in _CV_DTYPES and out.size:
            cv2.merge(list(array), dst=out)  # five times as fast as numpy's strided copy
            return
        np.copyto(out, np.moveaxis(array, 0, self.axis))

    def view(self, out: NDArray[Any]) -> NDArray[Any] | None:
        """Return `out` itself where nothing moves."""
        return out if self.axis == 0 else None


def class_axis(spec: OutputSpec) -> int:
    """Return the position of axis C, 0 if there is none."""
    return spec.axes.index("C") if "C" in spec.axes else 0
