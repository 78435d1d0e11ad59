"""`vrekit codecs bench`: codecs measured on frames of the user's own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vrekit.codecs.auto import Candidate, fitting_codecs
from vrekit.codecs.base import Codec
from vrekit.codecs.measure import Measurement, measure, measure_npz
from vrekit.codecs.profiles import PROFILES, row_of
from vrekit.codecs.registry import default_codec
from vrekit.compute.sample import sample_arrays
from vrekit.core.errors import CodecError, ComputeError, UsageError
from vrekit.core.names import did_you_mean
from vrekit.core.spec import OutputSpec, RepresentationSpec, canonical_json
from vrekit.graph.build import build_graph
from vrekit.video.opener import open_source


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecBench:
    """Codecs measured on some frames of one representation.

    Attributes:
        representation: Its name.
        spec: What goes into the codecs.
        data: Row of the table of profiles that it belongs to.
        frames: Numbers of the frames that were measured.
        failed_frames: Those on which the representation failed.
        npz: `np.savez_compressed` on the same frames.
        results: Measurements, smallest first.
        default_of: Label of a measurement → profiles that take that codec by default.
        refused: Label of a codec that some frame did not fit → why.
    """

    representation: str
    spec: OutputSpec
    data: str
    frames: tuple[int, ...]
    failed_frames: tuple[int, ...]
    npz: Measurement
    results: tuple[Measurement, ...]
    default_of: Mapping[str, tuple[str, ...]]
    refused: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        return {
            "representation": self.representation,
            "spec": self.spec.to_json(),
            "data": self.data,
            "frames": list(self.frames),
            "failed_frames": list(self.failed_frames),
            "npz": self.npz.to_json(),
            "results": [
                one.to_json()
                | {
                    "smaller_than_npz": self.npz.stored_bytes / one.stored_bytes if one.stored_bytes else None,
                    "default_of": list(self.default_of.get(one.label, ())),
                }
                for one in self.results
            ],
            "refused": dict(self.refused),
        }


def bench_codecs(
    video: str,
    representations: tuple[RepresentationSpec, ...],
    name: str,
    *,
    frames: int = 8,
    rounds: int = 3,
    folders: tuple[Path, ...] = (),
) -> CodecBench:
    """Compute a representation for some frames, evenly spread over a video, and measure every codec that suits it.

    Args:
        video: Path of the video.
        representations: The config's representations.
        name: Which of them.
        frames: Number of frames.
        rounds: Runs of each; the best counts.
        folders: Where relative paths in the config start from.

    Raises:
        UsageError: If the config has no such representation, or it is never stored.
        ComputeError: If it fails on all of the frames.
    """
    names = [spec.name for spec in representations]
    if name not in names:
        raise UsageError(
            f"the config has no representation {name!r}{did_you_mean(name, names)}", hint=f"it has {', '.join(names)}"
        )
    with open_source(video) as source:
        graph = build_graph(representations, height=source.info.height, width=source.info.width, folders=folders)
        node = graph.nodes[name]
        if node.codec is None:
            raise UsageError(f"{name} is virtual (store: false): it is never encoded")
        existing = source.frame_indices
        chosen = existing[np.unique(np.linspace(0, len(existing) - 1, frames).astype(np.int64))].tolist()
        computed = sample_arrays(graph, source, [name], chosen)[name]
    arrays = list(computed.values())
    if not arrays:
        raise ComputeError(f"{name} failed on all of the frames {', '.join(map(str, chosen))}")
    spec, store_as = node.resized, node.spec.store_as
    found = fitting_codecs(spec, store_as=store_as)
    known = {canonical_json(candidate.codec.config()): candidate.label for candidate in found}
    if isinstance(node.codec, Codec) and canonical_json(node.codec.config()) not in known:
        found.append(Candidate(f"{node.codec.id} (of the config)", node.codec))
    results, refused = [], {}
    for candidate in found:
        try:
            results.append(measure(candidate.codec, arrays, spec, rounds=rounds, label=candidate.label))
        except CodecError as error:
            refused[candidate.label] = error.message
    default_of: dict[str, tuple[str, ...]] = {}
    for profile in PROFILES:
        config = default_codec(spec, profile=profile, store_as=store_as).config()
        label = known.get(canonical_json(config), "")
        default_of[label] = (*default_of.get(label, ()), profile)
    return CodecBench(
        representation=name,
        spec=spec,
        data=row_of(spec),
        frames=tuple(computed),
        failed_frames=tuple(frame for frame in chosen if frame not in computed),
        npz=measure_npz([np.asarray(array) for array in arrays], rounds=rounds),
        results=tuple(sorted(results, key=lambda one: one.stored_bytes)),
        default_of=default_of,
        refused=refused,
    )
