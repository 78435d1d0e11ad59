"""Dependencies that the dataset holds exactly: read back, they are what computing them again would give."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vrekit.catalog.manifest import Manifest
from vrekit.catalog.storage import Storage
from vrekit.codecs.registry import clip_codec, stored_codec
from vrekit.compute.processor import Computed
from vrekit.core.errors import ChecksumError, CodecError, DatasetError
from vrekit.core.frames import Output
from vrekit.core.spec import digest
from vrekit.engine.plan import Plan, runs_of_equal_work
from vrekit.graph.build import Graph
from vrekit.readers.index import INDEX_COLUMNS, MISSING, FrameIndex
from vrekit.readers.payloads import StoredPayloads
from vrekit.video.base import DecodedFrames, VideoInfo, VideoSource

# Not part of what decides the values in memory, see `Node.identity`.
_STORAGE_KEYS = ("store_as", "codec")
_NOT_EXACT_KEYS = ("output_size", "output_dtype")


class StoredOutputs:
    """Outputs of one video that an export can read instead of computing. Threads may call it at once."""

    def __init__(self, storage: Storage, graph: Graph, video_id: str, names: Sequence[str]) -> None:
        """Look up where these representations are stored.

        Args:
            storage: The dataset.
            graph: What is exported.
            video_id: Which video.
            names: Representations of the graph that the dataset holds exactly.
        """
        self._graph = graph
        self._video_id = video_id
        self._names = frozenset(names)
        table = storage.rows(INDEX_COLUMNS, [video_id] if names else [])
        self._payloads = StoredPayloads.of_rows(storage, table, names)
        self._index = self._payloads.index

    @classmethod
    def for_plan(cls, storage: Storage, graph: Graph, plan: Plan) -> Self:
        """Return what can be read back for the work of `plan`."""
        missing = [name for name, frames in plan.missing.items() if len(frames)]
        names = [name for name in graph.closure(missing) if _is_exact(name, storage.manifest, graph)]
        is_dependency = {one for name in graph.closure(missing) for one in graph.nodes[name].spec.dependencies}
        return cls(storage, graph, plan.video_id, [name for name in names if name in is_dependency])

    def split(self, todo: Collection[str], frames: NDArray[np.int64]) -> tuple[list[str], list[str]]:
        """Return what to read back and what to compute, so that all of `todo` can be stored for these frames.

        Args:
            todo: Representations to store; they are computed.
            frames: Frame numbers.

        Returns:
            Both in computing order. A representation that is missing for one of the frames is computed for all.
        """
        rows = self._rows(frames)
        read: set[str] = set()
        compute: set[str] = set()
        left = list(todo)
        while left:
            name = left.pop()
            if name in read or name in compute:
                continue
            if name not in todo and self._has(name, rows):
                read.add(name)
            else:
                compute.add(name)
                left += self._graph.nodes[name].spec.dependencies
        order = self._graph.nodes
        return [name for name in order if name in read], [name for name in order if name in compute]

    def names_of_plan(self, plan: Plan) -> tuple[list[str], list[str]]:
        """Return what is read back and what is computed for at least one frame of a plan, both in computing order."""
        read: set[str] = set()
        compute: set[str] = set()
        for frames, todo in runs_of_equal_work(plan.missing):
            some_read, some_computed = self.split(todo, frames)
            read.update(some_read)
            compute.update(some_computed)
        order = self._graph.nodes
        return [name for name in order if name in read], [name for name in order if name in compute]

    def _rows(self, frames: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._index.find([self._video_id] * len(frames), frames)

    def _has(self, name: str, rows: NDArray[np.int64]) -> bool:
        if name not in self._names or (rows == MISSING).any():
            return False
        return bool(self._index.columns[name].present[rows].all())

    def read(self, name: str, frames: NDArray[np.int64]) -> Computed:
        """Return what is stored of a representation; a damaged payload is an error of its frame.

        Args:
            name: What `split` said to read.
            frames: Frame numbers.
        """
        result = Computed()
        rows = self._rows(frames)
        try:
            payloads = self._payloads.read(rows, [name])[name]
        except (CodecError, DatasetError) as error:
            result.errors = dict.fromkeys(frames.tolist(), f"{error.message} ({error.hint})")
            return result
        found: dict[int, NDArray[Any]] = {}
        for frame, row, payload in zip(frames.tolist(), rows.tolist(), payloads, strict=True):
            assert payload is not None  # `split` looks
            try:
                found[frame] = self._payloads.decode(name, row, payload)
            except ChecksumError:
                result.errors[frame] = "the stored payload changed since it was written (`vrekit validate` says more)"
            except CodecError as error:
                result.errors[frame] = f"the stored payload does not decode: {error.message}"
        is_read = np.isin(frames, list(found))
        result.add(list(found), Output(data=list(found.values()), valid=self._index.columns[name].valid[rows[is_read]]))
        return result

    def source(self, plan: Plan, info: VideoInfo, open_source: Callable[[], VideoSource]) -> VideoSource:
        """Return the video of a plan, which is opened only for its pixels or for frames that nothing is known of."""
        _, compute = self.names_of_plan(plan)
        rows = self._rows(plan.frames_to_visit)
        if self._graph.uses_frames(compute) or (rows == MISSING).any():
            return open_source()
        return _KnownFrames(info, self._index, open_source)


def _is_exact(name: str, manifest: Manifest, graph: Graph) -> bool:
    """Return whether the dataset holds `name` as the graph computes it, bit for bit."""
    node, record = graph.nodes[name], manifest.representations.get(name)
    if record is None or record.codec is None or clip_codec(record.codec) is not None:
        return False  # a clip takes as long to decode as the video
    computed = {key: value for key, value in record.identity.items() if key not in _STORAGE_KEYS}
    if digest(computed) != node.compute_digest or any(computed.get(key) for key in _NOT_EXACT_KEYS):
        return False
    return stored_codec(name, record.codec).is_exact


class _KnownFrames(VideoSource):
    """A video of which nothing but the times of stored frames is asked; opened if that turns out to be wrong."""

    def __init__(self, info: VideoInfo, index: FrameIndex, open_source: Callable[[], VideoSource]) -> None:
        self.info = info
        self._index = index
        self._open = open_source

    @property
    def frame_indices(self) -> NDArray[np.int64]:
        """See VideoSource."""
        return self._open().frame_indices

    def pts_seconds(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """See VideoSource."""
        return self._index.pts_seconds[np.searchsorted(self._index.frame_index, indices)]

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> DecodedFrames:
        """See VideoSource."""
        return self._open().read(indices)

    def close(self) -> None:
        """Nothing: who gave `open_source` closes what it opened."""
