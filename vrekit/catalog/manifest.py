"""`dataset.json`: which videos and representations a dataset holds, and how to decode them.

It is rewritten whole by atomic rename under a lock, so a reader never sees half of it and several exports may run
into one dataset. It says nothing about which frames are done: that is the job of the shards' metadata.
"""

import fcntl
import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from vrekit.core.errors import ConflictError, DatasetError
from vrekit.core.files import storage_errors, write_atomic
from vrekit.core.names import MAX_REPRESENTATIONS, NOT_UTF8_HINT, is_utf8
from vrekit.core.schema import FORMAT_VERSION
from vrekit.core.spec import OutputSpec, RepresentationSpec, digest
from vrekit.video.base import VideoInfo

MANIFEST_NAME = "dataset.json"
ORIGIN_NAME = "origin.json"  # what a dataset was made from that was not exported; written first, the manifest last
WRITERS = ("lance", "webdataset")


@dataclass(frozen=True, slots=True, kw_only=True)
class RepresentationRecord:
    """One representation of a dataset.

    Attributes:
        spec: What the config asked for.
        identity: Everything that decides its stored values, dependencies' hashes included.
        config_hash: Digest of `identity`; another hash under the same name is a conflict.
        memory: What `compute` gives, for the first video's frame size.
        stored: What decoding gives; differs from `memory` when `store_as` keeps less.
        codec: Config of its codec; None for a virtual representation.
        suffix: File name ending of its payloads, None for a virtual one.
        group: Name of the shards it lies in, None for a virtual one.
        clips: Whether frames share payloads (video clips), each in a shard of its own.
    """

    spec: RepresentationSpec
    identity: Mapping[str, Any]
    memory: OutputSpec
    stored: OutputSpec
    codec: Mapping[str, Any] | None
    suffix: str | None
    group: str | None = None
    clips: bool = False

    @property
    def config_hash(self) -> str:
        """Digest of `identity`, 16 hex digits."""
        return digest(self.identity)

    @property
    def is_virtual(self) -> bool:
        """Whether it is computed on read and never written."""
        return self.codec is None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        return {
            "config_hash": self.config_hash,
            "group": self.group,
            "suffix": self.suffix,
            "clips": self.clips,
            "codec": None if self.codec is None else dict(self.codec),
            "spec": self.spec.to_json(),
            "identity": dict(self.identity),
            "memory": self.memory.to_json(),
            "stored": self.stored.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return the record `to_json` described."""
        return cls(
            spec=RepresentationSpec.from_json(data["spec"]),
            identity=data["identity"],
            memory=OutputSpec.from_json(data["memory"]),
            stored=OutputSpec.from_json(data["stored"]),
            codec=data["codec"],
            suffix=data["suffix"],
            group=data["group"],
            clips=data.get("clips", False),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The content of `dataset.json`.

    Attributes:
        writer: `webdataset` or `lance`.
        layout: `sample` or `representation`: which representations new shards hold together.
        shard_frames: Width of the fixed grid of frame numbers that shards lie on.
        shard_size_bytes: A shard is closed at the first frame that brings it to this size.
        videos: Facts about each video, by video id.
        representations: Records by representation name, in the order they were added.
        created_with: Version of vrekit that made the dataset.
        format_version: Version of the on-disk format.
    """

    writer: str
    layout: str
    shard_frames: int
    shard_size_bytes: int
    videos: Mapping[str, VideoInfo] = field(default_factory=dict)
    representations: Mapping[str, RepresentationRecord] = field(default_factory=dict)
    created_with: str = ""
    format_version: int = FORMAT_VERSION

    @property
    def groups(self) -> dict[str, list[str]]:
        """Names of the stored representations by the group their shards belong to."""
        groups: dict[str, list[str]] = {}
        for name, record in self.representations.items():
            if record.group is not None:
                groups.setdefault(record.group, []).append(name)
        return groups

    @property
    def stored_names(self) -> list[str]:
        """Names of the representations that lie on disk."""
        return [name for name, record in self.representations.items() if not record.is_virtual]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        return {
            "format_version": self.format_version,
            "created_with": self.created_with,
            "writer": self.writer,
            "layout": self.layout,
            "shard_frames": self.shard_frames,
            "shard_size_bytes": self.shard_size_bytes,
            "videos": {video_id: info.to_json() for video_id, info in self.videos.items()},
            "representations": {name: record.to_json() for name, record in self.representations.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return the manifest `to_json` described."""
        return cls(
            format_version=data["format_version"],
            created_with=data.get("created_with", ""),
            writer=data["writer"],
            layout=data["layout"],
            shard_frames=data["shard_frames"],
            shard_size_bytes=data["shard_size_bytes"],
            videos={video_id: VideoInfo.from_json(info) for video_id, info in data["videos"].items()},
            representations={
                name: RepresentationRecord.from_json(record) for name, record in data["representations"].items()
            },
        )

    def with_video(self, video_id: str, info: VideoInfo) -> Self:
        """Return a manifest that knows this video.

        Raises:
            ConflictError: If the id already names another video (another fingerprint), or this one read in another
                way (another stream, or another clock for frames that have none of their own).
        """
        known = self.videos.get(video_id)
        if known is not None and known.fingerprint != info.fingerprint:
            raise ConflictError(
                f"the dataset already has another video named {video_id!r}\n"
                f"  in the dataset: {known.uri} ({_describe(known)})\n"
                f"  asked for:      {info.uri} ({_describe(info)})",
                hint="give this one its own name with --video-id NAME, or choose another output with -o",
            )
        if known is not None:
            _check_same_reading(video_id, known, info)
            return self
        return replace(self, videos={**self.videos, video_id: info})

    def with_representations(self, records: Mapping[str, RepresentationRecord]) -> Self:
        """Return a manifest that knows these representations too; new stored ones get a group.

        Raises:
            ConflictError: If a name is already there with other parameters; the message says what differs. Or if there
                would be more than MAX_REPRESENTATIONS.
        """
        differences = []
        merged = dict(self.representations)
        for name, record in records.items():
            known = merged.get(name)
            if known is None:
                merged[name] = record
            elif known.config_hash != record.config_hash:
                lines = differences_between(name, known.identity, record.identity)
                differences += [f"  {line}" for line in lines]
        if len(merged) > MAX_REPRESENTATIONS:
            raise ConflictError(
                f"the dataset would have {len(merged)} representations, and has room for {MAX_REPRESENTATIONS}",
                hint="pictures count, too; choose another output with -o for some of them",
            )
        if differences:
            raise ConflictError(
                "the dataset already has these representations with other settings:\n" + "\n".join(differences),
                hint="give the changed one a new name in the config, or choose another output with -o",
            )
        added = [name for name, record in merged.items() if record.group is None and not record.is_virtual]
        clips = [name for name in added if merged[name].clips]
        for name, group in _new_groups(added, clips, self).items():
            merged[name] = replace(merged[name], group=group)
        return replace(self, representations=merged)


def _new_groups(added: list[str], clips: list[str], manifest: Manifest) -> dict[str, str]:
    # A sample holds every representation of its run; what comes later gets shards of its own, so that nothing
    # already written is rewritten. A clip spans samples: with its own shards, every member of a tar has the same keys.
    taken = set(manifest.groups)
    whole = [name for name in added if name not in clips]
    first = not any(not record.clips and record.group for record in manifest.representations.values())
    groups = {}
    if manifest.layout == "sample" and (first or len(whole) > 1):
        group = _free("all" if first else f"add{len(taken)}", taken)
        groups = dict.fromkeys(whole, group)
        taken.update(groups.values())
    for name in added:
        if name not in groups:
            groups[name] = _free(file_name_part(name), taken)
            taken.add(groups[name])
    return groups


def _free(group: str, taken: Collection[str]) -> str:
    while group in taken:
        group += "_"
    return group


def file_name_part(name: str) -> str:
    """Return a representation name fit to be a group: `canny.image` → `canny_image`, `flow-raft` → `flow_raft`.

    A group holds no `-`: that ends it in a shard's name, so that no group's shards pass for those of another.
    """
    return name.replace(".", "_").replace("-", "_")


def _check_same_reading(video_id: str, known: VideoInfo, info: VideoInfo) -> None:
    # A file's clock is its own; its average rate may be reckoned anew by another version of the decoder.
    clocks = (None, None) if info.source == "file" else (known.fps, info.fps)
    streams = (known.stream_index, info.stream_index)
    for what, (has, asked) in {"stream": streams, "fps": clocks}.items():
        if has != asked:
            raise ConflictError(
                f"the dataset has video {video_id!r} with {what} {'–' if has is None else f'{has:g}'}, "
                f"asked for {'–' if asked is None else f'{asked:g}'}",
                hint="leave the option away, or give this one its own name with --video-id NAME",
            )


def _describe(info: VideoInfo) -> str:
    return f"{info.frame_count} frames, {info.width}x{info.height}, fingerprint {info.fingerprint}"


def differences_between(
    name: str, old: Mapping[str, Any], new: Mapping[str, Any], *, has: str = "dataset has", asked: str = "asked for"
) -> list[str]:
    """Return one line for each value in which two identities differ: `canny.params.low: dataset has 50, asked for 60`.

    Args:
        name: What they are the identity of.
        old: One of them.
        new: The other.
        has: What is said before a value of `old`.
        asked: What is said before a value of `new`.
    """
    lines = []
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences_between(f"{name}.{key}", before, after, has=has, asked=asked)
        else:
            lines.append(f"{name}.{key}: {has} {json.dumps(before)}, {asked} {json.dumps(after)}")
    return lines


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of the dataset in `folder`.

    Raises:
        DatasetError: If there is none, it is damaged, or a newer vrekit wrote it; or its name is not UTF-8.
    """
    path = folder / MANIFEST_NAME
    if not is_utf8(folder):
        raise DatasetError(f"{folder} is not UTF-8 text", hint=NOT_UTF8_HINT)
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise _no_dataset(folder) from None
    except NotADirectoryError:
        raise DatasetError(f"{folder} is a file, not a dataset", hint="pass the folder that -o named") from None
    except PermissionError:
        raise DatasetError(f"{path} may not be read", hint="check its permissions") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{path} is damaged: {error}", hint="it is only ever replaced whole; restore it from a backup"
        ) from None
    version = data.get("format_version") if isinstance(data, dict) else None
    if not isinstance(version, int):
        raise DatasetError(f"{path} was not written by vrekit (it has no format_version)")
    if version > FORMAT_VERSION:
        raise DatasetError(
            f"{folder} has format version {version}; this vrekit reads up to {FORMAT_VERSION}",
            hint="pip install --upgrade vrekit",
        )
    try:
        return Manifest.from_json(data)
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path} is damaged: {type(error).__name__} {error}") from error


def _no_dataset(folder: Path) -> DatasetError:
    """Return the error for a folder without a manifest."""
    try:
        origin = json.loads((folder / ORIGIN_NAME).read_bytes())
        command = "transcode" if "transcode" in origin["options"] else "merge"
        sources = ", ".join(source["folder"] for source in origin["sources"])
    except (OSError, ValueError, KeyError, TypeError):
        what = "is not a dataset (it has no dataset.json)" if folder.is_dir() else "does not exist"
        return DatasetError(
            f"{folder} {what}", hint="`vrekit export VIDEO -o DATASET` makes one; pass the folder that -o named"
        )
    if command == "merge" and len(origin["sources"]) == 1:
        command = "convert"  # the name that one goes by, though a merge of one dataset is the same
    return DatasetError(
        f"{folder} is not a dataset yet: a {command} of {sources} into it was interrupted, or is going on",
        hint=f"the same `vrekit {command} …` again finishes it; nothing else needs the folder, so it may be deleted",
    )


@contextmanager
def manifest_lock(folder: Path) -> Iterator[None]:
    """Hold the dataset's lock: one process at a time reads, changes and replaces `dataset.json`."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace `dataset.json`; call it with `manifest_lock` held."""
    text = json.dumps(manifest.to_json(), indent=2, ensure_ascii=False)
    write_atomic(folder / MANIFEST_NAME, text.encode() + b"\n")
