"""Zstandard (RFC 8878), with its content size and, unless it is not wanted, checksum written."""

import threading
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import imagecodecs
import numpy as np
import zstandard

from vrekit.codecs.base import Bytes
from vrekit.codecs.scratch import scratch
from vrekit.codecs.stage import BytesStage
from vrekit.core.errors import CodecError, UsageError

# zstandard's contexts are not thread-safe and dear to make: one per thread
_THREAD = threading.local()


@dataclass(frozen=True, slots=True)
class Zstd(BytesStage):
    """One zstd frame; `zstd -d` unpacks it. Exact.

    Attributes:
        level: 1 (fast) .. 19 (small); higher ones decode up to a fifth faster where there is something to find.
        checksum: Whether the frame has an XXH64 checksum that tells damaged bytes. It takes a tenth of the time of
            decoding; without it, the CRC-32 in a dataset's metadata is what tells.
    """

    id: ClassVar[str] = "zstd"
    suffix: ClassVar[str] = "zst"

    level: int = 3
    checksum: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.level <= 22:
            raise UsageError(f"zstd.level is {self.level}, expected 1..22")

    def config(self) -> dict[str, Any]:
        """Return the options; `checksum` only where it is false, since configs stored before it existed lack it."""
        config = BytesStage.config(self)
        if self.checksum:
            del config["checksum"]
        return config

    def encode(self, data: bytes) -> bytes:
        """Return one frame."""
        compressors = _THREAD.__dict__.setdefault("compressors", {})
        if self not in compressors:
            compressors[self] = zstandard.ZstdCompressor(level=self.level, write_checksum=self.checksum)
        packed: bytes = compressors[self].compress(data)
        return packed

    def decode(self, data: Bytes, max_size: int) -> memoryview:
        """Return the content after checking the size that the frame claims; valid until this thread's next call."""
        try:
            size = zstandard.get_frame_parameters(data).content_size
            if size > max_size:  # "unknown" is the largest number and ends up here, too
                raise CodecError(f"zstd frame claims {size} bytes of content, expected at most {max_size}")
            content: Any = scratch("zstd", np.dtype(np.uint8), (size,))
            if np.may_share_memory(content, np.frombuffer(data, np.uint8)):  # another zstd stage unpacked it there
                content = np.empty(size, np.uint8)
            # one call of ZSTD_decompress: straight into memory, checks a checksum, refuses bytes behind the frame
            if len(imagecodecs.zstd_decode(cast(Any, data), out=content)) != size:
                raise CodecError(f"zstd frame does not hold the {size} bytes it claims")
        except (zstandard.ZstdError, RuntimeError, ValueError) as error:
            if isinstance(error, CodecError):
                raise
            raise CodecError(f"zstd frame is damaged: {error}") from error
        return memoryview(content)
