"""FFmpeg's command line: where it is, and what it calls the containers that clips are stored in."""

import shutil
from collections.abc import Mapping

from vrekit.core.errors import MissingDependencyError

MUXERS: Mapping[str, str] = {"mkv": "matroska", "mp4": "mp4"}  # file name ending → FFmpeg's name


def ffmpeg_program() -> str:
    """Return the path of FFmpeg's command line.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise MissingDependencyError(
            "the video codec needs FFmpeg's command line, and there is no program `ffmpeg`",
            hint="`apt install ffmpeg`, `brew install ffmpeg` or `conda install -c conda-forge ffmpeg`",
        )
    return program
