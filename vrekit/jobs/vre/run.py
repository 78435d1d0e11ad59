"""`convert --from vre`: an output folder of VRE becomes a dataset; arrays keep every bit, durations and run ids."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from vrekit import __version__
from vrekit.catalog.card import write_card
from vrekit.catalog.cells import CellWriter, DatasetWriter, Payload, Sample
from vrekit.catalog.manifest import (
    MANIFEST_NAME,
    Manifest,
    RepresentationRecord,
    manifest_lock,
    read_manifest,
    write_manifest,
)
from vrekit.catalog.places import check_places
from vrekit.catalog.progress import read_progress
from vrekit.catalog.rows import GroupedRows, rows_of
from vrekit.catalog.runs import RepresentationTotals, new_run, write_run
from vrekit.catalog.storage import Storage, open_storage
from vrekit.core.errors import UsageError
from vrekit.core.names import check_representation_name
from vrekit.core.reports import Report, timed
from vrekit.core.schema import SampleRow
from vrekit.core.spec import RepresentationSpec, image_owner
from vrekit.core.threads import in_order, thread_pool
from vrekit.engine.request import DEFAULT_SHARD_FRAMES, DEFAULT_SHARD_SIZE_BYTES
from vrekit.jobs.cells import grouped, write_cells
from vrekit.jobs.merge.origin import is_untouched
from vrekit.jobs.vre.folder import FrameRecord, VreFolder, read_vre_folder
from vrekit.jobs.vre.kinds import check_kinds, read_vre_config
from vrekit.jobs.vre.payloads import BadFileError, Encoded, Part, parts_of, safe_name
from vrekit.jobs.vre.runs import copy_run
from vrekit.jobs.vre.video import VreVideo

TYPE = "external/vre"  # of the imported representations: nothing of vrekit's can compute them
EXACT_CODECS = ("npy", "npy.zst")
_THREADS = 2
_FRAMES_IN_FLIGHT = 8  # read and encoded while others are written
_MAX_FAILURES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class VreRequest:
    """What to import.

    Attributes:
        source: VRE's output folder.
        output: Folder of the dataset.
        config: The config VRE ran with; it tells what the arrays mean.
        video: The video VRE read; gives timestamps and the fingerprint.
        video_id: Name of the video; None takes the slug of the video's file name.
        kinds: Kinds by VRE's representation names, before what the config says.
        codec: `npy.zst` or `npy`.
        writer: `webdataset` or `lance`.
        shard_frames: Width of the grid of a new dataset.
        shard_size_bytes: Size at which a shard of a new dataset closes.
    """

    source: Path
    output: Path
    config: Path | None = None
    video: str | None = None
    video_id: str | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)
    codec: str = "npy.zst"
    writer: str = "webdataset"
    shard_frames: int | None = None
    shard_size_bytes: int | None = None


@dataclass(slots=True, kw_only=True)
class VreReport(Report):
    """What an import did.

    Attributes:
        output: Folder of the dataset.
        video_id: Name of the video.
        stored: Frames stored by this call, by representation.
        already: Frames stored before, by representation.
        failures: Frames without a payload: representation, frame_index, error.
        skipped: What was not taken over, for people.
        renamed: VRE's name → name in the dataset, where they differ.
        stored_bytes: Payload bytes written by this call.
    """

    output: Path
    video_id: str
    stored: dict[str, int] = field(default_factory=dict)
    already: dict[str, int] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    stored_bytes: int = 0


@timed
def import_vre(request: VreRequest) -> VreReport:
    """Make a dataset of VRE's output, or add to one; frames that are stored already are left alone.

    Raises:
        UsageError: If the source is no output of VRE, or an option does not fit.
        ConflictError: If the dataset has another video or other parameters under the same name.
    """
    if request.codec not in EXACT_CODECS:
        raise UsageError(f"--codec {request.codec!r} is not one of {', '.join(EXACT_CODECS)}")
    folder = read_vre_folder(request.source)
    report = VreReport(output=request.output, video_id="", skipped=list(folder.problems))
    parts, records = _parts(request, folder, report)
    video = VreVideo.find(folder, parts, path=request.video, video_id=request.video_id)
    report.video_id = video.video_id
    manifest = _register(request, video, records)
    run = new_run(video.video_id, _described(request), set(), manifest.videos[video.video_id])
    write_run(request.output, run)
    status = "failed"
    storage = open_storage(request.output, manifest)
    writer = storage.writer()
    try:
        _write(storage, writer, video, parts, run.run_id, report)
        status = "done"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        totals = {name: RepresentationTotals(computed=count) for name, count in report.stored.items()}
        failures = [{"video_id": video.video_id, **failure} for failure in report.failures[:_MAX_FAILURES]]
        end = run.finished(status, totals=totals, failures=failures, shards=writer.committed)  # type: ignore[arg-type]  # one of RunStatus
        write_run(request.output, end)
    for one in folder.runs:
        copy_run(request.output, one, video.video_id)
    return report


# -- what is imported --------------------------------------------------------------------------------------------


def _parts(
    request: VreRequest, folder: VreFolder, report: VreReport
) -> tuple[list[Part], dict[str, RepresentationRecord]]:
    entries = read_vre_config(request.config)
    kinds = check_kinds(request.kinds, list(folder.representations))
    parts: dict[str, Part] = {}
    records: dict[str, RepresentationRecord] = {}
    for source in folder.representations.values():
        entry = entries.get(source.name, {})
        name = safe_name(source.name)
        if name != source.name:
            report.renamed[source.name] = name
        kind = entry.get("type")
        found = parts_of(
            source,
            check_representation_name(name),
            vre_type=kind if isinstance(kind, str) else None,
            kind=kinds.get(source.name),
            codec=request.codec,
        )
        report.skipped += found.skipped
        for part in found.found:
            if part.name in parts:
                raise UsageError(
                    f"{parts[part.name].vre_name!r} and {source.name!r} would both be named {part.name!r}",
                    hint="rename one of the folders",
                )
            parts[part.name] = part
            records[part.name] = _record(part, entry, folder)
    if not parts:
        raise UsageError(f"{request.source} holds nothing that can be imported", hint="; ".join(report.skipped))
    return list(parts.values()), records


def _record(part: Part, entry: Mapping[str, Any], folder: VreFolder) -> RepresentationRecord:
    upstream = {key: entry[key] for key in ("type", "parameters", "dependencies") if key in entry}
    dependencies: tuple[str, ...]
    owner = image_owner(part.name)
    if owner is not None:
        dependencies = (owner,)
    else:
        known = [str(name) for name in entry.get("dependencies") or () if name in folder.representations]
        dependencies = tuple(safe_name(name) for name in known)
    spec = RepresentationSpec(
        name=part.name, type=TYPE, params=upstream, dependencies=dependencies, codec=part.codec.id
    )
    identity = {
        "type": TYPE,
        "upstream": upstream,
        "kind": part.spec.kind,
        "dtype": part.spec.dtype,
        "codec": part.codec.config(),
    }
    return RepresentationRecord(
        spec=spec,
        identity=identity,
        memory=part.spec,
        stored=part.spec,
        codec=part.codec.config(),
        suffix=part.codec.suffix,
    )


def _register(request: VreRequest, video: VreVideo, records: Mapping[str, RepresentationRecord]) -> Manifest:
    output = request.output
    if not (output / MANIFEST_NAME).exists() and not is_untouched(output):
        raise UsageError(f"{output} is not empty and is no vrekit dataset", hint="choose a new folder with -o")
    check_places(output)
    with manifest_lock(output):
        if (output / MANIFEST_NAME).exists():
            before = read_manifest(output)
        else:
            before = Manifest(
                writer=request.writer,
                layout="sample",
                shard_frames=request.shard_frames or DEFAULT_SHARD_FRAMES,
                shard_size_bytes=request.shard_size_bytes or DEFAULT_SHARD_SIZE_BYTES,
                created_with=__version__,
            )
        manifest = before.with_video(video.video_id, video.info).with_representations(records)
        write_manifest(output, manifest)
        write_card(open_storage(output, manifest))
    return manifest


def _described(request: VreRequest) -> dict[str, Any]:
    """Return the request for the run's record."""
    data = {name: getattr(request, name) for name in request.__slots__ if name != "output"}
    data |= {"convert": "vre", "source": str(request.source.resolve())}
    data["config"] = None if request.config is None else str(request.config.resolve())
    return data


# -- writing -----------------------------------------------------------------------------------------------------


def _write(
    storage: Storage,
    writer: DatasetWriter,
    video: VreVideo,
    parts: Sequence[Part],
    run_id: str,
    report: VreReport,
) -> None:
    before = read_progress(storage, video.video_id)
    for part in parts:
        report.stored[part.name] = 0
        report.already[part.name] = len(before.done_frames(part.name))
    by_name = {part.name: part for part in parts}

    def fill(cell: CellWriter, table: pa.Table) -> None:
        frames: dict[int, list[Part]] = {}
        for row in rows_of(table):
            frames.setdefault(row["frame_index"], []).append(by_name[row["representation"]])
        failed = {
            (frame, name) for frame, of in cell.recovered.items() for name, status in of.items() if status != "ok"
        }
        failed |= {(frame, name) for name in by_name for frame in before.failed_frames(name).tolist()}
        for sample in _samples(frames, storage.manifest, video, run_id, failed, report):
            cell.append(sample)

    write_cells(_wanted(parts, storage.manifest), video.video_id, storage, writer, fill)
    writer.close()


def _wanted(parts: Sequence[Part], manifest: Manifest) -> GroupedRows:
    """Return what is to be stored; frames that VRE tried and left no file of are to be noted as failed."""
    places = [
        (frame, part.name)
        for part in parts
        for frame in set(part.files) | {frame for frame, record in part.records.items() if record.run_id is not None}
    ]
    frames, names = zip(*places, strict=True) if places else ((), ())
    table = pa.table(
        {
            "frame_index": pa.array(frames, pa.int64()),
            "representation": pa.array(names, pa.string()),
            "status": pa.repeat("ok", len(places)),
        }
    )
    return grouped(table, manifest)


def _samples(
    frames: Mapping[int, Sequence[Part]],
    manifest: Manifest,
    video: VreVideo,
    run_id: str,
    failed: Collection[tuple[int, str]],
    report: VreReport,
) -> Iterator[Sample]:
    """Yield samples in frame order; files are read and encoded ahead in threads.

    Args:
        frames: What to store of each frame.
        manifest: Of the dataset.
        video: Which video.
        run_id: Of this import.
        failed: (frame number, representation) of failures that are on record.
        report: Gets what was stored and what failed.
    """

    def encode(item: tuple[int, Sequence[Part]]) -> tuple[int, list[Payload]]:
        frame, parts = item
        return frame, [_payload(part, frame, manifest, video, run_id) for part in parts]

    with (
        thread_pool(_THREADS, "vrekit-vre") as pool,
        closing(in_order(pool, encode, frames.items(), at_most=_FRAMES_IN_FLIGHT)) as encoded,
    ):
        for frame, of_frame in encoded:
            payloads = []
            for payload in of_frame:
                name = payload.row.representation
                if payload.data is not None:
                    report.stored[name] += 1
                    report.stored_bytes += len(payload.data)
                else:
                    reason = {"representation": name, "frame_index": frame, "error": payload.row.error}
                    report.failures.append(reason)
                    if (frame, name) in failed:
                        continue
                payloads.append(payload)
            if payloads:
                payloads.sort(key=lambda payload: payload.row.run_id)  # a Lance row holds one run's representations
                yield Sample(video.video_id, frame, tuple(payloads))


def _encode(part: Part, frame: int) -> Encoded:
    path = part.files.get(frame)
    if path is None:
        record = part.records[frame]
        raise BadFileError(
            "VRE failed on it" if record.seconds is None else "VRE noted it as done, but its file is gone"
        )
    return part.encode(path)


def _payload(part: Part, frame: int, manifest: Manifest, video: VreVideo, run_id: str) -> Payload:
    record = part.records.get(frame, FrameRecord(None, None))
    pts = video.pts.get(frame, math.nan)
    row = SampleRow(
        video_id=video.video_id,
        frame_index=frame,
        pts_seconds=None if math.isnan(pts) else pts,
        representation=part.name,
        kind=part.spec.kind,
        run_id=record.run_id or run_id,
        config_hash=manifest.representations[part.name].config_hash,
        compute_seconds=record.seconds,
    )
    try:
        encoded = _encode(part, frame)
    except BadFileError as error:
        return Payload(replace(row, status="failed", error=str(error)))
    done = replace(
        row,
        codec=part.codec.id,
        dtype=encoded.dtype.name,
        shape=encoded.shape,
        raw_bytes=math.prod(encoded.shape) * encoded.dtype.itemsize,
    )
    return Payload(done, part.codec.suffix, encoded.data)
