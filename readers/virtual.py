"""Virtual representations: never written, computed on read from stored ones, by the same `compute` as an export's."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrekit.catalog.manifest import Manifest, RepresentationRecord
from vrekit.core.errors import ComputeError, DatasetError, UsageError
from vrekit.core.frames import FrameBatch, Output
from vrekit.readers.locks import ForkSafeLock
from vrekit.representations.base import LearnedRepresentation, Representation
from vrekit.representations.registry import REPRESENTATIONS


class VirtualRepresentation:
    """Computes one virtual representation; pickles as its manifest record, so workers build their own.

    Args:
        record: What the manifest says about it.
        device: Where learned ones run.
        folders: Where a relative `path/file.py:Class` is looked for, first.

    Raises:
        UsageError: If its type cannot be loaded, or needs the video's pixels.
    """

    def __init__(self, record: RepresentationRecord, device: str, folders: tuple[Path, ...] = ()) -> None:
        self.record = record
        self.device = device
        self.folders = folders
        self._lock = ForkSafeLock()
        self._loaded = False
        from vrekit.representations.parameters import build  # only for those who read virtual ones

        cls = REPRESENTATIONS.load(record.spec.type, relative_to=folders)
        self._instance: Representation = build(cls, record.spec.params, record.spec.name)
        if self._instance.uses_frames:
            raise UsageError(
                f"{record.spec.name!r} ({record.spec.type}) is virtual but needs the video's pixels, "
                "which a dataset reader does not have",
                hint="leave it out with representations=[…], or export it with store: true",
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return (VirtualRepresentation, (self.record, self.device, self.folders))

    def compute(
        self, indices: NDArray[np.int64], pts_seconds: NDArray[np.float64], dependencies: Mapping[str, Output]
    ) -> Output:
        """Return the output for some frames of one video.

        Args:
            indices: Frame numbers, int64 (N,).
            pts_seconds: Presentation times, float64 (N,).
            dependencies: Outputs for the same frames, as they come back from storage.
        """
        spec = self.record.spec
        frames = np.empty((len(indices), 0, 0, 3), np.uint8)
        batch = FrameBatch(frames=frames, indices=indices, pts_seconds=pts_seconds)
        ordered = {name: dependencies[name] for name in spec.dependencies}
        if self._instance.thread_safe:
            output = self._instance.compute(batch, ordered)
        else:
            with self._lock:
                if isinstance(self._instance, LearnedRepresentation) and not self._loaded:
                    self._instance.load_weights(self.device)
                    self._loaded = True
                output = self._instance.compute(batch, ordered)
        if len(output) != len(indices):
            raise ComputeError(f"{spec.name} ({spec.type}) returned {len(output)} outputs for {len(indices)} frames")
        if spec.output_size is None and spec.output_dtype is None:
            return output
        from vrekit.representations.resize import resize_output

        return resize_output(output, self.record.memory, spec.output_size, spec.output_dtype)[0]


def computing_order(manifest: Manifest, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return (stored names to read, virtual names to compute) for `names`, dependencies before dependents.

    Raises:
        DatasetError: If a dependency of a virtual representation is not in the dataset.
    """
    stored: dict[str, None] = {}
    virtual: dict[str, None] = {}

    def visit(name: str, path: Sequence[str]) -> None:
        if name in stored or name in virtual:
            return
        record = manifest.representations.get(name)
        if record is None or name in path:
            raise DatasetError(
                f"{' → '.join([*path, name])}: {'a circle of dependencies' if name in path else 'not in the dataset'}"
            )
        if not record.is_virtual:
            stored[name] = None
            return
        for dependency in record.spec.dependencies:
            visit(dependency, [*path, name])
        virtual[name] = None

    for name in names:
        visit(name, [])
    return list(stored), list(virtual)


def leaves(manifest: Manifest, name: str) -> list[str]:
    """Return the stored representations that `name` is read or computed from."""
    return computing_order(manifest, [name])[0]
