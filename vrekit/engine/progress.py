"""The progress of an export as values, for programs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from vrekit.core.reports import ProgressListener


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

    def advanced(self, name: str, done: int, failed: int = 0, stored_bytes: int = 0) -> None:
        """See ProgressListener."""
        before = self._so_far[name]
        now = replace(
            before,
            done=before.done + done + failed,
            failed=before.failed + failed,
            stored_bytes=before.stored_bytes + stored_bytes,
        )
        self._so_far[name] = now
        self._callback(now)
