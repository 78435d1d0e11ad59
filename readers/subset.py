"""Which frames to read: a subset resolved to rows, and what to do with frames that lack something."""

import os
from collections.abc import Iterable, Sequence
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vrekit.catalog.parquet_files import open_parquet, written_out
from vrekit.core.errors import DatasetError, UsageError, VrekitError
from vrekit.core.names import parse_key, sample_key
from vrekit.readers.index import MISSING, FrameIndex

Subset: TypeAlias = Sequence[str] | str | Path | pa.Table
_COLUMNS = ("video_id", "frame_index")
_SHOWN = 3


class Missing(StrEnum):
    """What happens to a frame that lacks one of the selected representations."""

    DROP = "drop"  # it is left out
    FILL = "fill"  # the gap is filled with the invalid value (NaN, else 0) and marked in `<name>.valid`
    NONE = "none"  # the gap is None, and the representation comes as a list
    RAISE = "raise"  # opening the dataset fails


def subset_rows(
    index: FrameIndex,
    subset: Subset,
    folder: Path,
    *,
    timeout_seconds: float | None = None,
    memory_bytes: int | None = None,
) -> NDArray[np.int64]:
    """Return the rows of a subset, in the subset's order.

    Args:
        index: All frames of the dataset.
        subset: Keys (`car/00000012`), a table or Parquet file with the columns video_id and frame_index, or a
            predicate such as `"luma_mean > 0.2"`: text that is no file and does not end in `.parquet`.
        folder: The dataset, which a predicate is asked of.
        timeout_seconds: How long a predicate may take; None sets no limit.
        memory_bytes: How much memory a predicate may use; a quarter of the machine's by default.

    Raises:
        QueryLimitError: If a predicate takes longer, or more memory.
        UsageError: If it is no subset, or names a frame twice.
        DatasetError: If it names frames the dataset does not have.
    """
    if isinstance(subset, str) and not subset.endswith(".parquet") and not os.path.isfile(subset):
        from vrekit.catalog.dataset import open_dataset
        from vrekit.catalog.query import select_frames

        with open_dataset(folder, memory_bytes=memory_bytes) as dataset, dataset.sandbox.time_limit(timeout_seconds):
            video_ids, frames = _from_table(select_frames(dataset, subset), "the query")
    elif isinstance(subset, (str, Path)):
        video_ids, frames = _from_table(_read(Path(subset)), str(subset))
    elif isinstance(subset, pa.Table):
        video_ids, frames = _from_table(subset, "the subset")
    else:
        pairs = [parse_key(key) for key in subset]
        video_ids = pa.array([video_id for video_id, _ in pairs], pa.string())
        frames = np.array([frame for _, frame in pairs], np.int64)
    rows = index.find(video_ids, frames)
    unknown = np.flatnonzero(rows == MISSING)
    if len(unknown):
        some = _some(sample_key(video_ids[int(at)].as_py(), int(frames[at])) for at in unknown)
        raise DatasetError(
            f"{len(unknown)} of the subset's {len(rows)} frames are not in the dataset: {some}",
            hint="make the subset from this dataset's own metadata, or export those frames first",
        )
    values, counts = np.unique(rows, return_counts=True)
    if len(values) < len(rows):
        some = _some(index.key(row) for row in values[counts > 1].tolist())
        raise UsageError(f"the subset names {len(rows) - len(values)} frames more than once: {some}")
    return rows


def rows_with(index: FrameIndex, names: Iterable[str], missing: Missing) -> NDArray[np.int64]:
    """Return the rows to serve: all of them, or under `drop` those that have every representation in `names`.

    Raises:
        DatasetError: Under `raise`, if a frame lacks one; the message counts them by representation.
    """
    lacking = {name: ~index.columns[name].present for name in names}
    lacking = {name: mask for name, mask in lacking.items() if mask.any()}
    if missing is Missing.RAISE and lacking:
        lines = [
            f"  {name}: {mask.sum()} of {len(index)} frames, {_some(map(index.key, np.flatnonzero(mask).tolist()))}"
            for name, mask in lacking.items()
        ]
        raise DatasetError(
            "frames lack representations:\n" + "\n".join(lines),
            hint="`vrekit resume` computes what is missing; missing='drop' leaves such frames out",
        )
    keep = np.ones(len(index), np.bool_)
    if missing is Missing.DROP:
        for mask in lacking.values():
            keep &= ~mask
    return np.flatnonzero(keep)


def _read(path: Path) -> pa.Table:
    try:
        with open_parquet(path, follow_links=True, dictionaries=True) as file:
            _check_columns(file.schema_arrow.names, str(path))
            table = written_out(file.read(columns=list(_COLUMNS)), path)
    except FileNotFoundError:
        raise UsageError(f"no subset file {path}", hint="a list of keys is a subset, too: ['car/00000012']") from None
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        if isinstance(error, VrekitError):
            raise
        raise UsageError(f"{path} is no readable Parquet file: {error}") from error
    return table


def _check_columns(names: Sequence[str], what: str) -> None:
    lacking = [name for name in _COLUMNS if list(names).count(name) != 1]
    if lacking:
        count = "two columns" if lacking[0] in names else "no column"
        raise UsageError(
            f"{what} has {count} {lacking[0]!r}; it has {', '.join(names) or 'none'}",
            hint="a subset needs the columns video_id (text) and frame_index (integer)",
        )


def _from_table(table: pa.Table, what: str) -> tuple[pa.Array, NDArray[np.int64]]:
    _check_columns(table.column_names, what)
    if any(table.column_names.count(name) > 1 for name in _COLUMNS):
        raise UsageError(f"{what} has a column twice")
    video_id, frame_index = (table[name] for name in _COLUMNS)
    if video_id.null_count or frame_index.null_count:
        raise UsageError(f"{what} has empty cells in video_id or frame_index")
    try:
        videos = video_id.cast(pa.string()).combine_chunks()
        videos.validate(full=True)
        frames = np.asarray(frame_index.cast(pa.int64()).to_numpy(), np.int64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UsageError(f"{what}: video_id must be text and frame_index integers: {error}") from error
    return videos if isinstance(videos, pa.Array) else pa.array([], pa.string()), frames


def _some(keys: Iterable[str]) -> str:
    """Return the first keys, for messages."""
    first = list(islice(keys, _SHOWN + 1))
    return ", ".join(first[:_SHOWN]) + (", …" if len(first) > _SHOWN else "")
