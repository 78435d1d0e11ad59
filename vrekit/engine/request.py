"""What an export is asked to do; kept in the run's record, so that `resume` can ask for it again."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from vrekit.core.spec import RepresentationSpec
from vrekit.video.selection import FrameSelection

DEFAULT_SHARD_FRAMES = 1024
DEFAULT_SHARD_SIZE_BYTES = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """One video, some representations, some frames, into one dataset.

    Attributes:
        video: Path of a video file, a folder of images or arrays, or an array file.
        dataset: Folder of the dataset; made when it is not there.
        representations: The config's representations, `store: false` ones included.
        config_folder: Where relative paths in the config start from (`path/file.py:Class` types, data files).
        working_folder: Where they start from when they are not there; None is the current folder.
        only: Names to export; empty means all. What they depend on is computed but not stored.
        video_id: Name of the video in the dataset; None takes the slug of its file name.
        frames: Which frames.
        stream_index: Video stream of a container with several; None takes the best one.
        fps: Clock of a source that has none.
        images: `jpg` or `png`: export pictures of every stored representation.
        writer: `webdataset` or `lance`; None keeps the dataset's, `webdataset` for a new one.
        layout: `sample` (a sample has all its run's representations) or `representation` (shards of their own);
            None keeps the dataset's, `sample` for a new one.
        shard_frames: Width of the grid that shards lie on, frames; None keeps the dataset's.
        shard_size_bytes: A shard closes at this size; None keeps the dataset's.
        profile: Codec profile for representations without a codec of their own.
        batch_size: Frames per `compute` call for representations without one of their own.
        threads: Worker threads; None takes the CPUs this process may use.
        memory_bytes: Bound on frames and outputs in flight.
        max_failures: Failures of one representation in a row that stop the run.
        check_video: Decode the whole video first, to record the frames that decode with errors only; not kept in the
            run's record.
        position: Name → `file:line` in the config, for messages; not kept in the run's record.
    """

    video: str
    dataset: Path
    representations: tuple[RepresentationSpec, ...]
    config_folder: Path | None = None
    working_folder: Path | None = field(default=None, compare=False)
    only: tuple[str, ...] = ()
    video_id: str | None = None
    frames: FrameSelection = field(default_factory=FrameSelection)
    stream_index: int | None = None
    fps: float | None = None
    images: str | None = None
    writer: str | None = None
    layout: str | None = None
    shard_frames: int | None = None
    shard_size_bytes: int | None = None
    profile: str = "balanced"
    batch_size: int | None = None
    threads: int | None = None
    memory_bytes: int = 128 << 20
    max_failures: int = 20
    check_video: bool = field(default=False, compare=False)
    position: Callable[[str], str] | None = field(default=None, compare=False, repr=False)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders that relative paths in the config start from, in the order they are tried."""
        return tuple(folder for folder in (self.config_folder, self.working_folder) if folder is not None)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict; the dataset's own folder is left out, so that a dataset can be moved."""
        data = {
            name: getattr(self, name) for name in self.__slots__ if name not in ("dataset", "check_video", "position")
        }
        data["video"] = os.path.abspath(self.video)  # resume may run from another folder
        data["representations"] = [spec.to_json() for spec in self.representations]
        data["config_folder"] = os.path.abspath(self.config_folder) if self.config_folder else None
        data["working_folder"] = os.path.abspath(self.working_folder or ".")
        data["only"] = list(self.only)
        data["frames"] = self.frames.to_json()
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any], dataset: Path) -> Self:
        """Return the request `to_json` described, for the dataset it was read from."""
        fields = {name: data[name] for name in cls.__slots__ if name in data}
        fields["dataset"] = dataset
        fields["representations"] = tuple(RepresentationSpec.from_json(spec) for spec in data["representations"])
        fields["config_folder"] = Path(data["config_folder"]) if data.get("config_folder") else None
        fields["working_folder"] = Path(data["working_folder"]) if data.get("working_folder") else None
        fields["only"] = tuple(data["only"])
        fields["frames"] = FrameSelection.from_json(data["frames"])
        return cls(**fields)
