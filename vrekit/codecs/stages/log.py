"""Equal ratios: positive values of any magnitude with a bounded relative error."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.stages.quantiser import Quantiser, as_computable
from vrekit.core.errors import CodecError, UsageError

_NAN, _ZERO, _FIRST, _INFINITY = 0, 1, 2, 65535
_SLACK = 0.99  # steps are this much finer than the bound asks


@dataclass(frozen=True, slots=True)
class Log(Quantiser):
    """value → uint16 code: 0 NaN, 1 zero, 2..65534 minimum * exp((code - 2) * s), 65535 infinity.

    s = 2 * 0.99 * log(1 + relative_error). Largest error: `relative_error` times the value for values of at least
    `minimum`; smaller ones become zero or `minimum`, whichever is closer. With the defaults the codes reach 3e16.
    Negative values and values beyond the codes are refused. float16 values round a second time when decoded.

    Attributes:
        relative_error: Largest error as a fraction of the value, 1e-4 .. 0.1.
        minimum: Smallest positive value that is told from zero.
    """

    id: ClassVar[str] = "log"

    relative_error: float = 4e-4
    minimum: float = 1e-6

    def __post_init__(self) -> None:
        if not 1e-4 <= self.relative_error <= 0.1:
            raise UsageError(f"log.relative_error is {self.relative_error}, expected 1e-4..0.1")
        if not 1e-30 <= self.minimum <= 1e30:
            raise UsageError(f"log.minimum is {self.minimum}, expected 1e-30..1e30")

    @property
    def code_bits(self) -> int:
        """Always 16."""
        return 16

    @property
    def log_step(self) -> float:
        """Natural logarithm of the ratio of neighbouring values."""
        return 2.0 * _SLACK * float(np.log1p(self.relative_error))

    def values(self) -> NDArray[np.float64]:
        """Return the value of each code."""
        with np.errstate(over="ignore"):
            finite = self.minimum * np.exp(np.arange(_INFINITY - _FIRST) * self.log_step)
        return np.concatenate([[np.nan, 0.0], finite, [np.inf]])

    def encode(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the codes."""
        if array.size == 0:
            return np.empty(array.shape, np.uint16)
        values = as_computable(array)
        nan, infinite = np.isnan(values), np.isposinf(values)
        small = values < 0.5 * self.minimum
        special = nan | infinite | small
        scaled = np.asarray(np.where(special, self.minimum, values)).astype(values.dtype, copy=False)
        if float(np.min(values, where=~nan, initial=0.0)) < 0:
            raise CodecError(
                f"log: the array has the negative value {np.nanmin(array)}",
                hint="set invalid pixels to NaN, or use the codec u16-jxl with a range, or pco for exact values",
            )
        # float64: in float32 the logarithm alone is off by more than the slack; asarray: a scalar is no array
        scaled = np.asarray(np.log(np.maximum(scaled, self.minimum), dtype=np.float64))
        scaled -= np.log(self.minimum)
        scaled *= 1.0 / self.log_step
        np.rint(scaled, out=scaled)
        if scaled.max() > _INFINITY - 1 - _FIRST:
            raise CodecError(
                f"log: the value {np.max(values, where=~special, initial=0.0)} is beyond the largest one",
                hint="choose a larger `relative_error` or `minimum`",
            )
        codes = scaled.astype(np.uint16)
        codes += np.uint16(_FIRST)
        codes[small] = _ZERO
        codes[nan] = _NAN
        codes[infinite] = _INFINITY
        return codes
