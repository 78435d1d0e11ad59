"""`open_source`: from what a user names to the source that reads it."""

import os
import stat
from pathlib import Path

from numpy.typing import ArrayLike

from vrekit.core.errors import UsageError, VideoError
from vrekit.core.names import NOT_UTF8_HINT, check_local, is_utf8
from vrekit.video.base import VideoSource
from vrekit.video.listing import ARRAY_SUFFIXES, IMAGE_SUFFIXES, list_frame_files


def open_source(
    source: str | os.PathLike[str] | ArrayLike,
    *,
    stream_index: int | None = None,
    fps: float | None = None,
    threads: int = 1,
) -> VideoSource:
    """Return a source of the frames of a video file, a folder of frames, or an array.

    Args:
        source: Path of a video file; of a folder of images or npy/npz files (one a frame); of a `.npy`/`.npz` file
            with a clip (N, H, W, 3); or such an array.
        stream_index: Which stream of a video file; None takes the best one.
        fps: Frames per second of sources without a clock of their own (all but video files).
        threads: Decoding threads for video files; 0 lets FFmpeg decide.

    Raises:
        VideoError: If it is missing, empty, damaged, or no video, or its path is not UTF-8.
        UsageError: If an option does not fit the source.
        MissingDependencyError: If torchcodec is needed and not installed.
    """
    if not isinstance(source, str | os.PathLike):
        from vrekit.video.arrays import ArraySource

        _refuse_stream(stream_index, "an array")
        return ArraySource(source, fps=fps)
    path = check_video_name(source)
    try:
        if path.is_dir():
            return _open_folder(path, stream_index, fps)
        if not path.exists():
            raise VideoError(f"{source}: no such file or folder", hint="check the path; only local files are read")
    except PermissionError as error:
        raise VideoError(f"{source}: no permission to read it", hint="check its permissions") from error
    except OSError as error:  # a name that no file can have
        if isinstance(error, VideoError):
            raise
        raise VideoError(f"{source}: {os.strerror(error.errno or 0).lower()}", hint="check the path") from error
    if path.suffix.lower() in ARRAY_SUFFIXES:
        from vrekit.video.arrays import ArraySource

        _refuse_stream(stream_index, "an array file")
        return ArraySource(path, fps=fps)
    if fps is not None:
        raise UsageError(
            f"{source}: a video file has its own clock, fps={fps:g} cannot be set",
            hint="fps here is for image folders and arrays; to export fewer frames, select them by fps",
        )
    from vrekit.video.files import FileSource

    return FileSource(source, stream_index=stream_index, threads=threads)


def check_video_name(video: str | os.PathLike[str]) -> Path:
    """Return the path of a video.

    Raises:
        UsageError: If it is a URL or standard input.
        VideoError: If it is no text, so that no record could name it, or a pipe or device, which may never end.
    """
    check_local(video)
    if not is_utf8(os.path.abspath(video)):
        raise VideoError(f"{video}: its path is not UTF-8 text", hint=NOT_UTF8_HINT)
    path = Path(video)
    try:
        mode = path.stat().st_mode
    except OSError:  # missing or not allowed: whoever opens it says so
        return path
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise VideoError(f"{video}: a pipe, socket or device, not a file", hint="write the video to a file first")
    return path


def _open_folder(path: Path, stream_index: int | None, fps: float | None) -> VideoSource:
    from vrekit.video.folders import ArrayFolderSource, ImageFolderSource

    _refuse_stream(stream_index, "a folder")
    if (path / "dataset.json").exists():
        raise VideoError(f"{path}: this is a vrekit dataset, not a video", hint=f"look at it with `vrekit info {path}`")
    suffixes = {file.suffix.lower() for file in list_frame_files(path)}
    if suffixes & IMAGE_SUFFIXES and suffixes & ARRAY_SUFFIXES:
        raise VideoError(
            f"{path}: the folder mixes images and arrays ({', '.join(sorted(suffixes))})",
            hint="keep one sort of frame in a folder",
        )
    if not suffixes:
        others = sorted({file.suffix.lower() for file in path.iterdir() if not file.name.startswith(".")})
        what = f"holds no frames, only {' '.join(others[:8])} files" if any(others) else "holds no frames"
        raise VideoError(
            f"{path}: the folder {what if any(path.iterdir()) else 'is empty'}",
            hint=f"frames are {' '.join(sorted(IMAGE_SUFFIXES))} or {' '.join(sorted(ARRAY_SUFFIXES))} files, "
            "and lie directly in it",
        )
    return (ImageFolderSource if suffixes & IMAGE_SUFFIXES else ArrayFolderSource)(path, fps=fps)


def _refuse_stream(stream_index: int | None, what: str) -> None:
    if stream_index is not None:
        raise UsageError(f"{what} has no streams, stream {stream_index} cannot be chosen", hint="only video files have")
