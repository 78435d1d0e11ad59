"""What is left to do: wanted frames minus stored ones, laid out on the grid of shards."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vrekit.catalog.manifest import Manifest
from vrekit.catalog.progress import Progress
from vrekit.core.errors import UsageError

Frames = NDArray[np.int64]
MAX_FRAME_INDEX = 2**53 - 1  # the largest integer that every JSON reader keeps exact


@dataclass(frozen=True, slots=True)
class CellPlan:
    """The work in one cell of the grid.

    Attributes:
        first: First frame number of the cell.
        last: Last frame number of the cell, included.
        missing: Representation name → frame numbers to compute and store, rising.
    """

    first: int
    last: int
    missing: Mapping[str, Frames]


@dataclass(frozen=True, slots=True)
class Plan:
    """The work of one export.

    Attributes:
        video_id: Which video.
        wanted: Frame numbers asked for.
        missing: Stored representation name → frame numbers to compute, rising.
        retried: Representation name → frame numbers among `missing` that failed before.
        left_failed: Representation name → number of wanted frames that failed before and are left alone.
        retry_failed: Whether failed frames are computed again.
        shard_frames: Width of the grid.
    """

    video_id: str
    wanted: Frames
    missing: Mapping[str, Frames]
    retried: Mapping[str, Frames]
    left_failed: Mapping[str, int]
    retry_failed: bool
    shard_frames: int

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to compute."""
        return not any(len(frames) for frames in self.missing.values())

    @property
    def frames_to_visit(self) -> Frames:
        """Frames of which at least one representation is missing, rising."""
        parts = [frames for frames in self.missing.values() if len(frames)]
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)

    def cells(self) -> Iterator[CellPlan]:
        """Yield the cells that have work, in frame order."""
        for number in np.unique(self.frames_to_visit // self.shard_frames):
            first = int(number) * self.shard_frames
            last = first + self.shard_frames - 1
            inside = {
                name: frames[np.searchsorted(frames, first) : np.searchsorted(frames, last + 1)]
                for name, frames in self.missing.items()
            }
            yield CellPlan(first, last, {name: frames for name, frames in inside.items() if len(frames)})


def make_plan(
    *,
    video_id: str,
    wanted: Frames,
    names: Sequence[str],
    progress: Progress,
    manifest: Manifest,
    retry_failed: bool = False,
) -> Plan:
    """Return what is left to do.

    Args:
        video_id: Which video.
        wanted: Frame numbers asked for, rising.
        names: Representations to store.
        progress: What is stored and what failed so far.
        manifest: Of the dataset; it has the grid.
        retry_failed: Compute failed frames again; otherwise they stay recorded as failed.

    Raises:
        UsageError: If a frame number is larger than MAX_FRAME_INDEX.
    """
    if len(wanted) and wanted[-1] > MAX_FRAME_INDEX:
        raise UsageError(
            f"frame number {wanted[-1]} is too large: a dataset counts up to {MAX_FRAME_INDEX}",
            hint="rename the frames, or leave that one out with --frames",
        )
    missing: dict[str, Frames] = {}
    retried: dict[str, Frames] = {}
    left_failed: dict[str, int] = {}
    for name in names:
        left = np.setdiff1d(wanted, progress.done_frames(name), assume_unique=True)
        failed = np.intersect1d(left, progress.failed_frames(name), assume_unique=True)
        if retry_failed:
            retried[name] = failed
        elif len(failed):
            left_failed[name] = len(failed)
            left = np.setdiff1d(left, failed, assume_unique=True)
        missing[name] = left
    return Plan(video_id, wanted, missing, retried, left_failed, retry_failed, manifest.shard_frames)


def runs_of_equal_work(missing: Mapping[str, Frames]) -> Iterator[tuple[Frames, frozenset[str]]]:
    """Yield runs of frames in frame order; all frames of a run lack the same representations."""
    if not missing:
        return
    names = sorted(missing)
    frames = np.unique(np.concatenate([missing[name] for name in names]))
    lacks = np.stack([np.isin(frames, missing[name], assume_unique=True) for name in names], axis=1)
    changes = np.flatnonzero(np.any(lacks[1:] != lacks[:-1], axis=1)) + 1
    for start, stop in zip([0, *changes], [*changes, len(frames)], strict=True):
        todo = frozenset(name for name, lack in zip(names, lacks[start], strict=True) if lack)
        yield frames[start:stop], todo
