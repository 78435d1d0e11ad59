"""What the engine relies on in a frame source."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vrekit.core.documents import Fields, Rule
from vrekit.core.errors import UsageError
from vrekit.core.spec import MAX_IMAGE_SIDE

MAX_STREAM_INDEX = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
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
        pixel_format: FFmpeg's name of how the file stores pixels (`yuv420p10le`). This and what follows is known of
            video files only, and None where the container does not say or an older vrekit wrote the dataset.
        bit_depth: Bits per sample in the file; frames are always 8-bit.
        has_alpha: The file stores transparency, which frames do not have.
        sample_aspect_ratio: Width to height of a decoded pixel (`4:3`); frames are not scaled to square pixels.
        field_order: `progressive`, or how fields are interlaced (`tt`, `bb`, `tb`, `bt`); they are not separated.
        color_range: `tv` (limited) or `pc` (full).
        color_space: Matrix from Y'CbCr to RGB (`bt709`, `bt2020nc`).
        color_transfer: Transfer characteristics (`bt709`, `smpte2084` and `arib-std-b67` for HDR).
        color_primaries: Colours of red, green and blue (`bt709`, `bt2020`).
        other_streams: Type and codec of the streams that are not read (`audio aac`).
        is_truncated: The file is shorter than its container says.
        damaged_frames: Numbers of frames whose data FFmpeg found damaged, like `5,8..12` (12 is not in it). None when
            the container shows none; only an export with `check_video` also looks at what decoders conceal, and
            writes an empty string when it finds nothing.
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
    pixel_format: str | None = None
    bit_depth: int | None = None
    has_alpha: bool | None = None
    sample_aspect_ratio: str | None = None
    field_order: str | None = None
    color_range: str | None = None
    color_space: str | None = None
    color_transfer: str | None = None
    color_primaries: str | None = None
    other_streams: tuple[str, ...] | None = None
    is_truncated: bool | None = None
    damaged_frames: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict; facts from `pixel_format` on are left out where they are not known."""
        facts = {name: getattr(self, name) for name in _ALL_RULES}
        return {name: fact for name, fact in facts.items() if fact is not None or name in _RULES}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | Fields) -> Self:
        """Return the info `to_json` described; unknown keys (from newer minor versions) are ignored.

        Raises:
            DatasetError: If it is none.
        """
        return cls._of(Fields.of(data, "a video").record(_ALL_RULES))

    @classmethod
    def all_from_json(
        cls, fields: Fields, key: str, *, check_name: Callable[[str], object] | None = None
    ) -> dict[str, Self]:
        """Return the infos that lie under a key, by name; arguments as for `Fields.each`.

        Raises:
            DatasetError: If they are none.
        """
        records = fields.records(key, _ALL_RULES, check_name=check_name)
        return dict(zip(records, map(cls._of, records.values()), strict=True))

    @classmethod
    def _of(cls, facts: Mapping[str, Any]) -> Self:
        info = object.__new__(cls)  # `__init__` would take as long as all else of reading a manifest's videos
        if "other_streams" in facts and facts["other_streams"] is not None:
            facts = {**facts, "other_streams": tuple(facts["other_streams"])}
        info.__dict__.update(facts)  # a copy: the caller may change what it gave
        return info


_SHORT = Rule.text(None, max_length=100)
_RULES = {
    "uri": Rule.text(),
    "fingerprint": Rule.text(max_length=100),
    "source": Rule.text(max_length=100),
    "frame_count": Rule.integer(high=2**53),
    "height": Rule.integer(high=MAX_IMAGE_SIDE),
    "width": Rule.integer(high=MAX_IMAGE_SIDE),
    "fps": Rule.number(None, low=0),
    "codec": _SHORT,
    "duration_seconds": Rule.number(None),
    "rotation_degrees": Rule.number(0.0),
    "stream_index": Rule.integer(None, high=MAX_STREAM_INDEX),
}
_LATER_RULES = {  # facts that are left out of JSON where they are not known
    "pixel_format": _SHORT,
    "bit_depth": Rule.integer(None, high=64),
    "has_alpha": Rule.flag(None),
    "sample_aspect_ratio": _SHORT,
    "field_order": _SHORT,
    "color_range": _SHORT,
    "color_space": _SHORT,
    "color_transfer": _SHORT,
    "color_primaries": _SHORT,
    "other_streams": Rule(lambda fields, key: fields.items(key, None, kind=str), None),
    "is_truncated": Rule.flag(None),
    "damaged_frames": Rule.text(None),
}
_ALL_RULES = _RULES | _LATER_RULES


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
