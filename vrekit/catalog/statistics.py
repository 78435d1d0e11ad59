"""Per-frame statistics, `stats/<video_id>.parquet`: optional columns that queries over frames can use.

`vrekit stats` writes them (see `vrekit.jobs.stats`); the catalog's index joins them to the frames.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vrekit.catalog.arrow_numpy import numbers
from vrekit.catalog.parquet_files import metadata_fields, read_table, table_bytes
from vrekit.catalog.row_checks import MAX_FRAME_INDEX
from vrekit.core.errors import DatasetError
from vrekit.core.files import make_folder, storage_errors, write_atomic

STATISTICS_FOLDER = "stats"
_METADATA_KEY = b"vrekit.statistics"
_HINT = "delete it and run `vrekit stats` again: it only holds measurements"

# column → (type, the input it is measured on)
_COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "luma_mean": (pa.float32(), "color"),
    "sharpness": (pa.float32(), "color"),
    "motion": (pa.float32(), "color"),
    "phash": (pa.uint64(), "color"),
    "depth_min": (pa.float32(), "depth"),
    "depth_max": (pa.float32(), "depth"),
    "class_histogram": (pa.list_(pa.float32()), "indices"),
}
STATISTICS_COLUMNS = tuple(_COLUMNS)
STATISTICS_SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("frame_index", pa.int64(), nullable=False),
        *(pa.field(name, kind) for name, (kind, _) in _COLUMNS.items()),
    ]
)
INPUTS = tuple(dict.fromkeys(source for _, source in _COLUMNS.values()))


def columns_of(source: str) -> tuple[str, ...]:
    """Return the columns measured on an input: `columns_of("depth") == ("depth_min", "depth_max")`."""
    return tuple(name for name, (_, one) in _COLUMNS.items() if one == source)


@dataclass(frozen=True, slots=True)
class Statistics:
    """The statistics of one video.

    Attributes:
        table: Rows with STATISTICS_SCHEMA, by rising frame number, no repeats.
        sources: Input (`color`, `depth`, `indices`) → name of the representation it was measured on.
    """

    table: pa.Table
    sources: Mapping[str, str] = field(default_factory=dict)


def statistics_path(folder: Path, video_id: str) -> Path:
    """Return where the statistics of a video lie."""
    return folder / STATISTICS_FOLDER / f"{video_id}.parquet"


def read_statistics(folder: Path, video_id: str) -> Statistics:
    """Return the statistics of a video, without rows when there are none.

    Raises:
        DatasetError: If the file is damaged.
    """
    path = statistics_path(folder, video_id)
    try:
        table = read_table(path)
        metadata = metadata_fields(table.schema, _METADATA_KEY, str(path))
        sources = None if metadata is None else metadata.fields("sources", None)
        found = {} if sources is None else {name: sources.text(name) for name in sources}
        table = table.select(STATISTICS_SCHEMA.names).cast(STATISTICS_SCHEMA)
        table.validate(full=True)
        _check_frames(table, video_id)
    except FileNotFoundError:
        return Statistics(STATISTICS_SCHEMA.empty_table())
    except DatasetError as error:
        raise DatasetError(error.message, hint=error.hint or _HINT) from None
    except (pa.ArrowException, KeyError, OSError, ValueError) as error:
        raise DatasetError(f"{path} is damaged: {error}", hint=_HINT) from error
    return Statistics(table, found)


def _check_frames(table: pa.Table, video_id: str) -> None:
    """Raise a ValueError unless the rows are of this video, by rising frame number without repeats."""
    if pc.unique(table["video_id"]).to_pylist() not in ([], [video_id]):
        raise ValueError("it has rows of another video")
    frames = numbers(table["frame_index"], np.int64)
    if len(frames) and (frames[0] < 0 or frames[-1] > MAX_FRAME_INDEX or (np.diff(frames) <= 0).any()):
        raise ValueError("its frame numbers do not rise")


def write_statistics(folder: Path, video_id: str, statistics: Statistics) -> None:
    """Replace the statistics of a video; durable on return."""
    path = statistics_path(folder, video_id)
    with storage_errors(path):
        make_folder(folder, STATISTICS_FOLDER)
    metadata = {_METADATA_KEY: json.dumps({"sources": dict(statistics.sources)}, sort_keys=True).encode()}
    write_atomic(path, table_bytes(statistics.table.replace_schema_metadata(metadata)))
