"""What every caller of a codec relies on; how codecs are put together from stages is their own business."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrekit.core.errors import CodecError
from vrekit.core.spec import OutputSpec

CodecConfig = Mapping[str, Any]
Bytes = bytes | bytearray | memoryview

_LARGE_BYTES = 16 << 20


def max_file_size(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """Return a bound on the bytes of a file with such an array: 40 characters a number are enough in any format."""
    return 64 * (1 << 10) + 40 * max(dtype.itemsize, 1) * math.prod(shape)


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

    def max_encoded_size(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
        """Return a bound on the bytes of a payload that decodes to such an array: larger ones are refused unread.

        Raises:
            CodecError: If this codec stores no such arrays.
        """
        return max_file_size(dtype, shape)

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


def check_payload_size(codec: Codec, size: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Refuse a payload that is larger than any of such an array, before memory is taken for it.

    Those below 16 MiB pass: decoding finds out what is wrong with them.

    Raises:
        CodecError: If it is, or if the codec stores no such arrays.
    """
    if size >= _LARGE_BYTES and size > (most := codec.max_encoded_size(dtype, shape)):
        raise CodecError(
            f"the payload has {size} bytes, but codec {codec.id!r} stores an array {dtype} {shape} in at most {most}",
            hint="`vrekit validate` lists what is damaged; with --repair it takes that out",
        )


class ClipCodec(ABC):
    """Many frames ⇄ one video file, a clip: a frame is read by its place in it.

    What goes in and comes out is uint8 RGB (H, W, 3). Like a `Codec` it is described completely by `config()`.
    """

    @property
    @abstractmethod
    def id(self) -> str:
        """Short name for people and for the metadata column `codec`, such as `video`."""

    @property
    @abstractmethod
    def suffix(self) -> str:
        """File name ending of a clip without the leading dot, such as `mp4`."""

    @property
    @abstractmethod
    def copies_source(self) -> bool:
        """Whether clips are cut from the source file's own packets; what cannot be cut is encoded without loss then."""

    @property
    @abstractmethod
    def is_exact(self) -> bool:
        """Whether decoding gives the very pixels that went in."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return the JSON-able config from which `vrekit.codecs.registry.clip_codec` rebuilds this codec."""

    @abstractmethod
    def check_takes(self, spec: OutputSpec) -> None:
        """Raise CodecError unless frames as `spec` describes them can be stored."""

    @abstractmethod
    def open_encoder(self, *, height: int, width: int, fps: float) -> "ClipEncoder":
        """Return an encoder for one clip.

        Raises:
            CodecError: If frames of this size cannot be encoded.
            MissingDependencyError: If the encoder is not installed.
        """

    @abstractmethod
    def open_decoder(self, data: bytes) -> "ClipDecoder":
        """Return a decoder of a clip.

        Raises:
            CodecError: If `data` is no such file.
        """


class ClipEncoder(ABC):
    """Takes the frames of one clip, in order; for one thread at a time."""

    @abstractmethod
    def add(self, frame: NDArray[np.uint8]) -> None:
        """Add a frame (H, W, 3).

        Raises:
            CodecError: If the encoder stopped.
        """

    @property
    @abstractmethod
    def size_bytes(self) -> int:
        """Bytes of the clip so far."""

    @abstractmethod
    def finish(self) -> bytes:
        """Return the clip."""

    def finish_to(self, path: Path) -> None:
        """Write the clip to a file, as an encoder may do without having all of it in memory."""
        path.write_bytes(self.finish())

    @abstractmethod
    def abort(self) -> None:
        """Stop, and drop what was encoded; harmless after `finish`."""


class ClipDecoder(ABC):
    """Decodes frames of one clip; for one thread at a time."""

    @property
    @abstractmethod
    def frame_count(self) -> int:
        """Number of frames in the clip."""

    @property
    @abstractmethod
    def size_bytes(self) -> int:
        """About how much memory it holds, without the clip's bytes."""

    @property
    def frame_pixels(self) -> int | None:
        """Pixels of a frame as the file says it, before anything is decoded; None where it does not."""
        return None

    def check_frame_pixels(self, pixels: int) -> None:
        """Raise CodecError if the clip's frames are known to have another number of pixels: a few kB may be huge."""
        if self.frame_pixels not in (None, pixels):
            raise CodecError(f"the clip has frames of {self.frame_pixels} pixels, expected {pixels}")

    @property
    def rewinds(self) -> int:
        """How often it had to decode from the front of the clip, as there was no nearer key frame to start at."""
        return 0

    @abstractmethod
    def read(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the frames at these places (rising, from 0), uint8 (N, H, W, 3).

        Raises:
            CodecError: If there is no such frame, or it does not decode. The decoder is of no use after that.
        """
