"""Frames against each other: the same ones in every representation, in the order of their timestamps."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vrekit.catalog.manifest import MANIFEST_NAME, Manifest
from vrekit.catalog.payload_checks import Problem
from vrekit.catalog.storage import Storage
from vrekit.core.errors import DatasetError

_COLUMNS = ("frame_index", "pts_seconds", "representation")


def frame_warnings(storage: Storage) -> Iterator[Problem]:
    """Yield what is odd about the frames of each video; damaged sidecars are passed over, they are reported elsewhere.

    A frame that failed counts as there: its failure is on record.
    """
    manifest = storage.manifest
    for video_id, info in manifest.videos.items():
        try:
            table = storage.rows(_COLUMNS, [video_id])
        except DatasetError:
            continue
        if not table.num_rows:
            continue
        frames, first = np.unique(table["frame_index"].to_numpy(), return_index=True)
        if frames[0] < 0 or (info.source == "file" and frames[-1] >= info.frame_count):
            message = f"frames {frames[0]}..{frames[-1]} are stored, but the video has {info.frame_count}"
            yield _warning("frames", video_id, int(frames[-1]), None, message)
        yield from _gaps(video_id, table, frames, manifest)
        yield from _times(video_id, table, frames, first)


def _warning(code: str, video_id: str, frame: int | None, name: str | None, message: str) -> Problem:
    return Problem(
        code=code, path=MANIFEST_NAME, message=message, video_id=video_id, frame_index=frame, representation=name
    )


def _gaps(video_id: str, table: pa.Table, frames: NDArray[np.int64], manifest: Manifest) -> Iterator[Problem]:
    names = np.array(table["representation"].to_pylist(), object)
    numbers = table["frame_index"].to_numpy()
    for name in manifest.stored_names:
        missing = np.setdiff1d(frames, numbers[names == name])
        if len(missing):
            message = f"{len(missing)} of the video's {len(frames)} frames lack it, the first is {missing[0]}"
            yield _warning("frames", video_id, int(missing[0]), name, message)


def _times(video_id: str, table: pa.Table, frames: NDArray[np.int64], first: NDArray[np.int64]) -> Iterator[Problem]:
    pts = np.asarray(table["pts_seconds"].to_numpy(), np.float64)
    expected = pts[first]
    position = np.searchsorted(frames, table["frame_index"].to_numpy())
    differs = ~((pts == expected[position]) | (np.isnan(pts) & np.isnan(expected[position])))
    if differs.any():
        frame = int(frames[position[np.argmax(differs)]])
        message = f"{int(differs.sum())} rows have another timestamp than their frame's other representations"
        yield _warning("pts", video_id, frame, None, message)
    known = ~np.isnan(expected)
    backwards = np.flatnonzero(np.diff(expected[known]) <= 0)
    if len(backwards):
        frame = int(frames[known][backwards[0] + 1])
        message = f"{len(backwards)} frames are not later than the frame before them, the first is {frame}"
        yield _warning("pts", video_id, frame, None, message)
    if known.any() and not known.all():
        frame = int(frames[~known][0])
        yield _warning("pts", video_id, frame, None, f"{int((~known).sum())} frames have no timestamp, others have")
