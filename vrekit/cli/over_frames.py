"""What commands that go through stored frames show: a live display, and how it ended."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from vrekit.cli.output import note, print_json, say
from vrekit.core.counting import counted

if TYPE_CHECKING:
    from vrekit.core.reports import FRAMES, ProgressListener

_FAILURES_SHOWN = 20


@contextmanager
def frames_bar(label: str, *, show: bool) -> Iterator["ProgressListener"]:
    """Show a bar with rate and remaining time while the block runs; give what is to be told about the progress."""
    from vrekit.core.reports import ProgressListener

    if not show:
        yield ProgressListener()
        return

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bars = Progress(
        TextColumn(label),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    task = bars.add_task("", total=None, rate="")

    class Drawn(ProgressListener):
        def started(self, totals: Mapping[str, int]) -> None:
            bars.update(task, total=totals[FRAMES])

        def advanced(self, name: str, done: int, failed: int = 0, stored_bytes: int = 0) -> None:
            speed = bars.tasks[0].speed
            bars.update(task, advance=done, rate=f"{speed:.0f} frames/s" if speed else "")

    with bars:
        yield Drawn()


def finish(summary: str, failures: Sequence[str], *, as_json: bool, report: Mapping[str, Any]) -> None:
    """Print the report as JSON, or the summary and the first failures; exit with 1 when there are any."""
    if as_json:
        print_json(report)
    else:
        note(summary)
        for failure in failures[:_FAILURES_SHOWN]:
            say(f"failed: {failure}")
    if failures:
        note(f"{counted(len(failures), 'payload')} could not be read")
        raise typer.Exit(1)
