"""`vrekit items`: copy what lies inside frames (boxes, points, sensor values, captions) to where queries find it.

Only frames that are not listed yet are read.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrekit.catalog.dataset import Dataset
from vrekit.catalog.items import ItemsWriter, holds_items, items_path, items_schema, items_table, listed_frames
from vrekit.catalog.manifest import Manifest
from vrekit.core.errors import CodecError, DatasetError, StorageError, UsageError
from vrekit.core.names import did_you_mean, sample_key
from vrekit.core.reports import FRAMES, ProgressListener, Report, timed
from vrekit.core.threads import thread_pool, usable_cpus
from vrekit.jobs.stored_rows import open_payloads, stored_frames
from vrekit.readers.payloads import StoredPayloads

_FRAMES_AT_ONCE = 32
# By default descriptors are left out: nobody queries 128 numbers a keypoint, and they take as much space again.
MAX_DEFAULT_COLUMNS = 32


@dataclass(slots=True, kw_only=True)
class ItemsReport(Report):
    """What was listed.

    Attributes:
        items: Representation → items that were added now.
        frames: Payloads that were read now.
        already: Payloads that were listed before.
        failures: `key.representation: reason` of payloads that did not decode.
    """

    items: dict[str, int]
    frames: int
    already: int
    failures: tuple[str, ...] = ()


def choose_representations(manifest: Manifest, asked: Sequence[str]) -> list[str]:
    """Return the representations to list: those asked for, else all that hold items and no long descriptors.

    Raises:
        UsageError: If one that is asked for is not stored or holds no items.
        DatasetError: If nothing in the dataset holds items.
    """
    stored = {name: record.stored for name, record in manifest.representations.items() if not record.is_virtual}
    for name in asked:
        if name not in stored:
            raise UsageError(
                f"the dataset stores no representation {name!r}{did_you_mean(name, stored)}",
                hint=f"it stores {', '.join(stored) or 'none'}",
            )
        spec = stored[name]
        if not holds_items(spec):
            raise UsageError(
                f"{name!r} ({spec.kind}, {spec.dtype}, axes {spec.axes or 'none'}) holds no items",
                hint="items are rows of boxes and points, named sensor values, and captions",
            )
    if asked:
        return list(dict.fromkeys(asked))
    chosen = [
        name
        for name, spec in stored.items()
        if holds_items(spec) and (not spec.shape or (spec.shape[-1] or 0) <= MAX_DEFAULT_COLUMNS)
    ]
    if not chosen:
        raise DatasetError(
            f"nothing to list: the dataset stores {', '.join(stored) or 'nothing'}",
            hint=f"items are rows of boxes and points, named sensor values, and captions; those with more than "
            f"{MAX_DEFAULT_COLUMNS} columns are listed when they are named",
        )
    return chosen


@timed
def list_items(
    dataset: Dataset,
    names: Sequence[str] = (),
    *,
    threads: int | None = None,
    progress: ProgressListener | None = None,
) -> ItemsReport:
    """List the items of frames that are not listed yet, beside the dataset.

    Stopping it (Ctrl-C) keeps what it has read.

    Args:
        dataset: An open dataset; open it again to see the new rows.
        names: Representations; by default all that hold items, but for long descriptors.
        threads: Decoding threads; None takes the CPUs.
        progress: Told about the progress, from this thread.

    Raises:
        UsageError: If a representation is unknown or holds no items.
        DatasetError: If nothing in the dataset holds items, or a shard is gone.
        StorageError: If the dataset cannot be written to.
    """
    progress = progress or ProgressListener()
    chosen = choose_representations(dataset.manifest, names)
    stored = stored_frames(dataset, chosen)
    plans = [_Plan(dataset, *place, frames) for place, frames in stored.items()]
    progress.started({FRAMES: sum(len(plan.todo) for plan in plans)})
    failures: list[str] = []
    items = dict.fromkeys(chosen, 0)
    with thread_pool(threads or usable_cpus(), "vrekit-items") as pool:
        for plan in plans:
            items[plan.name] += plan.run(pool, progress, failures)
    return ItemsReport(
        items=items,
        frames=sum(len(plan.todo) for plan in plans),
        already=sum(plan.already for plan in plans),
        failures=tuple(failures),
    )


class _Plan:
    """The frames of one video and representation that are stored and not listed."""

    def __init__(self, dataset: Dataset, video_id: str, name: str, stored: NDArray[np.int64]) -> None:
        self.name = name
        self._dataset = dataset
        self._video_id = video_id
        self._record = dataset.manifest.representations[name]
        self._path = items_path(dataset.folder, video_id, name, self._record)
        self.todo: NDArray[np.int64] = np.setdiff1d(stored, listed_frames(self._path))
        self.already = len(stored) - len(self.todo)

    def run(self, pool: ThreadPoolExecutor, progress: ProgressListener, failures: list[str]) -> int:
        """Read and write; return the number of items."""
        if not len(self.todo):
            return 0
        payloads = open_payloads(self._dataset, self._video_id, [self.name])
        writer = ItemsWriter(self._path, items_schema(self._record.stored))
        count = 0
        try:
            for start in range(0, len(self.todo), _FRAMES_AT_ONCE):
                frames = self.todo[start : start + _FRAMES_AT_ONCE]
                table = items_table(
                    self._record.stored, self._video_id, *self._decoded(frames, payloads, pool, failures)
                )
                writer.add(table)
                count += len(table["items"].combine_chunks().flatten())
                progress.advanced(FRAMES, len(frames))
        except StorageError:
            writer.abort()  # half a row group may be in the file
            raise
        except BaseException:
            writer.commit()  # what is read is kept
            raise
        writer.commit()
        return count

    def _decoded(
        self, frames: NDArray[np.int64], payloads: StoredPayloads, pool: ThreadPoolExecutor, failures: list[str]
    ) -> tuple[list[int], list[NDArray[Any]]]:
        """Return the frames that decode, and their arrays."""

        def decode(row: int, payload: memoryview | None) -> NDArray[Any] | CodecError:
            try:
                return payloads.array(self.name, row, payload)
            except CodecError as error:
                return error

        rows = payloads.index.find([self._video_id] * len(frames), frames)
        read = payloads.read_own(rows, self.name)
        good: list[int] = []
        arrays: list[NDArray[Any]] = []
        for frame, found in zip(frames.tolist(), pool.map(decode, rows.tolist(), read), strict=True):
            if isinstance(found, CodecError):
                failures.append(f"{sample_key(self._video_id, frame)}.{self.name}: {found.message}")
            else:
                good.append(frame)
                arrays.append(found)
        return good, arrays
