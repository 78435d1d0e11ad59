"""`merge` and `convert`: from datasets to one dataset, resumable at any point. The sources are only ever read.

    OUTPUT/origin.json    written first: what is merged; without `dataset.json` beside it, the merge is unfinished
    OUTPUT/.merge.lock    held while a process works on it
    OUTPUT/shards, lance  shard by shard, each committed as an export commits it
    OUTPUT/dataset.json   written last, after every payload was read back and checked

So an interrupted merge is no dataset yet, and the same call goes on with it.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vrekit.catalog.card import write_card
from vrekit.catalog.manifest import MANIFEST_NAME, read_manifest, write_manifest
from vrekit.catalog.payload_checks import PayloadChecker, ValidationReport
from vrekit.catalog.samples import SHARDS_FOLDER, read_progress, read_samples
from vrekit.catalog.validate import check_shards
from vrekit.catalog.validate_lance import check_tables
from vrekit.core.counting import counted
from vrekit.core.errors import ChecksumError, ConflictError, DatasetError, UsageError
from vrekit.core.files import fsync_folder, storage_errors
from vrekit.core.locks import OwnedFile
from vrekit.engine.merge.extras import copy_runs, copy_statistics, copy_trust
from vrekit.engine.merge.lance_target import copy_fragments, finish_tables
from vrekit.engine.merge.manifests import Combined, Conflict, Layout, OnConflict, combine
from vrekit.engine.merge.origin import LOCK_NAME, Origin, is_untouched, read_origin
from vrekit.engine.merge.packing import member_sizes, pack
from vrekit.engine.merge.report import MergeListener, MergeReport
from vrekit.engine.merge.rows import SURVEY_COLUMNS, VideoRows, read_video_rows
from vrekit.engine.merge.samples import write_samples
from vrekit.engine.merge.sources import open_sources
from vrekit.engine.merge.tar_copy import commit_shards
from vrekit.engine.merge.tar_target import TEMPORARY_SUFFIX, NewShard, new_shard
from vrekit.writers.opener import open_writer

_MAX_CONFLICTS_SHOWN = 20
_KEPT_ROWS = 500_000  # in memory from the first look at them, about 150 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """One merge under way."""

    output: Path
    combined: Combined
    link: bool
    sync: bool
    listener: MergeListener
    report: MergeReport
    survey: "_Survey"


@dataclass(slots=True)
class _Survey:
    """What the first look at all rows found, besides what is reported.

    Attributes:
        total_bytes: Bytes to copy, headers of tars included.
        left_out: Rows of the sources that are not part of the result; for Lance only.
        rows: The rows of the first videos, so that small datasets are read once.
    """

    total_bytes: int = 0
    left_out: set[tuple[int, str, int, str]] = field(default_factory=set)
    rows: dict[str, VideoRows] = field(default_factory=dict)


def merge(
    sources: Sequence[Path],
    output: Path,
    *,
    layout: Layout | None = None,
    on_conflict: OnConflict = "error",
    link: bool = False,
    sync: bool = True,
    dry_run: bool = False,
    listener: MergeListener | None = None,
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
    started = time.perf_counter()
    if not sources:
        raise UsageError("there is nothing to merge", hint="vrekit merge A B -o OUT")
    layout = layout or Layout()
    opened = open_sources(sources, output)
    if layout.join and (layout.writer or opened[0].manifest.writer) == "lance":
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
    if not report.was_finished:
        survey = _survey(combined, report)
        if report.conflicts and on_conflict == "error" and not dry_run:
            raise _conflict_error(report.conflicts)
        if not dry_run:
            with storage_errors(output):
                output.mkdir(parents=True, exist_ok=True)
            lock = OwnedFile(output / LOCK_NAME, str(output))
            try:
                origin.write(output)
                work = _Work(
                    output=output,
                    combined=combined,
                    link=link,
                    sync=sync,
                    listener=listener or MergeListener(),
                    report=report,
                    survey=survey,
                )
                _copy(work)
                _finish(work, origin)
            finally:
                lock.release()
    report.elapsed_seconds = time.perf_counter() - started
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


def _survey(combined: Combined, report: MergeReport) -> _Survey:
    """Count what will be done and find all conflicts."""
    survey = _Survey()
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
        if combined.is_tar_to_tar:
            survey.total_bytes += int(member_sizes(rows).sum())
        else:
            survey.total_bytes += rows.payload_bytes
        if combined.manifest.writer == "lance":
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


def _copy(work: _Work) -> None:
    combined, report = work.combined, work.report
    work.listener.started(work.survey.total_bytes)
    if combined.is_tar_to_tar:
        tars = commit_shards(_new_shards(work), work.listener.advanced, link=work.link, sync=work.sync)
        report.shards += tars.written
        report.kept_whole += tars.kept_whole
        report.already += tars.already
    else:
        if combined.manifest.writer == "lance":
            copied = copy_fragments(work.output, combined, work.survey.left_out, work.listener.advanced)
            report.shards += copied
            report.kept_whole += copied
        writer = open_writer(work.output, combined.manifest)
        for video_id in combined.manifest.videos:
            writer.sweep(video_id)
            done = read_progress(work.output, video_id)
            rows = work.survey.rows.pop(video_id, None) or read_video_rows(combined, video_id)
            write_samples(rows, video_id, combined, writer, done, work.listener.advanced)


def _new_shards(work: _Work) -> Iterator[NewShard]:
    manifest = work.combined.manifest
    for video_id in manifest.videos:
        rows = work.survey.rows.pop(video_id, None) or read_video_rows(work.combined, video_id)
        folder = work.output / SHARDS_FOLDER / video_id
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        for shard in pack(
            rows, video_id, shard_frames=manifest.shard_frames, shard_size_bytes=manifest.shard_size_bytes
        ):
            yield new_shard(work.output, work.combined, rows, shard)


def _finish(work: _Work, origin: Origin) -> None:
    """Check the result as a whole, and make it a dataset."""
    output, combined = work.output, work.combined
    if combined.manifest.writer == "lance":
        run_ids = sorted(copy_runs(output, combined))
        finish_tables(output, combined, run_ids)
    else:
        copy_runs(output, combined)
    copy_statistics(output, combined)
    work.listener.checking()
    _check_result(work)
    changed = [str(source.folder) for source in combined.order if source.has_changed()]
    if changed:
        raise DatasetError(
            f"{', '.join(changed)} was written to while it was merged",
            hint=f"wait until that is over, delete {output} and merge again",
        )
    for pattern in (".*", "*/.*", f"{SHARDS_FOLDER}/*/.*"):
        for path in output.glob(pattern):
            if path.name.endswith((TEMPORARY_SUFFIX, ".tmp")):  # of calls that were killed
                path.unlink()
    with storage_errors(output):
        fsync_folder(output)
    write_card(output, combined.manifest)
    write_manifest(output, combined.manifest)
    origin.finished().write(output)
    copy_trust(output, combined)


def _check_result(work: _Work) -> None:
    """Count the rows of the result; read back the payloads that were not read back when they were copied."""
    output, combined = work.output, work.combined
    rows = read_samples(output, columns=("status",)).num_rows
    if rows != work.report.rows:
        raise DatasetError(
            f"{output} has {rows} rows after the merge, expected {work.report.rows}",
            hint=f"please report this; delete {output} and try again",
        )
    report = ValidationReport()
    checker = PayloadChecker(combined.manifest, report, decode=False)
    if combined.manifest.writer == "lance":
        check_tables(output, checker)
    elif not combined.is_tar_to_tar:
        check_shards(output, checker)
    if report.problems:
        listed = "\n".join(str(problem) for problem in report.problems[:_MAX_CONFLICTS_SHOWN])
        raise ChecksumError(f"{output} is not what was to be written:\n{listed}")
