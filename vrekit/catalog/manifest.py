"""`dataset.json`: which videos and representations a dataset holds, and how to decode them.

It is rewritten whole by atomic rename under a lock, so a reader never sees half of it and several exports may run
into one dataset. It says nothing about which frames are done: that is the job of the shards' metadata.
"""

import fcntl
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from vrekit.catalog.remote import remote_of
from vrekit.catalog.representation_record import RepresentationRecord, differences_between
from vrekit.catalog.storage_types import STORAGES
from vrekit.core.documents import Fields, document_bytes, read_document
from vrekit.core.errors import ConflictError, DatasetError
from vrekit.core.files import open_regular, storage_errors, write_atomic
from vrekit.core.names import (
    MAX_REPRESENTATIONS,
    NOT_UTF8_HINT,
    check_local,
    check_video_id,
    is_utf8,
    sample_key,
)
from vrekit.core.schema import FORMAT_VERSION
from vrekit.core.spec import check_output_name
from vrekit.video.base import VideoInfo

__all__ = [
    "COPY_NAME",
    "LAYOUTS",
    "MANIFEST_NAME",
    "ORIGIN_NAME",
    "Manifest",
    "RepresentationRecord",
    "describes_nothing",
    "differences_between",
    "file_name_part",
    "has_lost_manifest",
    "has_samples",
    "manifest_lock",
    "read_manifest",
    "write_manifest",
]

MANIFEST_NAME = "dataset.json"
COPY_NAME = "dataset.json.bak"  # the same bytes, for `vrekit repair`
ORIGIN_NAME = "origin.json"  # what a dataset was made from that was not exported; written first, the manifest last
LAYOUTS = ("sample", "representation")
_HINT = '`vrekit repair DATASET` restores it; if you changed it by hand, correct it and delete its line "checksum"'


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
    def from_json(cls, data: Mapping[str, Any] | Fields) -> Self:
        """Return the manifest `to_json` described.

        Raises:
            DatasetError: If it is none.
        """
        fields = Fields.of(data, MANIFEST_NAME)
        records = fields.each("representations", check_name=check_output_name)
        if len(records) > MAX_REPRESENTATIONS:
            raise fields.error(f"it has {len(records)} representations, expected at most {MAX_REPRESENTATIONS}")
        manifest = cls(
            format_version=fields.integer("format_version", low=1, high=FORMAT_VERSION),
            created_with=fields.text("created_with", "", max_length=1000),
            writer=fields.choice("writer", STORAGES),
            layout=fields.choice("layout", LAYOUTS),
            shard_frames=fields.integer("shard_frames", low=1, high=2**53),
            shard_size_bytes=fields.integer("shard_size_bytes", low=1),
            videos=VideoInfo.all_from_json(fields, "videos", check_name=check_video_id),
            representations={name: RepresentationRecord.from_json(record) for name, record in records.items()},
        )
        for name, record in manifest.representations.items():
            if record.spec.name != name:
                raise records[name].error(f"its spec has the name {record.spec.name!r}")
        for group, names in manifest.groups.items():
            if len(names) > 1 and any(manifest.representations[name].clips for name in names):
                raise fields.error(f"group {group!r} has clips and {len(names) - 1} other representations")
        return manifest

    def dependency_problems(self) -> dict[str, str]:
        """Return what is wrong with the dependencies of virtual representations, by the name of each.

        A stored one may depend on what was never stored.
        """
        problems: dict[str, str] = {}
        left: dict[str, set[str]] = {}  # virtual representation -> what it waits for
        for name, record in self.representations.items():
            if record.is_virtual:
                needed = set(record.spec.dependencies)
                if lacking := sorted(needed - self.representations.keys()):
                    problems[name] = f"it is computed from {', '.join(lacking)}, which the dataset does not have"
                left[name] = {
                    one for one in needed if one in self.representations and self.representations[one].is_virtual
                }
        ready = [name for name, needed in left.items() if not needed]
        users: dict[str, list[str]] = {}
        for name, needed in left.items():
            for one in needed:
                users.setdefault(one, []).append(name)
        while ready:
            done = ready.pop()
            del left[done]
            for name in users.get(done, ()):
                left[name].discard(done)
                if not left[name]:
                    ready.append(name)
        problems |= dict.fromkeys(left, "it depends on itself, or on some that do")
        return problems

    def member_name(self, row: Mapping[str, Any]) -> str:
        """Return the name that the payload of a metadata row has in a tar."""
        name = str(row["representation"])
        record = self.representations.get(name)
        suffix = record.suffix if record is not None else "bin"
        return f"{sample_key(str(row['video_id']), int(row['frame_index']))}.{name}.{suffix}"

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
            if info.damaged_frames is None or info.damaged_frames == known.damaged_frames:
                return self
            info = replace(known, damaged_frames=info.damaged_frames)  # looked for later
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


def read_manifest(folder: Path, name: str = MANIFEST_NAME) -> Manifest:
    """Return the manifest of the dataset in `folder`, or with COPY_NAME, its copy.

    Raises:
        DatasetError: If there is none, it is damaged, or a newer vrekit wrote it; or its name is not UTF-8.
    """
    check_local(folder)
    path = folder / name
    if not is_utf8(folder):
        raise DatasetError(f"{folder} is not UTF-8 text", hint=NOT_UTF8_HINT)
    try:
        fields = read_document(path, hint=_HINT).fields
    except FileNotFoundError:
        raise _no_dataset(folder) from None
    except NotADirectoryError:
        raise DatasetError(f"{folder} is a file, not a dataset", hint="pass the folder that -o named") from None
    except PermissionError:
        raise DatasetError(f"{path} may not be read", hint="check its permissions") from None
    if "format_version" not in fields:
        raise DatasetError(f"{path} was not written by vrekit (it has no format_version)")
    version = fields.integer("format_version", low=1)
    if version > FORMAT_VERSION:
        raise DatasetError(
            f"{folder} has format version {version}; this vrekit reads up to {FORMAT_VERSION}",
            hint="pip install --upgrade vrekit",
        )
    return Manifest.from_json(fields)


def has_lost_manifest(folder: Path) -> bool:
    """Return whether a folder without `dataset.json` was a dataset: its copy is there, or run records and samples."""
    if (folder / COPY_NAME).exists():
        return True
    if not any(folder.glob("runs/*.json")) or not any((folder / name).is_dir() for name in ("shards", "lance")):
        return False
    try:
        return read_document(folder / ORIGIN_NAME).fields.text("finished_at", None) is not None
    except FileNotFoundError:
        return True
    except (OSError, DatasetError):
        return False


def has_samples(folder: Path) -> bool:
    """Return whether a folder has committed shards or Lance tables, or shards that are being written."""
    patterns = ("shards/*/*.parquet", "shards/*/.*.journal", "lance/*.lance", "lance/.open/*/*.journal")
    return any(any(folder.glob(pattern)) for pattern in patterns)


def describes_nothing(folder: Path) -> bool:
    """Return whether samples are all that is left of a dataset: nothing says what they are."""
    return has_samples(folder) and not has_lost_manifest(folder) and not (folder / ORIGIN_NAME).exists()


def _no_dataset(folder: Path) -> DatasetError:
    """Return the error for a folder without a manifest."""
    if has_lost_manifest(folder):
        return DatasetError(f"{folder} has lost its {MANIFEST_NAME}", hint="`vrekit repair DATASET` restores it")
    try:
        origin = read_document(folder / ORIGIN_NAME).fields
        command = "transcode" if "transcode" in origin.free("options") else "merge"
        folders = [source.text("folder") for source in origin.list_of("sources")]
    except (OSError, DatasetError):
        if describes_nothing(folder):
            return DatasetError(
                f"{folder} has stored frames, but {MANIFEST_NAME}, {COPY_NAME} and the records in runs/ are lost: "
                "nothing says how to decode them",
                hint=f"restore one of the three from a backup (`vrekit repair DATASET` rebuilds {MANIFEST_NAME} from "
                "runs/); to export anew, choose another folder, or move shards/ and lance/ out of this one",
            )
        what = "is not a dataset (it has no dataset.json)" if folder.is_dir() else "does not exist"
        return DatasetError(
            f"{folder} {what}", hint="`vrekit export VIDEO -o DATASET` makes one; pass the folder that -o named"
        )
    if command == "merge" and len(folders) == 1:
        command = "convert"  # the name that one goes by, though a merge of one dataset is the same
    return DatasetError(
        f"{folder} is not a dataset yet: a {command} of {', '.join(folders)} into it was interrupted, or is going on",
        hint=f"the same `vrekit {command} …` again finishes it; nothing else needs the folder, so it may be deleted",
    )


@contextmanager
def manifest_lock(folder: Path) -> Iterator[None]:
    """Hold the dataset's lock: one process at a time reads, changes and replaces `dataset.json`.

    Behind a URL, it holds other processes of this machine off, and `dataset.json` is brought up to date first.
    """
    check_local(folder)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = open_regular(folder / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if (remote := remote_of(folder)) is not None:
            remote.refresh(MANIFEST_NAME)
        yield
    finally:
        os.close(descriptor)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace `dataset.json` and its copy; call it with `manifest_lock` held.

    Only a dataset that is there already gets the copy first: a copy without a dataset would look like a loss.

    Raises:
        ObjectChangedError, ObjectExistsError: If the dataset is behind a URL, and a process on another machine replaced
            it since the lock was taken: repeat the change.
    """
    for record in manifest.representations.values():  # types of the user's may describe what nobody could read back
        RepresentationRecord.from_json(Fields(record.to_json(), f"{record.spec.name} cannot be written: its record"))
    path = folder / MANIFEST_NAME
    data = document_bytes(replace(manifest, format_version=FORMAT_VERSION).to_json(), str(path))
    if (remote := remote_of(folder)) is not None:
        remote.swap(MANIFEST_NAME, data)
        remote.store.put(COPY_NAME, data)
        write_atomic(path, data)
        return
    names = [MANIFEST_NAME, COPY_NAME]
    for name in reversed(names) if path.exists() else names:
        write_atomic(folder / name, data)
