"""pcodec: lossless compression of numbers (https://github.com/pcodec/pcodec)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pcodec import ChunkConfig, standalone  # pyright: ignore[reportAttributeAccessIssue]  (compiled, no stubs)

from vrekit.codecs.base import Bytes
from vrekit.codecs.stage import ArrayToBytesStage, Shape, fits
from vrekit.core.errors import CodecError, UsageError

_DTYPES = ("float16", "float32", "float64", "int16", "int32", "int64", "uint16", "uint32", "uint64")


@dataclass(frozen=True, slots=True)
class Pco(ArrayToBytesStage):
    """A pcodec standalone file of the numbers in C order; shape and dtype are in the metadata row.

    Exact: NaN payloads, infinities and -0 keep their bits.

    Attributes:
        level: 0 (fast) .. 12 (small).
    """

    id: ClassVar[str] = "pco"
    suffix: ClassVar[str] = "pco"

    level: int = 8

    def __post_init__(self) -> None:
        if not 0 <= self.level <= 12:
            raise UsageError(f"pco.level is {self.level}, expected 0..12")

    def check(self, dtype: np.dtype[Any], shape: Shape) -> None:
        """Accept floats and integers of 16 to 64 bits."""
        fits(
            dtype.name in _DTYPES and dtype.isnative,
            self,
            dtype,
            shape,
            "floats or integers of 16 to 64 bits",
            "npy.zst takes any numbers",
        )

    def encode(self, array: NDArray[Any]) -> bytes:
        """Return the file."""
        return bytes(standalone.simple_compress(array.reshape(-1), ChunkConfig(compression_level=self.level)))

    def decode(self, data: Bytes, out: NDArray[Any]) -> None:
        """Decompress straight into `out`."""
        try:
            progress = standalone.simple_decompress_into(bytes(data), out.reshape(-1))
        except (RuntimeError, TypeError, ValueError, MemoryError) as error:
            raise CodecError(f"pco file is damaged or not {out.dtype}: {error}") from error
        if progress.n_processed != out.size or not progress.finished:
            found = progress.n_processed if progress.finished else f"more than {progress.n_processed}"
            raise CodecError(f"pco file holds {found} numbers, expected {out.size}")
