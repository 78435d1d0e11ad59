"""Equal steps over a fixed range of values."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.stages.quantiser import MAX_STEP, MIN_STEP, Quantiser, quantise
from vrekit.core.errors import UsageError
from vrekit.core.spec import OutputSpec


@dataclass(frozen=True, slots=True)
class Uniform(Quantiser):
    """minimum..maximum → codes 0..top; with `nan`, the code after top is NaN.

    top is 2**bits - 1, or 2**bits - 2 with `nan`. Largest error: half a step, (maximum - minimum) / top / 2, and the
    float rounding of the value itself. Values further outside of the range than half a step are refused.

    Attributes:
        minimum: Value of code 0.
        maximum: Value of code top.
        bits: 2 .. 16.
        nan: Whether the last code stands for NaN; without it NaN is refused.
    """

    id: ClassVar[str] = "uniform"

    minimum: float
    maximum: float
    bits: int = 16
    nan: bool = True

    def __post_init__(self) -> None:
        if not (np.isfinite(self.minimum) and np.isfinite(self.maximum) and self.minimum < self.maximum):
            raise UsageError(f"uniform: the range {self.minimum}..{self.maximum} is empty or not finite")
        if not 2 <= self.bits <= 16:
            raise UsageError(f"uniform.bits is {self.bits}, expected 2..16")
        if not MIN_STEP <= (self.maximum - self.minimum) / self.top <= MAX_STEP:
            raise UsageError(f"uniform: the range {self.minimum}..{self.maximum} is too narrow or too wide for floats")

    @classmethod
    def options_for(cls, spec: OutputSpec) -> dict[str, Any]:
        """Return the spec's value range, if it has one."""
        if spec.value_range is None or not np.isfinite(spec.value_range).all():
            return {}
        return {"minimum": float(spec.value_range[0]), "maximum": float(spec.value_range[1])}

    @property
    def code_bits(self) -> int:
        """Bits of a code."""
        return self.bits

    @property
    def top(self) -> int:
        """The code of `maximum`."""
        return (1 << self.bits) - (2 if self.nan else 1)

    def values(self) -> NDArray[np.float64]:
        """Return the value of each code."""
        values = np.linspace(self.minimum, self.maximum, self.top + 1)
        return np.append(values, np.nan) if self.nan else values

    def encode(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the codes."""
        return quantise(
            array,
            divisor=(self.maximum - self.minimum) / self.top,
            origin=self.minimum,
            zero=0,
            top=self.top,
            nan_code=self.top + 1 if self.nan else None,
            dtype=np.dtype(np.uint8 if self.bits <= 8 else np.uint16),
            what=self.id,
            hint="set minimum and maximum of the codec, `nan: true` for NaN, or use a lossless codec such as pco",
        )
