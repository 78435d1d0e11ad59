"""`vrekit merge`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vrekit.cli.interrupts import goes_on
from vrekit.cli.output import command, human_bytes, human_seconds, note, print_json, wants_progress
from vrekit.core.counting import counted
from vrekit.core.units import parse_bytes

if TYPE_CHECKING:
    from vrekit.jobs.merge.report import MergeReport


class OnConflict(StrEnum):
    """What counts where sources disagree."""

    ERROR = "error"
    FIRST = "first"
    LAST = "last"


class Storage(StrEnum):
    """Storage formats."""

    WEBDATASET = "webdataset"
    LANCE = "lance"


@command(reads=["sources"])
def merge(
    sources: Annotated[list[Path], typer.Argument(help="Folders or URLs of the datasets.", metavar="DATASET...")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the result, e.g. all. New or empty.")],
    on_conflict: Annotated[
        OnConflict, typer.Option(help="Where sources disagree: stop, or take the first or last one's.")
    ] = OnConflict.ERROR,
    join: Annotated[
        bool, typer.Option("--join", help="Put all representations of a frame into one sample of one shard.")
    ] = False,
    shard_size: Annotated[
        str | None, typer.Option(help="Close a shard at this size, e.g. 512MB. Default: the sources' largest.")
    ] = None,
    shard_frames: Annotated[
        int | None,
        typer.Option(
            help="Close a shard at this many frame numbers, e.g. 4096. Default: the sources' largest.",
            min=1,
            max=1_000_000_000,
        ),
    ] = None,
    writer: Annotated[Storage | None, typer.Option(help="Storage format. Default: the first source's.")] = None,
    link: Annotated[
        bool, typer.Option("--link", help="Hard-link tars that can be kept whole; they then share their bytes.")
    ] = False,
    sync: Annotated[
        bool, typer.Option(help="Wait until the disk has every byte. Faster without, but not safe from a power cut.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON report to stdout.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No live display.")] = False,
) -> None:
    """Make one dataset of several: of other machines, other videos, other representations of the same videos.

    Payloads are copied byte for byte and checked; the sources are only read. The same command again goes on after an
    interruption.

    Example:
        vrekit merge machine-a machine-b -o all
    """
    from vrekit.jobs.merge.manifests import Layout

    layout = Layout(
        writer=writer.value if writer else None,
        shard_frames=shard_frames,
        shard_size_bytes=parse_bytes(shard_size, "--shard-size") if shard_size else None,
        join=join,
    )
    run_merge(
        sources,
        output,
        layout=layout,
        on_conflict=on_conflict.value,
        link=link,
        sync=sync,
        dry_run=dry_run,
        as_json=as_json,
        no_progress=no_progress,
    )


def run_merge(sources: list[Path], output: Path, *, as_json: bool, no_progress: bool, **options: Any) -> None:
    """Merge with a live display where it makes sense, and print the report; exit 1 when a dry run finds conflicts."""
    from vrekit.jobs.merge.run import merge as do_merge

    with goes_on(), byte_listener(no_progress) as listener:
        report = do_merge(sources, output, listener=listener, **options)
    if as_json:
        print_json(report.to_json())
    else:
        _print_report(report, dry_run=bool(options.get("dry_run")))
    if report.conflicts and options.get("dry_run") and options.get("on_conflict") == "error":
        raise typer.Exit(1)


def byte_listener(no_progress: bool, doing: str = "copying") -> Any:
    """Return a context that gives a ProgressListener: a live display where it makes sense.

    Args:
        no_progress: Nobody wants to see it.
        doing: What is done with the bytes.
    """
    from contextlib import nullcontext

    from vrekit.core.reports import ProgressListener

    if not wants_progress(no_progress):
        return nullcontext(ProgressListener())
    from vrekit.cli.byte_progress import ByteProgress

    return ByteProgress(doing)


def _print_report(report: "MergeReport", *, dry_run: bool) -> None:
    for line in report.unfinished:
        note(f"warning: {line} of an interrupted export not copied (`vrekit resume` finishes what is open)")
    for line in report.renamed:
        note(f"same video under another name: {line}")
    for conflict in report.conflicts:
        for number, line in enumerate(conflict.message.splitlines()):
            note(f"conflict: {line}" if number == 0 else f"          {line}")
    if report.was_finished:
        note(f"{report.output} is finished already: nothing to do")
        return
    left_out = [
        text
        for count, text in (
            (report.duplicates, f"{counted(report.duplicates, 'row')} stored twice"),
            (report.superseded, counted(report.superseded, "outdated row")),
        )
        if count
    ]
    what = f"{counted(report.videos, 'video')}, {counted(report.rows, 'row')}, {human_bytes(report.payload_bytes)}"
    note(f"{'would copy' if dry_run else 'copied and checked'} {what} → {report.output} ({report.writer})")
    if left_out:
        note(f"left out: {', '.join(left_out)}")
    if not dry_run:
        seconds = report.elapsed_seconds
        parts = [f"{human_seconds(seconds)}, {human_bytes(report.payload_bytes / max(seconds, 1e-9))}/s"]
        if report.already:
            parts.insert(0, f"{counted(report.already, 'shard')} done before")
        if report.shards:
            parts.insert(0, f"{counted(report.shards, 'shard')} written, {report.kept_whole} of them unchanged")
        note("; ".join(parts))
