"""`export` and `resume`: from a request to a dataset on disk. What the CLI calls, and what a notebook can call too."""

import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from vrekit.catalog.cells import DatasetWriter
from vrekit.catalog.manifest import has_samples, read_manifest
from vrekit.catalog.progress import read_progress
from vrekit.catalog.remote import dataset_folder, shown, up_to_date
from vrekit.catalog.runs import (
    DAMAGED_RUN_HINT,
    RUNS_FOLDER,
    RepresentationTotals,
    RunRecord,
    new_run,
    read_runs,
    write_run,
)
from vrekit.catalog.storage import Storage, open_storage
from vrekit.catalog.trust import RecordedCode, untrusted
from vrekit.codecs.base import ClipCodec
from vrekit.core.documents import Fields
from vrekit.core.errors import DatasetError, LockedError
from vrekit.core.reports import ProgressListener, Report
from vrekit.core.threads import usable_cpus
from vrekit.engine.cell_run import CellRun
from vrekit.engine.local_engine import LocalEngine
from vrekit.engine.plan import Plan
from vrekit.engine.preparation import Preparation, prepare
from vrekit.engine.request import ExportRequest
from vrekit.engine.runlog import run_log
from vrekit.engine.stored import StoredOutputs
from vrekit.video.base import VideoSource

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class ExportReport(Report):
    """What an export did.

    Attributes:
        dataset: Folder of the dataset.
        video_id: Which video.
        run_id: Its run; None when there was nothing to do.
        frames: Number of frames asked for.
        totals: What was computed, by representation.
        already: Frames that were stored before, by representation.
        failed_before: Frames that failed in an earlier run and were left alone, by representation.
        failures: The first failures of this run.
    """

    dataset: Path
    video_id: str
    run_id: str | None
    frames: int
    totals: Mapping[str, RepresentationTotals] = field(default_factory=dict)
    already: Mapping[str, int] = field(default_factory=dict)
    failed_before: Mapping[str, int] = field(default_factory=dict)
    failures: Sequence[Mapping[str, object]] = ()

    @property
    def computed_frames(self) -> int:
        """Frames × representations stored by this run."""
        return sum(totals.computed for totals in self.totals.values())

    @property
    def failed_frames(self) -> int:
        """Frames × representations that failed in this run."""
        return sum(totals.failed for totals in self.totals.values())


def export(
    request: ExportRequest, listener: ProgressListener | None = None, *, retry_failed: bool = False
) -> ExportReport:
    """Compute and store what is missing of a request; frames that are stored already are left alone.

    Code that the request names (`module:Class`, `path/file.py:Class`) is trusted, and from then on in this dataset for
    this account (`vrekit.catalog.trust`).

    Args:
        request: What to export.
        listener: Told about the progress, from this thread.
        retry_failed: Compute frames again that failed in an earlier run.

    Raises:
        ConfigError: If the config or a parameter is wrong.
        VideoError: If the video cannot be opened.
        ConflictError: If the dataset has another video or other parameters under the same name.
        ComputeError: If a representation failed on `request.max_failures` frames in a row.
        StorageError: If the disk is full or read-only.
    """
    started = time.perf_counter()
    request = replace(request, dataset=up_to_date(request.dataset))
    prepared = prepare(request, retry_failed=retry_failed, write=True)
    try:
        if not request.recorded:
            RecordedCode(dataset=request.dataset, folders=request.folders).remember(request.representations)
        return _run(prepared, listener or ProgressListener(), started)
    finally:
        prepared.close()


def resume(
    dataset: str | Path,
    listener: ProgressListener | None = None,
    *,
    overrides: Mapping[str, object] | None = None,
    trust_code: bool = False,
) -> list[ExportReport]:
    """Finish every export of a dataset that was interrupted, and try failed frames again.

    Args:
        dataset: Folder of the dataset.
        listener: Told about the progress, from this thread.
        overrides: ExportRequest fields that need not be the same again: `threads`, `max_failures`, `memory_bytes`.
        trust_code: Run code that the dataset records, see `recorded_requests`.

    Returns:
        One report for each distinct request.

    Raises:
        DatasetError: If no run is recorded, or one needs `trust_code`.
    """
    dataset = dataset_folder(dataset, for_writing=True)
    read_manifest(dataset)
    return [
        export(replace(request, **(overrides or {})), listener, retry_failed=True)  # type: ignore[arg-type]
        for request in recorded_requests(dataset, trust_code=trust_code)
    ]


def recorded_requests(dataset: Path, *, trust_code: bool = False) -> list[ExportRequest]:
    """Return the distinct requests of a dataset's runs, oldest first.

    Args:
        dataset: Folder of the dataset.
        trust_code: Allow types that are code recorded in the dataset (`module:Class`, `path/file.py:Class`). Without
            it only types of installed packages are, and code that this account exported this dataset with.

    Raises:
        DatasetError: If no run is recorded, or one needs `trust_code`; nothing has run then.
    """
    recorded = read_runs(dataset)
    if not recorded:
        read_runs(dataset, strict=True)  # raises the error of a damaged one
        if has_samples(dataset):
            raise DatasetError(
                f"{dataset} has stored frames, but runs/ has no record of what was asked for: the records are lost",
                hint="restore runs/ from a backup, or export again with the same config and options: "
                "`vrekit export VIDEO -o DATASET --config CONFIG` keeps what is stored and computes the rest",
            )
        raise DatasetError(
            f"{dataset} has no runs to resume: no export came as far as its first frame",
            hint="the same `vrekit export …` command again goes on",
        )
    runs, damaged = parse_requests(dataset, recorded)
    # A video that was moved is where a later run found it.
    moved_to = {run.video_id: request.video for run, request in runs if os.path.exists(request.video)}
    requests: dict[str, ExportRequest] = {}
    for run, request in runs:
        if not os.path.exists(request.video) and run.video_id in moved_to:
            request = replace(request, video=moved_to[run.video_id], video_id=run.video_id)
        requests.setdefault(repr(request.to_json()), request)
    if not requests and damaged:
        raise damaged[0]
    for one in damaged:
        logger.warning("%s; the other runs are resumed", one.message)
    if not requests:
        raise DatasetError(f"{dataset} has no runs to resume", hint="`vrekit export VIDEO -o DATASET` starts one")
    check_trusted(dataset, requests.values(), trust_code=trust_code)
    return list(requests.values())


def parse_requests(
    dataset: Path, runs: Iterable[RunRecord]
) -> tuple[list[tuple[RunRecord, ExportRequest]], list[DatasetError]]:
    """Return the exports among some runs with what they asked for, and what is wrong with those that are damaged."""
    parsed: list[tuple[RunRecord, ExportRequest]] = []
    damaged: list[DatasetError] = []
    for run in runs:
        if "representations" not in run.request:  # an import (`convert --from vre`) cannot be computed again
            continue
        where = f"{dataset / RUNS_FOLDER / run.run_id}.json: request"
        try:
            request = ExportRequest.from_json(Fields(run.request, where, hint=DAMAGED_RUN_HINT), dataset)
            parsed.append((run, request))
        except DatasetError as error:
            damaged.append(error)
    return parsed, damaged


def check_trusted(dataset: Path, requests: Iterable[ExportRequest], *, trust_code: bool, otherwise: str = "") -> None:
    """Raise DatasetError if recorded requests name code that may not run; nothing has run then.

    Args:
        dataset: Where they are recorded.
        requests: What is about to be loaded.
        trust_code: Allow all of it.
        otherwise: What else the caller can do, for the hint.
    """
    refused = [
        spec
        for request in requests
        for spec in RecordedCode(dataset=dataset, folders=request.folders, trust_code=trust_code).refused(
            request.representations
        )
    ]
    if refused:
        raise untrusted(dataset, refused, otherwise=otherwise)


def _run(prepared: Preparation, listener: ProgressListener, started: float) -> ExportReport:
    request, plan = prepared.request, prepared.plan
    already = {
        name: len(plan.wanted) - len(plan.missing[name]) - plan.left_failed.get(name, 0) for name in prepared.names
    }
    report = ExportReport(
        dataset=request.dataset,
        video_id=prepared.video_id,
        run_id=None,
        frames=len(plan.wanted),
        already=already,
        failed_before=plan.left_failed,
        elapsed_seconds=time.perf_counter() - started,
    )
    storage = open_storage(request.dataset, prepared.manifest)
    writer = storage.writer()
    writer.sweep(prepared.video_id)
    if plan.is_empty:
        writer.close()
        return report
    stored = StoredOutputs.for_plan(storage, prepared.graph, plan)
    source = stored.source(plan, prepared.info, prepared.open)  # before the run: what cannot be opened is no run
    devices = {prepared.graph.nodes[name].spec.device for name in prepared.names}
    facts = prepared.manifest.videos[prepared.video_id]
    record = new_run(prepared.video_id, request.to_json(), devices, facts)
    write_run(request.dataset, record)
    with run_log(request.dataset, record.run_id):
        return _run_recorded(prepared, storage, source, stored, writer, listener, started, record, report)


def _run_recorded(
    prepared: Preparation,
    storage: Storage,
    source: VideoSource,
    stored: StoredOutputs,
    writer: DatasetWriter,
    listener: ProgressListener,
    started: float,
    record: RunRecord,
    report: ExportReport,
) -> ExportReport:
    request, plan, manifest = prepared.request, prepared.plan, prepared.manifest
    logger.info("run %s: %s → %s", record.run_id, request.video, shown(str(request.dataset)))
    nodes = prepared.graph.nodes
    run = CellRun(
        plan,
        manifest,
        writer,
        {
            name: codec
            for name, todo in plan.missing.items()
            if isinstance(codec := nodes[name].codec, ClipCodec) and len(todo)
        },
        run_id=record.run_id,
        listener=listener,
        max_failures=request.max_failures,
    )
    engine = LocalEngine(
        prepared.graph,
        source,
        stored,
        batch_size=request.batch_size,
        threads=request.threads or usable_cpus(),
        memory_bytes=request.memory_bytes,
    )
    listener.started({name: len(frames) for name, frames in plan.missing.items() if len(frames)})
    status: str = "failed"
    message: str | None = None
    try:
        try:
            engine.run(run)
        except LockedError:
            up_to_date(request.dataset)
            if not _is_stored(storage, plan):  # by now the other process may have done its part
                raise
        writer.close()
        status = "done"
    except KeyboardInterrupt:
        status, message = "interrupted", "interrupted by the user"
        raise
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        logger.exception("run %s failed", record.run_id)
        raise
    finally:
        listener.finished()
        elapsed = time.perf_counter() - started
        end = record.finished(
            status,  # type: ignore[arg-type]  # one of RunStatus
            totals=run.tally.totals,
            failures=run.tally.failures,
            elapsed_seconds=round(elapsed, 3),
            error=message,
            shards=writer.committed,
        )
        _write_end(request.dataset, end)
    return replace(
        report,
        run_id=record.run_id,
        already={name: count + run.tally.recovered.get(name, 0) for name, count in report.already.items()},
        totals=run.tally.totals,
        failures=run.tally.failures,
        elapsed_seconds=elapsed,
    )


def _is_stored(storage: Storage, plan: Plan) -> bool:
    """Return whether everything of a plan is stored, by whatever process."""
    progress = read_progress(storage, plan.video_id)
    return all(np.isin(frames, progress.done_frames(name)).all() for name, frames in plan.missing.items())


def _write_end(dataset: Path, record: RunRecord) -> None:
    try:
        write_run(dataset, record)
    except OSError as error:  # a full disk must not hide the error that is already on its way
        logger.warning("could not record the end of run %s: %s", record.run_id, error)
    else:
        logger.info("run %s: %s", record.run_id, record.status)
