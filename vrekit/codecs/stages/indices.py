"""The winning class of each pixel."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.stage import ArrayStage, Layout, Shape, fits
from vrekit.codecs.stages.channels_first import class_axis
from vrekit.codecs.stages.gaplog import blocks, check_scores, first_winner
from vrekit.core.spec import Kind, OutputSpec


@dataclass(frozen=True, slots=True)
class Indices(ArrayStage):
    """Class scores (C, H, W) → class ids (H, W), uint8 for up to 255 classes, else uint16; one way.

    The first of equal winners is taken, as `argmax` does. A pixel with a NaN gets the largest id of the dtype.

    Attributes:
        axis: Where the classes are.
    """

    id: ClassVar[str] = "indices"
    one_way: ClassVar[bool] = True

    axis: int = 0

    @classmethod
    def options_for(cls, spec: OutputSpec) -> dict[str, Any]:
        """Return the class axis."""
        return {"axis": class_axis(spec)}

    def decoded_layout(self, dtype: np.dtype[Any], shape: Shape) -> Layout:
        """Return the ids' layout."""
        check_scores(self, dtype, shape, self.axis)
        fits(
            shape[self.axis] < 65536,
            self,
            dtype,
            shape,
            "up to 65535 classes",
            "store_as: top-3 keeps the best of more",
        )
        return np.dtype(_id_dtype(shape[self.axis])), (*shape[: self.axis], *shape[self.axis + 1 :])

    def decoded_spec(self, spec: OutputSpec) -> OutputSpec:
        """Return the spec of the ids."""
        axis, classes = self.axis, spec.shape[self.axis] or 1
        dtype = np.dtype(_id_dtype(classes))
        return replace(
            spec,
            kind=Kind.INDICES,
            dtype=dtype.name,
            shape=(*spec.shape[:axis], *spec.shape[axis + 1 :]),
            axes=spec.axes[:axis] + spec.axes[axis + 1 :],
            value_range=(0.0, float(classes - 1)),
            invalid_value=float(np.iinfo(dtype).max),
            unit=None,
        )

    def encoded_layout(self, dtype: np.dtype[Any], shape: Shape) -> Layout:
        """Return the same: ids are stored and ids come back."""
        return dtype, shape

    def encode(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the ids."""
        dtype, shape = self.decoded_layout(array.dtype, array.shape)
        ids = np.empty(shape, dtype)
        for scores, target in blocks(np.moveaxis(array, self.axis, 0), ids[None]):
            best = scores.max(axis=0)
            target[0] = first_winner(scores, best)
            target[0][np.isnan(best)] = np.iinfo(dtype).max
        return ids

    def decode(self, array: NDArray[Any], out: NDArray[Any]) -> None:
        """Copy the ids."""
        np.copyto(out, array)

    def view(self, out: NDArray[Any]) -> NDArray[Any] | None:
        """Return `out` itself."""
        return out


def _id_dtype(classes: int) -> type[np.unsignedinteger[Any]]:
    return np.uint8 if classes <= 255 else np.uint16
