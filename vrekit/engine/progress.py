"""How an export tells what it is doing; the CLI draws it, a notebook may count it, the default stays silent."""

from collections.abc import Mapping


class ProgressListener:
    """Receives the events of one export, all from the thread that called it."""

    def started(self, totals: Mapping[str, int]) -> None:
        """Work begins; `totals` are the frames to store by representation name."""

    def advanced(self, name: str, *, stored: int, failed: int, stored_bytes: int) -> None:
        """Some more frames of one representation are written (or recovered from an interrupted run)."""

    def finished(self) -> None:
        """No more events come."""
