"""`vrekit validate`."""

from pathlib import Path
from typing import Annotated

import typer

from vrekit.cli.output import command, print_json
from vrekit.cli.repair import print_validation, run_repair


@command(reads=["dataset"])
def validate(
    dataset: Annotated[Path, typer.Argument(help="Folder or URL of the dataset.")],
    decode: Annotated[
        bool, typer.Option(help="Also decode every payload and check its dtype, shape, range and NaN.")
    ] = True,
    repair: Annotated[
        bool, typer.Option("--repair", help="Move damaged samples to quarantine/, so that resume computes them again.")
    ] = False,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="With --repair: run code that the dataset records, as `vrekit repair`.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check a dataset's metadata against its bytes: checksums, places, shapes, and what belongs to nobody.

    Values that do not fit the manifest, gaps between representations and odd timestamps are warnings. Exit code 1 when
    something is wrong, or with --repair, when something is left that could not be repaired.

    Example:
        vrekit validate out
    """
    from vrekit.jobs.validate import validate as run_validate

    if repair:
        run_repair(dataset, decode=decode, dry_run=False, as_json=as_json, trust_code=trust_code)
        return
    report = run_validate(dataset, decode=decode)
    if as_json:
        print_json(report.to_json())
    else:
        print_validation(report)
    if report.problems:
        raise typer.Exit(1)
