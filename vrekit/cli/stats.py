"""`vrekit stats`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vrekit.cli.output import command, human_seconds, note, print_json, wants_progress

if TYPE_CHECKING:
    from vrekit.catalog.dataset import Dataset
    from vrekit.engine.stats import StatsReport

FAILURES_SHOWN = 20


@command
def stats(
    dataset: Annotated[Path, typer.Argument(help="Folder of the dataset.")],
    color: Annotated[
        str | None, typer.Option(help="RGB picture to measure luma, sharpness, motion and hash on. Default: the first.")
    ] = None,
    depth: Annotated[str | None, typer.Option(help="Depth to take the range of. Default: the first.")] = None,
    indices: Annotated[
        str | None, typer.Option(help="Class indices to take the histogram of. Default: the first.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Decoding threads. Default: the CPUs.", min=1)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON report to stdout.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No live display.")] = False,
) -> None:
    """Measure every frame, so that queries can select by it: luma, sharpness, motion, depth range, classes.

    The columns luma_mean, sharpness, motion, phash, depth_min, depth_max and class_histogram are stored beside the
    dataset and appear in `frames`. Frames that were measured before are left alone. Exit code 1 when some failed.

    Example:
        vrekit stats out && vrekit query out "luma_mean < 0.1 OR sharpness < 0.001"
    """
    from vrekit.catalog.dataset import open_dataset

    asked = {"color": color, "depth": depth, "indices": indices}
    sources = {kind: name for kind, name in asked.items() if name is not None}
    with open_dataset(dataset) as opened:
        report = _run(opened, sources, threads, wants_progress(no_progress))
    if as_json:
        print_json(report.to_json())
    else:
        measured_on = ", ".join(f"{name} ({kind})" for kind, name in report.sources.items())
        note(
            f"{report.measured} frames measured in {human_seconds(report.elapsed_seconds)} on {measured_on}"
            + (f"; {report.already} were measured before" if report.already else "")
        )
        for failure in report.failures[:FAILURES_SHOWN]:
            typer.echo(f"failed: {failure}")
    if report.failures:
        note(f"{len(report.failures)} payloads could not be measured")
        raise typer.Exit(1)


def _run(dataset: "Dataset", sources: dict[str, str], threads: int | None, show: bool) -> "StatsReport":
    from vrekit.engine.stats import StatsProgress, compute_statistics

    if not show:
        return compute_statistics(dataset, sources=sources, threads=threads)

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bars = Progress(
        TextColumn("measuring"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    task = bars.add_task("", total=None, rate="")

    class Drawn(StatsProgress):
        def started(self, frames: int) -> None:
            bars.update(task, total=frames)

        def advanced(self, frames: int) -> None:
            speed = bars.tasks[0].speed
            bars.update(task, advance=frames, rate=f"{speed:.0f} frames/s" if speed else "")

    with bars:
        return compute_statistics(dataset, sources=sources, threads=threads, progress=Drawn())
