"""`vrekit gc`."""

from pathlib import Path
from typing import Annotated

import typer

from vrekit.cli.interrupts import goes_on
from vrekit.cli.output import command, human_bytes, note, print_json, say
from vrekit.core.counting import counted


@command
def gc(
    dataset: Annotated[Path, typer.Argument(help="Folder of the dataset.")],
    older_than: Annotated[
        float, typer.Option(help="Hours after which an interrupted export that nobody resumed is given up.", min=0)
    ] = 24.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed; remove nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Remove the leftovers of a dataset: uncommitted tars, given-up shards, superseded rows, stale indexes.

    What a living process is writing is left alone. Readers that have the dataset open must be opened again.

    Example:
        vrekit gc out --dry-run
    """
    from datetime import timedelta

    from vrekit.jobs.gc import collect_garbage

    with goes_on():
        report = collect_garbage(dataset, older_than=timedelta(hours=older_than), dry_run=dry_run)
    if as_json:
        print_json(report.to_json())
        return
    for entry in report.removed:
        say(f"{entry['path']}: {entry['why']}, {human_bytes(entry['bytes'])}")
    for kept in report.kept:
        note(f"kept {kept['path']}: {kept['why']}")
    verb = "would free" if dry_run else "freed"
    note(f"{verb} {human_bytes(report.freed_bytes)} in {counted(len(report.removed), 'place')}")
