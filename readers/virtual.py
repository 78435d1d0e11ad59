"""Virtual representations: never written, computed on read from stored ones, by the same `compute` as an export's."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrekit.catalog.manifest import Manifest, RepresentationRecord
from vrekit.catalog.trust import RecordedCode, is_code
from vrekit.core.errors import ComputeError, DatasetError, UsageError, VrekitError
from vrekit.core.fork_lock import ForkSafeLock
from vrekit.core.frames import FrameBatch, Output
from vrekit.core.spec import RepresentationSpec
from vrekit.representations.base import LearnedRepresentation, Representation, input_count_problem
from vrekit.representations.registry import representation_type

_MOST_NAMED = 10  # representations in a message


class VirtualRepresentation:
    """Computes one virtual representation; pickles as its manifest record, so workers build their own.

    Args:
        record: What the manifest says about it.
        device: Where learned ones run.
        code: Which code of the dataset may run; checked here again in each worker.

    Raises:
        DatasetError: If its type is code recorded in the dataset that may not run, would read files, or takes another
            number of dependencies.
        UsageError: If its type cannot be loaded, or needs the video's pixels.
    """

    def __init__(self, record: RepresentationRecord, device: str, code: RecordedCode) -> None:
        self.record = record
        self.device = device
        self.code = code
        self._lock = ForkSafeLock()
        self._loaded = False
        from vrekit.representations.parameters import build  # only for those who read virtual ones

        code.check([record.spec])
        cls = representation_type(record.spec.type, relative_to=code.folders)
        _check_reads_no_files(record.spec, cls, code)
        self._instance: Representation = build(cls, record.spec.params, record.spec.name)
        if self._instance.uses_frames:
            raise UsageError(
                f"{record.spec.name!r} ({record.spec.type}) is virtual but needs the video's pixels, "
                "which a dataset reader does not have",
                hint="leave it out with representations=[…], or export it with store: true; a type of yours that needs "
                "its dependencies only sets uses_frames = False",
            )
        if problem := input_count_problem(cls, record.spec):
            raise DatasetError(
                f"{code.dataset}: {record.spec.name!r} is virtual and cannot be computed: {problem}",
                hint="leave it out with representations=[…]",
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return (VirtualRepresentation, (self.record, self.device, self.code))

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
        try:
            output = self._compute(batch, ordered).as_numpy()
        except (VrekitError, MemoryError):
            raise
        except Exception as error:  # its dependencies may be others than it was written for
            raise ComputeError(f"{spec.name} ({spec.type}) failed: {type(error).__name__}: {error}") from error
        if len(output) != len(indices):
            raise ComputeError(f"{spec.name} ({spec.type}) returned {len(output)} outputs for {len(indices)} frames")
        if spec.output_size is None and spec.output_dtype is None:
            return output
        from vrekit.representations.resize import resize_output

        return resize_output(output, self.record.memory, spec.output_size, spec.output_dtype)[0]

    def _compute(self, batch: FrameBatch, dependencies: Mapping[str, Output]) -> Output:
        if self._instance.thread_safe:
            return self._instance.compute(batch, dependencies)
        with self._lock:
            if isinstance(self._instance, LearnedRepresentation) and not self._loaded:
                self._instance.load_weights(self.device)
                self._loaded = True
            return self._instance.compute(batch, dependencies)


def _check_reads_no_files(spec: RepresentationSpec, cls: type[Representation], code: RecordedCode) -> None:
    """Raise DatasetError if the dataset makes an installed type read a file that the dataset chose."""
    paths = [str(spec.params[name]) for name in cls.path_parameters if name in spec.params]
    if paths and not code.trust_code and not is_code(spec.type):  # the parameters of code were checked with it
        raise DatasetError(
            f"{code.dataset}: {spec.name!r} ({spec.type}) is virtual and would read {' and '.join(paths)}, "
            "which is no part of the dataset",
            hint="only if you trust who made the dataset: trust_code=True; or leave it out with representations=[…]",
        )


def computing_order(manifest: Manifest, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return (stored names to read, virtual names to compute) for `names`, dependencies before dependents.

    Raises:
        DatasetError: If a dependency of a virtual representation is not in the dataset.
    """
    stored: dict[str, None] = {}
    virtual: dict[str, None] = {}
    path: dict[str, Iterator[str]] = {}  # what is being computed, outermost first, and what each is still to depend on

    def visit(name: str) -> None:
        record = manifest.representations.get(name)
        if record is None or name in path:
            shown = [*path, name] if len(path) < _MOST_NAMED else [*list(path)[: _MOST_NAMED - 1], "…", name]
            raise DatasetError(
                f"{' → '.join(shown)}: {'a circle of dependencies' if name in path else 'not in the dataset'}"
            )
        if record.is_virtual:
            path[name] = iter(record.spec.dependencies)
        else:
            stored[name] = None

    for asked in names:
        if asked not in virtual:
            visit(asked)
        while path:  # no recursion: the dataset says how long the path is
            last = next(reversed(path))
            dependency = next(path[last], None)
            if dependency is None:
                del path[last]
                virtual[last] = None
            elif dependency not in stored and dependency not in virtual:
                visit(dependency)
    return list(stored), list(virtual)


def not_computed_from(manifest: Manifest, names: Iterable[str]) -> set[str]:
    """Return the representations that can be read without any of the virtual `names`."""
    users: dict[str, list[str]] = {}
    for name, record in manifest.representations.items():
        for dependency in record.spec.dependencies if record.is_virtual else ():
            users.setdefault(dependency, []).append(name)
    left = {*manifest.representations}
    unreadable = [*names, *manifest.dependency_problems()]
    while unreadable:
        name = unreadable.pop()
        if name in left:
            left.remove(name)
            unreadable += users.get(name, ())
    return left
