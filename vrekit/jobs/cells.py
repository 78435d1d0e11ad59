"""The rows that a result lacks, written cell by cell: the loop of every job that writes samples."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vrekit.catalog.cells import Cell, CellWriter, DatasetWriter
from vrekit.catalog.manifest import Manifest
from vrekit.catalog.progress import Progress, progress_of, read_progress
from vrekit.catalog.rows import GroupedRows, payload_bytes, places_in, stretches
from vrekit.catalog.storage import Advance, Storage

_STATUS = ("frame_index", "representation", "status")


def grouped(table: pa.Table, manifest: Manifest) -> GroupedRows:
    """Return rows of one video sorted by group, frame, and the manifest's order of representations."""
    groups, group, name = group_numbers(table, manifest)
    order = np.lexsort((name, table["frame_index"].to_numpy(), group))
    return GroupedRows(table.take(pa.array(order)), groups, group[order])


def group_numbers(table: pa.Table, manifest: Manifest) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64]]:
    """Return the groups of a manifest, and for each row the numbers of its group and of its representation there."""
    records, groups = manifest.representations, tuple(manifest.groups)
    name = places_in(table["representation"], records)
    group_of = np.array([groups.index(record.group) if record.group else 0 for record in records.values()], np.int64)
    return groups, group_of[name] if len(records) else name, name


def write_cells(
    rows: GroupedRows,
    video_id: str,
    storage: Storage,
    writer: DatasetWriter,
    fill: Callable[[CellWriter, pa.Table], None],
    advance: Advance | None = None,
) -> None:
    """Have the rows of a video written that the result does not have yet, neither committed nor in an open cell.

    Args:
        rows: What the result is to have of the video.
        video_id: Name of the video in the result.
        storage: The result.
        writer: Of the result.
        fill: Appends the samples of some rows, all of one cell, in their order.
        advance: Called with the payload bytes of rows that the result has.
    """
    manifest = storage.manifest
    names = list(manifest.representations)
    writer.sweep(video_id)
    table, group = rows.table, rows.group
    is_left = ~_is_done(table, read_progress(storage, video_id), names)
    if not is_left.all():
        if advance is not None:
            advance(payload_bytes(table.filter(pa.array(~is_left))))
        table, group = table.filter(pa.array(is_left)), group[is_left]
    cells: NDArray[np.int64] = table["frame_index"].to_numpy() // manifest.shard_frames
    for start, stop in stretches(cells, group):
        first_frame = int(cells[start]) * manifest.shard_frames
        place = Cell.at(video_id, rows.groups[int(group[start])], first_frame, manifest.shard_frames)
        with writer.open_cell(place) as cell:
            inside = table.slice(start, stop - start)
            new = _without_recovered(inside, cell, names)
            if advance is not None and len(new) < len(inside):
                advance(payload_bytes(inside) - payload_bytes(new))
            if len(new):
                fill(cell, new)


def _without_recovered(table: pa.Table, cell: CellWriter, names: Sequence[str]) -> pa.Table:
    recovered = [(frame, name, status) for frame, of in cell.recovered.items() for name, status in of.items()]
    if not recovered:
        return table
    known = pa.table(dict(zip(_STATUS, map(pa.array, zip(*recovered, strict=True)), strict=True)))
    return table.filter(pa.array(~_is_done(table, progress_of(known), names)))


def _is_done(table: pa.Table, done: Progress, names: Sequence[str]) -> NDArray[np.bool_]:
    """Return which rows are done: stored ones, and failures that are on record."""
    frame, name = table["frame_index"].to_numpy(), places_in(table["representation"], names)
    is_stored = pc.equal(table["status"], "ok").to_numpy()
    is_done = np.zeros(len(frame), np.bool_)
    for at, one in enumerate(names):
        stored, failed = done.done_frames(one), done.failed_frames(one)
        for status, known in ((is_stored, stored), (~is_stored, np.union1d(stored, failed))):
            mine = status & (name == at)
            is_done[mine] = np.isin(frame[mine], known)
    return is_done
