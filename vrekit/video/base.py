"""What the engine relies on in a frame source."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vrekit.core.documents import Fields
from vrekit.core.errors import UsageError
from vrekit.core.spec import MAX_IMAGE_SIDE

MAX_STREAM_INDEX = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """Facts about a source, stored in `dataset.json`.

    Attributes:
        uri: Path or URI as the user gave it.
        fingerprint: `<bytes>-<16 hex digits>`: size and hash of the content; equal content has an equal fingerprint.
        source: `file`, `images`, `arrays` or `memory`.
        frame_count: Number of frames the source claims to have.
        height: Rows of a decoded frame (after rotation), pixels.
        width: Columns of a decoded frame (after rotation), pixels.
        fps: Average frames per second, None for sources without a clock.
        codec: Codec name of a file (`h264`), None otherwise.
        duration_seconds: Length, None without a clock.
        rotation_degrees: Rotation that was applied while decoding, counter-clockwise degrees.
        stream_index: Stream of the container that is read, None otherwise.
    """

    uri: str
    fingerprint: str
    source: str
    frame_count: int
    height: int
    width: int
    fps: float | None = None
    codec: str | None = None
    duration_seconds: float | None = None
    rotation_degrees: float = 0.0
    stream_index: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | Fields) -> Self:
        """Return the info `to_json` described; unknown keys (from newer minor versions) are ignored.

        Raises:
            DatasetError: If it is none.
        """
        fields = Fields.of(data, "a video")
        return cls(
            uri=fields.text("uri"),
            fingerprint=fields.text("fingerprint", max_length=100),
            source=fields.text("source", max_length=100),
            frame_count=fields.integer("frame_count", high=2**53),
            height=fields.integer("height", high=MAX_IMAGE_SIDE),
            width=fields.integer("width", high=MAX_IMAGE_SIDE),
            fps=fields.number("fps", None, low=0),
            codec=fields.text("codec", None, max_length=100),
            duration_seconds=fields.number("duration_seconds", None),
            rotation_degrees=fields.number("rotation_degrees", 0.0),
            stream_index=fields.integer("stream_index", None, high=MAX_STREAM_INDEX),
        )


@dataclass(frozen=True, slots=True)
class DecodedFrames:
    """Frames that decoded, and why the others did not.

    Attributes:
        frames: uint8 RGB (M, H, W, 3) of the frames that decoded, in the asked order.
        indices: int64 (M,): their frame numbers.
        failures: Frame number -> reason, for the frames that did not decode.
    """

    frames: NDArray[np.uint8]
    indices: NDArray[np.int64]
    failures: Mapping[int, str]


class VideoSource(ABC):
    """Frames of one video by number. Not thread-safe: one thread decodes; `close` frees the decoder."""

    info: VideoInfo

    @property
    @abstractmethod
    def frame_indices(self) -> NDArray[np.int64]:
        """Return the existing frame numbers in rising order; sparse for folders that keep numbers (5, 8, 22)."""

    @abstractmethod
    def pts_seconds(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return presentation times from the container, seconds; NaN where the source has no clock."""

    @abstractmethod
    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> DecodedFrames:
        """Return the frames with these numbers (rising, no repeats). A damaged frame is a failure, not an error."""

    @abstractmethod
    def close(self) -> None:
        """Free the decoder; the source can not be read afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def positions_of(
    indices: Sequence[int] | NDArray[np.int64], existing: NDArray[np.int64], uri: str
) -> NDArray[np.int64]:
    """Return where the frame numbers `indices` stand in `existing` (rising), int64 (M,).

    Raises:
        UsageError: If they do not rise, repeat, or one does not exist.
    """
    wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
    if np.any(np.diff(wanted) <= 0):
        raise UsageError(f"{uri}: frame numbers must rise without repeats, got {wanted.tolist()}")
    positions = np.searchsorted(existing, wanted)
    found = positions < len(existing)
    found[found] = existing[positions[found]] == wanted[found]
    if not found.all():
        span = f"{existing[0]}..{existing[-1]}" if len(existing) else "none"
        raise UsageError(
            f"{uri}: there is no frame {wanted[~found][0]}", hint=f"it has {len(existing)} frames, numbers {span}"
        )
    return positions.astype(np.int64)
