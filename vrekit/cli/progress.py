"""The live display of an export: one bar a representation, with rate, bytes and time left."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from vrekit.cli.output import human_bytes
from vrekit.core.reports import ProgressListener


class ProgressBars(ProgressListener):
    """Draws to stderr; use as a context manager, so that the terminal is left as it was."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[size]}"),
            TimeRemainingColumn(),
            TextColumn("[red]{task.fields[failed]}"),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}
        self._bytes: dict[str, int] = {}
        self._failed: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def started(self, totals: Mapping[str, int]) -> None:
        """See ProgressListener."""
        for name, total in totals.items():
            shown = name.replace("[", "\\[")
            self._tasks[name] = self._bars.add_task(shown, total=total, rate="", size="", failed="")
            self._bytes[name] = self._failed[name] = 0

    def advanced(self, name: str, done: int, failed: int = 0, stored_bytes: int = 0) -> None:
        """See ProgressListener."""
        task = self._tasks[name]
        self._bytes[name] += stored_bytes
        self._failed[name] += failed
        speed = self._bars.tasks[self._bars.task_ids.index(task)].speed
        self._bars.update(
            task,
            advance=done + failed,
            rate=f"{speed:.1f} frames/s" if speed else "",
            size=human_bytes(self._bytes[name]),
            failed=f"{self._failed[name]} failed" if self._failed[name] else "",
        )
