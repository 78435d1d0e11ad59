"""How an export tells what it is doing; the CLI draws it, a notebook may count it, the default stays silent."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace


class ProgressListener:
    """Receives the events of one export, all from the thread that called it."""

    def started(self, totals: Mapping[str, int]) -> None:
        """Work begins; `totals` are the frames to store by representation name."""

    def advanced(self, name: str, *, stored: int, failed: int, stored_bytes: int) -> None:
        """Some more frames of one representation are written (or recovered from an interrupted run)."""

    def finished(self) -> None:
        """No more events come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an export has come with one representation of one video.

    Attributes:
        video: Path of the video, as it was given.
        representation: Name.
        done: Frames that are stored or failed.
        total: Frames to store.
        failed: Frames that failed, part of `done`.
        stored_bytes: Bytes of the payloads written.
    """

    video: str
    representation: str
    done: int
    total: int
    failed: int
    stored_bytes: int


class CallbackListener(ProgressListener):
    """Calls a function with the `Progress` of one video after every step."""

    def __init__(self, video: str, callback: Callable[[Progress], object]) -> None:
        self._callback = callback
        self._video = video
        self._so_far: dict[str, Progress] = {}

    def started(self, totals: Mapping[str, int]) -> None:
        """See ProgressListener."""
        for name, total in totals.items():
            self._so_far[name] = Progress(
                video=self._video, representation=name, done=0, total=total, failed=0, stored_bytes=0
            )

    def advanced(self, name: str, *, stored: int, failed: int, stored_bytes: int) -> None:
        """See ProgressListener."""
        before = self._so_far[name]
        now = replace(
            before,
            done=before.done + stored + failed,
            failed=before.failed + failed,
            stored_bytes=before.stored_bytes + stored_bytes,
        )
        self._so_far[name] = now
        self._callback(now)
