"""Per-frame statistics, `stats/<video_id>.parquet`: optional columns that queries over frames can use.

`vrekit stats` writes them (see `vrekit.jobs.stats`); the catalog's index joins them to the frames.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from vrekit.catalog.parquet_files import open_parquet, table_bytes, written_out
from vrekit.core.documents import parse_document
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
        table = written_out(open_parquet(path, dictionaries=True).read(), path)
        sources = _sources((table.schema.metadata or {}).get(_METADATA_KEY, b"{}"), str(path))
        table = table.select(STATISTICS_SCHEMA.names).cast(STATISTICS_SCHEMA)
    except FileNotFoundError:
        return Statistics(STATISTICS_SCHEMA.empty_table())
    except DatasetError as error:
        raise DatasetError(error.message, hint=error.hint or _HINT) from None
    except (pa.ArrowException, KeyError, OSError, ValueError) as error:
        raise DatasetError(f"{path} is damaged: {error}", hint=_HINT) from error
    return Statistics(table, sources)


def _sources(text: bytes, where: str) -> dict[str, str]:
    sources = parse_document(text, where, hint=_HINT).fields.free("sources", {})
    if not all(isinstance(name, str) for name in sources.values()):
        raise ValueError("its sources are no names")
    return dict(sources)


def write_statistics(folder: Path, video_id: str, statistics: Statistics) -> None:
    """Replace the statistics of a video; durable on return."""
    path = statistics_path(folder, video_id)
    with storage_errors(path):
        make_folder(folder, STATISTICS_FOLDER)
    metadata = {_METADATA_KEY: json.dumps({"sources": dict(statistics.sources)}, sort_keys=True).encode()}
    write_atomic(path, table_bytes(statistics.table.replace_schema_metadata(metadata)))
