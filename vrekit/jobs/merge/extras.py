"""What belongs to a dataset besides its samples: run records, logs, statistics."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vrekit.catalog.runs import RUNS_FOLDER, RunRecord, config_folders, read_runs, write_run
from vrekit.catalog.statistics import STATISTICS_SCHEMA, Statistics, read_statistics, write_statistics
from vrekit.catalog.storage import open_storage
from vrekit.catalog.trust import RecordedCode, is_code
from vrekit.core.documents import Fields
from vrekit.core.files import read_regular, storage_errors, write_atomic
from vrekit.core.names import video_id_from_path
from vrekit.core.spec import IMAGE_SUFFIX
from vrekit.jobs.merge.manifests import Combined
from vrekit.jobs.merge.sources import Source

# What a request asks of the dataset itself: the result's, or `resume` would find it in conflict with it.
_DATASET_FIELDS = ("writer", "layout", "shard_frames", "shard_size_bytes")

_MAX_LOG_BYTES = 1 << 30


def copy_runs(output: Path, combined: Combined) -> set[str]:
    """Copy the records and logs of all runs whose video and representations are part of the result; return their ids.

    A record's request is changed where that is needed for `vrekit resume` to go on with it in the result: the layout
    is the result's, the video has its name there, representations that lost a conflict are not asked for. Its shards
    are those of the result: each belongs to the run of its first row.
    """
    records: dict[str, RunRecord] = {}
    logs: dict[str, Path] = {}
    for source in combined.order:
        for record in read_runs(source.folder, strict=True):
            adapted = _adapted(record, source, combined)
            known = records.get(record.run_id)
            # The same run in two sources: one is a copy that was made before the run ended.
            if adapted is not None and (known is None or known.finished_at is None):
                records[record.run_id] = adapted
                log = source.folder / RUNS_FOLDER / f"{record.run_id}.log"
                if log.exists():
                    logs[record.run_id] = log
    shards = open_storage(output, combined.manifest).shard_facts()
    for record in records.values():
        write_run(output, replace(record, shards=shards.get(record.run_id, {})))
    for run_id, log in logs.items():
        with storage_errors(output):
            write_atomic(output / RUNS_FOLDER / f"{run_id}.log", read_regular(log, max_bytes=_MAX_LOG_BYTES))
    return set(records)


def copy_trust(output: Path, combined: Combined) -> None:
    """Let the result run the code that this account exported a source with, as that source may (`catalog.trust`)."""
    specs = [record.spec for record in combined.manifest.representations.values() if is_code(record.spec.type)]
    if specs:
        here = RecordedCode(dataset=output, folders=config_folders(output))
        for source in combined.order:
            there = RecordedCode(dataset=source.folder, folders=config_folders(source.folder))
            here.inherit(there, specs)


def _adapted(record: RunRecord, source: Source, combined: Combined) -> RunRecord | None:
    video_id = combined.video_names[source.number].get(record.video_id)
    if video_id is None:
        return None
    request = dict(record.request)
    request.update({name: getattr(combined.manifest, name) for name in _DATASET_FIELDS if name in request})
    if video_id != video_id_from_path(str(request.get("video", video_id))):
        request["video_id"] = video_id
    lost = set(source.manifest.representations) - combined.names[source.number]
    if lost and "only" in request:
        fields = Fields(request, f"{source.folder / RUNS_FOLDER / record.run_id}.json: request")
        asked = fields.items("only", kind=str) or [spec.text("name") for spec in fields.list_of("representations")]
        request["only"] = [name for name in asked if name not in lost and name + IMAGE_SUFFIX not in lost]
        if not request["only"]:
            return None
    return replace(record, video_id=video_id, request=request, shards={})  # those of the result are others


def copy_statistics(output: Path, combined: Combined) -> None:
    """Merge the optional statistics of frames; of each value, the first source that has one counts."""
    for video_id in combined.manifest.videos:
        parts = [
            read_statistics(source.folder, there)
            for source in combined.order
            for there, here in combined.video_names[source.number].items()
            if here == video_id
        ]
        parts = [part for part in parts if part.table.num_rows]
        if parts:
            measured_on: dict[str, str] = {}
            for part in reversed(parts):
                measured_on |= dict(part.sources)
            merged = _merge_tables(video_id, [part.table for part in parts])
            write_statistics(output, video_id, Statistics(merged, measured_on))


def _merge_tables(video_id: str, tables: Sequence[pa.Table]) -> pa.Table:
    frames = [table["frame_index"].to_numpy() for table in tables]
    union = np.unique(np.concatenate(frames))
    aligned = []
    for mine, table in zip(frames, tables, strict=True):
        at = np.minimum(np.searchsorted(mine, union), len(mine) - 1)
        aligned.append(table.take(pa.array(at, mask=mine[at] != union)))
    columns: dict[str, Any] = {
        name: pc.coalesce(*(table[name] for table in aligned)) for name in STATISTICS_SCHEMA.names
    }
    columns["video_id"] = pa.repeat(video_id, len(union))
    columns["frame_index"] = union
    return pa.table(columns, schema=STATISTICS_SCHEMA)
