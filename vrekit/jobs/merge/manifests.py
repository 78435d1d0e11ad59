"""Merging what datasets say about themselves: videos by fingerprint, representations by config hash, groups."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from vrekit import __version__
from vrekit.catalog.manifest import Manifest, RepresentationRecord, differences_between, file_name_part
from vrekit.catalog.storage import CopySource
from vrekit.jobs.merge.sources import Source
from vrekit.video.base import VideoInfo

OnConflict = Literal["error", "first", "last"]
JOINED_GROUP = "all"


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two sources that disagree.

    Attributes:
        code: `video`, `representation` or `frame`.
        message: Who says what, for people.
        hint: What makes them agree, where something does.
    """

    code: Literal["video", "representation", "frame"]
    message: str
    hint: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """The manifest of the result, and what each source contributes to it.

    Attributes:
        manifest: The `dataset.json` to be.
        order: The sources, the one that wins a conflict first.
        video_names: For each source (by number): its video ids → the id in the result, without videos left out.
        names: For each source (by number): the representations whose rows are taken.
        conflicts: Where sources disagree about a video or a representation.
    """

    manifest: Manifest
    order: tuple[Source, ...]
    video_names: tuple[Mapping[str, str], ...]
    names: tuple[frozenset[str], ...]
    conflicts: tuple[Conflict, ...]

    @property
    def copy_sources(self) -> list[CopySource]:
        """The sources as a storage copies from them, in order of preference."""
        return [
            CopySource(source.number, source.storage, self.video_names[source.number], self.names[source.number])
            for source in self.order
        ]

    @property
    def renamed(self) -> list[tuple[Source, str, str]]:
        """Videos that the result knows under another name: (source, name there, name in the result)."""
        return [
            (source, old, new)
            for source in sorted(self.order, key=lambda source: source.number)
            for old, new in self.video_names[source.number].items()
            if old != new
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What the result is to look like; None takes it from the sources.

    Attributes:
        writer: `webdataset` or `lance`; None takes the first source's.
        shard_frames: Width of the grid; None takes the largest one.
        shard_size_bytes: Bytes of a full shard; None takes the largest one.
        join: Put all representations of a frame into one sample, whatever groups they lie in.
    """

    writer: str | None = None
    shard_frames: int | None = None
    shard_size_bytes: int | None = None
    join: bool = False


def combine(sources: Sequence[Source], layout: Layout, on_conflict: OnConflict) -> Combined:
    """Return the manifest of the result; where sources disagree, the first (or last) one's entry.

    Args:
        sources: The datasets, at least one.
        layout: Of the result.
        on_conflict: Who wins; `error` is treated as `first`, and the caller looks at the conflicts.
    """
    order = tuple(reversed(sources) if on_conflict == "last" else sources)
    conflicts: list[Conflict] = []
    videos, video_names = _videos(order, conflicts)
    records, names = _records(order, conflicts)
    groups = _joined(records) if layout.join else _groups(order, names)
    manifests = [source.manifest for source in sources]
    manifest = Manifest(
        writer=layout.writer or manifests[0].writer,
        layout="sample" if layout.join else manifests[0].layout,
        shard_frames=layout.shard_frames or max(one.shard_frames for one in manifests),
        shard_size_bytes=layout.shard_size_bytes or max(one.shard_size_bytes for one in manifests),
        videos=videos,
        representations={name: replace(record, group=groups.get(name)) for name, record in records.items()},
        created_with=__version__,
    )
    by_number = sorted(range(len(order)), key=lambda at: order[at].number)
    return Combined(
        manifest=manifest,
        order=order,
        video_names=tuple(video_names[at] for at in by_number),
        names=tuple(names[at] for at in by_number),
        conflicts=tuple(conflicts),
    )


def _videos(order: Sequence[Source], conflicts: list[Conflict]) -> tuple[dict[str, VideoInfo], list[dict[str, str]]]:
    merged: dict[str, VideoInfo] = {}
    owner: dict[str, Source] = {}
    names: list[dict[str, str]] = []
    for source in order:
        mine: dict[str, str] = {}
        for video_id, info in source.manifest.videos.items():
            known = merged.get(video_id)
            if known is not None and not _same_video(known, info):
                conflicts.append(_video_conflict(video_id, owner[video_id], known, source, info))
                continue
            # The same content under another name is the same video, unless this source itself tells them apart.
            twins = [one for one, its in merged.items() if _same_video(its, info) and owner[one] is not source]
            free = [one for one in twins if one not in source.manifest.videos and one not in mine.values()]
            target = free[0] if known is None and len(free) == 1 else video_id
            mine[video_id] = target
            if target not in merged:
                merged[target], owner[target] = info, source
        names.append(mine)
    return merged, names


def _same_video(a: VideoInfo, b: VideoInfo) -> bool:
    return a.fingerprint == b.fingerprint and a.stream_index == b.stream_index


def _video_conflict(video_id: str, a: Source, its: VideoInfo, b: Source, other: VideoInfo) -> Conflict:
    def said(info: VideoInfo) -> str:
        stream = "" if info.stream_index is None else f", stream {info.stream_index}"
        return f"{info.frame_count} frames, {info.width}x{info.height}, fingerprint {info.fingerprint}{stream}"

    message = f"video {video_id!r} is {said(its)} in {a.folder}, but {said(other)} in {b.folder}"
    return Conflict("video", message)


def _codec_hint(source: Source, known: RepresentationRecord, record: RepresentationRecord) -> str | None:
    """Return how to make a source's representation like the known one, if they differ in nothing but the codec."""
    same = all(
        known.identity.get(key) == record.identity.get(key) for key in {*known.identity, *record.identity} - {"codec"}
    )
    if not same or known.codec is None or record.codec is None:
        return None
    codec = known.codec.get("id")
    return (
        f"`vrekit transcode {source.folder} --codec {record.spec.name}={codec} -o …` first gives it the other's codec"
    )


def _records(
    order: Sequence[Source], conflicts: list[Conflict]
) -> tuple[dict[str, RepresentationRecord], list[frozenset[str]]]:
    merged: dict[str, RepresentationRecord] = {}
    owner: dict[str, Source] = {}
    names = []
    for source in order:
        taken = set()
        for name, record in source.manifest.representations.items():
            known = merged.setdefault(name, record)
            holder = owner.setdefault(name, source)
            if known.config_hash == record.config_hash:
                taken.add(name)
                continue
            lines = differences_between(
                name, known.identity, record.identity, has=f"{holder.folder} has", asked=f"{source.folder} has"
            )
            conflicts.append(Conflict("representation", "\n".join(lines), _codec_hint(source, known, record)))
        names.append(frozenset(taken))
    return merged, names


def _joined(records: Mapping[str, RepresentationRecord]) -> dict[str, str]:
    groups = {name: JOINED_GROUP for name, record in records.items() if not (record.is_virtual or record.clips)}
    for name, record in records.items():
        if record.clips:  # a clip spans samples
            groups[name] = _free_group(file_name_part(name), [name], set(groups.values()))
    return groups


def _groups(order: Sequence[Source], names: Sequence[frozenset[str]]) -> dict[str, str]:
    """Return the group of each stored representation, such that most shards can be kept as they are.

    A group that shares a representation with one already there goes on in it; others keep to themselves.
    """
    groups: dict[str, str] = {}
    for source, taken in zip(order, names, strict=True):
        for group, members in source.manifest.groups.items():
            mine = [name for name in members if name in taken]
            known = [groups[name] for name in mine if name in groups]
            new = [name for name in mine if name not in groups]
            if new:
                target = known[0] if known else _free_group(group, new, set(groups.values()))
                groups.update(dict.fromkeys(new, target))
    return groups


def _free_group(group: str, members: Sequence[str], used: set[str]) -> str:
    if group not in used:
        return group
    name = file_name_part(members[0]) if len(members) == 1 else f"add{len(used)}"
    while name in used:
        name += "_"
    return name
