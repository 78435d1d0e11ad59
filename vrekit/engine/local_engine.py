"""The local engine: decode → compute and encode in threads → hand over in frame order.

One thread decodes ahead and hands whole batches to worker threads, which take them through the graph (cv2, codecs and
torch release the GIL). The calling thread appends batches in order, each as soon as it is computed. What is in flight
is bounded in bytes. A batch takes about a second, so that little is lost when the process dies.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vrekit.catalog.cells import Payload
from vrekit.compute.feeder import FedBatch, Feeder, ahead
from vrekit.compute.processor import BatchProcessor
from vrekit.compute.resources import BatchSize
from vrekit.core.threads import thread_pool
from vrekit.engine.cell_run import BatchResult, CellRun, CellWork
from vrekit.engine.clip_checks import ClipFrame
from vrekit.engine.encoding import Encoder
from vrekit.engine.plan import runs_of_equal_work
from vrekit.engine.stored import StoredOutputs
from vrekit.graph.build import Graph
from vrekit.video.base import VideoSource


@dataclass(slots=True)
class _Job:
    cell: CellWork
    todo: frozenset[str]
    indices: NDArray[np.int64]
    read: list[str]  # dependencies to read back
    compute: list[str]  # in computing order
    fed: FedBatch


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


class LocalEngine:
    """Computes the cells of a run with the threads and the memory of this machine. One object, one run.

    Args:
        graph: What is computed.
        source: The video.
        stored: Dependencies that are read back instead of computed.
        batch_size: Frames per `compute` call of representations that ask for no other number.
        threads: Batches that are computed at once.
        memory_bytes: Bound on the frames and outputs in flight.
    """

    def __init__(
        self,
        graph: Graph,
        source: VideoSource,
        stored: StoredOutputs,
        *,
        batch_size: int | None,
        threads: int,
        memory_bytes: int,
    ) -> None:
        self._graph = graph
        self._source = source
        self._stored = stored
        self._shared_batch_size = batch_size
        self._threads = threads
        self._memory_bytes = memory_bytes
        self._processor = BatchProcessor(graph, batch_size=batch_size)
        self._encoder = Encoder(self._processor)

    def run(self, run: CellRun) -> None:
        """Do all the work of a run. On any exception what is finished stays recoverable, nothing is half-written."""
        read, compute = self._stored.names_of_plan(run.plan)
        info = self._source.info
        self._batch_size = BatchSize(
            self._graph,
            [name for name in self._graph.nodes if name in read or name in compute],
            info.height * info.width * 3,
            shared=self._shared_batch_size,
            threads=self._threads,
            memory_bytes=self._memory_bytes,
        )
        self._slots = threading.Semaphore(self._batch_size.in_flight)
        self._feeder = Feeder(self._source, context=self._graph.context(compute))
        try:
            with (
                thread_pool(self._threads, "vrekit-compute") as pool,
                ExitStack() as cleanup,
                _one_thread_per_cv2_call(),
            ):
                cleanup.callback(pool.shutdown, wait=False, cancel_futures=True)  # what no worker has begun
                run.begin(info, pool.submit)
                work = cleanup.enter_context(closing(ahead(lambda: self._batches(run, pool), depth=self._threads + 3)))
                cleanup.callback(self._slots.release)  # should the decoding thread wait for one
                current: CellWork | None = None
                for item in work:
                    if isinstance(item, Future):
                        run.append(item.result())
                        del item  # with its payloads, before the next batch may be decoded
                        self._slots.release()
                        continue
                    if current is not None:
                        run.commit(current)
                    current = item
                    run.report_recovered(item)
                if current is not None:
                    run.commit(current)
                run.finish()
        finally:
            run.close()
            self._processor.close()

    # -- the decoding thread -----------------------------------------------------------------------------------

    def _batches(self, run: CellRun, pool: ThreadPoolExecutor) -> Iterator[CellWork | Future[BatchResult]]:
        """Yield each cell, then its batches, which the workers have then."""
        for plan in run.plan.cells():
            cell = run.open(plan)
            yield cell
            for frames, todo in runs_of_equal_work(cell.missing):
                left = frames
                while len(left):
                    self._slots.acquire()
                    count = self._batch_size.frames
                    indices, left = left[:count], left[count:]
                    read, compute = self._stored.split(todo, indices)
                    fed = self._feeder.read(indices, decode=self._graph.uses_frames(compute))
                    job = pool.submit(self._process, run, _Job(cell, todo, indices, read, compute, fed))
                    del fed  # the worker's
                    yield job
                    del job

    # -- worker threads ----------------------------------------------------------------------------------------

    def _process(self, run: CellRun, job: _Job) -> BatchResult:
        started = time.perf_counter()
        given = {name: self._stored.read(name, job.indices) for name in job.read}
        computed = self._processor.compute(job.fed.batch, job.compute, given, job.fed.failures)
        samples: dict[int, dict[str, Payload]] = {frame: {} for frame in job.indices.tolist()}
        clip_frames: dict[str, list[ClipFrame]] = {}
        for name in sorted(job.todo):
            result = computed[name]
            share = result.seconds / max(1, len(result) + len(result.errors))
            for frame, payloads in samples.items():
                row = run.row(name, frame, job.fed.pts_seconds[frame], share)
                if not run.is_in_clips(name):
                    payloads[name] = self._encoder.encode(name, result, frame, row, run.suffix(name))
                    continue
                by_decoder = frame in job.fed.failures
                of_clip = self._encoder.clip_frame(name, result, frame, row, by_decoder=by_decoder)
                clip_frames.setdefault(name, []).append(of_clip)
            result.let_go()  # encoded: free it before the next one's payloads need the memory
        self._batch_size.measured(len(job.indices), time.perf_counter() - started)
        return BatchResult(job.cell, samples, clip_frames, job.fed.failures)
