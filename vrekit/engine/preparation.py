"""What is settled before the first frame is computed: the video's facts, the graph, the manifest and the plan.

A changed config, another video under a known name or a codec that does not fit end here, before anything is written.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrekit import __version__
from vrekit.catalog.card import CARD_NAME, write_card
from vrekit.catalog.manifest import (
    COPY_NAME,
    MANIFEST_NAME,
    Manifest,
    RepresentationRecord,
    describes_nothing,
    has_lost_manifest,
    manifest_lock,
    read_manifest,
    write_manifest,
)
from vrekit.catalog.progress import read_progress
from vrekit.catalog.remote import remote_of
from vrekit.catalog.storage import Storage, open_storage
from vrekit.codecs.base import ClipCodec
from vrekit.core.errors import ConflictError, ObjectChangedError, ObjectExistsError, UsageError, VideoError
from vrekit.core.files import is_temporary
from vrekit.core.names import NOT_UTF8_HINT, check_local, check_video_id, did_you_mean, is_utf8, video_id_from_path
from vrekit.core.schema import FORMAT_VERSION
from vrekit.core.spec import RepresentationSpec, image_owner
from vrekit.engine.auto_codec import measured_codecs, names_to_measure, with_codecs, with_known_codecs
from vrekit.engine.clip_checks import check_container
from vrekit.engine.plan import Plan, make_plan
from vrekit.engine.request import DEFAULT_SHARD_FRAMES, DEFAULT_SHARD_SIZE_BYTES, ExportRequest
from vrekit.graph.build import Graph, build_graph, with_image_specs
from vrekit.video.base import VideoInfo, VideoSource
from vrekit.video.facts import losses, ranges
from vrekit.video.files import FileSource
from vrekit.video.fingerprint import fingerprint
from vrekit.video.opener import check_video_name, open_source

logger = logging.getLogger(__name__)

_CHANGES = 20  # how often other exports may change the manifest of a dataset behind a URL while this one does
_MOVED = "if it was moved, export it again from where it is now: what is stored stays"


@dataclass(slots=True)
class Preparation:
    """Everything known before the first frame is computed; `source` is opened only when something must be decoded."""

    request: ExportRequest
    manifest: Manifest
    graph: Graph
    video_id: str
    info: VideoInfo
    plan: Plan
    names: list[str]
    source: VideoSource | None

    def open(self) -> VideoSource:
        """Return the frame source, opening it if that was not needed so far."""
        if self.source is None:
            self.source = open_video(self.request, self.info)
        return self.source

    def close(self) -> None:
        """Close the source, if it is open."""
        if self.source is not None:
            self.source.close()


def prepare(request: ExportRequest, *, retry_failed: bool = False, write: bool = False) -> Preparation:
    """Open the video as far as needed, build the graph, check it against the dataset and plan the work.

    Args:
        request: What to export.
        retry_failed: Plan failed frames again.
        write: Register the video and the representations in the dataset, making it when it is not there.
    """
    check_local(request.dataset)
    check_video_name(request.video)
    _check_recorded(request.dataset, request.config_folder, request.working_folder or Path.cwd())
    video_id = check_video_id(request.video_id or video_id_from_path(request.video))
    known = read_manifest(request.dataset) if (request.dataset / MANIFEST_NAME).exists() else None
    _check_target(request.dataset)
    source: VideoSource | None = None
    info = _known_info(request, known, video_id, must_exist=not retry_failed)
    is_new = False
    if info is None:
        source = open_video(request)
        info = source.info
        is_new = True
    try:
        if request.check_video:
            source = source or open_video(request, info)
            info = _checked(source, info)
        if write and (is_new or request.check_video) and (lost := losses(info)):
            logger.warning("%s: %s", request.video, lost)
        specs = specs_of(request)
        graph = graph_of(request, info, with_known_codecs(specs, known))
        names = names_to_store(request, graph)
        _check_clips(graph, names, info)
        if known is None or video_id not in known.videos or not known.representations.keys() >= set(names):
            _check_containers(graph, names, info)
        choices: dict[str, Mapping[str, Any]] = {}
        if undecided := names_to_measure(graph, names, with_models=write):
            wanted, source = _wanted_frames(request, info, source)
            source = source or open_video(request, info)
            choices = measured_codecs(graph, undecided, source, wanted, request)
            graph = graph_of(request, info, with_codecs(with_known_codecs(specs, known), choices))
        if write:
            graph, manifest = _registered(request, known, video_id, info, specs, graph, choices)
        else:
            manifest = merged_manifest(request, known, video_id, info, records_of(graph, request))
        wanted, source = _wanted_frames(request, info, source)
        plan = make_plan(
            video_id=video_id,
            wanted=wanted,
            names=names,
            progress=read_progress(open_storage(request.dataset, manifest), video_id),
            manifest=manifest,
            retry_failed=retry_failed,
        )
    except BaseException:
        if source is not None:
            source.close()
        raise
    return Preparation(request, manifest, graph, video_id, info, plan, names, source)


def _registered(
    request: ExportRequest,
    known: Manifest | None,
    video_id: str,
    info: VideoInfo,
    specs: Sequence[RepresentationSpec],
    graph: Graph,
    choices: Mapping[str, Mapping[str, Any]],
) -> tuple[Graph, Manifest]:
    """Add a video and representations to the manifest as it is now; return the graph and the manifest."""
    dataset = request.dataset
    for left in reversed(range(_CHANGES)):
        try:
            with manifest_lock(dataset):
                fresh = read_manifest(dataset) if (dataset / MANIFEST_NAME).exists() else None
                if choices and fresh != known:  # another export may have chosen meanwhile: the first one counts
                    graph = graph_of(request, info, with_codecs(with_known_codecs(specs, fresh), choices))
                manifest = merged_manifest(request, fresh, video_id, info, records_of(graph, request))
                storage = open_storage(dataset, manifest)  # before anything is written: it may refuse URLs
                # killed between these writes, or the disk was full; a dataset of version 1 has no copy
                is_cut = manifest.format_version == FORMAT_VERSION and not all(
                    _has_file(dataset, name) for name in (CARD_NAME, COPY_NAME)
                )
                if manifest != fresh or is_cut:
                    _register(storage, is_new=fresh is None)
                return graph, manifest
        except (ObjectChangedError, ObjectExistsError):  # an export on another machine was faster
            if not left:
                raise
    raise AssertionError("unreachable")


def _has_file(dataset: Path, name: str) -> bool:
    remote = remote_of(dataset)
    return (dataset / name).exists() if remote is None else remote.has(name)


def _register(storage: Storage, *, is_new: bool) -> None:
    """Write the manifest and the card; killed in between, the next export writes both again."""
    if not is_new:  # a new folder needs its manifest first
        write_card(storage)
    write_manifest(storage.folder, storage.manifest)
    if is_new:
        write_card(storage)


def graph_of(request: ExportRequest, info: VideoInfo, specs: Sequence[RepresentationSpec]) -> Graph:
    """Return the graph of specs for frames of a video."""
    return build_graph(
        specs,
        height=info.height,
        width=info.width,
        folders=request.folders,
        profile=request.profile,
        position=request.position,
    )


def open_video(request: ExportRequest, known: VideoInfo | None = None) -> VideoSource:
    """Open the video of a request; one the dataset knows with the stream and the clock it has there."""
    if known is None:
        return open_source(request.video, stream_index=request.stream_index, fps=request.fps)
    if not os.path.exists(request.video):
        raise VideoError(f"{request.video} does not exist", hint=_MOVED)
    fps = None if known.source == "file" else known.fps
    return open_source(request.video, stream_index=known.stream_index, fps=fps)


def _checked(source: VideoSource, info: VideoInfo) -> VideoInfo:
    """Return the facts with the frames that decode with errors; other sources than files tell when they are read."""
    return replace(info, damaged_frames=ranges(source.damaged_frames())) if isinstance(source, FileSource) else info


def _check_recorded(*paths: Path | None) -> None:
    """Raise UsageError if a path that a run's record names is no text; before anything is written."""
    for path in paths:
        if path is not None and not is_utf8(path):
            raise UsageError(f"{path} is not UTF-8 text", hint=NOT_UTF8_HINT)


def _check_target(dataset: Path) -> None:
    if not dataset.exists() or remote_of(dataset) is not None:  # of what is behind a URL, the mirror has a part
        return
    if not dataset.is_dir():
        raise UsageError(f"{dataset} is a file; -o needs a folder", hint="choose another folder with -o")
    foreign = any(entry.name != ".lock" and not is_temporary(entry) for entry in dataset.iterdir())
    # Looked at last: another process may be making this very dataset, and writes its manifest first.
    if foreign and not (dataset / MANIFEST_NAME).exists():
        if has_lost_manifest(dataset) or describes_nothing(dataset):
            read_manifest(dataset)  # raises the error that says what to do
        raise UsageError(
            f"{dataset} is not empty and is no vrekit dataset",
            hint="choose a new folder with -o, so that nothing of yours gets mixed with the dataset",
        )


def _known_info(request: ExportRequest, known: Manifest | None, video_id: str, *, must_exist: bool) -> VideoInfo | None:
    """Return the video's facts from the dataset when it is the same one: that saves opening a decoder."""
    info = known.videos.get(video_id) if known is not None else None
    if info is None:
        return None
    if not os.path.exists(request.video):
        if not must_exist:
            return info
        raise VideoError(f"{request.video} does not exist", hint=_MOVED)
    same_stream = request.stream_index is None or request.stream_index == info.stream_index
    same_clock = request.fps is None or request.fps == info.fps
    return info if same_stream and same_clock and fingerprint(Path(request.video)) == info.fingerprint else None


def specs_of(request: ExportRequest) -> list[RepresentationSpec]:
    """Return the specs of a request and those of the pictures it asks for.

    Raises:
        UsageError: If `only` names one that is not there.
    """
    names = [spec.name for spec in request.representations]
    for name in request.only:
        if name not in names:
            raise UsageError(
                f"the config has no representation {name!r}{did_you_mean(name, names)}",
                hint=f"it has {', '.join(names)}",
            )
    return with_image_specs(request.representations, request.images)


def names_to_store(request: ExportRequest, graph: Graph) -> list[str]:
    """Return the names of the representations that a request stores."""
    stored = [name for name, node in graph.nodes.items() if node.codec is not None]
    if not request.only:
        return stored
    return [name for name in stored if (image_owner(name) or name) in request.only]


def _check_clips(graph: Graph, names: Sequence[str], info: VideoInfo) -> None:
    for name in names:
        codec = graph.nodes[name].codec
        if isinstance(codec, ClipCodec) and codec.copies_source and info.source != "file":
            raise UsageError(
                f"{name}: codec {codec.id!r} without `encode` copies the packets of a video file; {info.uri} is none",
                hint=f"`codec: {{id: {codec.id}, encode: ffv1}}` keeps frames exactly; h264, hevc and av1 lose detail",
            )


def _check_containers(graph: Graph, names: Sequence[str], info: VideoInfo) -> None:
    for name in names:
        codec = graph.nodes[name].codec
        if isinstance(codec, ClipCodec) and codec.copies_source:
            check_container(codec, info)


def records_of(graph: Graph, request: ExportRequest) -> dict[str, RepresentationRecord]:
    """Return what the dataset notes of the representations that a request asks for; groups come with the manifest."""
    wanted = set(request.only) or set(graph.nodes)
    return {
        name: RepresentationRecord(
            spec=node.spec,
            identity=node.identity,
            memory=node.memory,
            stored=node.stored,
            codec=None if node.codec is None else node.codec.config(),
            suffix=None if node.codec is None else node.codec.suffix,
            clips=isinstance(node.codec, ClipCodec),
        )
        for name, node in graph.nodes.items()
        if (image_owner(name) or name) in wanted
    }


def merged_manifest(
    request: ExportRequest,
    known: Manifest | None,
    video_id: str,
    info: VideoInfo,
    records: Mapping[str, RepresentationRecord],
) -> Manifest:
    """Return the manifest with a video and representations added; a new one when none is known.

    Raises:
        ConflictError: If it has others of the same name, or the request asks for another layout.
        UsageError: If a virtual representation would lack a dependency.
    """
    if known is None:
        known = Manifest(
            writer=request.writer or "webdataset",
            layout=request.layout or "sample",
            shard_frames=request.shard_frames or DEFAULT_SHARD_FRAMES,
            shard_size_bytes=request.shard_size_bytes or DEFAULT_SHARD_SIZE_BYTES,
            created_with=__version__,
        )
    for name in ("writer", "layout", "shard_frames", "shard_size_bytes"):
        asked, has = getattr(request, name), getattr(known, name)
        if asked is not None and asked != has:
            raise ConflictError(
                f"the dataset has {name.replace('_', ' ')} {has}, asked for {asked}",
                hint="leave the option away, or choose another output with -o",
            )
    merged = known.with_video(video_id, info).with_representations(records)
    for name, record in records.items():
        lacking = [one for one in record.spec.dependencies if one not in merged.representations]
        if record.is_virtual and lacking:
            raise UsageError(
                f"{name} is virtual (store: false) and computed on read from {' and '.join(lacking)}, "
                "which the dataset would not hold",
                hint=f"export that too (-r {','.join([*lacking, name])}), or set `store: true` for {name}",
            )
    return merged


def _wanted_frames(
    request: ExportRequest, info: VideoInfo, source: VideoSource | None
) -> tuple[NDArray[np.int64], VideoSource | None]:
    selection = request.frames
    if source is None and (info.source != "file" or selection.fps is not None):
        source = open_video(request, info)
    existing = np.arange(info.frame_count, dtype=np.int64) if source is None else source.frame_indices
    pts = source.pts_seconds(existing) if source is not None and selection.fps is not None else None
    return selection.select(existing, pts), source
