"""A lost `dataset.json` made anew: from what the runs' records say was asked for, checked against what is stored.

The requests of all runs go through the steps of an export again, oldest first, up to the manifest; no frame is
computed. What the stored rows say decides: each representation must get the very `config_hash` that its rows have, and
it lies in the group that its shards or tables have. Nothing stored is left out silently.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vrekit.catalog.manifest import COPY_NAME, MANIFEST_NAME, Manifest, RepresentationRecord
from vrekit.catalog.runs import RunRecord, scan_runs
from vrekit.catalog.storage import stored_types
from vrekit.codecs.auto import fitting_codecs
from vrekit.codecs.pipeline import CODED_SUFFIX
from vrekit.codecs.registry import codec_for, option_of
from vrekit.core.documents import Fields
from vrekit.core.errors import DatasetError, VrekitError
from vrekit.core.spec import digest
from vrekit.engine.auto_codec import names_to_measure, with_codecs, with_known_codecs
from vrekit.engine.export import check_trusted, parse_requests
from vrekit.engine.preparation import graph_of, merged_manifest, names_to_store, open_video, records_of, specs_of
from vrekit.engine.request import DEFAULT_SHARD_FRAMES, ExportRequest
from vrekit.graph.build import Graph, Node
from vrekit.representations.registry import REPRESENTATIONS, representation_type
from vrekit.video.base import VideoInfo

_COLUMNS = ("video_id", "representation", "config_hash")
_MOST_NAMED = 10  # lines of a message
_BACKUP = f"restore {MANIFEST_NAME} or {COPY_NAME} from a backup of yours"


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A manifest made anew.

    Attributes:
        manifest: It explains everything that is stored.
        left_out: What of the runs is not in it, and why: nothing is stored of that.
    """

    manifest: Manifest
    left_out: list[str]


@dataclass(slots=True)
class _Stored:
    """What lies on disk, as its rows and names say it.

    Attributes:
        writer: Whose folder is there.
        videos: Ids of the videos that have rows.
        hashes: Config hashes in the rows of each representation.
        groups: Groups in which each representation has rows.
        spans: First and last frame in the names of shards.
        endings: File name ending of the payloads of each representation, of tars.
        damaged: What is wrong with metadata that cannot be read; nobody knows what it is about.
    """

    writer: str | None = None
    videos: set[str] = field(default_factory=set)
    hashes: dict[str, set[str]] = field(default_factory=dict)
    groups: dict[str, set[str]] = field(default_factory=dict)
    spans: set[tuple[int, int]] = field(default_factory=set)
    endings: dict[str, str] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)


def rebuild_manifest(folder: Path, *, trust_code: bool = False) -> Rebuilt:
    """Return the manifest of a dataset that has lost it; nothing is written.

    Args:
        folder: The dataset.
        trust_code: Allow types that are code recorded in the dataset (`module:Class`, `path/file.py:Class`), and read
            the files and videos that its runs name.

    Raises:
        DatasetError: If something that is stored cannot be explained, or a run needs `trust_code`.
    """
    stored = _read_stored(folder)
    records, unreadable = scan_runs(folder)
    runs, damaged = parse_requests(folder, records)
    check_trusted(folder, [request for _, request in runs], trust_code=trust_code, otherwise=_BACKUP)
    problems = [error.message for error in (*unreadable, *damaged)] + stored.damaged
    if not trust_code:
        _check_files(folder, runs)
    runs = _with_settings(runs, stored)
    manifest: Manifest | None = None
    for run, request in runs:
        try:
            manifest = _with_run(manifest, run, request, runs, stored)
        except VrekitError as error:
            problems.append(f"run {run.run_id}: {error.message}")
    if manifest is None:
        unexplained = [] if runs else ["no run's record says what was exported"]
        raise _failed(folder, unexplained, problems)
    if unexplained := list(_unexplained(manifest, stored)):
        raise _failed(folder, unexplained, problems)
    manifest = replace(_as_stored(manifest, stored), created_with=runs[0][0].versions.get("vrekit", ""))
    fields = Fields(manifest.to_json(), f"{folder}: the {MANIFEST_NAME} to be written", hint=_BACKUP)
    return Rebuilt(Manifest.from_json(fields), problems)


def _failed(folder: Path, unexplained: Sequence[str], problems: Sequence[str]) -> DatasetError:
    lines = [*unexplained, *problems]
    more = [f"… and {len(lines) - _MOST_NAMED} more"] if len(lines) > _MOST_NAMED else []
    listed = "\n".join(f"  {line}" for line in [*lines[:_MOST_NAMED], *more])
    return DatasetError(f"{folder}: {MANIFEST_NAME} cannot be rebuilt from the runs:\n{listed}", hint=_BACKUP)


# -- what is stored ----------------------------------------------------------------------------------------------


def _read_stored(folder: Path) -> _Stored:
    stored = _Stored()
    kinds = stored_types(folder)
    if not kinds:
        return stored
    kind = kinds[0]
    stored.writer = kind.name
    for part in kind.parts(folder):
        if part.span is not None:
            stored.spans.add(part.span)
        try:
            rows = part.read(_COLUMNS)
        except DatasetError as error:  # it is repaired, or set aside, once there is a manifest
            stored.damaged.append(error.message)
            continue
        stored.videos.update(rows["video_id"].unique().to_pylist())
        pairs = rows.select(["representation", "config_hash"]).group_by(["representation", "config_hash"]).aggregate([])
        for pair in pairs.to_pylist():
            stored.hashes.setdefault(pair["representation"], set()).add(pair["config_hash"])
            stored.groups.setdefault(pair["representation"], set()).add(part.group)
        names = {pair["representation"] for pair in pairs.to_pylist()}
        if not names <= stored.endings.keys():
            stored.endings |= part.endings(names)
    return stored


def _unexplained(manifest: Manifest, stored: _Stored) -> Iterator[str]:
    """Yield what is stored and is not what the manifest says, or is not in it."""
    for video_id in sorted(stored.videos - manifest.videos.keys()):
        yield f"video {video_id!r} has frames here, but no run says what it is"
    for name, hashes in sorted(stored.hashes.items()):
        record = manifest.representations.get(name)
        if record is None or record.is_virtual:
            yield f"representation {name!r} is stored, but no run says how it was computed"
        elif hashes != {record.config_hash}:
            yield (
                f"representation {name!r} is stored with the config hash {', '.join(sorted(hashes))}, "
                f"but what the runs asked for has {record.config_hash}"
            )
        elif len(stored.groups[name]) > 1:
            yield f"representation {name!r} lies in several groups: {', '.join(sorted(stored.groups[name]))}"


def _as_stored(manifest: Manifest, stored: _Stored) -> Manifest:
    """Return the manifest with each representation in the group that its shards have, and with their file names."""
    records = dict(manifest.representations)
    for name in stored.groups.keys() & records.keys():
        suffix = records[name].suffix or ""
        before = suffix.removesuffix(f".{CODED_SUFFIX}")  # what earlier versions called it
        suffix = before if stored.endings.get(name) == before else suffix
        records[name] = replace(records[name], group=next(iter(stored.groups[name])), suffix=suffix)
    return replace(manifest, representations=records)


# -- what the runs asked for -------------------------------------------------------------------------------------


def _with_settings(
    runs: Sequence[tuple[RunRecord, ExportRequest]], stored: _Stored
) -> list[tuple[RunRecord, ExportRequest]]:
    """Return the runs such that the first one asks for the layout of the dataset: it makes the manifest."""
    if not runs:
        return []
    known: dict[str, Any] = {
        name: next((value for _, one in runs if (value := getattr(one, name)) is not None), None)
        for name in ("writer", "layout", "shard_frames", "shard_size_bytes")
    }
    known["writer"] = stored.writer or known["writer"]
    known["shard_frames"] = known["shard_frames"] or _grid_of(stored)
    (run, request), *others = runs
    return [(run, replace(request, **known)), *((one, replace(asked, writer=None)) for one, asked in others)]


def _grid_of(stored: _Stored) -> int:
    """Return a grid that no shard crosses: the default, or larger, since an old merge does not say its own."""
    width = DEFAULT_SHARD_FRAMES
    while any(first // width != last // width for first, last in stored.spans):
        width *= 2
    return width


def _with_run(
    manifest: Manifest | None,
    run: RunRecord,
    request: ExportRequest,
    runs: Sequence[tuple[RunRecord, ExportRequest]],
    stored: _Stored,
) -> Manifest:
    """Return the manifest as it was when a run began, from the one before it."""
    info = _video_facts(run, runs)
    specs = with_known_codecs(specs_of(request), manifest)
    graph = graph_of(request, info, specs)
    undecided = names_to_measure(graph, names_to_store(request, graph), with_models=True)
    choices = {
        name: choice
        for name in undecided
        if (choice := _chosen_codec(graph.nodes[name], stored, request.profile)) is not None
    }
    if choices:
        graph = graph_of(request, info, with_codecs(specs, choices))
    records = _without(records_of(graph, request), graph, set(undecided) - choices.keys())
    return merged_manifest(request, manifest, run.video_id, info, records)


def _check_files(folder: Path, runs: Sequence[tuple[RunRecord, ExportRequest]]) -> None:
    """Raise DatasetError if rebuilding has to read a file that a run names: a stranger may name any file."""
    known = {run.video_id for run, _ in runs if run.video is not None}
    for run, request in runs:
        named = [request.video] if run.video_id not in known else []
        for spec in request.representations:
            if spec.type in REPRESENTATIONS:
                cls = representation_type(spec.type)
                named += [str(spec.params[name]) for name in cls.path_parameters if name in spec.params]
        if named:
            raise DatasetError(
                f"{folder}: to rebuild {MANIFEST_NAME}, files that run {run.run_id} names have to be read: "
                f"{', '.join(named[:3])}",
                hint="if you trust who made the dataset, allow it with --trust-code; or " + _BACKUP,
            )


def _video_facts(run: RunRecord, runs: Sequence[tuple[RunRecord, ExportRequest]]) -> VideoInfo:
    """Return the facts of a run's video: as it, or another run of the same video, says them, else from the video."""
    if run.video is not None:
        return run.video
    same = [(one, request) for one, request in runs if one.video_id == run.video_id]
    for facts in (one.video for one, _ in same):
        if facts is not None:
            return facts
    places = [request for _, request in same if Path(request.video).exists()]
    if not places:
        raise DatasetError(f"it says no facts about the video, and {same[0][1].video} does not exist")
    with open_video(places[0]) as source:
        return source.info


def _chosen_codec(node: Node, stored: _Stored, profile: str) -> Mapping[str, Any] | None:
    """Return what `codec: auto` chose: the codec that gives the hash of the stored rows; None if there is none."""
    store_as = node.spec.store_as
    tried = [one.codec for one in fitting_codecs(node.resized, store_as=store_as)]
    tried.append(codec_for(None, node.resized, store_as=store_as, profile=profile))
    for codec in tried:
        if digest({**node.identity, "codec": codec.config()}) in stored.hashes.get(node.name, ()):
            return option_of(codec, node.resized, store_as=store_as)
    return None


def _without(
    records: Mapping[str, RepresentationRecord], graph: Graph, undecided: set[str]
) -> dict[str, RepresentationRecord]:
    """Return the records without those whose codec nobody knows, which are stored nowhere, and virtual ones of them."""
    gone = set(undecided)
    for name, node in graph.nodes.items():  # dependencies come first
        if node.codec is None and gone & set(node.spec.dependencies):
            gone.add(name)
    return {name: record for name, record in records.items() if name not in gone}
