"""`transcode`: a dataset with other codecs. The source is only ever read; a run can be stopped and goes on.

OUTPUT/origin.json    written first: from what and to which codecs; without `dataset.json` beside it, unfinished
OUTPUT/.merge.lock    held while a process works on it
OUTPUT/shards, lance  cell by cell, each recovered and committed as an export does it
OUTPUT/dataset.json   written last, after every payload was read back and checked
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vrekit import __version__
from vrekit.catalog.card import write_card
from vrekit.catalog.manifest import MANIFEST_NAME, Manifest, read_manifest, write_manifest
from vrekit.catalog.remote import location_of
from vrekit.catalog.rows import payload_numbers
from vrekit.catalog.runs import RunRecord, now_iso, read_runs, write_run
from vrekit.catalog.storage import Storage, open_storage
from vrekit.codecs.profiles import Option
from vrekit.core.documents import Fields
from vrekit.core.errors import DatasetError, UsageError
from vrekit.core.files import fsync_folder, storage_errors
from vrekit.core.locks import OwnedFile
from vrekit.core.reports import BYTES, ProgressListener, timed
from vrekit.core.threads import thread_pool, usable_cpus
from vrekit.jobs.copying import check_payloads
from vrekit.jobs.merge.extras import copy_runs, copy_statistics, copy_trust
from vrekit.jobs.merge.manifests import Combined
from vrekit.jobs.merge.origin import LOCK_NAME, Origin, is_untouched, read_origin
from vrekit.jobs.merge.rows import SURVEY_COLUMNS, read_video_rows
from vrekit.jobs.merge.sources import Source, open_sources
from vrekit.jobs.transcode.changes import Change, plan_changes
from vrekit.jobs.transcode.report import RepresentationReport, TranscodeReport
from vrekit.jobs.transcode.samples import SampleWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One transcoding.

    Attributes:
        source: The dataset.
        output: Folder of the result.
        combined: The source without what is left out, as a merge sees it.
        changes: By stored representation.
        report: What is found and done.
    """

    source: Source
    output: Path
    combined: Combined
    changes: Mapping[str, Change]
    report: TranscodeReport

    @property
    def manifest(self) -> Manifest:
        """Return that of the result."""
        return self.combined.manifest

    @property
    def storage(self) -> Storage:
        """Return that of the result."""
        return open_storage(self.output, self.manifest)

    @property
    def origin(self) -> Origin:
        """Return what `origin.json` says of it."""
        codecs = {name: change.record.codec for name, change in self.changes.items()}
        return Origin(
            sources=({"folder": location_of(self.source.folder), "digest": self.source.digest},),
            options=json.loads(json.dumps({"transcode": codecs, "representations": sorted(self.combined.names[0])})),
            created_with=__version__,
            started_at=now_iso(),
        )


@timed
def transcode(
    dataset: str | Path,
    output: str | Path,
    *,
    profile: str | None = None,
    lossy: bool | None = None,
    codecs: Mapping[str, Option] | None = None,
    names: Sequence[str] = (),
    threads: int | None = None,
    memory_bytes: int = 256 << 20,
    dry_run: bool = False,
    listener: ProgressListener | None = None,
) -> TranscodeReport:
    """Make a dataset of the same samples with other codecs.

    Only representations whose codec changes are decoded and encoded; everything else is copied as bytes. Metadata
    keeps run ids, times and failures. The same call again goes on after an interruption, and does nothing when all is
    done.

    Args:
        dataset: The source.
        output: Folder of the result: new, empty, or of an interrupted call.
        profile: `"training"`, `"balanced"`, `"archive"` or `"plain"`; None changes what `codecs` names only.
        lossy: False takes the profile's exact codecs, True those with loss, None its choice for each kind.
        codecs: Codecs for single representations; they count before the profile.
        names: Representations to take along; empty means all.
        threads: Threads that encode; None takes the CPUs this process may use.
        memory_bytes: Bound on the frames in flight.
        dry_run: Only say what would be done.
        listener: Told about the progress, from this thread.

    Raises:
        UsageError: If an option does not fit, or the output holds something else.
        CodecError: If values do not fit a new codec; the message names the frame.
        ChecksumError: If a payload changed since it was written.
        DatasetError: If the source is damaged or was written to meanwhile.
    """
    output = Path(output)
    (source,) = open_sources([Path(dataset)], output)
    changes = plan_changes(source.manifest, names, profile=profile, lossy=lossy, codecs=codecs or {})
    job = _Job(
        source=source,
        output=output,
        combined=_combined(source, changes),
        changes=changes,
        report=TranscodeReport(
            source=source.folder,
            output=output,
            parts={name: RepresentationReport(change=change) for name, change in changes.items()},
            unfinished=source.open_cells(),
        ),
    )
    before = _checked_target(job)
    _survey(job)
    if not dry_run:
        if not job.report.was_finished:
            with storage_errors(output):
                output.mkdir(parents=True, exist_ok=True)
            lock = OwnedFile(output / LOCK_NAME, str(output))
            try:
                origin = before or job.origin
                origin.write(output)
                _write(job, listener or ProgressListener(), threads or usable_cpus(), memory_bytes)
                _finish(job, origin, listener or ProgressListener())
            finally:
                lock.release()
        _count_result(job)
    return job.report


def _combined(source: Source, changes: Mapping[str, Change]) -> Combined:
    kept = set(changes)
    for name, record in source.manifest.representations.items():  # in dependency order
        if record.is_virtual and set(record.spec.dependencies) <= kept:
            kept.add(name)
    records = {
        name: changes[name].record if name in changes else record
        for name, record in source.manifest.representations.items()
        if name in kept
    }
    manifest = replace(source.manifest, representations=records, created_with=__version__)
    return Combined(
        manifest=manifest.with_representations({}),  # gives new clips their groups
        order=(source,),
        video_names=({video_id: video_id for video_id in source.manifest.videos},),
        names=(frozenset(kept),),
        conflicts=(),
    )


def _checked_target(job: _Job) -> Origin | None:
    """Return what the output says it is made from; None if it is new."""
    output, before = job.output, read_origin(job.output)
    if before is None:
        if not is_untouched(output):
            raise UsageError(f"{output} is not empty", hint="choose a new folder with -o")
        return None
    job.report.was_finished = (output / MANIFEST_NAME).exists()
    if not before.is_same(job.origin):
        holds = "is a dataset made in another way" if job.report.was_finished else "holds something unfinished"
        raise UsageError(
            f"{output} {holds}: {_difference(before, job.origin)}",
            hint=f"choose another folder with -o, or delete {output} and start again",
        )
    return before


def _difference(before: Origin, asked: Origin) -> str:
    had, wanted = before.options.get("transcode"), asked.options["transcode"]
    if isinstance(had, dict) and before.options != asked.options:
        for name in dict.fromkeys([*had, *wanted]):
            if had.get(name) != wanted.get(name):
                there, here = (one[name]["id"] if name in one else "left out" for one in (had, wanted))
                return f"{name} was {there}, asked for {here}" if there != here else f"{name} had other options"
    return before.describe_difference(asked)


def _survey(job: _Job) -> None:
    """Count what the result will hold."""
    for video_id in job.combined.manifest.videos:
        table = read_video_rows(job.combined, video_id, SURVEY_COLUMNS).table
        job.report.rows += table.num_rows
        job.report.failed += int(pc.sum(pc.not_equal(table["status"], "ok")).as_py() or 0)
        for name, payloads, size in _sizes(table):
            job.report.parts[name].payloads += payloads
            job.report.parts[name].bytes_before += size


def _sizes(table: pa.Table) -> list[tuple[str, int, int]]:
    """Return name, number of stored frames and payload bytes of each representation of some rows."""
    stored = table.filter(pc.is_valid(table["byte_size"]))
    counts = Counter(stored["representation"].to_pylist())
    first = stored.filter(pa.array(payload_numbers(stored) == np.arange(len(stored))))  # frames may share one
    grouped = first.group_by("representation").aggregate([("byte_size", "sum")])
    return [(row["representation"], counts[row["representation"]], row["byte_size_sum"]) for row in grouped.to_pylist()]


def _write(job: _Job, listener: ProgressListener, threads: int, memory_bytes: int) -> None:
    report = job.report
    listener.started({BYTES: report.bytes_before})
    writer = job.storage.writer()
    with thread_pool(threads, "vrekit-transcode") as pool:
        samples = SampleWriter(
            job.combined, job.changes, writer, job.storage, pool, threads=threads, memory_bytes=memory_bytes
        )
        for video_id in job.manifest.videos:
            samples.write(read_video_rows(job.combined, video_id), video_id, partial(listener.advanced, BYTES))
    writer.close()
    tally = samples.tally
    report.encoded, report.copied = tally.encoded, tally.copied
    for name, errors in tally.errors.items():
        report.parts[name].set_errors(errors)


def _finish(job: _Job, origin: Origin, listener: ProgressListener) -> None:
    """Take along what belongs to the dataset besides its samples, check all of it, and make it a dataset."""
    output = job.output
    copy_runs(output, job.combined)
    for record in read_runs(output, strict=True):
        write_run(output, _with_new_codecs(record, job.changes))
    copy_statistics(output, job.combined)
    listener.checking()
    _check_result(job)
    if job.source.has_changed():
        raise DatasetError(
            f"{job.source.folder} was written to while it was transcoded",
            hint=f"wait until that is over, delete {output} and start again",
        )
    with storage_errors(output):
        fsync_folder(output)
    write_card(job.storage)
    write_manifest(output, job.manifest)
    origin.finished().write(output)
    copy_trust(output, job.combined)


def _with_new_codecs(record: RunRecord, changes: Mapping[str, Change]) -> RunRecord:
    """Return a run whose request asks for the new codecs: else `vrekit resume` would find it in conflict."""
    request = dict(record.request)
    specs = Fields(request, f"the request of run {record.run_id}").list_of("representations", [])
    request["representations"] = [
        {**spec.raw(), "codec": changes[name].record.spec.codec}
        if (name := spec.text("name")) in changes and changes[name].recoder is not None
        else spec.raw()
        for spec in specs
    ]
    return replace(record, request=request)


def _check_result(job: _Job) -> None:
    rows = job.storage.rows(("status",)).num_rows
    if rows != job.report.rows:
        raise DatasetError(
            f"{job.output} has {rows} rows, expected {job.report.rows}",
            hint=f"please report this; delete {job.output} and try again",
        )
    check_payloads(job.storage)


def _count_result(job: _Job) -> None:
    read_manifest(job.output)
    table = job.storage.rows(SURVEY_COLUMNS)
    for name, _, size in _sizes(table):
        job.report.parts[name].bytes_after = size
