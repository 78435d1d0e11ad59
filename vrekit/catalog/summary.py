"""What a dataset holds, added up from its metadata: what `vrekit info` prints."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vrekit.catalog.manifest import Manifest
from vrekit.catalog.rows import PAYLOAD_COLUMNS, byte_shares
from vrekit.catalog.runs import RunRecord, scan_runs
from vrekit.catalog.storage import ShortShard, open_storage


@dataclass(frozen=True, slots=True, kw_only=True)
class RepresentationSummary:
    """One representation of a dataset over all its videos.

    Attributes:
        frames: Stored frames.
        failed: Frames that failed and were not stored since.
        stored_bytes: Payload bytes.
        raw_bytes: Bytes of the decoded arrays.
    """

    name: str
    type: str
    kind: str
    codec: str | None
    frames: int
    failed: int
    stored_bytes: int
    raw_bytes: int
    compute_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSummary:
    """A dataset at a glance."""

    folder: Path
    manifest: Manifest
    shards: int
    frames: Mapping[str, int]
    representations: tuple[RepresentationSummary, ...]
    runs: tuple[RunRecord, ...]
    damaged_runs: tuple[str, ...]
    damaged_tars: tuple[ShortShard, ...]
    failures: tuple[Mapping[str, Any], ...]
    open_frames: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        return {
            "folder": str(self.folder),
            "format_version": self.manifest.format_version,
            "writer": self.manifest.writer,
            "layout": self.manifest.layout,
            "shards": self.shards,
            "videos": {
                video_id: info.to_json() | {"stored_frames": self.frames.get(video_id, 0)}
                for video_id, info in self.manifest.videos.items()
            },
            "representations": [asdict(one) for one in self.representations],
            "runs": [run.to_json() for run in self.runs],
            "damaged_runs": list(self.damaged_runs),
            "damaged_tars": [asdict(one) for one in self.damaged_tars],
            "failures": list(self.failures),
            "open_frames": dict(self.open_frames),
        }


MAX_FAILURES_SHOWN = 20


def summarize(folder: Path) -> DatasetSummary:
    """Return what the dataset in `folder` holds.

    Raises:
        DatasetError: If it is no dataset, or its metadata is damaged.
    """
    storage = open_storage(folder)
    manifest = storage.manifest
    columns = (
        "video_id",
        "frame_index",
        "representation",
        "status",
        "error",
        *(name for name in PAYLOAD_COLUMNS if name != "representation"),
        "raw_bytes",
        "compute_seconds",
    )
    rows = storage.rows(columns)
    stored = rows.filter(pc.field("status") == "ok")
    stored = stored.set_column(stored.column_names.index("byte_size"), "byte_size", pa.array(byte_shares(stored)))
    by_name = {row["representation"]: row for row in _totals(stored).to_pylist()}
    failures = _open_failures(rows, stored)
    failed = dict(_counts(failures, "representation"))
    representations = tuple(
        RepresentationSummary(
            name=name,
            type=record.spec.type,
            kind=record.stored.kind,
            codec=None if record.codec is None else str(record.codec.get("id", record.suffix)),
            frames=by_name.get(name, {}).get("frame_index_count", 0),
            failed=failed.get(name, 0),
            stored_bytes=by_name.get(name, {}).get("byte_size_sum") or 0,
            raw_bytes=by_name.get(name, {}).get("raw_bytes_sum") or 0,
            compute_seconds=by_name.get(name, {}).get("compute_seconds_sum") or 0.0,
        )
        for name, record in manifest.representations.items()
    )
    frames = stored.group_by(["video_id", "frame_index"]).aggregate([])
    shown = failures.select(["video_id", "frame_index", "representation", "error"])
    runs, damaged_runs = scan_runs(folder)
    shards = set(storage.shards())
    return DatasetSummary(
        folder=folder,
        manifest=manifest,
        shards=len(shards),
        frames=dict(_counts(frames, "video_id")),
        representations=representations,
        runs=tuple(runs),
        damaged_runs=tuple(error.message for error in damaged_runs),
        damaged_tars=(*storage.short_shards(rows), *_lost_shards(runs, shards)),
        failures=tuple(shown.slice(0, MAX_FAILURES_SHOWN).to_pylist()),
        open_frames=storage.open_frames(),
    )


def _lost_shards(runs: Sequence[RunRecord], shards: Collection[str]) -> Iterator[ShortShard]:
    """Yield the shards that runs recorded and of which the metadata is gone."""
    for path, rows in {path: facts.rows for run in runs for path, facts in run.shards.items()}.items():
        if path not in shards:
            yield ShortShard(path, f"is lost with its metadata ({rows} rows)")


def _totals(stored: pa.Table) -> pa.Table:
    sums = [(name, "sum") for name in ("byte_size", "raw_bytes", "compute_seconds")]
    return stored.group_by("representation").aggregate([("frame_index", "count"), *sums])


def _open_failures(rows: pa.Table, stored: pa.Table) -> pa.Table:
    failed = rows.filter(pc.field("status") == "failed")
    keys = ["video_id", "frame_index", "representation"]
    return failed.join(stored.select(keys), keys=keys, join_type="left anti").sort_by(
        [(key, "ascending") for key in keys]
    )


def _counts(table: pa.Table, column: str) -> list[tuple[str, int]]:
    counted = table.group_by(column).aggregate([([], "count_all")])
    return list(zip(counted[column].to_pylist(), counted["count_all"].to_pylist(), strict=True))
