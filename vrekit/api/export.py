"""`vrekit.export`: what `vrekit export` does, with its options as keywords."""

import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from vrekit.catalog.remote import dataset_folder
from vrekit.config.loader import ExportConfig, config_from
from vrekit.core.errors import UsageError
from vrekit.core.units import parse_bytes, parse_memory
from vrekit.engine.estimate import Estimate, estimate
from vrekit.engine.export import ExportReport
from vrekit.engine.export import export as export_one
from vrekit.engine.progress import CallbackListener, Progress
from vrekit.engine.request import ExportRequest
from vrekit.engine.videos import export_all, requests_for
from vrekit.video.selection import FrameRange, FrameSelection, parse_frames

PathLike: TypeAlias = str | os.PathLike[str]
Config: TypeAlias = ExportConfig | str | Path | Mapping[str, Any]
Frames: TypeAlias = str | int | range | Iterable[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSummary:
    """What `vrekit.export` did.

    Attributes:
        dataset: Folder of the dataset.
        videos: One report for each video: frames, run, what was stored before, failures, times.
        estimates: What each video would cost; only with `dry_run`.
    """

    dataset: Path
    videos: tuple[ExportReport, ...] = ()
    estimates: tuple[Estimate, ...] = ()

    def __repr__(self) -> str:
        frames = sum(one.frames for one in self.videos) + sum(one.frames for one in self.estimates)
        done = f"{self.computed} results computed, {self.failed} failed"
        return f"ExportSummary({str(self.dataset)!r}: {frames} frames; {'dry run' if self.estimates else done})"

    @property
    def computed(self) -> int:
        """Results (frames × representations) that were computed and stored now."""
        return sum(report.computed_frames for report in self.videos)

    @property
    def failed(self) -> int:
        """Results that failed, now or in an earlier run; `vrekit.resume` tries them again."""
        return sum(report.failed_frames + sum(report.failed_before.values()) for report in self.videos)


def export(
    videos: PathLike | Sequence[PathLike],
    out: PathLike,
    config: Config = "quickstart",
    *,
    representations: Sequence[str] = (),
    frames: Frames | None = None,
    every: int | None = None,
    fps: float | None = None,
    images: Literal["jpg", "png"] | None = None,
    video_id: str | None = None,
    stream: int | None = None,
    source_fps: float | None = None,
    writer: Literal["webdataset", "lance"] | None = None,
    layout: Literal["sample", "representation"] | None = None,
    shard_size: int | str | None = None,
    shard_frames: int | None = None,
    profile: Literal["training", "balanced", "archive", "plain"] = "balanced",
    batch_size: int | None = None,
    threads: int | None = None,
    memory: int | str = "128MiB",
    max_failures: int = 20,
    check_video: bool = False,
    dry_run: bool = False,
    progress: Callable[[Progress], object] | None = None,
) -> ExportSummary:
    """Compute representations of videos and store them as a dataset.

    Frames that are stored already are left alone, so the same call again continues where it stopped. Code that the
    config names (`module:Class`, `path/file.py:Class`) is run.

    Args:
        videos: A video file, a folder of images or arrays, an array file; or several of them.
        out: Folder of the dataset; made if missing.
        config: Name of a shipped config (`"quickstart"`), path of a YAML file, a dict, or YAML text.
        representations: Only these of the config; all by default. What they depend on is computed, too.
        frames: Frame numbers: `"0..100"` (100 excluded), `"5,8,22"`, `range(0, 100, 10)`, `[5, 8, 22]`, `5`.
        every: Every n-th of the chosen frames.
        fps: Frames per second to take, by timestamps.
        images: Also export a picture of every representation, in this format.
        video_id: Name of the video in the dataset; by default from its file name.
        stream: Video stream of a file with several.
        source_fps: Frames per second of a folder or array, which has no clock.
        writer: Storage format; by default the dataset's, `"webdataset"` for a new one.
        layout: Shards with all representations of a frame, or shards for each; by default the dataset's.
        shard_size: Close a shard at this size: bytes, or `"512MB"`; 1 GB for a new dataset.
        shard_frames: Close a shard at this many frame numbers; 1024 for a new dataset.
        profile: What default codecs are chosen for: decoding speed, both, bytes, or other programs.
        batch_size: Frames per computing step; by default the config's.
        threads: Worker threads; the CPUs by default.
        memory: Bound on frames in flight: bytes, or `"1GB"`.
        max_failures: Stop when a representation fails on this many frames in a row.
        check_video: First decode each video once, to record which frames decode with errors.
        dry_run: Only estimate time and size, in `estimates`; nothing is written.
        progress: Called after every step, from this thread.

    Raises:
        ConfigError: If the config or a parameter is wrong.
        UsageError: If an option cannot be right.
        VideoError: If a video cannot be opened. Other videos are exported first.
        ConflictError: If the dataset has another video or other parameters under the same name.
        LockedError: If another process is exporting the same frames. Other videos are exported first.
        ComputeError: If a representation failed on `max_failures` frames in a row.
        StorageError: If the disk is full or read-only.

    Example:
        >>> report = vrekit.export("car.mp4", "out", "quickstart", frames="0..100", progress=print)
        >>> report.failed
        0
    """
    paths = [os.fspath(video) for video in ([videos] if isinstance(videos, (str, os.PathLike)) else videos)]
    folder = dataset_folder(out, for_writing=not dry_run)
    loaded = config_from(config)
    request = ExportRequest(
        video=paths[0] if paths else "",
        dataset=folder,
        representations=loaded.representations,
        config_folder=loaded.folder,
        only=_names(representations),
        video_id=video_id,
        frames=_selection(frames, every, fps),
        stream_index=stream,
        fps=source_fps,
        images=images,
        writer=writer,
        layout=layout,
        shard_frames=shard_frames,
        shard_size_bytes=None if shard_size is None else parse_bytes(str(shard_size), "shard_size"),
        profile=profile,
        batch_size=loaded.batch_size if batch_size is None else batch_size,
        threads=threads,
        memory_bytes=parse_memory(str(memory), "memory"),
        max_failures=max_failures,
        check_video=check_video,
        position=loaded.position,
    )
    requests = requests_for(paths, request)
    if dry_run:
        return ExportSummary(dataset=request.dataset, estimates=tuple(estimate(one) for one in requests))

    def run(one: ExportRequest) -> ExportReport:
        return export_one(one, None if progress is None else CallbackListener(one.video, progress))

    reports, errors = export_all(requests, run)
    if errors:
        for other in errors[1:]:
            errors[0].add_note(f"another video: {other.message}")
        raise errors[0]
    return ExportSummary(dataset=request.dataset, videos=tuple(reports))


def _names(representations: Sequence[str]) -> tuple[str, ...]:
    if isinstance(representations, str):
        raise UsageError(
            f"representations is the text {representations!r}, expected a list", hint=f"write [{representations!r}]"
        )
    return tuple(representations)


def _selection(frames: Frames | None, every: int | None, fps: float | None) -> FrameSelection:
    if frames is None or isinstance(frames, str):
        return parse_frames(frames, every=every, fps=fps)
    if isinstance(frames, range) and frames.step > 0:
        parts: tuple[FrameRange | int, ...] = (FrameRange(frames.start, frames.stop, frames.step),)
    else:
        try:
            parts = tuple(map(operator.index, frames if isinstance(frames, Iterable) else [frames]))
        except TypeError:
            hint = 'frames looks like "0..100", range(0, 100), [5, 8] or 5'
            raise UsageError(f"frames is {frames!r}, which are no frame numbers", hint=hint) from None
        if not parts:
            raise UsageError("frames names no frame", hint="leave it away for all frames")
    return FrameSelection(parts, every=every, fps=fps)
