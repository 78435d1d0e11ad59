"""The pipeline of the local engine: decode → compute and encode in threads → append in frame order → commit.

One thread decodes ahead and hands whole batches to worker threads, which take them through the graph (cv2, codecs and
torch release the GIL). The calling thread appends batches in order, each as soon as it is computed. What is in flight
is bounded in bytes. A batch takes about a second, so that little is lost when the process dies.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from vrekit.catalog.cells import Cell, CellWriter, DatasetWriter, Payload, Sample
from vrekit.codecs.base import ClipCodec
from vrekit.compute.feeder import FedBatch, Feeder, ahead
from vrekit.compute.processor import BatchProcessor, Computed
from vrekit.compute.resources import BatchSize
from vrekit.core.errors import ComputeError, LockedError
from vrekit.core.reports import ProgressListener
from vrekit.core.schema import SampleRow
from vrekit.engine.clip_checks import ClipFrame
from vrekit.engine.clips import ClipBuilder, ClipMaker, FinishedClip
from vrekit.engine.encoding import Encoder
from vrekit.engine.plan import CellPlan, Plan, runs_of_equal_work
from vrekit.engine.stored import StoredOutputs
from vrekit.engine.tally import Tally
from vrekit.graph.build import Graph
from vrekit.video.base import VideoSource

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _CellWork:
    plan: CellPlan
    writers: dict[str, CellWriter]
    missing: dict[str, NDArray[np.int64]]
    retried: dict[str, set[int]]  # frames whose failure an interrupted run has on record in the open shard
    ends: dict[str, frozenset[int]]  # frames behind which a clip ends, by representation stored in clips
    builders: dict[str, ClipBuilder] = field(default_factory=dict)  # the clips that frames are added to


@dataclass(slots=True)
class _Job:
    cell: _CellWork
    todo: frozenset[str]
    indices: NDArray[np.int64]
    read: list[str]  # dependencies to read back
    compute: list[str]  # in computing order
    fed: FedBatch


@dataclass(slots=True)
class _Result:
    cell: _CellWork
    samples: dict[int, dict[str, Payload]]
    clip_frames: dict[str, list[ClipFrame]]
    decode_failures: Mapping[int, str]


@dataclass(slots=True)
class _Finishing:
    cell: _CellWork
    name: str
    clips: Future[list[FinishedClip]] | None
    is_last: bool  # of its cell


@contextmanager
def _one_thread_per_cv2_call() -> Iterator[None]:
    # The workers are the threads; cv2 starting its own inside each of them only adds switches between them.
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


class Pipeline:
    """Runs a plan. One object, one run."""

    def __init__(
        self,
        *,
        plan: Plan,
        graph: Graph,
        source: VideoSource,
        stored: StoredOutputs,
        writer: DatasetWriter,
        groups: Mapping[str, list[str]],
        hashes: Mapping[str, str],
        suffixes: Mapping[str, str],
        run_id: str,
        listener: ProgressListener,
        batch_size: int | None,
        threads: int,
        memory_bytes: int,
        max_failures: int,
        clip_bytes: int,
    ) -> None:
        self.plan = plan
        self.graph = graph
        self.source = source
        self.stored = stored
        self.writer = writer
        self.groups = groups
        self.hashes = hashes
        self.suffixes = suffixes
        self.run_id = run_id
        self.listener = listener
        self.threads = threads
        self.max_failures = max_failures
        self.tally = Tally()
        read, compute = stored.names_of_plan(plan)
        info = source.info
        self._batch_size = BatchSize(
            graph,
            [name for name in graph.nodes if name in read or name in compute],
            info.height * info.width * 3,
            shared=batch_size,
            threads=threads,
            memory_bytes=memory_bytes,
        )
        self._slots = threading.Semaphore(self._batch_size.in_flight)
        self._feeder = Feeder(source, context=graph.context(compute))
        self._processor = BatchProcessor(graph, batch_size=batch_size)
        self._encoder = Encoder(self._processor)
        self._open: list[CellWriter] = []
        self._locked: list[LockedError] = []
        self._clip_bytes = clip_bytes
        self._clip_codecs: dict[str, ClipCodec] = {
            name: node.codec
            for name, node in graph.nodes.items()
            if isinstance(node.codec, ClipCodec) and len(plan.missing.get(name, ()))
        }
        self._makers: dict[str, ClipMaker] = {}
        self._building: list[ClipBuilder] = []
        self._finishing: deque[_Finishing] = deque()

    def run(self) -> None:
        """Do all the work of the plan. On any exception what is finished stays recoverable, nothing is half-written."""
        try:
            info, most = self.source.info, self._clip_bytes
            self._makers = {name: ClipMaker(codec, info, max_bytes=most) for name, codec in self._clip_codecs.items()}
            with (
                ThreadPoolExecutor(self.threads, thread_name_prefix="vrekit-compute") as pool,
                ExitStack() as cleanup,
                _one_thread_per_cv2_call(),
            ):
                cleanup.callback(pool.shutdown, wait=False, cancel_futures=True)  # what no worker has begun
                self._pool = pool
                work = cleanup.enter_context(closing(ahead(self._submit_batches, depth=self.threads + 3)))
                cleanup.callback(self._slots.release)  # should the decoding thread wait for one
                current: _CellWork | None = None
                for item in work:
                    if isinstance(item, Future):
                        self._append(item.result())
                        del item  # with its payloads, before the next batch may be decoded
                        self._slots.release()
                        continue
                    self._commit(current)
                    current = item
                    self._report_recovered(item)
                self._commit(current)
                self._store_clips(keep=0)
            self._report_locked()
        finally:
            for builder in self._building:
                builder.abort()
            self._suspend_open()
            self._processor.close()

    # -- the decoding thread -----------------------------------------------------------------------------------

    def _submit_batches(self) -> Iterator["_CellWork | Future[_Result]"]:
        """Yield each cell, then its batches, which the workers have then."""
        for plan in self.plan.cells():
            cell = self._open_cell(plan)
            yield cell
            for frames, todo in runs_of_equal_work(cell.missing):
                left = frames
                while len(left):
                    self._slots.acquire()
                    count = self._batch_size.frames
                    indices, left = left[:count], left[count:]
                    read, compute = self.stored.split(todo, indices)
                    fed = self._feeder.read(indices, decode=self.graph.uses_frames(compute))
                    job = self._pool.submit(self._process, _Job(cell, todo, indices, read, compute, fed))
                    del fed  # the worker's
                    yield job
                    del job

    def _open_cell(self, plan: CellPlan) -> _CellWork:
        writers: dict[str, CellWriter] = {}
        missing: dict[str, NDArray[np.int64]] = {}
        retried: dict[str, set[int]] = {}
        for group, names in self.groups.items():
            here = {name: plan.missing[name] for name in names if name in plan.missing}
            if not here:
                continue
            cell = Cell(self.plan.video_id, group, plan.first, plan.last)
            try:
                writers[group] = self.writer.open_cell(cell)
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
        return _CellWork(plan, writers, missing, retried, ends)

    # -- worker threads ----------------------------------------------------------------------------------------

    def _process(self, job: _Job) -> _Result:
        started = time.perf_counter()
        given = {name: self.stored.read(name, job.indices) for name in job.read}
        computed = self._processor.compute(job.fed.batch, job.compute, given, job.fed.failures)
        samples: dict[int, dict[str, Payload]] = {frame: {} for frame in job.indices.tolist()}
        clip_frames: dict[str, list[ClipFrame]] = {}
        for name in sorted(job.todo):
            for frame, payloads in samples.items():
                row = self._row(name, computed[name], frame, job.fed.pts_seconds[frame])
                if name not in self._clip_codecs:
                    payloads[name] = self._encoder.encode(name, computed[name], frame, row, self.suffixes[name])
                    continue
                by_decoder = frame in job.fed.failures
                of_clip = self._encoder.clip_frame(name, computed[name], frame, row, by_decoder=by_decoder)
                clip_frames.setdefault(name, []).append(of_clip)
            computed[name].arrays.clear()  # encoded: free it before the next one's payloads need the memory
        self._batch_size.measured(len(job.indices), time.perf_counter() - started)
        return _Result(job.cell, samples, clip_frames, job.fed.failures)

    def _row(self, name: str, computed: Computed, frame: int, pts: float) -> SampleRow:
        share = computed.seconds / max(1, len(computed.arrays) + len(computed.errors))
        return SampleRow(
            video_id=self.plan.video_id,
            frame_index=frame,
            pts_seconds=None if math.isnan(pts) else pts,
            representation=name,
            kind=self.graph.nodes[name].stored.kind,
            run_id=self.run_id,
            config_hash=self.hashes[name],
            compute_seconds=share,
        )

    # -- the calling thread ------------------------------------------------------------------------------------

    def _append(self, result: _Result) -> None:
        group_of = {name: group for group, names in self.groups.items() for name in names}
        for frame, payloads in result.samples.items():
            by_group: dict[str, list[Payload]] = {}
            for name, payload in payloads.items():
                size = 0 if payload.data is None else len(payload.data)
                self.tally.add(payload.row, stored_bytes=size, by_decoder=frame in result.decode_failures)
                if not self._failed_again(result.cell, payload.row):
                    by_group.setdefault(group_of[name], []).append(payload)
            for group, some in by_group.items():
                order = self.groups[group]
                some.sort(key=lambda payload: order.index(payload.row.representation))
                result.cell.writers[group].append(Sample(self.plan.video_id, frame, tuple(some)))
        names = next(iter(result.samples.values())) if result.samples else {}
        for name in names:
            mine = [payloads[name] for payloads in result.samples.values()]
            self.listener.advanced(
                name,
                done=sum(payload.data is not None for payload in mine),
                failed=sum(payload.data is None for payload in mine),
                stored_bytes=sum(len(payload.data) for payload in mine if payload.data is not None),
            )
        for name, frames in result.clip_frames.items():
            for one in frames:
                self._add_to_clip(result.cell, name, one)
        self._stop_if_hopeless()

    def _add_to_clip(self, cell: _CellWork, name: str, frame: ClipFrame) -> None:
        builder = cell.builders.get(name)
        if builder is None:
            builder = cell.builders[name] = ClipBuilder(self._makers[name], cell.ends[name])
            self._building.append(builder)
        builder.add(frame)
        if builder.is_full:
            self._end_clip(cell, name, is_last=False)

    def _end_clip(self, cell: _CellWork, name: str, *, is_last: bool) -> None:
        """Have a clip finished by a worker, while the next frames are computed; at most one other waits for that."""
        builder = cell.builders.pop(name, None)
        clips = None if builder is None else self._pool.submit(builder.finish)
        self._finishing.append(_Finishing(cell, name, clips, is_last))
        self._store_clips(keep=1)

    def _store_clips(self, *, keep: int) -> None:
        while len(self._finishing) > keep:
            one = self._finishing.popleft()
            for finished in one.clips.result() if one.clips is not None else ():
                self._append_clip(one.cell, one.name, finished)
            if one.is_last:
                self._commit_writer(self._writer_of(one.cell, one.name))

    def _append_clip(self, cell: _CellWork, name: str, finished: FinishedClip) -> None:
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
        self.listener.advanced(name, stored, failed=len(clip.rows) - stored, stored_bytes=size)
        self._stop_if_hopeless()

    def _writer_of(self, cell: _CellWork, name: str) -> CellWriter:
        return next(cell.writers[group] for group, names in self.groups.items() if name in names)

    def _report_locked(self) -> None:
        if self._locked:
            raise LockedError(
                f"{self._locked[0].message}; {len(self._locked)} such parts were left to it, everything else is done",
                hint="`vrekit resume` once it has finished says whether anything is missing",
            )

    def _failed_again(self, cell: _CellWork, row: SampleRow) -> bool:
        # its first failure is on record already; another row on every resume would only pile up
        if row.status == "ok":
            return False
        name, frame = row.representation, row.frame_index
        return frame in cell.retried.get(name, ()) or frame in self.plan.retried.get(name, ())

    def _stop_if_hopeless(self) -> None:
        for name, streak in self.tally.streaks.items():
            if streak >= self.max_failures:
                raise ComputeError(
                    f"{name} failed on {streak} frames in a row; the last: {self.tally.last_errors[name]}",
                    hint="mend the cause and run `vrekit resume`: what is done stays done "
                    "(--max-failures N goes on for longer)",
                )

    def _report_recovered(self, cell: _CellWork) -> None:
        opened = {name for group in cell.writers for name in self.groups[group]}
        for name, frames in cell.plan.missing.items():
            if name not in opened:
                continue
            recovered = len(frames) - len(cell.missing.get(name, ()))
            if recovered:
                self.tally.recovered[name] = self.tally.recovered.get(name, 0) + recovered
                self.listener.advanced(name, recovered)

    def _commit(self, cell: _CellWork | None) -> None:
        if cell is None:
            return
        for group, writer in cell.writers.items():
            in_clips = [name for name in self.groups[group] if name in self._clip_codecs]
            for name in in_clips:
                self._end_clip(cell, name, is_last=True)
            if not in_clips:
                self._commit_writer(writer)

    def _commit_writer(self, writer: CellWriter) -> None:
        writer.commit()
        self._open.remove(writer)

    def _suspend_open(self) -> None:
        for writer in self._open:
            try:
                writer.suspend()
            except OSError as error:  # the disk that stopped the run may refuse this too; recovery copes
                logger.warning("could not flush %s: %s", writer, error)
        self._open.clear()
