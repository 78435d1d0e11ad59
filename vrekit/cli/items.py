"""`vrekit items`."""

from pathlib import Path
from typing import Annotated

import typer

from vrekit.cli.interrupts import goes_on
from vrekit.cli.output import command, human_seconds, wants_progress
from vrekit.cli.over_frames import finish, frames_bar
from vrekit.core.counting import counted


@command
def items(
    dataset: Annotated[Path, typer.Argument(help="Folder of the dataset.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Representations. Default: all but those with more than 32 columns."),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Decoding threads. Default: the CPUs.", min=1, max=1024)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON report to stdout.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No live display.")] = False,
) -> None:
    """List boxes, points, sensor values and captions, so that queries can select by them.

    They become the table `items`: one row for each box, point or caption, and one a frame of sensor values, with the
    columns of its representation. Frames that were listed before are left alone. Exit code 1 when some failed.

    Example:
        vrekit items out && vrekit query out "key IN (SELECT key FROM items WHERE label = 2 AND score > 0.5)"
    """
    from vrekit.catalog.dataset import open_dataset
    from vrekit.jobs.items import list_items

    with (
        goes_on(),
        open_dataset(dataset) as opened,
        frames_bar("listing", show=wants_progress(no_progress)) as progress,
    ):
        report = list_items(opened, names or (), threads=threads, progress=progress)
    counts = ", ".join(f"{count} of {name}" for name, count in report.items.items())
    read = counted(report.frames, "payload")
    before = f"; {counted(report.already, 'payload')} listed before" if report.already else ""
    summary = f"{read} read in {human_seconds(report.elapsed_seconds)}, items: {counts}{before}"
    finish(summary, report.failures, as_json=as_json, report=report.to_json())
