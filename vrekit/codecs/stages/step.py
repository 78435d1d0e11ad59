"""Equal steps of a chosen size: millimetres of depth, 1/64 pixels of flow."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.stages.quantiser import MAX_STEP, MIN_STEP, Quantiser, quantise
from vrekit.core.errors import UsageError

_NAN = 65535


@dataclass(frozen=True, slots=True)
class Step(Quantiser):
    """value → uint16 code round(value / step) + zero, 0..65534; 65535 is NaN.

    Largest error: step / 2, and the float rounding of the value itself. Values beyond the codes are refused.

    Attributes:
        step: Distance of neighbouring values.
        zero: The code of 0.0: 0 for values that are never negative, 32768 for signed ones.
    """

    id: ClassVar[str] = "step"

    step: float
    zero: int = 0

    def __post_init__(self) -> None:
        if not MIN_STEP <= self.step <= MAX_STEP:
            raise UsageError(f"step.step is {self.step}, expected a number from {MIN_STEP} to {MAX_STEP}")
        if not 0 <= self.zero < _NAN:
            raise UsageError(f"step.zero is {self.zero}, expected 0..65534")

    @property
    def code_bits(self) -> int:
        """Always 16."""
        return 16

    def values(self) -> NDArray[np.float64]:
        """Return the value of each code."""
        return np.append((np.arange(_NAN, dtype=np.float64) - self.zero) * self.step, np.nan)

    def encode(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the codes."""
        return quantise(
            array,
            divisor=self.step,
            origin=0.0,
            zero=self.zero,
            top=_NAN - 1,
            nan_code=_NAN,
            dtype=np.dtype(np.uint16),
            what=self.id,
            hint="choose a larger `step`, the codec log-jxl for depth of any range, or pco for exact values",
        )
