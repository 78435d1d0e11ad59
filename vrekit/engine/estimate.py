"""`export --dry-run`: what is left to do, and what it will cost, from a few frames computed and encoded in memory."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrekit.catalog.remote import dataset_folder
from vrekit.codecs.base import ClipCodec, Codec
from vrekit.compute.feeder import Feeder
from vrekit.compute.processor import BatchProcessor
from vrekit.compute.resources import spec_bytes
from vrekit.core.schema import SampleRow
from vrekit.engine.clips import ClipBuilder, ClipMaker
from vrekit.engine.encoding import Encoder
from vrekit.engine.preparation import Preparation, prepare
from vrekit.engine.request import ExportRequest
from vrekit.representations.base import LearnedRepresentation

SAMPLED_FRAMES = 4
SAMPLED_CLIP_FRAMES = 32  # two groups of pictures by default


@dataclass(frozen=True, slots=True, kw_only=True)
class PartEstimate:
    """What one representation will cost.

    Attributes:
        name: Representation.
        codec: How it will be stored.
        frames: Frames to compute.
        already: Frames stored already.
        failed_before: Frames that failed in an earlier run and are left alone (`resume` tries them again).
        estimated_bytes: Payload bytes to write.
        estimated_seconds: CPU seconds to compute and encode, without decoding the video.
        sampled: Whether frames were tried; a model is not loaded for an estimate, its raw size is given instead.
    """

    name: str
    codec: str
    frames: int
    already: int
    failed_before: int
    estimated_bytes: int
    estimated_seconds: float
    sampled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What an export will cost."""

    video_id: str
    frames: int
    sampled_frames: int
    parts: tuple[PartEstimate, ...]

    @property
    def estimated_bytes(self) -> int:
        """Bytes of all representations."""
        return sum(part.estimated_bytes for part in self.parts)

    @property
    def estimated_seconds(self) -> float:
        """CPU seconds of all representations."""
        return sum(part.estimated_seconds for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        return asdict(self) | {"estimated_bytes": self.estimated_bytes, "estimated_seconds": self.estimated_seconds}


def estimate(request: ExportRequest) -> Estimate:
    """Return what exporting `request` would compute and what it would cost. Writes nothing.

    Raises:
        VrekitError: For everything that would stop the export before its first frame.
    """
    request = replace(request, dataset=dataset_folder(request.dataset, for_writing=True))
    prepared = prepare(request, write=False)
    try:
        visit = prepared.plan.frames_to_visit
        sample = (
            visit[np.unique(np.linspace(0, len(visit) - 1, SAMPLED_FRAMES).astype(np.int64))] if len(visit) else visit
        )
        costs = _sample_costs(prepared, sample) if len(sample) else {}
        parts = [_part(prepared, name, costs) for name in prepared.names]
        return Estimate(
            video_id=prepared.video_id,
            frames=len(prepared.plan.wanted),
            sampled_frames=len(sample),
            parts=tuple(parts),
        )
    finally:
        prepared.close()


def _part(prepared: Preparation, name: str, costs: dict[str, tuple[float, float]]) -> PartEstimate:
    node = prepared.graph.nodes[name]
    frames = len(prepared.plan.missing[name])
    left_failed = prepared.plan.left_failed.get(name, 0)
    size, seconds = costs.get(name, (float(spec_bytes(node.stored)), 0.0))
    return PartEstimate(
        name=name,
        codec=node.codec.id if node.codec is not None else "",
        frames=frames,
        already=len(prepared.plan.wanted) - frames - left_failed,
        failed_before=left_failed,
        estimated_bytes=round(size * frames),
        estimated_seconds=seconds * frames,
        sampled=name in costs,
    )


def _sample_costs(prepared: Preparation, frames: NDArray[np.int64]) -> dict[str, tuple[float, float]]:
    """Return bytes and seconds per frame of every representation that needs no model."""
    graph = prepared.graph
    missing = [name for name, left in prepared.plan.missing.items() if len(left)]
    names = _without_models(prepared, graph.closure(missing))
    processor = BatchProcessor(graph)
    encoder = Encoder(processor)
    sizes: dict[str, list[int]] = {}
    seconds: dict[str, float] = dict.fromkeys(names, 0.0)
    for frame in frames:  # one by one: the estimate must not need more memory than the export
        feeder = Feeder(prepared.open(), context=graph.context(names))
        fed = feeder.read(np.array([frame], np.int64), decode=graph.uses_frames(names))
        computed = processor.compute(fed.batch, names, {}, fed.failures)
        for name in names:
            seconds[name] += computed[name].seconds
            if isinstance(graph.nodes[name].codec, Codec):
                payload = encoder.encode(name, computed[name], int(frame), _row(name))
                seconds[name] += payload.row.encode_seconds or 0.0
                if payload.data is not None:
                    sizes.setdefault(name, []).append(len(payload.data))
    costs = {name: (float(np.mean(found)), seconds[name] / len(frames)) for name, found in sizes.items()}
    for name in names:
        codec = graph.nodes[name].codec
        if isinstance(codec, ClipCodec) and name in missing:
            costs[name] = _clip_costs(prepared, name, codec)
    return costs


def _clip_costs(prepared: Preparation, name: str, codec: ClipCodec) -> tuple[float, float]:
    """Return bytes and seconds per frame of a representation that is stored in clips."""
    source = prepared.open()
    frames = prepared.plan.missing[name]
    maker = ClipMaker(codec, source.info, max_bytes=prepared.manifest.shard_size_bytes)
    if maker.remuxer is not None:
        cells = (cell.missing[name] for cell in prepared.plan.cells() if name in cell.missing)
        parts = [part for cell in cells for part in maker.remuxer.split(cell, maker.max_bytes)]
        return sum(map(maker.remuxer.size_bytes, parts)) / len(frames), 0.0
    names = prepared.graph.closure([name])
    processor, feeder = BatchProcessor(prepared.graph), Feeder(source, context=prepared.graph.context(names))
    encoder = Encoder(processor)
    builder = ClipBuilder(maker, frozenset())
    some = frames[len(frames) // 2 :][:SAMPLED_CLIP_FRAMES]
    started = time.process_time()
    for frame in some:
        fed = feeder.read(np.array([frame], np.int64), decode=True)
        computed = processor.compute(fed.batch, names, {}, fed.failures)
        builder.add(encoder.clip_frame(name, computed[name], int(frame), _row(name), by_decoder=False))
    size = sum(len(finished.clip.data or b"") for finished in builder.finish())
    return size / len(some), (time.process_time() - started) / len(some)


def _without_models(prepared: Preparation, names: Sequence[str]) -> list[str]:
    kept: list[str] = []
    for name in names:
        node = prepared.graph.nodes[name]
        if not isinstance(node.instance, LearnedRepresentation) and set(node.spec.dependencies) <= set(kept):
            kept.append(name)
    return kept


def _row(name: str) -> SampleRow:
    return SampleRow(
        video_id="", frame_index=0, pts_seconds=None, representation=name, kind="", run_id="", config_hash=""
    )
