"""`codec: auto` in an export: measured once, before anything is stored, and kept with the dataset from then on."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrekit.catalog.manifest import Manifest
from vrekit.codecs.profiles import is_auto
from vrekit.compute.resources import spec_bytes
from vrekit.compute.sample import sample_arrays
from vrekit.core.spec import RepresentationSpec
from vrekit.engine.request import ExportRequest
from vrekit.graph.build import Graph
from vrekit.representations.base import LearnedRepresentation
from vrekit.video.base import VideoSource

logger = logging.getLogger(__name__)

# The first frames stand for the rest; neighbours look alike, so that these are spread a little.
SAMPLED_FRAMES, SAMPLED_AMONG = 8, 64


def with_known_codecs(specs: Sequence[RepresentationSpec], known: Manifest | None) -> list[RepresentationSpec]:
    """Return the specs with each `auto` replaced by what the dataset has, where it has the representation already."""
    records = known.representations if known is not None else {}
    choices: dict[str, str | Mapping[str, Any]] = {}
    for spec in specs:
        record = records.get(spec.name)
        if record is None or record.codec is None:
            continue
        if spec.store_as is None:
            choices[spec.name] = record.codec
        elif record.spec.codec is not None:  # `record.codec` begins with the stages of `store_as`
            choices[spec.name] = record.spec.codec
    return with_codecs(specs, choices)


def with_codecs(
    specs: Sequence[RepresentationSpec], choices: Mapping[str, str | Mapping[str, Any]]
) -> list[RepresentationSpec]:
    """Return the specs with each `auto` that there is a choice for replaced by it."""
    return [
        spec.with_options(codec=choices[spec.name]) if is_auto(spec.codec) and spec.name in choices else spec
        for spec in specs
    ]


def names_to_measure(graph: Graph, names: Sequence[str], *, with_models: bool) -> list[str]:
    """Return which of `names` have a codec that is yet to be chosen.

    Args:
        graph: What is exported.
        names: Representations to store.
        with_models: Whether those that need a model are among them: to measure them, it must be loaded.
    """
    return [
        name
        for name in names
        if is_auto(graph.nodes[name].spec.codec)
        and (
            with_models
            or not any(isinstance(graph.nodes[one].instance, LearnedRepresentation) for one in graph.closure([name]))
        )
    ]


def measured_codecs(
    graph: Graph, names: Sequence[str], source: VideoSource, wanted: NDArray[np.int64], request: ExportRequest
) -> dict[str, Mapping[str, Any]]:
    """Return the config of the chosen codec for each representation, from some of the first frames.

    Args:
        graph: What is exported.
        names: Representations to measure.
        source: The video.
        wanted: Frame numbers to be exported, rising.
        request: Says which profile is asked for, and bounds the memory.
    """
    from vrekit.codecs.auto import choose_codec

    size = sum(spec_bytes(graph.nodes[name].resized) for name in names)
    count = max(1, min(SAMPLED_FRAMES, request.memory_bytes // max(1, size)))
    first = wanted[:SAMPLED_AMONG]
    frames = first[np.unique(np.linspace(0, len(first) - 1, count).astype(np.int64))] if len(first) else first
    arrays = sample_arrays(graph, source, names, frames.tolist())
    choices = {}
    for name in names:
        node = graph.nodes[name]
        chosen = choose_codec(
            node.spec.codec or "auto",
            node.resized,
            list(arrays[name].values()),
            profile=request.profile,
            store_as=node.spec.store_as,
        )
        choices[name] = chosen.config
        tried = ", ".join(f"{one.label} {one.stored_bytes} B {one.decode_mbps:.0f} MB/s" for one in chosen.measurements)
        logger.info("codec of %s: %s, chosen from %s", name, chosen.config["id"], tried or "no other")
    return choices
