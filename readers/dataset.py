"""FrameDataset: the frames of a dataset by number or by key, as tensors."""

import logging
import operator
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, SupportsIndex, get_args, overload

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from vrekit.catalog.manifest import read_manifest
from vrekit.catalog.remote import dataset_folder, remote_of
from vrekit.catalog.runs import config_folders
from vrekit.catalog.storage import open_storage
from vrekit.catalog.trust import RecordedCode, untrusted
from vrekit.core.errors import UsageError
from vrekit.core.names import did_you_mean
from vrekit.core.spec import OutputSpec, image_owner
from vrekit.readers.batch_reader import Batch, BatchReader
from vrekit.readers.collate import Sample, collate_samples, split_batch
from vrekit.readers.index import read_index
from vrekit.readers.open_batch import OpenBatch, fallback_layout
from vrekit.readers.stored_reader import OnError
from vrekit.readers.subset import Missing, Subset, rows_with, subset_rows
from vrekit.readers.virtual import computing_order, not_computed_from

logger = logging.getLogger(__name__)

Transform = Callable[[Sample], Sample]
Collate = Callable[[Sequence[Sample]], Any]
MissingMode = Literal["drop", "fill", "none", "raise"]


class FrameDataset(Dataset[Sample]):
    """The frames of a dataset, in random access.

    A sample is a dict: each selected representation by name, as a tensor in its stored form (text as `str`), beside it
    `<name>.valid`, and `video_id` str, `frame_index` int, `pts_seconds` float, `key` str. `<name>.valid` is False
    where the frame holds no measurement: a placeholder (flow at the last frame), or a filled gap.

    A batch holds the same names for N frames: tensors (N, ...), `<name>.valid` bool (N,), `frame_index` int64 (N,),
    `pts_seconds` float64 (N,), and lists of N for text, for ragged representations (boxes), and for those whose frames
    differ in shape in this dataset (videos of several sizes).

    Frames are sorted by video id and frame number; those of a subset keep the subset's order. Only the bytes of
    selected representations are read. It may be pickled and forked, and used from several threads.

    Args:
        path: Folder or URL of the dataset.
        representations: Names to read; None reads all but the exported pictures (`canny.image`).
        subset: Frames to read: keys (`["car/00000012"]`), a table or Parquet file with the columns `video_id` and
            `frame_index` (`vrekit query … --save`), or a predicate (`"luma_mean > 0.2"`). None reads all.
        transform: Called with every sample; returns the sample to use. It runs in the loader's threads.
        missing: What happens to frames that lack a selected representation: `"drop"` leaves them out, `"fill"` fills
            in the representation's invalid value (NaN for floats, else 0) with `valid` False, `"none"` has None in
            its place, `"raise"` refuses to open the dataset.
        verify: Check every payload against its CRC-32.
        on_error: `"raise"`, or `"skip"` to leave damaged frames out of their batch: the first is logged, all are
            counted in `skipped`.
        device: Where virtual learned representations are computed.
        trust_code: Let virtual representations run code that the dataset records (`module:Class`,
            `path/file.py:Class`) and read files that it names. Without it only types of installed packages run, and
            code that this account exported this dataset with.
        timeout_seconds: How long a predicate given as `subset` may take; None sets no limit.
        memory_bytes: How much memory such a predicate may use; a quarter of the machine's by default.

    Raises:
        QueryLimitError: If a predicate takes longer, or more memory.
        DatasetError: If it is no dataset, lacks frames of the subset, lacks data under `missing="raise"`, or a
            selected representation needs `trust_code`; nothing has run then.
        UsageError: If a name, the subset or an option cannot be right.

    Example:
        >>> dataset = FrameDataset("out", ["rgb", "canny"])
        >>> dataset["car/00000012"]["rgb"].shape
        torch.Size([432, 768, 3])
    """

    def __init__(
        self,
        path: str | Path,
        representations: Sequence[str] | None = None,
        *,
        subset: Subset | None = None,
        transform: Transform | None = None,
        missing: MissingMode = "drop",
        verify: bool = True,
        on_error: OnError = "raise",
        device: str = "cpu",
        trust_code: bool = False,
        timeout_seconds: float | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        self.path = dataset_folder(path)
        self.is_remote = remote_of(self.path) is not None
        self.transform = transform
        self.manifest = read_manifest(self.path)
        self.representations = self._checked_names(representations)
        mode = _mode(missing)
        if on_error not in get_args(OnError):
            raise UsageError(f"on_error is {on_error!r}, expected 'raise' or 'skip'")
        stored, virtual = computing_order(self.manifest, self.representations)
        code = self._checked_code(virtual, trust_code)
        storage = open_storage(self.path, self.manifest)
        index = read_index(storage, stored)
        if subset is not None:
            wanted = subset_rows(index, subset, self.path, timeout_seconds=timeout_seconds, memory_bytes=memory_bytes)
            index = index.take(wanted)
        rows = rows_with(index, stored, mode)
        self.left_out = len(index) - len(rows)
        if self.left_out:
            logger.info("%s: left out %d of %d frames that lack a representation", path, self.left_out, len(index))
            index = index.take(rows)
        if mode is Missing.FILL:
            for name in stored:
                index = index.with_fill_layouts(name, fallback_layout(self.manifest.representations[name].stored))
        self.index = index
        self._reader = BatchReader(
            self.manifest,
            index,
            storage.payloads(index),
            self.representations,
            missing=mode,
            verify=verify,
            on_error=on_error,
            device=device,
            code=code,
        )

    def _checked_code(self, virtual: Sequence[str], trust_code: bool) -> RecordedCode:
        """Return which code may run for these virtual representations; refuse them together, before any is loaded."""
        specs = [self.manifest.representations[name].spec for name in virtual]
        folders = config_folders(self.path) if any(".py:" in spec.type for spec in specs) else ()
        code = RecordedCode(dataset=Path(os.path.abspath(self.path)), folders=folders, trust_code=trust_code)
        if refused := code.refused(specs):
            left = self._without({spec.name for spec in refused})
            otherwise = f"leave it out: representations={left}" if left else ""
            raise untrusted(self.path, refused, otherwise=otherwise)
        return code

    def _without(self, names: set[str]) -> list[str]:
        """Return those that are read by default and not computed from any of `names`."""
        left = not_computed_from(self.manifest, names)
        return [name for name in self._checked_names(None) if name in left]

    def _checked_names(self, names: Sequence[str] | None) -> tuple[str, ...]:
        known = self.manifest.representations
        if names is None:
            names = [name for name in known if image_owner(name) is None]
        elif isinstance(names, str):
            raise UsageError(f"representations is the text {names!r}, expected a list", hint=f"write [{names!r}]")
        for name in names:
            if name not in known:
                raise UsageError(
                    f"{self.path} has no representation {name!r}{did_you_mean(name, known)}",
                    hint=f"it has {', '.join(known) or 'none'}",
                )
        if not names:
            raise UsageError("no representation is selected", hint=f"{self.path} has {', '.join(known) or 'none'}")
        return tuple(dict.fromkeys(names))

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.index)

    def __iter__(self) -> Iterator[Sample]:
        """Yield every sample, one at a time and in order; `make_loader` is the fast way."""
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        left_out = f", {self.left_out} left out" if self.left_out else ""
        frames = f"{len(self)} frames of {len(self.index.videos)} videos{left_out}"
        return f"FrameDataset({str(self.path)!r}: {frames}; {', '.join(self.representations)})"

    @cached_property
    def digest(self) -> str:
        """64 hex digits that stand for these frames in this order."""
        return self.index.digest

    @property
    def skipped(self) -> int:
        """Number of damaged frames left out so far, in this process."""
        return self._reader.skipped

    def spec(self, name: str) -> OutputSpec:
        """Return what one frame of a representation looks like as it is read.

        Raises:
            UsageError: If the dataset has no such representation.
        """
        known = self.manifest.representations
        if name not in known:
            raise UsageError(f"{self.path} has no representation {name!r}{did_you_mean(name, known)}")
        return known[name].stored

    @overload
    def __getitem__(self, item: slice) -> Batch: ...
    @overload
    def __getitem__(self, item: SupportsIndex | str) -> Sample: ...
    def __getitem__(self, item: SupportsIndex | str | slice) -> Sample | Batch:
        """Return the sample of a row number or key, or the batch of a slice of row numbers.

        Raises:
            IndexError: If there is no such row.
            UsageError: If there is no such key.
            ChecksumError: If a payload changed since it was written.
        """
        if isinstance(item, slice):
            return self.batch(np.arange(*item.indices(len(self))))
        row = self.index.find_key(item) if isinstance(item, str) else operator.index(item)
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of a dataset of {len(self)} frames")
        return self.__getitems__([row % len(self)])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[Sample]:
        """Return the samples of several rows, read together; PyTorch's own DataLoader calls this."""
        samples = split_batch(self._reader.read(np.asarray(rows, np.int64)))
        return samples if self.transform is None else [self.transform(sample) for sample in samples]

    def batch(self, rows: Sequence[int] | NDArray[np.int64]) -> Batch:
        """Return several rows as one batch.

        Args:
            rows: Row numbers 0..len-1.
        """
        batch = self.open_batch(np.asarray(rows, np.int64))
        self.fill_batch(batch, np.arange(len(batch.rows)))
        result: Batch = self.finish_batch(batch)
        return result

    def open_batch(self, rows: NDArray[np.int64]) -> OpenBatch:
        """Return an empty batch, to be filled by `fill_batch`, several threads at once, and ended by `finish_batch`."""
        return self._reader.open(rows)

    def fill_batch(self, batch: OpenBatch, positions: NDArray[np.int64]) -> None:
        """Read and decode some positions of a batch."""
        self._reader.fill(batch, positions)

    def finish_batch(self, batch: OpenBatch, collate: Collate | None = None) -> Any:
        """Return a filled batch, transformed and collated."""
        result = self._reader.finish(batch)
        if (self.transform is None and collate is None) or not result["key"]:
            return result
        samples = split_batch(result)
        if self.transform is not None:
            samples = [self.transform(sample) for sample in samples]
        if collate is not None:
            return collate(samples)
        return collate_samples(samples, [name for name in self.representations if not self._reader.is_stacked(name)])

    def size_bytes(self, rows: NDArray[np.int64]) -> int:
        """Return about how much memory reading these rows takes."""
        return self._reader.size_bytes(rows)

    def storage_order(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions of `rows` in the order of their payloads on disk."""
        return self._reader.storage_order(rows)


def _mode(missing: str) -> Missing:
    try:
        return Missing(missing)
    except ValueError:
        raise UsageError(f"missing is {missing!r}, expected one of {', '.join(Missing)}") from None
