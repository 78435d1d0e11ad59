"""Saved selections: a Parquet file of keys with the query that made it, for readers of either storage.

    key               string   `car/00000012`
    video_id          string
    frame_index       int64
    representations   list     those selected, sorted; null means every one the frame has

Rows are unique by frame and in the order of the selection. The Parquet key-value metadata `vrekit.subset` is JSON:
`format`, `dataset` (name and index digest), `stages` (what was done, with counts), `engine` (versions), `count`, and
`digest`, the SHA-256 over the rows. Frames are named by key, not by place, so a subset outlives a merge or a
repacking of its dataset. Equal selections give equal bytes.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vrekit import __version__
from vrekit.catalog.arrow_numpy import numbers
from vrekit.catalog.dataset import Dataset
from vrekit.catalog.parquet_files import metadata_fields, read_table, table_bytes
from vrekit.catalog.query import Selection
from vrekit.catalog.remote import name_of
from vrekit.catalog.row_checks import MAX_FRAME_INDEX
from vrekit.core.documents import Fields
from vrekit.core.errors import DatasetError, UsageError
from vrekit.core.files import storage_errors, write_atomic
from vrekit.core.names import check_video_id, sample_key

SUBSET_FORMAT = 1
_METADATA_KEY = b"vrekit.subset"
SUBSET_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("frame_index", pa.int64(), nullable=False),
        pa.field("representations", pa.list_(pa.string())),
    ]
)

_READ = pa.schema([SUBSET_SCHEMA.field(name) for name in ("video_id", "frame_index", "representations")])
_MAX_DEPTH = 500  # each union, intersection or difference nests those it was made of

_WANTED = "vrekit_wanted"
_MAX_DEPTH = 512  # of how it was made: four levels for each subset that was combined into it

Frame = tuple[str, int]
Names = frozenset[str] | None  # None: all that the frame has
Operation = Literal["union", "intersect", "minus"]


@dataclass(frozen=True, slots=True)
class Subset:
    """Some frames of a dataset, in an order.

    Attributes:
        frames: (video_id, frame_index) → representations, None for all of them.
        metadata: How it was made, JSON-able.
    """

    frames: Mapping[Frame, Names]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        return f"Subset({len(self)} frames of {len({video for video, _ in self.frames})} videos)"

    @property
    def digest(self) -> str:
        """64 hex digits of the SHA-256 over the lines `key<TAB>representations<NEWLINE>` (comma-separated, or *)."""
        state = hashlib.sha256()
        for (video_id, frame), names in self.frames.items():
            listed = "*" if names is None else ",".join(sorted(names))
            state.update(f"{sample_key(video_id, frame)}\t{listed}\n".encode())
        return state.hexdigest()

    @classmethod
    def from_selection(cls, selection: Selection) -> Self:
        """Return the frames a query selected, without samples that failed and frames that hold nothing.

        Over samples, a frame comes where its first sample came, with the representations that were selected.
        """
        dataset, query = selection.dataset, selection.query
        frames: dict[Frame, Names] = {}
        if selection.level == "frames":
            table = selection.table("video_id, frame_index, len(representations) > 0 AS stored")
            names = frozenset(query.representations) or None
            for video_id, frame, stored in _rows(table):
                if stored:
                    frames[video_id, frame] = names
        else:
            table = selection.table("video_id, frame_index, representation, status")
            for video_id, frame, name, status in _rows(table):
                if status == "ok":
                    frames[video_id, frame] = (frames.get((video_id, frame)) or frozenset()) | {name}
        return cls(frames, _origin(dataset) | {"stages": [stage.to_json() for stage in selection.stages]})

    @classmethod
    def from_table(cls, dataset: Dataset, table: pa.Table, sql: str) -> Self:
        """Return the frames a whole SELECT gave: columns video_id, frame_index and perhaps representation.

        Raises:
            UsageError: If these columns are not there.
        """
        lacking = [name for name in ("video_id", "frame_index") if name not in table.column_names]
        if lacking:
            raise UsageError(
                f"the result has no column {lacking[0]!r}; it has {', '.join(table.column_names)}",
                hint="to save a subset, select video_id and frame_index (and representation)",
            )
        frames: dict[Frame, Names] = {}
        if "representation" in table.column_names:
            for video_id, frame, name in _rows(table.select(["video_id", "frame_index", "representation"])):
                frames[video_id, frame] = (frames.get((video_id, frame)) or frozenset()) | {name}
        else:
            frames = dict.fromkeys(_rows(table.select(["video_id", "frame_index"])))
        stage = {"op": "sql", "params": {"sql": sql}, "n_in": None, "n_out": table.num_rows}
        return cls(frames, _origin(dataset) | {"stages": [stage]})

    def table(self) -> pa.Table:
        """Return the rows with SUBSET_SCHEMA."""
        return pa.table(
            {
                "key": [sample_key(video_id, frame) for video_id, frame in self.frames],
                "video_id": [video_id for video_id, _ in self.frames],
                "frame_index": [frame for _, frame in self.frames],
                "representations": [None if names is None else sorted(names) for names in self.frames.values()],
            },
            schema=SUBSET_SCHEMA,
        )

    def write(self, path: Path) -> None:
        """Write the file; durable on return."""
        document = {
            "format": SUBSET_FORMAT,
            **self.metadata,
            "engine": {name: version(name) for name in ("duckdb", "pyarrow")} | {"vrekit": __version__},
            "count": len(self),
            "digest": self.digest,
        }
        text = json.dumps(document, sort_keys=True, ensure_ascii=False)
        table = self.table().replace_schema_metadata({_METADATA_KEY: text.encode()})
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, table_bytes(table))


def _origin(dataset: Dataset) -> dict[str, Any]:
    return {"dataset": {"name": name_of(dataset.folder), "index_digest": dataset.index.digest}}


def _rows(table: pa.Table) -> Iterable[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in table.columns), strict=True)


def read_subset(path: Path) -> Subset:
    """Return the subset in a file.

    Raises:
        UsageError: If there is no such file, or it is no subset.
        DatasetError: If its rows do not give the digest it was written with.
    """
    try:
        table = read_table(path, follow_links=True)
        document = metadata_fields(table.schema, _METADATA_KEY, str(path), max_depth=_MAX_DEPTH)
        if document is None:
            raise UsageError(f"{path} is no subset of vrekit's", hint="`vrekit query … --save NAME.parquet` makes one")
        version = document.integer("format", low=1)
        if version > SUBSET_FORMAT:
            raise DatasetError(
                f"{path} has subset format {version}; this vrekit reads up to {SUBSET_FORMAT}",
                hint="pip install --upgrade vrekit",
            )
        _check_made(document)
        digest = document.text("digest", None)
        frames = _frames(table.select(_READ.names).cast(_READ))
    except FileNotFoundError:
        raise UsageError(f"no subset file {path}", hint="`vrekit query … --save NAME.parquet` makes one") from None
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        if isinstance(error, (UsageError, DatasetError)):
            raise
        raise UsageError(f"{path} is no readable subset: {error}") from error
    own = ("format", "count", "digest", "engine")
    subset = Subset(frames, {name: value for name, value in document.raw().items() if name not in own})
    if subset.digest != digest or len(subset) != table.num_rows:
        raise DatasetError(f"{path} was changed since it was written: its rows do not give its digest")
    return subset


def _check_made(document: Fields) -> None:
    """Check what is read of how a subset was made."""
    if dataset := document.fields("dataset", None):
        dataset.text("name")
    for stage in document.list_of("stages", []):
        stage.text("op")
        stage.free("params")
        for name in ("n_in", "n_out"):
            stage.integer(name, None)
        for source in stage.list_of("sources", []):
            source.integer("count")
            source.text("digest")


def _frames(table: pa.Table) -> dict[Frame, Names]:
    """Return the frames of the rows of a file; raises ValueError if a row is none."""
    table.validate(full=True)
    for video_id in pc.unique(table["video_id"]).to_pylist():
        check_video_id(video_id)
    frames = numbers(table["frame_index"], np.int64)
    if len(frames) and not 0 <= frames.min() <= frames.max() <= MAX_FRAME_INDEX:
        raise ValueError("a frame number is none")
    if pc.list_flatten(table["representations"]).null_count:
        raise ValueError("a representation has no name")
    return {(video, frame): None if names is None else frozenset(names) for video, frame, names in _rows(table)}


def combine(operation: Operation, a: Subset, b: Subset) -> Subset:
    """Return the union, the intersection, or the difference of two subsets, in the order of `a`, then `b`.

    Frames are matched by key and their representations combined: a frame with `depth` in one and `normals` in the
    other has both in the union, and is not in the intersection.

    Raises:
        UsageError: If a difference would need to know what "all representations" of a frame are.
    """
    frames: dict[Frame, Names] = {}
    if operation == "union":
        frames = dict(a.frames)
        for key, names in b.frames.items():
            here = frames.get(key, frozenset())
            frames[key] = None if names is None or here is None else here | names
    else:
        for key, names in a.frames.items():
            if key not in b.frames:
                if operation == "minus":
                    frames[key] = names
                continue
            left = _common(names, b.frames[key]) if operation == "intersect" else _less(key, names, b.frames[key])
            if left is None or left:
                frames[key] = left
    sources = [{**one.metadata, "count": len(one), "digest": one.digest} for one in (a, b)]
    return Subset(frames, {"stages": [{"op": operation, "params": {}, "sources": sources, "n_out": len(frames)}]})


def _common(a: Names, b: Names) -> Names:
    if a is None or b is None:
        return a if b is None else b
    return a & b


def _less(key: Frame, a: Names, b: Names) -> Names:
    if b is None:
        return frozenset()
    if a is None:
        raise UsageError(
            f"{sample_key(*key)} has all its representations on the left and only {', '.join(sorted(b))} on the right",
            hint="select the left one with --representations, so that it is known what is left",
        )
    return a - b


@dataclass(frozen=True, slots=True)
class Verification:
    """How a subset fits a dataset.

    Attributes:
        count: Frames of the subset.
        missing: Keys of frames that the dataset does not store.
        incomplete: Key → representations of the subset that the dataset does not store for it.
    """

    count: int
    missing: tuple[str, ...]
    incomplete: Mapping[str, Sequence[str]]

    @property
    def is_good(self) -> bool:
        """Whether the dataset has everything the subset names."""
        return not self.missing and not self.incomplete


def verify(subset: Subset, dataset: Dataset) -> Verification:
    """Return which frames and representations of a subset a dataset lacks."""
    dataset.sandbox.register(_WANTED, subset.table().select(["video_id", "frame_index"]))
    columns = "video_id, frame_index, representations"
    table = dataset.sandbox.fetch(f"SELECT {columns} FROM frames SEMI JOIN {_WANTED} USING (video_id, frame_index)")
    stored = {(video, frame): frozenset(names) for video, frame, names in _rows(table)}
    missing, incomplete = [], {}
    for key, names in subset.frames.items():
        here = stored.get(key)
        if not here:
            missing.append(sample_key(*key))
        elif names is not None and not names <= here:
            incomplete[sample_key(*key)] = sorted(names - here)
    return Verification(len(subset), tuple(missing), incomplete)
