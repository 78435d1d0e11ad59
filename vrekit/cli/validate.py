"""`vrekit validate`."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vrekit.cli.interrupts import goes_on
from vrekit.cli.output import command, human_bytes, human_seconds, note, print_json

if TYPE_CHECKING:
    from vrekit.engine.repair import RepairReport

SHOWN = 20


@command
def validate(
    dataset: Annotated[Path, typer.Argument(help="Folder of the dataset.")],
    decode: Annotated[
        bool, typer.Option(help="Also decode every payload and check its dtype, shape, range and NaN.")
    ] = True,
    repair: Annotated[
        bool, typer.Option("--repair", help="Move damaged samples to quarantine/, so that resume computes them again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check a dataset's metadata against its bytes: checksums, places, shapes, and what belongs to nobody.

    Values that do not fit the manifest, gaps between representations and odd timestamps are warnings. Exit code 1 when
    something is wrong, or with --repair, when something is left that could not be repaired.

    Example:
        vrekit validate out
    """
    from vrekit.catalog.validate import validate as run_validate
    from vrekit.engine.repair import repair as run_repair

    with goes_on() if repair else nullcontext():
        report = run_validate(dataset, decode=decode)
        repaired = run_repair(dataset, report.problems) if repair and report.problems else None
    if as_json:
        print_json(report.to_json() | ({} if repaired is None else {"repair": repaired.to_json()}))
    else:
        for problem in report.problems:
            typer.echo(str(problem))
        for warning in report.warnings:
            typer.echo(f"warning: {warning}")
        found = [
            f"{len(some)} {what}"
            for some, what in ((report.problems, "problems"), (report.warnings, "warnings"))
            if some
        ]
        note(
            f"{report.payloads} payloads, {human_bytes(report.payload_bytes)} checked in "
            f"{human_seconds(report.elapsed_seconds)}: {', '.join(found) or 'all good'}"
        )
        if repaired is not None:
            _print_repair(repaired, dataset)
    if (report.problems and repaired is None) or (repaired is not None and repaired.left):
        raise typer.Exit(1)


def _print_repair(report: "RepairReport", dataset: Path) -> None:
    for line in report.left:
        note(f"not repaired: {line}")
    if report.shards:
        kept = f"; what was damaged is in {dataset / report.quarantine}" if report.quarantine else ""
        note(f"{len(report.shards)} shards repaired{kept}")
    if report.quarantine is None:
        return
    for name in report.samples[:SHOWN]:
        note(f"taken out: {name}")
    if len(report.samples) > SHOWN:
        note(f"… and {len(report.samples) - SHOWN} more")
    note(f"`vrekit resume {dataset}` computes what is missing")
