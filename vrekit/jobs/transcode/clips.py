"""Clips of video made of stored frames: encoded, decoded and checked as an export does it."""

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vrekit.catalog.cells import Clip
from vrekit.codecs.measure import compare
from vrekit.core.names import sample_key
from vrekit.engine.clip_checks import ClipFrame
from vrekit.engine.clips import ClipBuilder, ClipMaker
from vrekit.jobs.transcode.changes import Change

_MEASURED = 4  # frames of a clip whose pixels are kept until it is whole, to be compared with what comes back


@dataclass(frozen=True, slots=True)
class NewClip:
    """A clip, and where it has lost something, the errors of some of its frames."""

    clip: Clip
    errors: tuple[Mapping[str, float], ...]


def clips_of_frames(frames: Iterable[ClipFrame], maker: ClipMaker, change: Change) -> Generator[NewClip, None, None]:
    """Yield clips of the frames of one cell; few of these are in memory at a time.

    Args:
        frames: By rising number; those without pixels had failed.
        maker: Says how they are stored. Its codec encodes: a dataset has no packets to copy.
        change: What happens to the representation.

    Raises:
        CodecError: If frames cannot be encoded, or do not come back.
        MissingDependencyError: If the encoder is not installed.
    """
    building: _Building | None = None
    try:
        for frame in frames:
            building = building or _Building(maker, change)
            building.add(frame)
            if building.builder.is_full:
                yield building.finish()
                building = None
        if building is not None:
            yield building.finish()
    finally:
        if building is not None:
            building.builder.abort()


class _Building:
    """A clip that frames are added to; remembers a few of them, evenly spread."""

    def __init__(self, maker: ClipMaker, change: Change) -> None:
        self.builder = ClipBuilder(maker, frozenset())
        self._codec = maker.codec
        self._change = change
        self._kept: list[tuple[int, NDArray[np.uint8]]] = []  # place in the clip, pixels
        self._step = 1
        self._count = 0
        self._first = ""

    def add(self, frame: ClipFrame) -> None:
        """Add a frame."""
        self.builder.add(frame)
        if frame.pixels is None:
            return
        self._first = self._first or sample_key(frame.row.video_id, frame.row.frame_index)
        if not self._codec.is_exact and self._count % self._step == 0:
            self._kept.append((self._count, frame.pixels.copy()))  # it may be part of a batch
            if len(self._kept) > _MEASURED:
                self._kept = self._kept[::2]
                self._step *= 2
        self._count += 1

    def finish(self) -> NewClip:
        """Return the clip."""
        (finished,) = self.builder.finish()  # nothing is cut, so it stays in one piece
        clip = finished.clip
        if finished.refused:
            reason = next(row.error for row in clip.rows if sample_key(row.video_id, row.frame_index) == self._first)
            raise self._change.refused(self._first, reason)
        if clip.data is None or not self._kept:
            return NewClip(clip, ())
        decoded = self._codec.open_decoder(clip.data).read(np.array([at for at, _ in self._kept], np.int64))
        pairs = zip(self._kept, decoded, strict=True)
        spec = self._change.record.stored
        return NewClip(clip, tuple(compare(pixels, back, spec, spec) for (_, pixels), back in pairs))
