"""Repair of a Lance table: fragments that are lost go, and the rows of frames that are damaged."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from vrekit.catalog.payload_checks import Problem
from vrekit.catalog.repairs import KEY_COLUMNS, OF_TABLES, Key, Repair, key_of
from vrekit.catalog.rows import payload_numbers
from vrekit.core.errors import DatasetError
from vrekit.core.files import write_atomic
from vrekit.writers.lance.blobs import payload_pieces
from vrekit.writers.lance.errors import reading_lance
from vrekit.writers.lance.ledger import check_ledger, data_files_of, record_files
from vrekit.writers.lance.maintenance import mend_indexes
from vrekit.writers.lance.places import data_file
from vrekit.writers.lance.probe import harmful_fragments
from vrekit.writers.lance.rows import LostFragment, column_name, lance_samples, open_table, quoted
from vrekit.writers.lance.table import LanceTable, repair_tags

if TYPE_CHECKING:
    import lance


def repair_table(path: str, problems: Sequence[Problem], work: Repair) -> None:
    """Repair one table; see `Storage.repair`. A row holds all representations of its group."""
    codes = {problem.code for problem in problems}
    file = work.folder / path
    if "lost-table" in codes:
        work.move_aside(file, file.with_name(f".{file.stem}.untidy"))
    else:
        names = work.manifest.groups.get(file.stem, ())
        table = LanceTable(work.folder, file.stem, names, quarantine=work.quarantine)
        with table.locked() as dataset:  # which puts versions and tags right
            known = table.files()
            damaged = set(check_ledger(dataset).damaged)
            if versions := [name for name in damaged if name.startswith("_versions/")]:
                work.move_aside(*(table.path / name for name in versions))
                dataset = open_table(table.path)
                repair_tags(dataset)
            bad = [problem for problem in problems if problem.code not in OF_TABLES]
            without = harmful_fragments(dataset, damaged)
            held = data_files_of(dataset, {key_of(problem)[:2] for problem in bad}, without=without) & damaged
            if "fragment" in codes:
                dataset = _drop_fragments(table, dataset, damaged - held, without, work)
            mend_indexes(dataset, damaged)
            if bad:
                _drop_frames(table, dataset, bad, work)
            table.sync(known)
            # The damage of a data file is that of the frames that went.
            record_files(table.path, [str(table.path / name) for name in held])
    work.report.shards.append(path)


def _drop_fragments(
    table: LanceTable,
    dataset: "lance.LanceDataset",
    damaged: Collection[str],
    without: Collection[int],
    work: Repair,
) -> "lance.LanceDataset":
    from lance import LanceDataset, LanceOperation

    lost: list[LostFragment] = []
    lance_samples(work.folder, table=table.path, lost=lost, checked=False, without=without)
    for fragment in dataset.get_fragments():
        files = tuple(file.path for file in fragment.data_files())
        if any(f"data/{name}" in damaged for name in files):
            lost.append(LostFragment(fragment.fragment_id, fragment.metadata.num_rows, files, "its bytes changed"))
    numbers = sorted({fragment.fragment_id for fragment in lost})
    if numbers:
        operation = LanceOperation.Delete([], numbers, "true")
        dataset = LanceDataset.commit(str(table.path), operation, read_version=dataset.version)
    for file in (data_file(table.path, name) for fragment in lost for name in fragment.files):
        work.move_aside(file, file.with_suffix(""))  # and the folder of its blobs
    return dataset


def _drop_frames(table: LanceTable, dataset: "lance.LanceDataset", problems: Sequence[Problem], work: Repair) -> None:
    keys = {key_of(problem) for problem in problems}
    unnamed = {key_of(problem) for problem in problems if problem.code == "row"}  # their names may be paths
    rows = lance_samples(work.folder, table=table.path, checked=False)
    frames = sorted({(video_id, frame) for video_id, frame, _ in keys} | _sharing_payloads(rows, keys))
    names = {name: place for place, name in enumerate(work.manifest.representations)}
    wanted = set(frames)
    of_key = {
        (row["video_id"], row["frame_index"], row["representation"]): row
        for row in rows.select([*KEY_COLUMNS, "byte_offset", "byte_size", "status"]).to_pylist()
        if (row["video_id"], row["frame_index"]) in wanted
    }
    for key in sorted(keys, key=lambda key: (key[0], key[1], names.get(key[2], 0))):
        row = of_key.get(key)
        if row is not None and row["byte_offset"] is not None and key not in unnamed:
            write_atomic(work.place(work.manifest.member_name(row)), _blob_pieces(dataset, row))
    for video_id, some in _by_video(frames).items():
        listed = ", ".join(map(str, some))
        dataset.delete(f"video_id = {quoted(video_id)} AND frame_index IN ({listed})")


def _sharing_payloads(rows: pa.Table, keys: set[Key]) -> set[tuple[str, int]]:
    """Return the frames that share a payload, a clip, with one of `keys`: a problem is told with the first of them."""
    payload = payload_numbers(rows)
    listed = list(zip(*(rows[name].to_pylist() for name in KEY_COLUMNS), strict=True))
    damaged = {int(payload[at]) for at, key in enumerate(listed) if key in keys} - {-1}
    shared = np.flatnonzero(np.isin(payload, list(damaged)) & rows["payload_index"].is_valid().to_numpy())
    return {listed[at][:2] for at in shared.tolist()}


def _blob_pieces(dataset: "lance.LanceDataset", row: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield a payload in pieces, as far as it can be read: what cannot is what is wrong with it."""
    try:
        with reading_lance(Path(dataset.uri)):
            yield from payload_pieces(dataset, column_name(row["representation"]), row["byte_offset"]) or ()
    except DatasetError:
        return


def _by_video(frames: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    by_video: dict[str, list[int]] = {}
    for video_id, frame in frames:
        by_video.setdefault(video_id, []).append(frame)
    return by_video
