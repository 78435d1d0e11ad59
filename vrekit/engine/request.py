"""What an export is asked to do; kept in the run's record, so that `resume` can ask for it again."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from vrekit.catalog.manifest import LAYOUTS
from vrekit.catalog.storage_types import STORAGES
from vrekit.core.documents import REQUIRED, Fields
from vrekit.core.names import MAX_REPRESENTATIONS, check_video_id
from vrekit.core.spec import RepresentationSpec
from vrekit.video.base import MAX_STREAM_INDEX
from vrekit.video.selection import FrameSelection

DEFAULT_SHARD_FRAMES = 1024
DEFAULT_SHARD_SIZE_BYTES = 1_000_000_000
_NOT_RECORDED = ("dataset", "check_video", "position", "recorded")


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
        recorded: Whether a run's record named it, instead of the caller: the code it names is no proof of trust.
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
    recorded: bool = field(default=False, compare=False, repr=False)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders that relative paths in the config start from, in the order they are tried."""
        return tuple(folder for folder in (self.config_folder, self.working_folder) if folder is not None)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict; the dataset's own folder is left out, so that a dataset can be moved."""
        data = {name: getattr(self, name) for name in self.__slots__ if name not in _NOT_RECORDED}
        data["video"] = os.path.abspath(self.video)  # resume may run from another folder
        data["representations"] = [spec.to_json() for spec in self.representations]
        data["config_folder"] = os.path.abspath(self.config_folder) if self.config_folder else None
        data["working_folder"] = os.path.abspath(self.working_folder or ".")
        data["only"] = list(self.only)
        data["frames"] = self.frames.to_json()
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | Fields, dataset: Path) -> Self:
        """Return the request `to_json` described, for the dataset it was read from.

        Raises:
            DatasetError: If it is none.
        """
        fields = Fields.of(data, "a request")
        config_folder, working_folder = (_path(fields, name) for name in ("config_folder", "working_folder"))
        return cls(
            video=_path_text(fields, "video"),
            dataset=dataset,
            recorded=True,
            representations=tuple(
                RepresentationSpec.from_json(spec)
                for spec in fields.list_of("representations", max_count=MAX_REPRESENTATIONS)
            ),
            config_folder=config_folder,
            working_folder=working_folder,
            only=tuple(fields.items("only", (), kind=str, max_count=MAX_REPRESENTATIONS)),
            video_id=fields.name("video_id", check_video_id, None),
            frames=FrameSelection.from_json(fields.fields("frames")),
            stream_index=fields.integer("stream_index", None, high=MAX_STREAM_INDEX),
            fps=fields.number("fps", None, low=0),
            images=fields.text("images", None, max_length=16),
            writer=fields.choice("writer", STORAGES, None),
            layout=fields.choice("layout", LAYOUTS, None),
            shard_frames=fields.integer("shard_frames", None, low=1, high=2**53),
            shard_size_bytes=fields.integer("shard_size_bytes", None, low=1),
            profile=fields.text("profile", "balanced", max_length=100),
            batch_size=fields.integer("batch_size", None, low=1),
            threads=fields.integer("threads", None, low=1, high=1 << 16),
            memory_bytes=fields.integer("memory_bytes", 128 << 20, low=1),
            max_failures=fields.integer("max_failures", 20, low=1),
        )


def _path_text(fields: Fields, key: str, default: Any = REQUIRED) -> Any:
    path = fields.text(key, default, max_length=1 << 16)
    if path is not None and "\0" in path:
        fields.fail(key, "a path")
    return path


def _path(fields: Fields, key: str) -> Path | None:
    path = _path_text(fields, key, None)
    return Path(path) if path else None
