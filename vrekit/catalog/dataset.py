"""A dataset as tables, the same for tar shards and Lance: videos, runs, representations, samples, frames, items."""

import json
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from vrekit.catalog.index import Index, load_index
from vrekit.catalog.items import items_view
from vrekit.catalog.manifest import Manifest, read_manifest
from vrekit.catalog.remote import dataset_folder
from vrekit.catalog.runs import read_runs
from vrekit.catalog.storage import Storage, open_storage

if TYPE_CHECKING:
    import duckdb

    from vrekit.catalog.sandbox import Sandbox

TABLES = ("frames", "items", "representations", "runs", "samples", "videos")

_KEY = "format('{}/{:08d}', video_id, frame_index) AS key"
# The columns of `frames` that `samples` does not have; `samples_with_frames` adds them to each sample.
_VIEWS = {
    "frames": f"SELECT {_KEY}, * FROM indexed_frames",
    "samples": (
        f"SELECT {_KEY}, *, compute_seconds AS duration, "
        "CASE WHEN payload_index IS NULL THEN raw_bytes / nullif(byte_size, 0)::DOUBLE END AS compression_ratio "
        "FROM indexed_samples"
    ),
    "samples_with_frames": (
        "SELECT s.*, f.* EXCLUDE (key, video_id, frame_index, pts_seconds) FROM samples s "
        "JOIN frames f ON s.video_id = f.video_id AND s.frame_index = f.frame_index"
    ),
}


class Dataset:
    """An open dataset: its manifest and its metadata as SQL tables. Not for use from several threads at once.

    Attributes:
        storage: Where its samples lie.
        folder: Where it lies.
        manifest: The content of `dataset.json`.
        index: The consolidated metadata that `samples` and `frames` read.
        memory_bytes: How much memory a query may use; None is a quarter of the machine's.
    """

    def __init__(self, storage: Storage, index: Index, *, memory_bytes: int | None = None) -> None:
        self.storage = storage
        self.folder = storage.folder
        self.manifest = storage.manifest
        self.index = index
        self.memory_bytes = memory_bytes
        self._sandbox: Sandbox | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Dataset({str(self.folder)!r}, {self.manifest.writer}, {len(self.manifest.videos)} videos)"

    @property
    def sandbox(self) -> "Sandbox":
        """The connection behind the tables; another one when a query of the last could not be stopped."""
        if self._sandbox is None or self._sandbox.is_abandoned:
            self._sandbox = self._open_sandbox()
        return self._sandbox

    def _open_sandbox(self) -> "Sandbox":
        from vrekit.catalog.sandbox import Sandbox

        indexed = {"indexed_samples": self.index.samples, "indexed_frames": self.index.frames}
        return Sandbox(
            self.folder,
            files={name: where for name, where in indexed.items() if isinstance(where, Path)},
            tables={
                "videos": _videos(self.manifest),
                "representations": _representations(self.manifest),
                "runs": _runs(self.folder),
                **{name: where for name, where in indexed.items() if isinstance(where, pa.Table)},
            },
            views=_VIEWS,
            late_views={"items": lambda: items_view(self.folder, self.manifest)},
            names=TABLES,
            memory_bytes=self.memory_bytes,
        )

    @property
    def videos(self) -> "duckdb.DuckDBPyRelation":
        """One row per video: what `VideoInfo` says about it."""
        return self.sandbox.relation("SELECT * FROM videos")

    @property
    def runs(self) -> "duckdb.DuckDBPyRelation":
        """One row per run of `export` or `resume`."""
        return self.sandbox.relation("SELECT * FROM runs")

    @property
    def representations(self) -> "duckdb.DuckDBPyRelation":
        """One row per representation."""
        return self.sandbox.relation("SELECT * FROM representations")

    @property
    def samples(self) -> "duckdb.DuckDBPyRelation":
        """One row per (video, frame, representation): SAMPLES_SCHEMA, `key`, `duration`, `compression_ratio`."""
        return self.sandbox.relation("SELECT * FROM samples")

    @property
    def frames(self) -> "duckdb.DuckDBPyRelation":
        """One row per (video, frame): FRAMES_SCHEMA and `key`."""
        return self.sandbox.relation("SELECT * FROM frames")

    @property
    def items(self) -> "duckdb.DuckDBPyRelation":
        """One row per box, point, caption, or frame of sensor values that `vrekit items` listed."""
        return self.sandbox.relation("SELECT * FROM items")

    def sql(self, select: str, *, timeout_seconds: float | None = None) -> pa.Table:
        """Return the result of one SELECT over the tables; it can read this dataset and nothing else.

        Args:
            select: DuckDB SQL.
            timeout_seconds: How long it may take; any time by default.

        Raises:
            UsageError: If it is not exactly one SELECT, names what is not there, or reaches outside the dataset.
            QueryLimitError: If it takes longer, or needs more memory than it may use.

        Example:
            >>> dataset.sql("SELECT video_id, count(*) AS frames FROM frames GROUP BY 1").to_pylist()
            [{'video_id': 'car', 'frames': 100}]
        """
        sandbox = self.sandbox
        with sandbox.time_limit(timeout_seconds):
            return sandbox.fetch(select)

    def close(self) -> None:
        """Free the connection."""
        if self._sandbox is not None:
            self._sandbox.close()
            self._sandbox = None


def open_dataset(folder: str | Path, *, memory_bytes: int | None = None) -> Dataset:
    """Return the dataset in `folder`, with its index brought up to date.

    Args:
        folder: Where it lies; a path or a URL.
        memory_bytes: How much memory a query may use; a quarter of the machine's by default.

    Raises:
        DatasetError: If it is no dataset, or its metadata is damaged.

    Example:
        >>> with open_dataset("out") as dataset:
        ...     small = dataset.frames.filter("luma_mean < 0.1").to_arrow_table()
    """
    folder = dataset_folder(folder)
    manifest = read_manifest(folder)
    # absolute: the tables stay readable when the process changes its folder
    storage = open_storage(folder.absolute(), manifest)
    return Dataset(storage, load_index(storage), memory_bytes=memory_bytes)


_VIDEOS_SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("fingerprint", pa.string()),
        pa.field("source", pa.string()),
        pa.field("frame_count", pa.int64()),
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("fps", pa.float64()),
        pa.field("codec", pa.string()),
        pa.field("duration_seconds", pa.float64()),
        pa.field("rotation_degrees", pa.float64()),
        pa.field("stream_index", pa.int32()),
        pa.field("pixel_format", pa.string()),
        pa.field("bit_depth", pa.int32()),
        pa.field("has_alpha", pa.bool_()),
        pa.field("sample_aspect_ratio", pa.string()),
        pa.field("field_order", pa.string()),
        pa.field("color_range", pa.string()),
        pa.field("color_space", pa.string()),
        pa.field("color_transfer", pa.string()),
        pa.field("color_primaries", pa.string()),
        pa.field("other_streams", pa.list_(pa.string())),
        pa.field("is_truncated", pa.bool_()),
        pa.field("damaged_frames", pa.string()),
    ]
)
_REPRESENTATIONS_SCHEMA = pa.schema(
    [
        pa.field("representation", pa.string()),
        pa.field("type", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("is_virtual", pa.bool_()),
        pa.field("dependencies", pa.list_(pa.string())),
        pa.field("params", pa.string()),
        pa.field("config_hash", pa.string()),
        pa.field("codec", pa.string()),
        pa.field("dtype", pa.string()),
        pa.field("shape", pa.list_(pa.int32())),
        pa.field("axes", pa.string()),
        pa.field("unit", pa.string()),
        pa.field("classes", pa.list_(pa.string())),
        pa.field("shard_group", pa.string()),
    ]
)
_RUNS_SCHEMA = pa.schema(
    [
        pa.field("run_id", pa.string()),
        pa.field("video_id", pa.string()),
        pa.field("status", pa.string()),
        pa.field("started_at", pa.timestamp("ms", "UTC")),
        pa.field("finished_at", pa.timestamp("ms", "UTC")),
        pa.field("elapsed_seconds", pa.float64()),
        pa.field("computed", pa.int64()),
        pa.field("failed", pa.int64()),
        pa.field("compute_seconds", pa.float64()),
        pa.field("encode_seconds", pa.float64()),
        pa.field("stored_bytes", pa.int64()),
        pa.field("error", pa.string()),
        pa.field("command", pa.list_(pa.string())),
        pa.field("request", pa.string()),
        pa.field("versions", pa.string()),
        pa.field("device", pa.string()),
    ]
)


def _videos(manifest: Manifest) -> pa.Table:
    infos = manifest.videos.values()
    facts = {name: list(map(attrgetter(name), infos)) for name in _VIDEOS_SCHEMA.names if name != "video_id"}
    return pa.Table.from_pydict({"video_id": list(manifest.videos), **facts}, schema=_VIDEOS_SCHEMA)


def _representations(manifest: Manifest) -> pa.Table:
    rows = [
        {
            "representation": name,
            "type": record.spec.type,
            "kind": str(record.stored.kind),
            "is_virtual": record.is_virtual,
            "dependencies": list(record.spec.dependencies),
            "params": _json(record.spec.params),
            "config_hash": record.config_hash,
            "codec": record.suffix,
            "dtype": record.stored.dtype,
            "shape": list(record.stored.shape),
            "axes": record.stored.axes,
            "unit": record.stored.unit,
            "classes": list(record.stored.classes) if record.stored.classes else None,
            "shard_group": record.group,
        }
        for name, record in manifest.representations.items()
    ]
    return pa.Table.from_pylist(rows, schema=_REPRESENTATIONS_SCHEMA)


def _runs(folder: Path) -> pa.Table:
    from datetime import datetime

    def when(text: str | None) -> datetime | None:
        try:
            return None if text is None else datetime.fromisoformat(text)
        except ValueError:
            return None  # imported runs have times of their own

    rows = [
        {
            "run_id": run.run_id,
            "video_id": run.video_id,
            "status": run.status,
            "started_at": when(run.started_at),
            "finished_at": when(run.finished_at),
            "elapsed_seconds": run.elapsed_seconds,
            **{
                name: sum(getattr(totals, name) for totals in run.totals.values())
                for name in ("computed", "failed", "compute_seconds", "encode_seconds", "stored_bytes")
            },
            "error": run.error,
            "command": list(run.command),
            "request": _json(run.request),
            "versions": _json(run.versions),
            "device": _json(run.device),
        }
        for run in read_runs(folder)
    ]
    return pa.Table.from_pylist(rows, schema=_RUNS_SCHEMA)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=dict)
