"""Several videos into one dataset: one request for each, and one export after another."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from vrekit.catalog.manifest import LAYOUTS
from vrekit.catalog.storage_types import STORAGES
from vrekit.codecs.profiles import PROFILES
from vrekit.core.errors import LockedError, UsageError, VideoError
from vrekit.core.names import check_local, did_you_mean, video_id_from_path
from vrekit.engine.export import ExportReport
from vrekit.engine.request import ExportRequest

IMAGE_FORMATS = ("jpg", "png")
_LIMITS = {
    "batch_size": 1_000_000,
    "threads": 1024,
    "shard_frames": 1_000_000_000,
    "max_failures": 1 << 31,
}


def requests_for(videos: Sequence[str], request: ExportRequest) -> list[ExportRequest]:
    """Return a request for each video, checked, and equal to `request` but for `video`.

    Raises:
        UsageError: If an option cannot be right, or two videos would have the same name in the dataset.
    """
    if not videos:
        raise UsageError("no video is given", hint="give at least one video file or folder")
    if request.video_id is not None and len(videos) > 1:
        raise UsageError("--video-id names one video, but several are given", hint="export them one by one")
    _check_options(request)
    seen: dict[str, str] = {}
    for video in videos:
        check_local(video)
        name = request.video_id or video_id_from_path(video)
        if seen.setdefault(name, video) != video:
            raise UsageError(
                f"{seen[name]} and {video} would both be named {name!r}",
                hint="export them one by one, with --video-id",
            )
    return [replace(request, video=video) for video in videos]


def export_all(
    requests: Sequence[ExportRequest], run: Callable[[ExportRequest], ExportReport]
) -> tuple[list[ExportReport], list[LockedError | VideoError]]:
    """Return the reports of one export after another, and the errors of videos that could not be exported.

    A video that cannot be read, or that another process is at work on, does not keep the others from being exported.

    Args:
        requests: What to export.
        run: Exports one.
    """
    reports: list[ExportReport] = []
    errors: list[LockedError | VideoError] = []
    for request in requests:
        try:
            reports.append(run(request))
        except (LockedError, VideoError) as error:
            errors.append(error)
    return reports, errors


def _check_options(request: ExportRequest) -> None:
    for name, known in (
        ("writer", tuple(STORAGES)),
        ("layout", LAYOUTS),
        ("images", IMAGE_FORMATS),
        ("profile", PROFILES),
    ):
        value = getattr(request, name)
        if value is not None and value not in known:
            hint = f"it is one of {', '.join(known)}"
            raise UsageError(f"{name} is {value!r}{did_you_mean(str(value), known)}", hint=hint)
    for name, most in _LIMITS.items():
        value = getattr(request, name)
        if value is not None and not 1 <= value <= most:
            raise UsageError(f"{name} is {value}, expected 1 to {most}")
