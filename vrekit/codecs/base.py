"""What every caller of a codec relies on; how codecs are put together from stages is their own business."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrekit.core.spec import OutputSpec

CodecConfig = Mapping[str, Any]
Bytes = bytes | bytearray | memoryview


class Codec(ABC):
    """One array ⇄ bytes, thread-safe, described completely by `config()`.

    The id never changes meaning: new behaviour gets a new id, so a shard can be read years later.
    """

    @property
    @abstractmethod
    def id(self) -> str:
        """Short name for people and for the metadata column `codec`, such as `npy.zst`."""

    @property
    @abstractmethod
    def suffix(self) -> str:
        """File name ending without the leading dot, such as `npy.zst`; standard tools go by it."""

    @property
    def is_exact(self) -> bool:
        """Whether decoding gives back every value that went in, in the same dtype and shape; False when unsure."""
        return False

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return the JSON-able config from which `vrekit.codecs.registry.codec_from_config` rebuilds this codec."""

    def decoded_spec(self, spec: OutputSpec) -> OutputSpec:
        """Return what decoding gives when `spec` goes in: the same, unless the stored form differs (argmax indices)."""
        return spec

    def decoded_layout(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """Return dtype and shape of the decoded array for an array of this dtype and shape."""
        return dtype, shape

    @abstractmethod
    def encode(self, array: NDArray[Any]) -> bytes:
        """Return the bytes of one frame's array.

        Raises:
            CodecError: If the array's dtype, shape or values do not fit this codec.
        """

    @abstractmethod
    def decode(
        self, data: Bytes, *, dtype: np.dtype[Any], shape: tuple[int, ...], out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Return the array in `data`.

        Args:
            data: What `encode` returned.
            dtype: dtype the metadata promises for the decoded array.
            shape: Shape the metadata promises; nothing larger is ever allocated.
            out: C-contiguous array of that dtype and shape to decode into; it is then what is returned.

        Raises:
            CodecError: If the bytes are damaged or are not of that dtype and shape.
        """
