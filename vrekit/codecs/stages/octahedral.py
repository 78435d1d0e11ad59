"""Unit vectors as points of an unfolded octahedron."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.scratch import scratch
from vrekit.codecs.stage import ArrayStage, Layout, Shape, fits
from vrekit.codecs.stages.channels_first import class_axis
from vrekit.codecs.stages.quantiser import as_computable
from vrekit.core.errors import CodecError, UsageError
from vrekit.core.spec import OutputSpec

_NAN, _ZERO = 0, 1  # codes of v where u has its reserved code
_MAX_TABLE_BITS = 10
_MAX_REMAP_SIDE = 32767  # cv2.remap counts in int16
_NORM_TOLERANCE = 1e-2


@dataclass(frozen=True, slots=True)
class Octahedral(ArrayStage):
    """Unit vectors (three channels) → (2, H, W): u and v of the octahedral map, 0..2**bits - 2.

    Codes are uint8 up to 8 bits, else uint16. Source of the map: Cigolle et al., "A Survey of Efficient
    Representations for Independent Unit Vectors", JCGT 3(2), 2014. Largest error: 0.98, 0.25, 0.062 degrees for 8,
    10, 12 bits (a third of it on average). u = 2**bits - 1 marks vectors without a direction: v = 0 NaN, v = 1 the
    zero vector. Lengths other than 1 by more than 0.01 are refused, smaller deviations are lost.

    Attributes:
        bits: Bits of u and of v, 6 .. 12.
        axis: Where the three channels are.
    """

    id: ClassVar[str] = "octahedral"
    exact: ClassVar[bool] = False

    bits: int = 10
    axis: int = 2

    def __post_init__(self) -> None:
        if not 6 <= self.bits <= 12:
            raise UsageError(f"octahedral.bits is {self.bits}, expected 6..12")
        if self.axis not in (0, 2):
            raise UsageError(f"octahedral.axis is {self.axis}, expected 0 (CHW) or 2 (HWC)")

    @classmethod
    def options_for(cls, spec: OutputSpec) -> dict[str, Any]:
        """Return where the spec has its C."""
        return {"axis": class_axis(spec)} if class_axis(spec) in (0, 2) else {}

    def encoded_layout(self, dtype: np.dtype[Any], shape: Shape) -> Layout:
        """Return the codes' layout."""
        fits(
            dtype.name in ("float16", "float32", "float64") and len(shape) == 3 and shape[self.axis] == 3,
            self,
            dtype,
            shape,
            f"floats with 3 channels at axis {self.axis}",
            "pco takes floats of any shape, npy.zst any numbers",
        )
        height, width = shape[1:] if self.axis == 0 else shape[:2]
        return np.dtype(np.uint8 if self.bits <= 8 else np.uint16), (2, height, width)

    def encode(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the codes."""
        x, y, z = np.ascontiguousarray(np.moveaxis(as_computable(array), self.axis, 0))
        codes: NDArray[Any] = np.empty((2, *x.shape), np.uint8 if self.bits <= 8 else np.uint16)
        if x.size == 0:
            return codes
        with np.errstate(over="ignore"):
            squared = x * x
            squared += y * y
            squared += z * z
        directed = np.abs(squared - 1.0) <= 2.0 * _NORM_TOLERANCE
        odd = None if directed.all() else ~directed
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            total = np.abs(x)
            total += np.abs(y)
            total += np.abs(z)
            u, v = x / total, y / total
        folded = z < 0
        u, v = (
            np.where(folded, np.copysign(1.0 - np.abs(v), u), u),
            np.where(folded, np.copysign(1.0 - np.abs(u), v), v),
        )
        half = 2 ** (self.bits - 1) - 1
        for plane, component in zip(codes, (u, v), strict=True):
            component *= half
            component += half
            np.rint(component, out=component)
            if odd is not None:
                component[odd] = 0
            plane[...] = component
        if odd is not None:
            self._mark(codes, odd, total)
        return codes

    def _mark(self, codes: NDArray[Any], odd: NDArray[np.bool_], total: NDArray[Any]) -> None:
        nan = np.isnan(total)
        wrong = odd & ~nan & (total != 0)
        if wrong.any():
            raise CodecError(
                f"octahedral: {int(wrong.sum())} vectors are not of unit length, such as one whose components' "
                f"absolute values sum to {float(total[wrong].flat[0]):.4g}",
                hint="normalise them, set invalid ones to NaN or zero, or use the codec pco",
            )
        codes[0][odd] = 2**self.bits - 1
        codes[1][odd] = np.where(nan[odd], _NAN, _ZERO)

    def decode(self, array: NDArray[Any], out: NDArray[Any]) -> None:
        """Look the vectors up."""
        last = 2**self.bits - 1
        u, v = array
        if array.size == 0:
            return
        if int(array.max()) > last:
            raise CodecError(f"octahedral: code {int(array.max())} is beyond {last}")
        if self.bits > _MAX_TABLE_BITS:
            np.copyto(np.moveaxis(out, self.axis, 2), _directions(u, v, self.bits), casting="same_kind")
            return
        size = 2**self.bits
        table = _vectors(self.bits, out.dtype)
        if self.axis == 2 and out.dtype == np.float32 and max(u.shape) < _MAX_REMAP_SIDE:
            # remap is a gather of pixels: a table of (u, v) is an image with row u and column v
            places = scratch("octahedral", np.dtype(np.int16), (*u.shape, 2))
            places[..., 0], places[..., 1] = v, u
            cv2.remap(table.reshape(size, size, 3), places, cast(Any, None), cv2.INTER_NEAREST, dst=out)
            return
        index = u.astype(np.intp)
        index *= size
        index += v
        if self.axis == 2:
            np.take(table, index, axis=0, out=out, mode="clip")
        else:
            np.copyto(out, np.moveaxis(np.take(table, index, axis=0, mode="clip"), 2, 0))


@lru_cache(maxsize=4)
def _vectors(bits: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the vector of each u * 2**bits + v, shape (4**bits, 3), read-only; 12 MB for 10 bits of float32."""
    line = np.arange(2**bits)
    table = _directions(line[:, None], line[None, :], bits).reshape(-1, 3).astype(dtype)
    table.flags.writeable = False
    return table


def _directions(u: NDArray[Any], v: NDArray[Any], bits: int) -> NDArray[np.float64]:
    """Return the vectors of codes, channels last."""
    last = 2**bits - 1
    half = 2 ** (bits - 1) - 1
    x, y = np.broadcast_arrays(u / half - 1.0, v / half - 1.0)
    z = 1.0 - np.abs(x) - np.abs(y)
    below = np.maximum(-z, 0.0)
    vectors = np.stack([x - np.copysign(below, x), y - np.copysign(below, y), z], axis=-1)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    vectors[np.broadcast_to((u == last) | (v == last), z.shape)] = np.nan  # v has no code of its own: never written
    vectors[np.broadcast_to((u == last) & (v == _ZERO), z.shape)] = 0.0
    return vectors
