"""The video that VRE read: from the file itself, or from what VRE noted of it."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vrekit.core.errors import UsageError
from vrekit.core.names import check_video_id, video_id_from_path
from vrekit.core.spec import digest
from vrekit.jobs.vre.folder import VreFolder
from vrekit.jobs.vre.payloads import Part
from vrekit.video.base import VideoInfo
from vrekit.video.opener import open_source


@dataclass(frozen=True, slots=True)
class VreVideo:
    """The video VRE read.

    Attributes:
        video_id: Its name in the dataset.
        info: What is known of it.
        pts: Presentation times by frame number, seconds; NaN where unknown.
    """

    video_id: str
    info: VideoInfo
    pts: Mapping[int, float]

    @classmethod
    def find(cls, folder: VreFolder, parts: Sequence[Part], *, path: str | None, video_id: str | None) -> Self:
        """Return the video, as far as it can be known.

        Args:
            folder: VRE's output.
            parts: What is imported of it.
            path: The video itself; None takes what VRE noted of it.
            video_id: Its name in the dataset; None takes the slug of its file's name.

        Raises:
            UsageError: If VRE has frames that the video at `path` does not have.
        """
        frames = sorted({frame for part in parts for frame in (*part.files, *part.records)})
        arguments = folder.runs[-1].arguments if folder.runs else {}
        named = path or str(arguments.get("video_path") or folder.path.resolve().name)
        name = check_video_id(video_id or video_id_from_path(named))
        if path is not None:
            with open_source(path) as source:
                existing = source.frame_indices
                times = source.pts_seconds(existing)
                _check_frames(path, existing, parts)
                return cls(name, source.info, dict(zip(existing.tolist(), times.tolist(), strict=True)))
        fps = _fps(arguments)
        height, width = _size(arguments, parts)
        info = VideoInfo(
            uri=str(arguments.get("video_path") or folder.path.resolve()),
            fingerprint=_fingerprint(arguments, folder.path),
            source="file" if arguments.get("video_path") else "arrays",
            frame_count=frames[-1] + 1,
            height=height,
            width=width,
            fps=fps,
            duration_seconds=None if fps is None else (frames[-1] + 1) / fps,
        )
        # VRE reads video at a constant rate: its frame i is the one shown at i / fps.
        return cls(name, info, {} if fps is None else {frame: frame / fps for frame in frames})


def _check_frames(video: str, existing: NDArray[np.int64], parts: Sequence[Part]) -> None:
    numbers = np.array(sorted({frame for part in parts for frame in part.files}), np.int64)
    unknown = numbers[~np.isin(numbers, existing)]
    if len(unknown):
        raise UsageError(
            f"VRE has frame {unknown[0]}, but {video} has no such frame ({len(existing)} frames)",
            hint="is it the video that VRE read?",
        )


def _fps(arguments: Mapping[str, Any]) -> float | None:
    try:
        fps = float(arguments.get("video_fps") or "nan")
    except (TypeError, ValueError):
        return None
    return fps if math.isfinite(fps) and fps > 0 else None


def _size(arguments: Mapping[str, Any], parts: Sequence[Part]) -> tuple[int, int]:
    """Return (height, width) of the video: VRE noted `(frames, height, width, 3)`; else those of the largest array."""
    noted = re.findall(r"\d+", str(arguments.get("video_shape") or ""))
    numbers = [int(number) for number in noted if len(number) < 10]
    if len(numbers) == 4:
        return numbers[1], numbers[2]
    sides = [(part.spec.size_of("H") or 0, part.spec.size_of("W") or 0) for part in parts]
    return max(sides, key=math.prod)


def _fingerprint(arguments: Mapping[str, Any], folder: Path) -> str:
    """Return what stands for the fingerprint when the video itself is not at hand: a digest of what VRE noted."""
    known = {name: arguments[name] for name in ("video_path", "video_shape", "video_fps") if name in arguments}
    return f"0-{digest(known or {'folder': str(folder.resolve())})}"
