"""Logits as probabilities."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.stage import ArrayStage, Layout, Shape
from vrekit.codecs.stages.channels_first import class_axis
from vrekit.codecs.stages.gaplog import blocks, check_scores, first_winner, keep_first
from vrekit.core.spec import Kind, OutputSpec


@dataclass(frozen=True, slots=True)
class Softmax(ArrayStage):
    """Logits → probabilities of the same shape, float32 (float64 for float64); one way.

    Lost: the offset of a pixel's logits. The winner stays the first largest, even where rounding would level it.
    A pixel with NaN or +inf, or with nothing but -inf, is all NaN.

    Attributes:
        axis: Where the classes are.
    """

    id: ClassVar[str] = "softmax"
    one_way: ClassVar[bool] = True

    axis: int = 0

    @classmethod
    def options_for(cls, spec: OutputSpec) -> dict[str, Any]:
        """Return the class axis."""
        return {"axis": class_axis(spec)}

    def decoded_layout(self, dtype: np.dtype[Any], shape: Shape) -> Layout:
        """Return the probabilities' layout."""
        check_scores(self, dtype, shape, self.axis)
        return np.result_type(dtype, np.float32), shape

    def decoded_spec(self, spec: OutputSpec) -> OutputSpec:
        """Return the spec of the probabilities."""
        dtype = np.result_type(np.dtype(spec.dtype), np.float32)
        return replace(spec, kind=Kind.PROBABILITIES, dtype=dtype.name, value_range=(0.0, 1.0), unit=None)

    def encoded_layout(self, dtype: np.dtype[Any], shape: Shape) -> Layout:
        """Return the same: probabilities are stored and come back."""
        return dtype, shape

    def encode(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the probabilities."""
        dtype, shape = self.decoded_layout(array.dtype, array.shape)
        result = np.empty(shape, dtype)
        for logits, target in blocks(np.moveaxis(array, self.axis, 0), np.moveaxis(result, self.axis, 0)):
            target[...] = softmax(logits.astype(dtype, copy=False))
        return result

    def decode(self, array: NDArray[Any], out: NDArray[Any]) -> None:
        """Copy the probabilities."""
        np.copyto(out, array)

    def view(self, out: NDArray[Any]) -> NDArray[Any] | None:
        """Return `out` itself."""
        return out


def softmax(logits: NDArray[Any]) -> NDArray[Any]:
    """Return the softmax of (C, N) logits over C with the same first winner."""
    best = logits.max(axis=0)
    winner = first_winner(logits, best)
    with np.errstate(invalid="ignore"):
        values: NDArray[Any] = np.exp(logits - best)
        values /= values.sum(axis=0)
    keep_first(values, winner)  # rounding can make a close loser equal to the winner
    return values
