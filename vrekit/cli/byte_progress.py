"""The live display of something that copies bytes: one bar with rate and time left, on stderr."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from vrekit.core.reports import BYTES, ProgressListener


class ByteProgress(ProgressListener):
    """Draws to stderr; use as a context manager, so that the terminal is left as it was."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("reading metadata", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def started(self, totals: Mapping[str, int]) -> None:
        """See ProgressListener."""
        self._bar.update(self._task, description=self._doing, total=totals[BYTES])

    def advanced(self, name: str, done: int, failed: int = 0, stored_bytes: int = 0) -> None:
        """See ProgressListener."""
        self._bar.update(self._task, advance=done)

    def checking(self) -> None:
        """See ProgressListener."""
        self._bar.update(self._task, description="checking")
