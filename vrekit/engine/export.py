"""`export` and `resume`: from a request to a dataset on disk. What the CLI calls, and what a notebook can call too."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrekit import __version__
from vrekit.catalog.card import write_card
from vrekit.catalog.manifest import (
    MANIFEST_NAME,
    Manifest,
    RepresentationRecord,
    manifest_lock,
    read_manifest,
    write_manifest,
)
from vrekit.catalog.runs import RepresentationTotals, RunRecord, new_run, read_runs, write_run
from vrekit.catalog.samples import read_progress
from vrekit.codecs.base import ClipCodec
from vrekit.core.errors import ConflictError, DatasetError, UsageError, VideoError
from vrekit.core.files import is_temporary
from vrekit.core.names import check_video_id, did_you_mean, video_id_from_path
from vrekit.core.spec import RepresentationSpec, image_owner
from vrekit.engine.auto_codec import measured_codecs, names_to_measure, with_codecs, with_known_codecs
from vrekit.engine.clip_checks import check_container
from vrekit.engine.pipeline import Pipeline
from vrekit.engine.plan import Plan, make_plan
from vrekit.engine.progress import ProgressListener
from vrekit.engine.request import DEFAULT_SHARD_FRAMES, DEFAULT_SHARD_SIZE_BYTES, ExportRequest
from vrekit.engine.resources import usable_cpus
from vrekit.engine.runlog import run_log
from vrekit.engine.stored import StoredOutputs
from vrekit.graph.build import Graph, build_graph, with_image_specs
from vrekit.video.base import VideoInfo, VideoSource
from vrekit.video.fingerprint import fingerprint
from vrekit.video.opener import open_source
from vrekit.writers.base import DatasetWriter
from vrekit.writers.opener import open_writer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
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
        elapsed_seconds: Wall-clock time.
    """

    dataset: Path
    video_id: str
    run_id: str | None
    frames: int
    totals: Mapping[str, RepresentationTotals] = field(default_factory=dict)
    already: Mapping[str, int] = field(default_factory=dict)
    failed_before: Mapping[str, int] = field(default_factory=dict)
    failures: Sequence[Mapping[str, object]] = ()
    elapsed_seconds: float = 0.0

    @property
    def computed_frames(self) -> int:
        """Frames × representations stored by this run."""
        return sum(totals.computed for totals in self.totals.values())

    @property
    def failed_frames(self) -> int:
        """Frames × representations that failed in this run."""
        return sum(totals.failed for totals in self.totals.values())


@dataclass(slots=True)
class Preparation:
    """Everything known before the first frame is computed; `source` is opened only when something must be decoded."""

    request: ExportRequest
    manifest: Manifest
    graph: Graph
    video_id: str
    info: VideoInfo
    plan: Plan
    names: list[str]
    source: VideoSource | None

    def open(self) -> VideoSource:
        """Return the frame source, opening it if that was not needed so far."""
        if self.source is None:
            self.source = _open(self.request, self.info)
        return self.source

    def close(self) -> None:
        """Close the source, if it is open."""
        if self.source is not None:
            self.source.close()


def export(
    request: ExportRequest, listener: ProgressListener | None = None, *, retry_failed: bool = False
) -> ExportReport:
    """Compute and store what is missing of a request; frames that are stored already are left alone.

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
    prepared = prepare(request, retry_failed=retry_failed, write=True)
    try:
        return _run(prepared, listener or ProgressListener(), started)
    finally:
        prepared.close()


def resume(
    dataset: Path, listener: ProgressListener | None = None, *, overrides: Mapping[str, object] | None = None
) -> list[ExportReport]:
    """Finish every export of a dataset that was interrupted, and try failed frames again.

    Args:
        dataset: Folder of the dataset.
        listener: Told about the progress, from this thread.
        overrides: ExportRequest fields that need not be the same again: `threads`, `max_failures`, `memory_bytes`.

    Returns:
        One report for each distinct request.
    """
    read_manifest(dataset)
    return [
        export(replace(request, **(overrides or {})), listener, retry_failed=True)  # type: ignore[arg-type]
        for request in recorded_requests(dataset)
    ]


def recorded_requests(dataset: Path) -> list[ExportRequest]:
    """Return the distinct requests of a dataset's runs, oldest first.

    Raises:
        DatasetError: If no run is recorded.
    """
    # an import (`convert --from vre`) cannot be computed again
    runs = [run for run in read_runs(dataset) if "representations" in run.request]
    # A video that was moved is where a later run found it.
    moved_to = {run.video_id: run.request["video"] for run in runs if Path(run.request["video"]).exists()}
    requests: dict[str, ExportRequest] = {}
    for run in runs:
        request = ExportRequest.from_json(run.request, dataset)
        if not Path(request.video).exists() and run.video_id in moved_to:
            request = replace(request, video=moved_to[run.video_id], video_id=run.video_id)
        requests.setdefault(repr(request.to_json()), request)
    if not requests:
        raise DatasetError(f"{dataset} has no runs to resume", hint="`vrekit export VIDEO -o DATASET` starts one")
    return list(requests.values())


def prepare(request: ExportRequest, *, retry_failed: bool = False, write: bool = False) -> Preparation:
    """Open the video as far as needed, build the graph, check it against the dataset and plan the work.

    Args:
        request: What to export.
        retry_failed: Plan failed frames again.
        write: Register the video and the representations in the dataset, making it when it is not there.
    """
    video_id = check_video_id(request.video_id or video_id_from_path(request.video))
    known = read_manifest(request.dataset) if (request.dataset / MANIFEST_NAME).exists() else None
    _check_target(request.dataset)
    source: VideoSource | None = None
    info = _known_info(request, known, video_id, must_exist=not retry_failed)
    if info is None:
        source = _open(request)
        info = source.info
    try:
        specs = with_image_specs(_checked_only(request), request.images)
        graph = _graph(request, info, with_known_codecs(specs, known))
        names = _names_to_store(request, graph)
        _check_clips(graph, names, info)
        if known is None or video_id not in known.videos or not known.representations.keys() >= set(names):
            _check_containers(graph, names, info)
        choices: dict[str, Mapping[str, Any]] = {}
        if undecided := names_to_measure(graph, names, with_models=write):
            wanted, source = _wanted_frames(request, info, source)
            source = source or _open(request, info)
            choices = measured_codecs(graph, undecided, source, wanted, request)
            graph = _graph(request, info, with_codecs(with_known_codecs(specs, known), choices))
        records = _records(graph, request)
        if write:
            with manifest_lock(request.dataset):
                fresh = read_manifest(request.dataset) if (request.dataset / MANIFEST_NAME).exists() else None
                if choices and fresh != known:  # another export may have chosen meanwhile: the first one counts
                    graph = _graph(request, info, with_codecs(with_known_codecs(specs, fresh), choices))
                    records = _records(graph, request)
                manifest = _merged(request, fresh, video_id, info, records)
                if manifest != fresh:
                    write_manifest(request.dataset, manifest)
                    write_card(request.dataset, manifest)
        else:
            manifest = _merged(request, known, video_id, info, records)
        wanted, source = _wanted_frames(request, info, source)
        plan = make_plan(
            video_id=video_id,
            wanted=wanted,
            names=names,
            progress=read_progress(request.dataset, video_id),
            manifest=manifest,
            retry_failed=retry_failed,
        )
    except BaseException:
        if source is not None:
            source.close()
        raise
    return Preparation(request, manifest, graph, video_id, info, plan, names, source)


def _graph(request: ExportRequest, info: VideoInfo, specs: Sequence[RepresentationSpec]) -> Graph:
    return build_graph(
        specs,
        height=info.height,
        width=info.width,
        folders=request.folders,
        profile=request.profile,
        position=request.position,
    )


def _open(request: ExportRequest, known: VideoInfo | None = None) -> VideoSource:
    """Open the video; one the dataset knows with the stream and the clock it has there."""
    if known is None:
        return open_source(request.video, stream_index=request.stream_index, fps=request.fps)
    if not Path(request.video).exists():
        raise VideoError(f"{request.video} does not exist", hint=_MOVED)
    fps = None if known.source == "file" else known.fps
    return open_source(request.video, stream_index=known.stream_index, fps=fps)


_MOVED = "if it was moved, export it again from where it is now: what is stored stays"


def _check_target(dataset: Path) -> None:
    if not dataset.exists():
        return
    if not dataset.is_dir():
        raise UsageError(f"{dataset} is a file; -o needs a folder", hint="choose another folder with -o")
    foreign = any(entry.name != ".lock" and not is_temporary(entry) for entry in dataset.iterdir())
    # Looked at last: another process may be making this very dataset, and writes its manifest first.
    if foreign and not (dataset / MANIFEST_NAME).exists():
        raise UsageError(
            f"{dataset} is not empty and is no vrekit dataset",
            hint="choose a new folder with -o, so that nothing of yours gets mixed with the dataset",
        )


def _known_info(request: ExportRequest, known: Manifest | None, video_id: str, *, must_exist: bool) -> VideoInfo | None:
    """Return the video's facts from the dataset when it is the same one: that saves opening a decoder."""
    info = known.videos.get(video_id) if known is not None else None
    if info is None:
        return None
    if not Path(request.video).exists():
        if not must_exist:
            return info
        raise VideoError(f"{request.video} does not exist", hint=_MOVED)
    same_stream = request.stream_index is None or request.stream_index == info.stream_index
    same_clock = request.fps is None or request.fps == info.fps
    return info if same_stream and same_clock and fingerprint(Path(request.video)) == info.fingerprint else None


def _checked_only(request: ExportRequest) -> Sequence[RepresentationSpec]:
    names = [spec.name for spec in request.representations]
    for name in request.only:
        if name not in names:
            raise UsageError(
                f"the config has no representation {name!r}{did_you_mean(name, names)}",
                hint=f"it has {', '.join(names)}",
            )
    return request.representations


def _names_to_store(request: ExportRequest, graph: Graph) -> list[str]:
    stored = [name for name, node in graph.nodes.items() if node.codec is not None]
    if not request.only:
        return stored
    return [name for name in stored if (image_owner(name) or name) in request.only]


def _check_clips(graph: Graph, names: Sequence[str], info: VideoInfo) -> None:
    for name in names:
        codec = graph.nodes[name].codec
        if isinstance(codec, ClipCodec) and codec.copies_source and info.source != "file":
            raise UsageError(
                f"{name}: codec {codec.id!r} without `encode` copies the packets of a video file; {info.uri} is none",
                hint=f"`codec: {{id: {codec.id}, encode: ffv1}}` keeps frames exactly; h264, hevc and av1 lose detail",
            )


def _check_containers(graph: Graph, names: Sequence[str], info: VideoInfo) -> None:
    for name in names:
        codec = graph.nodes[name].codec
        if isinstance(codec, ClipCodec) and codec.copies_source:
            check_container(codec, info)


def _records(graph: Graph, request: ExportRequest) -> dict[str, RepresentationRecord]:
    wanted = set(request.only) or set(graph.nodes)
    return {
        name: RepresentationRecord(
            spec=node.spec,
            identity=node.identity,
            memory=node.memory,
            stored=node.stored,
            codec=None if node.codec is None else node.codec.config(),
            suffix=None if node.codec is None else node.codec.suffix,
            clips=isinstance(node.codec, ClipCodec),
        )
        for name, node in graph.nodes.items()
        if (image_owner(name) or name) in wanted
    }


def _merged(
    request: ExportRequest,
    known: Manifest | None,
    video_id: str,
    info: VideoInfo,
    records: Mapping[str, RepresentationRecord],
) -> Manifest:
    if known is None:
        known = Manifest(
            writer=request.writer or "webdataset",
            layout=request.layout or "sample",
            shard_frames=request.shard_frames or DEFAULT_SHARD_FRAMES,
            shard_size_bytes=request.shard_size_bytes or DEFAULT_SHARD_SIZE_BYTES,
            created_with=__version__,
        )
    for name in ("writer", "layout", "shard_frames", "shard_size_bytes"):
        asked, has = getattr(request, name), getattr(known, name)
        if asked is not None and asked != has:
            raise ConflictError(
                f"the dataset has {name.replace('_', ' ')} {has}, asked for {asked}",
                hint="leave the option away, or choose another output with -o",
            )
    merged = known.with_video(video_id, info).with_representations(records)
    for name, record in records.items():
        lacking = [one for one in record.spec.dependencies if one not in merged.representations]
        if record.is_virtual and lacking:
            raise UsageError(
                f"{name} is virtual (store: false) and computed on read from {' and '.join(lacking)}, "
                "which the dataset would not hold",
                hint=f"export that too (-r {','.join([*lacking, name])}), or set `store: true` for {name}",
            )
    return merged


def _wanted_frames(
    request: ExportRequest, info: VideoInfo, source: VideoSource | None
) -> tuple[NDArray[np.int64], VideoSource | None]:
    selection = request.frames
    if source is None and (info.source != "file" or selection.fps is not None):
        source = _open(request, info)
    existing = np.arange(info.frame_count, dtype=np.int64) if source is None else source.frame_indices
    pts = source.pts_seconds(existing) if source is not None and selection.fps is not None else None
    return selection.select(existing, pts), source


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
    writer = open_writer(request.dataset, prepared.manifest)
    writer.sweep(prepared.video_id)
    if plan.is_empty:
        return report
    stored = StoredOutputs.for_plan(request.dataset, prepared.manifest, prepared.graph, plan)
    source = stored.source(plan, prepared.info, prepared.open)  # before the run: what cannot be opened is no run
    devices = {prepared.graph.nodes[name].spec.device for name in prepared.names}
    record = new_run(prepared.video_id, request.to_json(), devices)
    write_run(request.dataset, record)
    with run_log(request.dataset, record.run_id):
        return _run_recorded(prepared, source, stored, writer, listener, started, record, report)


def _run_recorded(
    prepared: Preparation,
    source: VideoSource,
    stored: StoredOutputs,
    writer: DatasetWriter,
    listener: ProgressListener,
    started: float,
    record: RunRecord,
    report: ExportReport,
) -> ExportReport:
    request, plan, manifest = prepared.request, prepared.plan, prepared.manifest
    logger.info("run %s: %s → %s", record.run_id, request.video, request.dataset)
    pipeline = Pipeline(
        plan=plan,
        graph=prepared.graph,
        source=source,
        stored=stored,
        writer=writer,
        groups=manifest.groups,
        hashes={name: manifest.representations[name].config_hash for name in prepared.names},
        run_id=record.run_id,
        listener=listener,
        batch_size=request.batch_size,
        threads=request.threads or usable_cpus(),
        memory_bytes=request.memory_bytes,
        max_failures=request.max_failures,
        clip_bytes=manifest.shard_size_bytes,
    )
    listener.started({name: len(frames) for name, frames in plan.missing.items() if len(frames)})
    status: str = "failed"
    message: str | None = None
    try:
        pipeline.run()
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
            totals=pipeline.tally.totals,
            failures=pipeline.tally.failures,
            elapsed_seconds=round(elapsed, 3),
            error=message,
        )
        _write_end(request.dataset, end)
    return replace(
        report,
        run_id=record.run_id,
        totals=pipeline.tally.totals,
        failures=pipeline.tally.failures,
        elapsed_seconds=elapsed,
    )


def _write_end(dataset: Path, record: RunRecord) -> None:
    try:
        write_run(dataset, record)
    except OSError as error:  # a full disk must not hide the error that is already on its way
        logger.warning("could not record the end of run %s: %s", record.run_id, error)
    else:
        logger.info("run %s: %s", record.run_id, record.status)
