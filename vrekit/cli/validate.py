"""`vrekit validate`."""

from pathlib import Path
from typing import Annotated

import typer

from vrekit.cli.output import command, human_bytes, human_seconds, note, print_json


@command
def validate(
    dataset: Annotated[Path, typer.Argument(help="Folder of the dataset.")],
    decode: Annotated[bool, typer.Option(help="Also decode every payload and check its dtype and shape.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check a dataset's metadata against its bytes: checksums, places, shapes, and what belongs to nobody.

    Exit code 1 when something is wrong.

    Example:
        vrekit validate out
    """
    from vrekit.catalog.validate import validate as run_validate

    report = run_validate(dataset, decode=decode)
    if as_json:
        print_json(report.to_json())
    else:
        for problem in report.problems:
            typer.echo(str(problem))
        note(
            f"{report.payloads} payloads, {human_bytes(report.payload_bytes)} checked in "
            f"{human_seconds(report.elapsed_seconds)}: "
            + (f"{len(report.problems)} problems" if report.problems else "all good")
        )
    if report.problems:
        raise typer.Exit(1)
