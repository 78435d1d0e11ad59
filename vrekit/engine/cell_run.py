"""A run of cells: what an export writes, counts and gives up on, whoever computes it."""

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from vrekit.catalog.cells import Cell, CellWriter, DatasetWriter, Payload, Sample
from vrekit.catalog.manifest import Manifest
from vrekit.codecs.base import ClipCodec
from vrekit.core.errors import ComputeError, LockedError
from vrekit.core.reports import ProgressListener
from vrekit.core.schema import SampleRow
from vrekit.engine.clip_checks import ClipFrame
from vrekit.engine.clips import ClipBuilder, ClipMaker, FinishedClip
from vrekit.engine.plan import CellPlan, Plan
from vrekit.engine.tally import Tally
from vrekit.video.base import VideoInfo

logger = logging.getLogger(__name__)

# Has a clip finished meanwhile, by a worker.
InBackground = Callable[[Callable[[], list[FinishedClip]]], "Future[list[FinishedClip]]"]


@dataclass(slots=True)
class CellWork:
    """A cell whose frames are being computed."""

    plan: CellPlan
    writers: dict[str, CellWriter]
    missing: dict[str, NDArray[np.int64]]
    retried: dict[str, set[int]]  # frames whose failure an interrupted run has on record in the open shard
    ends: dict[str, frozenset[int]]  # frames behind which a clip ends, by representation stored in clips
    builders: dict[str, ClipBuilder] = field(default_factory=dict)  # the clips that frames are added to


@dataclass(slots=True)
class BatchResult:
    """What was computed and encoded of a batch."""

    cell: CellWork
    samples: dict[int, dict[str, Payload]]
    clip_frames: dict[str, list[ClipFrame]]
    decode_failures: Mapping[int, str]


@dataclass(slots=True)
class _Finishing:
    cell: CellWork
    name: str
    clips: Future[list[FinishedClip]] | None
    is_last: bool  # of its cell


class CellRun:
    """Opens the cells of a plan, appends what is computed of them in frame order, and commits them.

    One object, one run. `open` and the properties may be used from another thread than the rest.

    Args:
        plan: What is missing.
        manifest: Of the dataset.
        writer: Of the dataset.
        clip_codecs: Codecs of the representations that are stored in clips.
        run_id: The run that rows belong to.
        listener: Told about the progress.
        max_failures: Failures of a representation in a row that end the run.

    Attributes:
        tally: What was stored and what failed.
    """

    def __init__(
        self,
        plan: Plan,
        manifest: Manifest,
        writer: DatasetWriter,
        clip_codecs: Mapping[str, ClipCodec],
        *,
        run_id: str,
        listener: ProgressListener,
        max_failures: int,
    ) -> None:
        self.plan = plan
        self.tally = Tally()
        self._manifest = manifest
        self._groups = manifest.groups
        self._writer = writer
        self._clip_codecs = clip_codecs
        self._run_id = run_id
        self._listener = listener
        self._max_failures = max_failures
        self._open: list[CellWriter] = []
        self._locked: list[LockedError] = []
        self._makers: dict[str, ClipMaker] = {}
        self._building: list[ClipBuilder] = []
        self._finishing: deque[_Finishing] = deque()
        self._in_background: InBackground | None = None

    def begin(self, info: VideoInfo, in_background: InBackground) -> None:
        """Get ready for the first cell.

        Args:
            info: Of the video.
            in_background: Has a clip finished meanwhile.
        """
        most = self._manifest.shard_size_bytes
        self._makers = {name: ClipMaker(codec, info, max_bytes=most) for name, codec in self._clip_codecs.items()}
        self._in_background = in_background

    def is_in_clips(self, name: str) -> bool:
        """Return whether a representation is stored in clips."""
        return name in self._clip_codecs

    def suffix(self, name: str) -> str:
        """Return the file name ending of a representation's payloads."""
        return self._manifest.representations[name].suffix or ""

    def open(self, plan: CellPlan) -> CellWork:
        """Open the cells of all groups, and find out what interrupted runs left to do."""
        writers: dict[str, CellWriter] = {}
        missing: dict[str, NDArray[np.int64]] = {}
        retried: dict[str, set[int]] = {}
        for group, names in self._groups.items():
            here = {name: plan.missing[name] for name in names if name in plan.missing}
            if not here:
                continue
            cell = Cell(self.plan.video_id, group, plan.first, plan.last)
            try:
                writers[group] = self._writer.open_cell(cell)
            except LockedError as error:
                self._locked.append(error)  # its owner does this part; the rest is still to be done here
                continue
            self._open.append(writers[group])
            recovered = writers[group].recovered
            for name, frames in here.items():
                before = {frame: recovered.get(frame, {}).get(name) for frame in frames.tolist()}
                if self.plan.retry_failed:
                    retried[name] = {frame for frame, status in before.items() if status == "failed"}
                kept = [frame for frame, status in before.items() if status is None or frame in retried.get(name, ())]
                if kept:
                    missing[name] = np.array(kept, np.int64)
        ends = {name: maker.ends(missing[name]) for name, maker in self._makers.items() if name in missing}
        return CellWork(plan, writers, missing, retried, ends)

    def row(self, name: str, frame: int, pts_seconds: float, compute_seconds: float) -> SampleRow:
        """Return the columns of a metadata row that do not depend on what was computed."""
        record = self._manifest.representations[name]
        return SampleRow(
            video_id=self.plan.video_id,
            frame_index=frame,
            pts_seconds=None if math.isnan(pts_seconds) else pts_seconds,
            representation=name,
            kind=record.stored.kind,
            run_id=self._run_id,
            config_hash=record.config_hash,
            compute_seconds=compute_seconds,
        )

    def append(self, result: BatchResult) -> None:
        """Append the samples of a batch; batches come in frame order."""
        group_of = {name: group for group, names in self._groups.items() for name in names}
        for frame, payloads in result.samples.items():
            by_group: dict[str, list[Payload]] = {}
            for name, payload in payloads.items():
                size = 0 if payload.data is None else len(payload.data)
                self.tally.add(payload.row, stored_bytes=size, by_decoder=frame in result.decode_failures)
                if not self._failed_again(result.cell, payload.row):
                    by_group.setdefault(group_of[name], []).append(payload)
            for group, some in by_group.items():
                order = self._groups[group]
                some.sort(key=lambda payload: order.index(payload.row.representation))
                result.cell.writers[group].append(Sample(self.plan.video_id, frame, tuple(some)))
        names = next(iter(result.samples.values())) if result.samples else {}
        for name in names:
            mine = [payloads[name] for payloads in result.samples.values()]
            self._listener.advanced(
                name,
                done=sum(payload.data is not None for payload in mine),
                failed=sum(payload.data is None for payload in mine),
                stored_bytes=sum(len(payload.data) for payload in mine if payload.data is not None),
            )
        for name, frames in result.clip_frames.items():
            for one in frames:
                self._add_to_clip(result.cell, name, one)
        self._stop_if_hopeless()

    def _add_to_clip(self, cell: CellWork, name: str, frame: ClipFrame) -> None:
        builder = cell.builders.get(name)
        if builder is None:
            builder = cell.builders[name] = ClipBuilder(self._makers[name], cell.ends[name])
            self._building.append(builder)
        builder.add(frame)
        if builder.is_full:
            self._end_clip(cell, name, is_last=False)

    def _end_clip(self, cell: CellWork, name: str, *, is_last: bool) -> None:
        """Have a clip finished by a worker, while the next frames are computed; at most one other waits for that."""
        builder = cell.builders.pop(name, None)
        assert self._in_background is not None
        clips = None if builder is None else self._in_background(builder.finish)
        self._finishing.append(_Finishing(cell, name, clips, is_last))
        self._store_clips(keep=1)

    def _store_clips(self, *, keep: int) -> None:
        while len(self._finishing) > keep:
            one = self._finishing.popleft()
            for finished in one.clips.result() if one.clips is not None else ():
                self._append_clip(one.cell, one.name, finished)
            if one.is_last:
                self._commit_writer(self._writer_of(one.cell, one.name))

    def _append_clip(self, cell: CellWork, name: str, finished: FinishedClip) -> None:
        clip = finished.clip
        size = 0 if clip.data is None else len(clip.data)
        first = clip.first
        for at, row in enumerate(clip.rows):
            # a clip that failed is one failure, not one in each of its frames in a row
            by_decoder = row.frame_index in finished.by_decoder or (finished.refused and at > 0)
            self.tally.add(row, stored_bytes=size if row is first else 0, by_decoder=by_decoder)
        kept = tuple(row for row in clip.rows if not self._failed_again(cell, row))
        if kept:
            self._writer_of(cell, name).append_clip(replace(clip, rows=kept))
        stored = sum(row.status == "ok" for row in clip.rows)
        self._listener.advanced(name, stored, failed=len(clip.rows) - stored, stored_bytes=size)
        self._stop_if_hopeless()

    def _writer_of(self, cell: CellWork, name: str) -> CellWriter:
        return next(cell.writers[group] for group, names in self._groups.items() if name in names)

    def finish(self) -> None:
        """End the run when every cell is committed.

        Raises:
            LockedError: If another process is writing a part of it.
        """
        self._store_clips(keep=0)
        if self._locked:
            raise LockedError(
                f"{self._locked[0].message}; {len(self._locked)} such parts were left to it, everything else is done",
                hint="`vrekit resume` once it has finished says whether anything is missing",
            )

    def _failed_again(self, cell: CellWork, row: SampleRow) -> bool:
        # its first failure is on record already; another row on every resume would only pile up
        if row.status == "ok":
            return False
        name, frame = row.representation, row.frame_index
        return frame in cell.retried.get(name, ()) or frame in self.plan.retried.get(name, ())

    def _stop_if_hopeless(self) -> None:
        for name, streak in self.tally.streaks.items():
            if streak >= self._max_failures:
                raise ComputeError(
                    f"{name} failed on {streak} frames in a row; the last: {self.tally.last_errors[name]}",
                    hint="mend the cause and run `vrekit resume`: what is done stays done "
                    "(--max-failures N goes on for longer)",
                )

    def report_recovered(self, cell: CellWork) -> None:
        """Count what interrupted runs had done of a cell."""
        opened = {name for group in cell.writers for name in self._groups[group]}
        for name, frames in cell.plan.missing.items():
            if name not in opened:
                continue
            recovered = len(frames) - len(cell.missing.get(name, ()))
            if recovered:
                self.tally.recovered[name] = self.tally.recovered.get(name, 0) + recovered
                self._listener.advanced(name, recovered)

    def commit(self, cell: CellWork) -> None:
        """Commit a cell of which everything is appended."""
        for group, writer in cell.writers.items():
            in_clips = [name for name in self._groups[group] if name in self._clip_codecs]
            for name in in_clips:
                self._end_clip(cell, name, is_last=True)
            if not in_clips:
                self._commit_writer(writer)

    def _commit_writer(self, writer: CellWriter) -> None:
        writer.commit()
        self._open.remove(writer)

    def close(self) -> None:
        """Release what is open; after an error or an interruption, what is appended stays recoverable."""
        for builder in self._building:
            builder.abort()
        for writer in self._open:
            try:
                writer.suspend()
            except OSError as error:  # the disk that stopped the run may refuse this too; recovery copes
                logger.warning("could not flush %s: %s", writer, error)
        self._open.clear()
