"""Which rows make it into the result: one for each (frame, representation) of a video, and what speaks against it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vrekit.catalog.rows import SOURCE, GroupedRows, prefer
from vrekit.core.names import sample_key
from vrekit.core.schema import SAMPLES_SCHEMA
from vrekit.jobs.cells import group_numbers
from vrekit.jobs.merge.manifests import Combined, Conflict
from vrekit.jobs.merge.sources import Source

SURVEY_COLUMNS = (
    "video_id",
    "frame_index",
    "representation",
    "status",
    "run_id",
    "byte_size",
    "payload_index",
    "checksum",
    "shard",
    "byte_offset",
)
_FRAMES_NAMED = 5


@dataclass(frozen=True, slots=True)
class VideoRows(GroupedRows):
    """The rows of one video that are part of the result, and why others are not.

    Sorted by group, frame, and the manifest's order of representations. `video_id` is the name in the result.

    Attributes:
        duplicates: Rows left out because another source has the same payload for the same frame.
        superseded: Rows left out because a source itself has a better one: failures of frames stored later.
        conflicts: Frames of which two sources hold different payloads.
        left_out: `source`, `video_id`, `frame_index` and `run_id` of the rows that are not part of the result.
    """

    duplicates: int
    superseded: int
    conflicts: tuple[Conflict, ...]
    left_out: pa.Table


def read_video_rows(combined: Combined, video_id: str, columns: Sequence[str] | None = None) -> VideoRows:
    """Return the rows of one video of the result.

    Of several stored rows of one frame and representation, that of the first source in `combined.order` is taken; a
    stored row goes before a failed one, and of failures only, the latest run's is kept.

    Args:
        combined: The merged manifest.
        video_id: Name of the video in the result.
        columns: Columns to read, at least SURVEY_COLUMNS; None reads all.
    """
    schema = SAMPLES_SCHEMA if columns is None else pa.schema([SAMPLES_SCHEMA.field(name) for name in columns])
    parts = [_with_source(schema.empty_table(), 0)]
    for source in combined.order:
        for there, here in combined.video_names[source.number].items():
            if here == video_id:
                rows = source.read_rows(there, combined.names[source.number], columns).select(schema.names)
                if there != here:
                    at = rows.column_names.index("video_id")
                    rows = rows.set_column(at, schema.field("video_id"), pa.repeat(here, rows.num_rows))
                parts.append(_with_source(rows, source.number))
    return _choose(pa.concat_tables(parts), combined, video_id)


def _with_source(table: pa.Table, number: int) -> pa.Table:
    return table.append_column(SOURCE, pa.repeat(pa.scalar(number, pa.int32()), table.num_rows))


def _choose(table: pa.Table, combined: Combined, video_id: str) -> VideoRows:
    manifest = combined.manifest
    names = list(manifest.representations)
    frame = table["frame_index"].to_numpy()
    groups, group, name = group_numbers(table, manifest)
    preference = prefer(table, group, frame, name)  # rows are in order of preference
    order, first = preference.order, preference.counts
    winner = preference.winners
    loser, beaten_by = order[~first], winner[np.cumsum(first) - 1][~first]

    source = table[SOURCE].to_numpy()
    same_source = source[loser] == source[beaten_by]
    failed = ~np.asarray(pc.equal(table["status"], "ok").to_numpy(), np.bool_)
    both_stored = ~failed[loser] & ~failed[beaten_by]
    checksum, size = _filled(table["checksum"]), _filled(table["byte_size"])
    same = (checksum[loser] == checksum[beaten_by]) & (size[loser] == size[beaten_by])
    # Clips are cut as the frames of a run came: the same frame in two of them says nothing about their bytes.
    in_clip = np.asarray(table["payload_index"].is_valid().to_numpy(), np.bool_)
    same |= in_clip[loser] | in_clip[beaten_by]
    differs = both_stored & ~same & ~same_source
    conflicts = [
        _frame_conflict(
            video_id, names[at], frame[loser[mine]], combined.order, source[beaten_by[mine]], source[loser[mine]]
        )
        for at in range(len(names))
        if (mine := differs & (name[loser] == at)).any()
    ]
    return VideoRows(
        table=table.take(pa.array(winner)),
        groups=groups,
        group=group[winner],
        duplicates=int((both_stored & same & ~same_source).sum()),
        superseded=int((same_source | (~both_stored & ~same_source)).sum()),
        conflicts=tuple(conflicts),
        left_out=table.select([SOURCE, "video_id", "frame_index", "run_id"]).take(pa.array(loser)),
    )


def _filled(column: pa.ChunkedArray) -> NDArray[np.int64]:
    return np.asarray(pc.fill_null(column.cast(pa.int64()), 0).to_numpy(), np.int64)


def _frame_conflict(
    video_id: str,
    name: str,
    frames: NDArray[np.int64],
    order: Sequence[Source],
    a: NDArray[np.int32],
    b: NDArray[np.int32],
) -> Conflict:
    folders = [str(source.folder) for source in order if source.number in {*a.tolist(), *b.tolist()}]
    listed = np.unique(frames).tolist()
    some = ", ".join(str(frame) for frame in listed[:_FRAMES_NAMED]) + (", …" if len(listed) > _FRAMES_NAMED else "")
    first = sample_key(video_id, listed[0])
    what = f"{len(listed)} frame{'s' * (len(listed) > 1)} of {name!r} ({some})"
    message = f"video {video_id!r}: {what} differ between {' and '.join(folders)} (the first: {first})"
    return Conflict("frame", message)
