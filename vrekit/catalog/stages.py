"""Thinning out selected rows: pure functions from sorted rows to the positions that stay.

Rows are frames, or (frame, representation) pairs, sorted by (video, frame, representation). Nothing here depends on
an engine's random numbers or hash functions: the same rows and seed give the same choice on every machine.
"""

import hashlib
import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vrekit.core.errors import UsageError
from vrekit.core.splitmix import mix

Positions = NDArray[np.int64]
_SAMPLE = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]+)?)\s*(%?)\s*")


@dataclass(frozen=True, slots=True)
class Rows:
    """Sorted rows: `video` and `representation` are numbers of names, int64; `frame` int64; `pts` float64 seconds."""

    video_names: tuple[str, ...]
    video: NDArray[np.int64]
    frame: NDArray[np.int64]
    pts: NDArray[np.float64]
    representation_names: tuple[str, ...] = ()
    representation: NDArray[np.int64] | None = None

    @classmethod
    def from_table(cls, table: pa.Table) -> "Rows":
        """Return the rows of a table with video_id, frame_index, pts_seconds and perhaps representation."""
        videos, video = _encode(table["video_id"])
        names: tuple[str, ...] = ()
        representation = None
        if "representation" in table.column_names:
            names, representation = _encode(table["representation"])
        return cls(
            videos,
            video,
            table["frame_index"].to_numpy(),
            np.asarray(table["pts_seconds"].to_numpy(), np.float64),
            names,
            representation,
        )

    def __len__(self) -> int:
        return len(self.frame)

    def take(self, positions: Positions) -> "Rows":
        """Return these rows."""
        return Rows(
            self.video_names,
            self.video[positions],
            self.frame[positions],
            self.pts[positions],
            self.representation_names,
            None if self.representation is None else self.representation[positions],
        )

    def frame_starts(self) -> Positions:
        """Return the position of each frame's first row."""
        new = np.ones(len(self), np.bool_)
        new[1:] = (np.diff(self.video) != 0) | (np.diff(self.frame) != 0)
        return np.flatnonzero(new)

    def of_frames(self, keep: NDArray[np.bool_]) -> Positions:
        """Return the positions of all rows of the frames (in the order of `frame_starts`) that `keep` marks."""
        lengths = np.diff(np.append(self.frame_starts(), len(self)))
        return np.flatnonzero(np.repeat(keep, lengths))


def stride(rows: Rows, step: int) -> Positions:
    """Keep every `step`-th of each video's selected frames, the first one included."""
    rank, _ = _ranks(rows.video[rows.frame_starts()])
    return rows.of_frames(rank % step == 0)


def at_fps(rows: Rows, fps: float) -> Positions:
    """Keep, for each point in time i / fps, the selected frame nearest to it (and within half a step).

    Time is the frames' presentation time, so that variable frame rates come out right; of two frames equally near,
    the earlier one stays, and a frame just between two points belongs to the earlier one.

    Raises:
        UsageError: If a frame has no presentation time.
    """
    starts = rows.frame_starts()
    pts, video, frame = rows.pts[starts], rows.video[starts], rows.frame[starts]
    if np.isnan(pts).any():
        lacking = rows.video_names[video[np.isnan(pts)][0]]
        raise UsageError(f"--fps needs timestamps, and frames of {lacking!r} have none", hint="use --stride")
    slot = np.ceil(pts * fps - 0.5).astype(np.int64)
    distance = np.abs(pts - slot / fps)
    order = np.lexsort((frame, distance, slot, video))
    best = np.ones(len(order), np.bool_)
    best[1:] = (np.diff(video[order]) != 0) | (np.diff(slot[order]) != 0)
    keep = np.zeros(len(order), np.bool_)
    keep[order[best]] = True
    return rows.of_frames(keep)


def per_video(rows: Rows, count: int) -> Positions:
    """Keep at most `count` of each video's selected frames, evenly spread."""
    rank, total = _ranks(rows.video[rows.frame_starts()])
    # the i-th frame stays when the line from (0, 0) to (total, count) reaches the next whole number at it
    keep = (total <= count) | ((rank * count) // total != ((rank - 1) * count) // total)
    return rows.of_frames(keep)


def sample(rows: Rows, count: int, seed: int) -> Positions:
    """Keep `count` rows at random, all equally likely.

    Each row draws a number from (seed, video, frame, representation) alone, and the smallest ones stay: the same
    frame has the same luck in every dataset and query.
    """
    draws = _draws(rows.video_names, rows.video, rows.frame, seed)
    if rows.representation is not None:
        draws = mix(draws ^ _hashes(rows.representation_names, seed)[rows.representation])
    ties = rows.representation if rows.representation is not None else rows.video
    chosen = np.lexsort((ties, rows.frame, rows.video, draws))[:count]
    return np.sort(chosen)


def sample_count(text: str, total: int) -> int:
    """Return how many of `total` rows `--sample` asks for: a number, or a share such as `10%`.

    Raises:
        UsageError: If it is neither.
    """
    match = _SAMPLE.fullmatch(text)
    value = float(match.group(1)) if match else -1.0
    if match is None or (match.group(2) and value > 100) or (not match.group(2) and not value.is_integer()):
        raise UsageError(f"--sample {text!r} is neither a number nor a share", hint="it looks like 1000 or 10%")
    return min(total, round(total * value / 100) if match.group(2) else int(value))


def _ranks(video: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each frame's place within its video, and its video's number of frames."""
    starts = np.flatnonzero(np.append(True, np.diff(video) != 0)) if len(video) else np.empty(0, np.int64)
    lengths = np.diff(np.append(starts, len(video)))
    return np.arange(len(video)) - np.repeat(starts, lengths), np.repeat(lengths, lengths)


def _draws(names: tuple[str, ...], video: NDArray[np.int64], frame: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    return mix(_hashes(names, seed)[video] + frame.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def _hashes(names: tuple[str, ...], seed: int) -> NDArray[np.uint64]:
    digests = [hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest() for name in names]
    return np.frombuffer(b"".join(digests), "<u8")


def _encode(column: pa.ChunkedArray) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return tuple(encoded.dictionary.to_pylist()), encoded.indices.to_numpy().astype(np.int64)
