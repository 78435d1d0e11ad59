"""Which frames of a dataset a command is about: videos, frame numbers, a predicate, a subset."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vrekit.catalog.dataset import open_dataset
from vrekit.catalog.query import select_frames
from vrekit.core.errors import UsageError
from vrekit.core.names import did_you_mean
from vrekit.readers import FrameDataset
from vrekit.readers.index import MISSING, FrameIndex
from vrekit.readers.subset import subset_rows
from vrekit.video.selection import FrameSelection


def select_rows(
    dataset: FrameDataset,
    *,
    videos: Sequence[str] = (),
    frames: FrameSelection | None = None,
    where: str | None = None,
    subset: Path | None = None,
) -> NDArray[np.int64]:
    """Return the rows of the frames that all of these select, sorted by video and frame.

    Args:
        dataset: Where they are.
        videos: Video ids; empty means all.
        frames: Frame numbers of each video.
        where: SQL predicate.
        subset: Parquet file that names frames.

    Raises:
        UsageError: If a video is not there, or nothing is selected.
        DatasetError: If the subset names frames that the dataset does not have.
    """
    index = dataset.index
    chosen = np.zeros(len(index), np.bool_)
    unknown = [video for video in videos if video not in index.videos]
    if unknown:
        raise UsageError(
            f"{dataset.path} has no video {unknown[0]!r} with these representations"
            f"{did_you_mean(unknown[0], index.videos)}",
            hint="`vrekit info` lists its videos",
        )
    frames = frames or FrameSelection()
    refused: UsageError | None = None
    for number, video in enumerate(index.videos):
        if videos and video not in videos:
            continue
        rows = np.flatnonzero(index.video == number)
        rows = rows[np.argsort(index.frame_index[rows])]
        try:
            found = frames.select(index.frame_index[rows], index.pts_seconds[rows])
        except UsageError as error:  # another video may have such frames
            refused = refused or UsageError(f"{video}: {error.message}", hint=error.hint)
            continue
        chosen[rows[np.isin(index.frame_index[rows], found)]] = True
    if refused is not None and not chosen.any():
        raise refused
    if subset is not None:
        chosen &= _mask(index, subset_rows(index, subset, dataset.path))
    if where is not None:
        with open_dataset(dataset.path) as opened:
            keys = select_frames(opened, where)
        found = index.find(keys["video_id"], keys["frame_index"].to_numpy())
        chosen &= _mask(index, found[found != MISSING])
    rows = np.flatnonzero(chosen)
    if not len(rows):
        raise UsageError("no frame is selected: there is nothing to extract", hint="`vrekit query` shows what there is")
    return rows[np.lexsort((index.frame_index[rows], index.video[rows]))]


def _mask(index: FrameIndex, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    mask = np.zeros(len(index), np.bool_)
    mask[rows] = True
    return mask
