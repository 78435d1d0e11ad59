"""`merge` and `convert`: from datasets to one dataset, resumable at any point. The sources are only ever read.

    OUTPUT/origin.json    written first: what is merged; without `dataset.json` beside it, the merge is unfinished
    OUTPUT/.merge.lock    held while a process works on it
    OUTPUT/shards, lance  shard by shard, each committed as an export commits it
    OUTPUT/dataset.json   written last, after every payload was read back and checked

So an interrupted merge is no dataset yet, and the same call goes on with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from vrekit.catalog.card import write_card
from vrekit.catalog.manifest import MANIFEST_NAME, read_manifest, write_manifest
from vrekit.catalog.storage import CopyPlan, Storage, open_storage, storage_type
from vrekit.core.counting import counted
from vrekit.core.errors import ConflictError, DatasetError, UsageError
from vrekit.core.files import fsync_folder, storage_errors
from vrekit.core.locks import OwnedFile
from vrekit.core.reports import BYTES, ProgressListener, timed
from vrekit.jobs.copying import check_payloads, write_samples
from vrekit.jobs.merge.extras import copy_runs, copy_statistics, copy_trust
from vrekit.jobs.merge.manifests import Combined, Conflict, Layout, OnConflict, combine
from vrekit.jobs.merge.origin import LOCK_NAME, Origin, is_untouched, read_origin
from vrekit.jobs.merge.report import MergeReport
from vrekit.jobs.merge.rows import SURVEY_COLUMNS, VideoRows, read_video_rows
from vrekit.jobs.merge.sources import open_sources

_MAX_CONFLICTS_SHOWN = 20
_KEPT_ROWS = 500_000  # in memory from the first look at them, about 150 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """One merge under way."""

    storage: Storage
    combined: Combined
    link: bool
    sync: bool
    listener: ProgressListener
    report: MergeReport
    survey: "_Survey"


@dataclass(slots=True)
class _Survey:
    """What the first look at all rows found, besides what is reported.

    Attributes:
        total_bytes: Bytes to copy, headers of tars included.
        left_out: Rows of the sources that are not part of the result, where the storage asks for them.
        rows: The rows of the first videos, so that small datasets are read once.
    """

    total_bytes: int = 0
    left_out: set[tuple[int, str, int, str]] = field(default_factory=set)
    rows: dict[str, VideoRows] = field(default_factory=dict)


@timed
def merge(
    sources: Sequence[str | Path],
    output: str | Path,
    *,
    layout: Layout | None = None,
    on_conflict: OnConflict = "error",
    link: bool = False,
    sync: bool = True,
    dry_run: bool = False,
    listener: ProgressListener | None = None,
) -> MergeReport:
    """Make one dataset of several: payloads are copied byte for byte and checked, nothing is encoded again.

    The same call again goes on after an interruption, and does nothing when all is done.

    Args:
        sources: Folders of the datasets.
        output: Folder of the result: new, empty, or of an interrupted merge of the same sources.
        layout: What the result is to look like.
        on_conflict: What counts where sources disagree about a frame, a representation or a video: `error` stops
            before anything is written, `first` and `last` take that source's.
        link: Use hard links for tars that can be kept whole; the result then shares their bytes with the sources.
        sync: Wait until the disk has every byte, as an export does. Without, a power cut soon after the end can cost
            the result (a killed process cannot); only tars that are copied from tars are written so.
        dry_run: Only say what would be done.
        listener: Told about the progress, from this thread.

    Raises:
        UsageError: If the output holds something else, or an option does not fit.
        ConflictError: If the sources disagree and `on_conflict` is `error`; the message lists where.
        DatasetError: If a source is damaged or was written to meanwhile.
        ChecksumError: If a payload does not have its checksum.
    """
    if not sources:
        raise UsageError("there is nothing to merge", hint="vrekit merge A B -o OUT")
    layout = layout or Layout()
    output = Path(output)
    opened = open_sources([Path(source) for source in sources], output)
    if layout.join and storage_type(layout.writer or opened[0].manifest.writer).holds_runs_apart:
        raise UsageError(
            "a row of a Lance table holds the representations of one run, so layers cannot be joined there",
            hint="leave --join away: readers join layers by frame",
        )
    combined = combine(opened, layout, on_conflict)
    report = MergeReport(
        output=output,
        sources=[source.folder for source in opened],
        writer=combined.manifest.writer,
        videos=len(combined.manifest.videos),
        renamed=[f"{source.folder}: {old} → {new}" for source, old, new in combined.renamed],
        unfinished=[
            f"{source.folder}: {counted(cells, 'cell')}" for source in opened if (cells := source.open_cells())
        ],
    )
    origin = Origin.of(opened, layout, on_conflict)
    before = read_origin(output)
    if (output / MANIFEST_NAME).exists():
        unfinished = _check_finished(output, before, origin)
        if unfinished is not None and not dry_run:  # killed between its last two steps
            unfinished.finished().write(output)
            (output / LOCK_NAME).unlink(missing_ok=True)
        report.was_finished = True
    elif not dry_run:
        _check_target(output, before, origin)
    storage = open_storage(output, combined.manifest)
    if not report.was_finished:
        survey = _survey(storage, combined, report)
        if report.conflicts and on_conflict == "error" and not dry_run:
            raise _conflict_error(report.conflicts)
        if not dry_run:
            with storage_errors(output):
                output.mkdir(parents=True, exist_ok=True)
            lock = OwnedFile(output / LOCK_NAME, str(output))
            try:
                origin.write(output)
                work = _Work(
                    storage=storage,
                    combined=combined,
                    link=link,
                    sync=sync,
                    listener=listener or ProgressListener(),
                    report=report,
                    survey=survey,
                )
                _finish(work, origin, was_checked=_copy(work))
            finally:
                lock.release()
    return report


def _check_finished(output: Path, before: Origin | None, origin: Origin) -> Origin | None:
    """Return the origin of a finished merge if that does not say yet that it is finished."""
    if before is None or not before.is_same(origin):
        raise UsageError(
            f"{output} is a dataset already", hint="choose a new folder with -o; to add to a dataset, merge it too"
        )
    read_manifest(output)
    return before if before.finished_at is None else None


def _check_target(output: Path, before: Origin | None, origin: Origin) -> None:
    if is_untouched(output):
        return
    if before is None:
        raise UsageError(f"{output} is not empty", hint="choose a new folder with -o")
    if not before.is_same(origin):
        raise UsageError(
            f"{output} holds an unfinished merge of something else: {before.describe_difference(origin)}",
            hint=f"delete {output} and start again, or choose another folder with -o",
        )


def _survey(storage: Storage, combined: Combined, report: MergeReport) -> _Survey:
    """Count what will be done and find all conflicts."""
    survey = _Survey()
    sources = [source.storage for source in combined.order]
    report.conflicts = list(combined.conflicts)
    for video_id in combined.manifest.videos:
        keep = report.rows < _KEPT_ROWS
        rows = read_video_rows(combined, video_id, None if keep else SURVEY_COLUMNS)
        if keep:
            survey.rows[video_id] = rows
        report.rows += rows.table.num_rows
        report.payload_bytes += rows.payload_bytes
        report.duplicates += rows.duplicates
        report.superseded += rows.superseded
        report.conflicts += rows.conflicts
        survey.total_bytes += storage.copied_bytes(rows, sources)
        if storage.copies_whole_parts:
            columns = (column.to_pylist() for column in rows.left_out.columns)
            survey.left_out.update(zip(*columns, strict=True))
    return survey


def _conflict_error(conflicts: Sequence[Conflict]) -> ConflictError:
    lines = [conflict.message for conflict in conflicts[:_MAX_CONFLICTS_SHOWN]]
    if len(conflicts) > len(lines):
        lines.append(f"… and {len(conflicts) - len(lines)} more (--dry-run --json lists all)")
    hints = [conflict.hint for conflict in conflicts if conflict.hint is not None][:1]
    hints.append("--on-conflict first (or last) takes that source's; what the others have of it is left out")
    return ConflictError(
        f"the sources disagree in {counted(len(conflicts), 'point')}:\n" + "\n".join(lines),
        hint="; ".join(hints),
    )


def _copy(work: _Work) -> bool:
    """Copy everything, and return whether it was read back."""
    combined, report, advance = work.combined, work.report, partial(work.listener.advanced, BYTES)
    work.listener.started({BYTES: work.survey.total_bytes})

    def rows_of(video_id: str) -> VideoRows:
        return work.survey.rows.pop(video_id, None) or read_video_rows(combined, video_id)

    plan = CopyPlan(
        sources=combined.copy_sources,
        rows=rows_of,
        left_out=work.survey.left_out,
        link=work.link,
        sync=work.sync,
        advance=advance,
    )
    copied = work.storage.copy_from(plan)
    report.shards += copied.shards
    report.kept_whole += copied.kept_whole
    report.already += copied.already
    if not copied.is_complete:
        from_sources = {source.number: source.storage for source in combined.order}
        writer = work.storage.writer()
        for video_id in combined.manifest.videos:
            write_samples(rows_of(video_id), video_id, from_sources, work.storage, writer, advance)
    return copied.is_complete


def _finish(work: _Work, origin: Origin, *, was_checked: bool) -> None:
    """Check the result as a whole, and make it a dataset."""
    storage, combined, output = work.storage, work.combined, work.storage.folder
    storage.finish(sorted(copy_runs(output, combined)))
    copy_statistics(output, combined)
    work.listener.checking()
    _check_result(work, was_checked=was_checked)
    changed = [str(source.folder) for source in combined.order if source.has_changed()]
    if changed:
        raise DatasetError(
            f"{', '.join(changed)} was written to while it was merged",
            hint=f"wait until that is over, delete {output} and merge again",
        )
    for path in (*output.glob(".*"), *output.glob("*/.*")):
        if path.name.endswith(".tmp"):  # of calls that were killed
            path.unlink()
    with storage_errors(output):
        fsync_folder(output)
    write_card(storage)
    write_manifest(output, combined.manifest)
    origin.finished().write(output)
    copy_trust(output, combined)


def _check_result(work: _Work, *, was_checked: bool) -> None:
    """Count the rows of the result; read back the payloads that were not read back when they were copied."""
    storage = work.storage
    rows = storage.rows(("status",)).num_rows
    if rows != work.report.rows:
        raise DatasetError(
            f"{storage.folder} has {rows} rows after the merge, expected {work.report.rows}",
            hint=f"please report this; delete {storage.folder} and try again",
        )
    if not was_checked:
        check_payloads(storage)
