"""`vrekit stats`."""

from pathlib import Path
from typing import Annotated

import typer

from vrekit.cli.interrupts import goes_on
from vrekit.cli.output import command, human_seconds, wants_progress
from vrekit.cli.over_frames import finish, frames_bar
from vrekit.core.counting import counted


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
    threads: Annotated[int | None, typer.Option(help="Decoding threads. Default: the CPUs.", min=1, max=1024)] = None,
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
    from vrekit.jobs.stats import compute_statistics

    asked = {"color": color, "depth": depth, "indices": indices}
    sources = {kind: name for kind, name in asked.items() if name is not None}
    with (
        goes_on(),
        open_dataset(dataset) as opened,
        frames_bar("measuring", show=wants_progress(no_progress)) as progress,
    ):
        report = compute_statistics(opened, sources=sources, threads=threads, progress=progress)
    measured_on = ", ".join(f"{name} ({kind})" for kind, name in report.sources.items())
    measured = counted(report.measured, "frame")
    before = f"; {report.already} were measured before" if report.already else ""
    summary = f"{measured} measured in {human_seconds(report.elapsed_seconds)} on {measured_on}{before}"
    finish(summary, report.failures, as_json=as_json, report=report.to_json())
