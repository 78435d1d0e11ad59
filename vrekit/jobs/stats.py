"""`vrekit stats`: measure what lies in a dataset, frame by frame, so that queries can use it.

Only what is missing is measured; what is there is kept, unless it was measured on another representation.
"""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vrekit.catalog.dataset import Dataset
from vrekit.catalog.manifest import Manifest, RepresentationRecord
from vrekit.catalog.statistics import (
    INPUTS,
    STATISTICS_SCHEMA,
    Statistics,
    columns_of,
    read_statistics,
    write_statistics,
)
from vrekit.core.errors import CodecError, DatasetError, UsageError
from vrekit.core.names import did_you_mean, sample_key
from vrekit.core.reports import FRAMES, ProgressListener, Report, timed
from vrekit.core.spec import Kind, image_owner
from vrekit.core.threads import thread_pool, usable_cpus
from vrekit.jobs.measures import Appearance, appearance, class_histogram, depth_range, motion
from vrekit.jobs.stored_rows import open_payloads, stored_frames

_KINDS = {"color": Kind.COLOR, "depth": Kind.DEPTH, "indices": Kind.INDICES}
# A row has a value here when it was measured on that input.
_MARKS = {"color": "luma_mean", "depth": "depth_min", "indices": "class_histogram"}
_FRAMES_AT_ONCE = 32
WRITE_SECONDS = 30.0  # at most so much work is lost when the process is killed

# columns, the picture for `motion`, what went wrong
_Measured = tuple[dict[str, Any], Appearance | None, list[str]]
# row in the index, payload
_Read = tuple[int, memoryview | None]


@dataclass(slots=True, kw_only=True)
class StatsReport(Report):
    """What was measured.

    Attributes:
        sources: Input → representation it was measured on.
        measured: Frames measured now.
        already: Frames that had nothing missing.
        failures: `key.representation: reason` of frames that did not decode.
    """

    sources: Mapping[str, str]
    measured: int
    already: int
    failures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Plan:
    """The frames of one video to measure, by input, rising."""

    video_id: str
    todo: dict[str, NDArray[np.int64]]
    already: int

    @property
    def frames(self) -> NDArray[np.int64]:
        return np.unique(np.concatenate([_NO_FRAMES, *self.todo.values()]))


_NO_FRAMES: NDArray[np.int64] = np.empty(0, np.int64)


@timed
def compute_statistics(
    dataset: Dataset,
    *,
    sources: Mapping[str, str] | None = None,
    threads: int | None = None,
    progress: ProgressListener | None = None,
) -> StatsReport:
    """Measure the frames of a dataset that are not measured yet, and store that beside it.

    Args:
        dataset: An open dataset; open it again to see the new columns.
        sources: Input (`color`, `depth`, `indices`) → representation to measure it on; by default the first that fits.
        threads: Decoding threads; None takes the CPUs.
        progress: Told about the progress, from this thread.

    Raises:
        UsageError: If a representation is unknown or does not fit.
        DatasetError: If nothing in the dataset can be measured, or a shard is gone.
        StorageError: If the dataset cannot be written to.
    """
    progress = progress or ProgressListener()
    chosen = choose_sources(dataset.manifest, sources or {})
    stored = stored_frames(dataset, list(chosen.values()))
    plans = [_plan(dataset, video_id, chosen, stored) for video_id in dataset.manifest.videos]
    progress.started({FRAMES: sum(len(plan.frames) for plan in plans)})
    failures: list[str] = []
    with thread_pool(threads or usable_cpus(), "vrekit-stats") as pool:
        for plan in plans:
            if plan.todo:
                failures += _Measuring(dataset, plan, chosen, pool).run(progress)
    return StatsReport(
        sources=chosen,
        measured=sum(len(plan.frames) for plan in plans),
        already=sum(plan.already for plan in plans),
        failures=tuple(failures),
    )


# -- planning ----------------------------------------------------------------------------------------------------


def choose_sources(manifest: Manifest, asked: Mapping[str, str]) -> dict[str, str]:
    """Return input → representation: what is asked for, else the first stored one that fits.

    Raises:
        UsageError: If a representation asked for is not stored or does not fit.
        DatasetError: If nothing fits at all.
    """
    records = {name: record for name, record in manifest.representations.items() if not record.is_virtual}
    chosen: dict[str, str] = {}
    for source in INPUTS:
        name = asked.get(source)
        if name is not None:
            if name not in records:
                raise UsageError(
                    f"the dataset stores no representation {name!r}{did_you_mean(name, records)}",
                    hint=f"it stores {', '.join(records) or 'none'}",
                )
            if not _fits(source, records[name]):
                stored = records[name].stored
                raise UsageError(
                    f"{name!r} ({stored.kind}, {stored.dtype}, axes {stored.axes}) cannot be measured as {source}",
                    hint="color is an RGB picture (uint8, HWC), depth an image of depths, indices an image of classes",
                )
            chosen[source] = name
            continue
        fitting = [name for name, record in records.items() if _fits(source, record) and image_owner(name) is None]
        fitting.sort(key=lambda one: records[one].spec.type != "color/rgb")
        if fitting:
            chosen[source] = fitting[0]
    if not chosen:
        raise DatasetError(
            f"nothing to measure: the dataset stores {', '.join(records) or 'nothing'}",
            hint="statistics need an RGB picture (color/rgb), a depth, or an image of class indices",
        )
    return chosen


def _fits(source: str, record: RepresentationRecord) -> bool:
    stored = record.stored
    if stored.kind is not _KINDS[source]:
        return False
    if source == "color":
        return stored.dtype == "uint8" and stored.axes == "HWC" and stored.size_of("C") == 3
    if source == "indices":
        return "H" in stored.axes and np.issubdtype(np.dtype(stored.dtype), np.integer)
    return "H" in stored.axes


def _plan(
    dataset: Dataset, video_id: str, sources: Mapping[str, str], stored: Mapping[tuple[str, str], NDArray[np.int64]]
) -> _Plan:
    known = read_statistics(dataset.folder, video_id)
    todo, every = {}, _NO_FRAMES
    for source, name in sources.items():
        frames = stored.get((video_id, name), _NO_FRAMES)
        every = np.union1d(every, frames)
        if known.sources.get(source, name) == name:
            measured = known.table.filter(known.table[_MARKS[source]].is_valid())
            frames = np.setdiff1d(frames, measured["frame_index"].to_numpy())
        if len(frames):
            todo[source] = frames
    plan = _Plan(video_id, todo, 0)
    return replace(plan, already=len(np.setdiff1d(every, plan.frames)))


# -- measuring ---------------------------------------------------------------------------------------------------


class _Measuring:
    """Measures the planned frames of one video, in rising order, several at a time."""

    def __init__(self, dataset: Dataset, plan: _Plan, sources: Mapping[str, str], pool: ThreadPoolExecutor) -> None:
        known = read_statistics(dataset.folder, plan.video_id)
        self._dataset = dataset
        self._plan = plan
        self._pool = pool
        self._sources = {**known.sources, **sources}
        self._payloads = open_payloads(dataset, plan.video_id, list(dict.fromkeys(sources.values())))
        self._rows: dict[int, dict[str, Any]] = {row["frame_index"]: row for row in known.table.to_pylist()}
        for source, name in sources.items():
            if known.sources.get(source, name) != name:  # measured on another representation
                for row in self._rows.values():
                    row.update(dict.fromkeys(columns_of(source)))
        color = self._frames_of(sources["color"]) if "color" in sources else []
        self._previous = dict(zip(color[1:], color, strict=False))
        self._last: tuple[int, Appearance] | None = None

    def run(self, progress: ProgressListener) -> list[str]:
        """Measure and write; return what went wrong with single frames."""
        failures: list[str] = []
        frames = self._plan.frames.tolist()
        written_at = time.monotonic()
        try:
            for at in range(0, len(frames), _FRAMES_AT_ONCE):
                batch = frames[at : at + _FRAMES_AT_ONCE]
                for frame, (columns, picture, problems) in zip(batch, self._decode(batch), strict=True):
                    if picture is not None:
                        columns["motion"] = self._motion(frame, picture)
                        self._last = (frame, picture)
                    row = self._rows.setdefault(frame, {"video_id": self._plan.video_id, "frame_index": frame})
                    row.update(columns)
                    failures += problems
                progress.advanced(FRAMES, len(batch))
                if time.monotonic() - written_at > WRITE_SECONDS:
                    self._write()
                    written_at = time.monotonic()
        finally:
            self._write()
        return failures

    def _frames_of(self, name: str) -> list[int]:
        """Return the frames that a representation is stored for, rising."""
        index = self._payloads.index
        frames: list[int] = np.sort(index.frame_index[index.columns[name].present]).tolist()
        return frames

    def _read(self, name: str, frames: NDArray[np.int64]) -> list[_Read]:
        rows = self._payloads.index.find([self._plan.video_id] * len(frames), frames)
        return list(zip(rows.tolist(), self._payloads.read_own(rows, name), strict=True))

    def _decode(self, batch: list[int]) -> Iterator[_Measured]:
        asked: dict[int, dict[str, _Read]] = {frame: {} for frame in batch}
        for source, todo in self._plan.todo.items():
            frames = np.intersect1d(todo, batch)
            for frame, read in zip(frames.tolist(), self._read(self._sources[source], frames), strict=True):
                asked[frame][source] = read
        return self._pool.map(self._measure, batch, asked.values())

    def _measure(self, frame: int, payloads: Mapping[str, _Read]) -> _Measured:
        columns: dict[str, Any] = {}
        picture = None
        problems = []
        for source, read in payloads.items():
            name = self._sources[source]
            spec = self._dataset.manifest.representations[name].stored
            try:
                array = self._payloads.array(name, *read)
            except CodecError as error:
                problems.append(f"{sample_key(self._plan.video_id, frame)}.{name}: {error.message}")
                continue
            if source == "color":
                picture = appearance(array)
                columns |= {column: getattr(picture, column) for column in ("luma_mean", "sharpness", "phash")}
            elif source == "depth":
                columns |= dict(zip(("depth_min", "depth_max"), depth_range(array, spec), strict=True))
            else:
                columns["class_histogram"] = class_histogram(array, spec)
        return columns, picture, problems

    def _motion(self, frame: int, picture: Appearance) -> float | None:
        """Return the motion since the stored frame before this one, which an earlier call may have measured."""
        previous = self._previous.get(frame)
        if previous is None:
            return None
        if self._last is None or self._last[0] != previous:
            name = self._sources["color"]
            try:
                (read,) = self._read(name, np.array([previous]))
                self._last = (previous, appearance(self._payloads.array(name, *read)))
            except CodecError:
                return None  # reported as a failure of its own frame
        return motion(self._last[1], picture, frame - previous)

    def _write(self) -> None:
        rows = [self._rows[frame] for frame in sorted(self._rows)]
        table = pa.Table.from_pylist(rows, schema=STATISTICS_SCHEMA)
        write_statistics(self._dataset.folder, self._plan.video_id, Statistics(table, self._sources))
