"""What the scalar quantisers share: float → unsigned code, code → float through a table."""

from abc import abstractmethod
from functools import lru_cache
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.stage import ArrayStage, Layout, Shape, fits
from vrekit.core.errors import CodecError


class Quantiser(ArrayStage):
    """float → uint8 (up to 8 bits) or uint16; a subclass says which value each code means."""

    exact: ClassVar[bool] = False

    @property
    @abstractmethod
    def code_bits(self) -> int:
        """Bits of a code, at most 16."""

    @abstractmethod
    def values(self) -> NDArray[np.float64]:
        """Return the value of each code that `encode` may write, from code 0 on."""

    def encoded_layout(self, dtype: np.dtype[Any], shape: Shape) -> Layout:
        """Return uint8 or uint16 of the same shape."""
        fits(dtype.kind == "f" and dtype.itemsize <= 8 and dtype.isnative, self, dtype, shape, "floats")
        return np.dtype(np.uint8 if self.code_bits <= 8 else np.uint16), shape

    def decode(self, array: NDArray[Any], out: NDArray[Any]) -> None:
        """Look the codes up."""
        look_up(code_values(self, out.dtype), array, out, self.id)


@lru_cache(maxsize=32)
def code_values(quantiser: Quantiser, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return `quantiser.values()` as a read-only table of `dtype`."""
    with np.errstate(over="ignore"):
        table = quantiser.values().astype(dtype)
    table.flags.writeable = False
    return table


def look_up(table: NDArray[Any], codes: NDArray[Any], out: NDArray[Any], what: str) -> None:
    """Set `out = table[codes]`.

    Raises:
        CodecError: If a code is beyond the table.
    """
    if len(table) <= np.iinfo(codes.dtype).max and codes.size and int(codes.max()) >= len(table):
        raise CodecError(f"{what}: code {int(codes.max())} is beyond the last one, {len(table) - 1}")
    if codes.dtype == np.uint8 and out.dtype in (np.float32, np.float64) and codes.size and out.size < 1 << 31:
        full = np.zeros(256, table.dtype)
        full[: len(table)] = table[:256]
        # three times as fast as take; one row of pixels, whatever the shape
        cv2.LUT(codes.reshape(1, -1), full.reshape(1, -1), dst=out.reshape(1, -1))
        return
    # mode="clip" lets take write into `out` without a buffer; no code is ever clipped
    np.take(table, codes, out=out, mode="clip")


def as_computable(array: NDArray[Any]) -> NDArray[Any]:
    """Return float16 as float32, others as they are."""
    return array.astype(np.float32) if array.dtype == np.float16 else array


def quantise(
    array: NDArray[Any],
    *,
    divisor: float,
    origin: float,
    zero: int,
    top: int,
    nan_code: int | None,
    dtype: np.dtype[Any],
    what: str,
    hint: str,
) -> NDArray[Any]:
    """Return `round((array - origin) / divisor) + zero` as codes 0..top, and `nan_code` for NaN.

    Raises:
        CodecError: If a value is outside of the codes, or NaN without a code for it.
    """
    # float64: in float32, the product alone can be off by a thousandth of a step
    scaled = np.asarray(np.multiply(array, 1.0 / divisor, dtype=np.float64))
    if origin:
        scaled -= origin / divisor
    np.rint(scaled, out=scaled)
    if scaled.size == 0:
        return scaled.astype(dtype)
    low, high = scaled.min(), scaled.max()
    missing = None
    if np.isnan(low):
        if nan_code is None:
            raise CodecError(f"{what}: the array has NaN and no code is reserved for it", hint=hint)
        missing = np.isnan(scaled)
        scaled[missing] = 0.0
        low, high = scaled.min(), scaled.max()
    if low < -zero or high > top - zero:
        inside = array[~np.isnan(array)]
        raise CodecError(
            f"{what}: values {inside.min()}..{inside.max()} are outside of "
            f"{origin - zero * divisor:.6g}..{origin + (top - zero) * divisor:.6g}",
            hint=hint,
        )
    if zero:
        scaled += zero
    codes: NDArray[Any] = scaled.astype(dtype)
    if missing is not None and nan_code is not None:
        codes[missing] = nan_code
    return codes
