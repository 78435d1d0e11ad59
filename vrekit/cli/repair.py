"""`vrekit repair`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vrekit.cli.interrupts import goes_on
from vrekit.cli.output import command, human_bytes, human_seconds, note, print_json, say
from vrekit.core.counting import counted

if TYPE_CHECKING:
    from vrekit.catalog.payload_checks import Problem, ValidationReport
    from vrekit.jobs.repair_dataset import DatasetRepair

SHOWN = 20
_SHOWN_OF_FILE = 3


@command
def repair(
    dataset: Annotated[Path, typer.Argument(help="Folder of the dataset.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is wrong and would be done; do nothing.")
    ] = False,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Run code that the dataset records, and read files that its runs name.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Put a damaged dataset right: its dataset.json, run records, shards and Lance tables.

    A lost or damaged dataset.json is restored from its copy, dataset.json.bak, or if that is lost too, rebuilt from
    runs/*.json and the stored metadata. Then every payload is checked; what is damaged is moved to quarantine/, and
    `vrekit resume` computes it again. Exit code 1 when something is left.

    Rebuilding may have to read data files that runs/*.json name or, where an older vrekit wrote them, the videos. That
    needs --trust-code, because a stranger may name any file.

    Example:
        vrekit repair out --dry-run
    """
    run_repair(dataset, decode=True, dry_run=dry_run, as_json=as_json, trust_code=trust_code)


def run_repair(dataset: Path, *, decode: bool, dry_run: bool, as_json: bool, trust_code: bool = False) -> None:
    """Repair a dataset and print what was done; shared with `validate --repair`."""
    from vrekit.jobs.repair_dataset import repair_dataset

    with goes_on():
        done = repair_dataset(dataset, decode=decode, dry_run=dry_run, trust_code=trust_code)
    if as_json:
        print_json(done.to_json())
    else:
        _print(done, dataset, dry_run)
    problems = done.validation is not None and bool(done.validation.problems)
    if (
        (problems and done.repair is None)
        or (done.repair is not None and done.repair.left)
        or (dry_run and done.restored)
    ):
        raise typer.Exit(1)


def print_validation(report: "ValidationReport") -> None:
    """Print what a check found."""
    for line in _lines(report.problems):
        say(line)
    for warning in report.warnings:
        say(f"warning: {warning}")
    found = [
        counted(len(some), what) for some, what in ((report.problems, "problem"), (report.warnings, "warning")) if some
    ]
    note(
        f"{counted(report.payloads, 'payload')}, {human_bytes(report.payload_bytes)} checked in "
        f"{human_seconds(report.elapsed_seconds)}: {', '.join(found) or 'all good'}"
    )


def _lines(problems: "list[Problem]") -> Iterator[str]:
    """Yield a line for each problem; one for all of a file that are alike, when they are many."""
    alike: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        alike.setdefault((problem.code, problem.path), []).append(problem)
    for some in alike.values():
        places = sorted((one.video_id or "", one.frame_index) for one in some if one.frame_index is not None)
        if len(places) <= _SHOWN_OF_FILE:
            yield from map(str, some)
            continue
        (first_video, first), (last_video, last) = places[0], places[-1]
        about_file = next((one for one in some if one.frame_index is None), None)
        yield (
            f"{about_file or some[0]}; {len(places)} payloads are concerned, from {first_video} frame {first} "
            f"to {last_video} frame {last} (--json lists all)"
        )


def _print(done: "DatasetRepair", dataset: Path, dry_run: bool) -> None:
    for name in done.restored:
        if done.rebuilt and name == "dataset.json":
            note(f"{'would rebuild' if dry_run else 'rebuilt'} {name} from runs/ and the stored metadata")
        else:
            note(f"{'would restore' if dry_run else 'restored'} {name}")
    for line in done.left_out:
        note(f"not in dataset.json: {line}")
    for name in done.set_aside:
        note(f"{'would move' if dry_run else 'moved'} {name} to quarantine/: it is damaged")
    if done.validation is None:
        note(f"the rest can be checked when dataset.json is restored: `vrekit repair {dataset}`")
        return
    print_validation(done.validation)
    if done.repair is None:
        if dry_run and done.validation.problems:
            note(f"`vrekit repair {dataset}` moves what is damaged to quarantine/")
        return
    report = done.repair
    for line in dict.fromkeys(report.left):
        note(f"not repaired: {line}")
    if report.shards:
        kept = f"; what was damaged is in {dataset / report.quarantine}" if report.quarantine else ""
        note(f"{counted(len(report.shards), 'shard')} repaired{kept}")
    if report.quarantine is None:
        return
    for name in report.samples[:SHOWN]:
        note(f"taken out: {name}")
    if len(report.samples) > SHOWN:
        note(f"… and {len(report.samples) - SHOWN} more")
    note(f"`vrekit resume {dataset}` computes what is missing")
