"""`vrekit.open`: a dataset as a Python object."""

import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, SupportsIndex, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vrekit.api.frame import Frame, Value
from vrekit.api.picture import ShownPicture
from vrekit.catalog.manifest import RepresentationRecord
from vrekit.catalog.remote import dataset_folder
from vrekit.catalog.runs import RunRecord, read_runs
from vrekit.catalog.storage import Storage, open_storage
from vrekit.core.errors import UsageError
from vrekit.readers.index import MISSING, FrameIndex, read_index
from vrekit.video.base import VideoInfo

if TYPE_CHECKING:
    from vrekit.catalog.dataset import Dataset as Tables
    from vrekit.catalog.payload_checks import ValidationReport
    from vrekit.readers.dataset import FrameDataset, MissingMode, Transform
    from vrekit.readers.loader import FrameLoader
    from vrekit.readers.stored_reader import OnError


class Dataset:
    """An open dataset, or a part of it (`query`, `dataset[100:200]`). Not for use from several threads at once.

    It has the frames that were stored when it was opened, sorted by video id and frame number. `len(dataset)` is their
    number, and iterating yields each `Frame`.

    Attributes:
        path: Where it lies.
        videos: Facts about each video, by video id.
        representations: What the dataset says about each representation, by name: `.stored` is dtype, shape, unit.
    """

    def __init__(self, storage: Storage, index: FrameIndex, *, trust_code: bool = False, is_part: bool = False) -> None:
        self.path = storage.folder
        self.videos: Mapping[str, VideoInfo] = storage.manifest.videos
        self.representations: Mapping[str, RepresentationRecord] = storage.manifest.representations
        self._storage = storage
        self._index = index
        self._trust_code = trust_code
        self._is_part = is_part
        self._needed: dict[str, list[str]] = {}
        self._readers: dict[str, FrameDataset] = {}
        self._tables: Tables | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the SQL connection; the dataset may be used again."""
        if self._tables is not None:
            self._tables.close()
            self._tables = None

    def __repr__(self) -> str:
        part = "part of " if self._is_part else ""
        names = ", ".join(self.representations)
        return f"Dataset({part}{str(self.path)!r}: {len(self)} frames of {len(self._index.videos)} videos; {names})"

    @property
    def runs(self) -> list[RunRecord]:
        """What is recorded about every run of export, oldest first."""
        return read_runs(self.path)

    # -- frames ------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[Frame]:
        return (Frame(self, row) for row in range(len(self)))

    def __contains__(self, key: object) -> bool:
        try:
            return isinstance(key, str) and self._index.find_key(key) >= 0
        except UsageError:
            return False

    @overload
    def __getitem__(self, item: slice) -> "Dataset": ...
    @overload
    def __getitem__(self, item: SupportsIndex | str) -> Frame: ...
    def __getitem__(self, item: SupportsIndex | str | slice) -> "Frame | Dataset":
        """Return the frame of a key (`"car/12"`) or row number, or the part that a slice of row numbers is.

        Raises:
            IndexError: If there is no such row.
            UsageError: If there is no such key.
        """
        if isinstance(item, slice):
            return self._part(np.arange(*item.indices(len(self))))
        row = self._index.find_key(item) if isinstance(item, str) else operator.index(item)
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of a dataset of {len(self)} frames")
        return Frame(self, row % len(self))

    def keys(self) -> list[str]:
        """Return the keys of the frames: `["car/00000000", …]`."""
        return [self._index.key(row) for row in range(len(self))]

    def show(self, key: str, representation: str | None = None) -> ShownPicture:
        """Return a picture of a frame, which a notebook draws; see `Frame.show`.

        Example:
            >>> dataset.show("car/12", "flow").save("flow.png")
        """
        return self[key].show(representation)

    # -- queries -----------------------------------------------------------------------------------------------

    def sql(self, select: str, *, timeout_seconds: float | None = None) -> pa.Table:
        """Return the result of one SELECT over the tables of the whole dataset; it can read nothing else.

        Args:
            select: DuckDB SQL over `videos`, `frames`, `samples`, `representations`, `runs`, `items`.
            timeout_seconds: How long it may take; any time by default.

        Raises:
            UsageError: If it is not exactly one SELECT, names what is not there, or reaches outside the dataset.
            QueryLimitError: If it takes longer, or needs more memory than it may use.

        Example:
            >>> dataset.sql("SELECT video_id, count(*) AS frames FROM frames GROUP BY 1").to_pylist()
            [{'video_id': 'car', 'frames': 100}]
        """
        return self._open_tables().sql(select, timeout_seconds=timeout_seconds)

    def query(
        self,
        where: str | None = None,
        *,
        representations: Sequence[str] = (),
        fps: float | None = None,
        stride: int | None = None,
        per_video: int | None = None,
        sample: int | str | None = None,
        seed: int = 0,
        limit: int | None = None,
        timeout_seconds: float | None = None,
    ) -> "Dataset":
        """Return the part of this dataset that has the selected frames; `.keys()` lists them, `.loader()` reads them.

        The query is asked of the whole dataset; of its result, the frames of this part are taken.

        Args:
            where: Condition in DuckDB SQL, such as `"luma_mean > 0.2"` (`docs/queries.md`); one about samples selects
                the frames it selects a sample of.
            representations: Only frames that have all of these.
            fps: Frames per second to keep, by presentation time.
            stride: Keep every n-th selected frame of each video.
            per_video: Keep at most this many frames of each video, evenly spread.
            sample: Keep some at random: a number, or a share such as `"10%"`.
            seed: Decides the random choice.
            limit: Keep the first so many.
            timeout_seconds: How long it may take; any time by default.

        Raises:
            UsageError: If the condition is no valid SQL expression, or names unknown columns.
            QueryLimitError: If it takes longer, or needs more memory than it may use.

        Example:
            >>> dataset.query("luma_mean > 0.2", per_video=100)
            Dataset(part of 'out': 100 frames of 1 videos; rgb, canny)
        """
        from vrekit.catalog.query import Query, select_frames

        if isinstance(representations, str):
            raise UsageError(
                f"representations is the text {representations!r}, expected a list", hint=f"write [{representations!r}]"
            )
        query = Query(
            where=where,
            representations=tuple(representations),
            fps=fps,
            stride=stride,
            per_video=per_video,
            sample=None if sample is None else str(sample),
            seed=seed,
            limit=limit,
        )
        tables = self._open_tables()
        with tables.sandbox.time_limit(timeout_seconds):
            found = select_frames(tables, query)
        rows = self._index.find(found["video_id"].combine_chunks(), found["frame_index"].to_numpy())
        return self._part(rows[rows != MISSING])

    # -- training and other programs ---------------------------------------------------------------------------

    def loader(
        self,
        representations: Sequence[str] | None = None,
        *,
        batch_size: int,
        missing: "MissingMode" = "drop",
        transform: "Transform | None" = None,
        **options: Any,
    ) -> "FrameLoader":
        """Return a `StatefulDataLoader` over the batches of these frames.

        Args:
            representations: Names to read; None reads all but the exported pictures.
            batch_size: Frames in a batch.
            missing: What happens to frames that lack a representation; see `vrekit.FrameDataset`.
            transform: Called with every sample; returns the sample to use.
            options: Those of `vrekit.make_loader`: `shuffle`, `seed`, `num_workers`, …

        Raises:
            DatasetError, UsageError: As `vrekit.FrameDataset` and `vrekit.make_loader` do.

        Example:
            >>> for batch in dataset.loader(["rgb", "flow"], batch_size=8, seed=1):
            ...     batch["rgb"].shape
            torch.Size([8, 432, 768, 3])
        """
        from vrekit.readers.loader import make_loader

        dataset = self.frame_dataset(representations, missing=missing, transform=transform)
        return make_loader(dataset, batch_size=batch_size, **options)

    def frame_dataset(
        self,
        representations: Sequence[str] | None = None,
        *,
        missing: "MissingMode" = "drop",
        transform: "Transform | None" = None,
        verify: bool = True,
        on_error: "OnError" = "raise",
        device: str = "cpu",
    ) -> "FrameDataset":
        """Return a PyTorch dataset of these frames; see `vrekit.FrameDataset` for the options."""
        return self._frame_dataset(
            representations,
            subset=self._frames() if self._is_part else None,
            missing=missing,
            transform=transform,
            verify=verify,
            on_error=on_error,
            device=device,
        )

    def decode(
        self,
        payload: bytes | bytearray | memoryview,
        representation: str,
        *,
        shape: tuple[int, ...] | None = None,
    ) -> Value:
        """Return the array in one payload, which another program has read; see `vrekit.decode`."""
        from vrekit.readers.webdataset_decoder import decode

        return decode(payload, self._storage.manifest, representation, shape=shape)

    def validate(self, *, decode: bool = True) -> "ValidationReport":
        """Check every file and payload of the whole dataset; see `vrekit.validate`."""
        from vrekit.jobs.validate import validate

        return validate(self.path, decode=decode)

    # -- for Frame ---------------------------------------------------------------------------------------------

    def _part(self, rows: NDArray[np.int64]) -> "Dataset":
        return Dataset(self._storage, self._index.take(rows), trust_code=self._trust_code, is_part=True)

    def _frames(self) -> pa.Table:
        videos = pa.array(self._index.videos, pa.string()).take(pa.array(self._index.video))
        return pa.table({"video_id": videos, "frame_index": self._index.frame_index})

    def _open_tables(self) -> "Tables":
        if self._tables is None:
            from vrekit.catalog.dataset import open_dataset

            self._tables = open_dataset(self.path)
        return self._tables

    def _stored_for(self, name: str) -> list[str]:
        """Return the stored representations that reading `name` takes."""
        from vrekit.readers.virtual import computing_order

        if name not in self._needed:
            self._needed[name] = computing_order(self._storage.manifest, [name])[0]
        return self._needed[name]

    def _names_of(self, row: int) -> tuple[str, ...]:
        columns = self._index.columns
        return tuple(
            name
            for name in self.representations
            if all(columns[stored].layout[row] != MISSING for stored in self._stored_for(name))
        )

    def _reader(self, name: str) -> "FrameDataset":
        if name not in self._readers:
            # frames that were stored meanwhile would move the rows
            self._readers[name] = self._frame_dataset([name], missing="none", subset=self._frames())
        return self._readers[name]

    def _frame_dataset(self, representations: Sequence[str] | None, **options: Any) -> "FrameDataset":
        from vrekit.readers.dataset import FrameDataset

        return FrameDataset(self.path, representations, trust_code=self._trust_code, **options)


def open_dataset(path: str | os.PathLike[str], *, trust_code: bool = False) -> Dataset:
    """Return the dataset in a folder.

    Args:
        path: Where it lies.
        trust_code: Let virtual representations run code that the dataset records, see `vrekit.FrameDataset`.

    Raises:
        DatasetError: If it is no dataset, or its metadata is damaged.

    Example:
        >>> dataset = vrekit.open("out")
        >>> dataset["car/12"]["rgb"].shape
        (432, 768, 3)
    """
    storage = open_storage(dataset_folder(path).absolute())  # the process may change its folder
    return Dataset(storage, read_index(storage, storage.manifest.stored_names), trust_code=trust_code)
