"""What is particular to Lance tables: columns, versions, tags, merging, indexes, and that commits are not repeated."""

import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb
import lance
import lance.fragment
import numpy as np
import pytest

from tests.contracts.writer_cells import (
    CELL,
    FRAMES,
    NAMES,
    expected_payloads,
    identities,
    make_sample,
    make_writer,
    payload_bytes,
    stored_payloads,
    write_missing,
)
from tests.storages import read_samples
from vrekit.catalog.cells import Cell
from vrekit.core.errors import DatasetError, StorageError, UsageError
from vrekit.core.schema import rows_to_table
from vrekit.writers.lance import maintenance as lance_upkeep
from vrekit.writers.lance import table as lance_table
from vrekit.writers.lance import writer as lance_writer
from vrekit.writers.lance.batches import blob_array
from vrekit.writers.lance.ledger import check_ledger, record_files
from vrekit.writers.lance.maintenance import MERGE_FROM, create_index
from vrekit.writers.lance.rows import FIELDS, lance_samples, open_table, table_path, version_files
from vrekit.writers.lance.table import LanceTable


def write_cells(
    folder: Path, count: int, *, width: int = 2, first: int = 0, run_id: str = "run1", **changes: Any
) -> None:
    """Write `width` frames into each of `count` cells."""
    dataset = make_writer(folder, "lance", **changes)
    for number in range(first, first + count):
        with dataset.open_cell(Cell("car", "all", 64 * number, 64 * number + 63)) as cell:
            write_missing(cell, range(64 * number, 64 * number + width), run_id=run_id)
    dataset.close()


def table(folder: Path) -> Any:
    return lance.dataset(str(table_path(folder, "all")))


def test_the_table_is_read_without_vrekit(tmp_path: Path) -> None:
    write_cells(tmp_path, 1, width=10)
    dataset = lance.dataset(str(tmp_path / "lance" / "all.lance"))
    assert dataset.count_rows() == 10
    assert dataset.schema.names[:5] == ["video_id", "frame_index", "pts_seconds", "run_id", "rgb"]
    assert {f"canny:image:{field}" for field in FIELDS} < set(dataset.schema.names)
    assert dataset.schema.metadata[b"vrekit.format_version"] == b"2"
    frames = [7, 2, 2]
    found = dataset.read_blobs("a(b)+c-d", indices=frames, preserve_order=True)
    assert [data for _, data in found] == [payload_bytes(frame, "a(b)+c-d") for frame in frames]
    large = [frame for frame in range(10) if len(payload_bytes(frame, "rgb")) > 600]
    assert large
    selected = dataset.to_table(columns=["frame_index"], filter="`rgb:status` = 'ok' AND `rgb:byte_size` > 600")
    assert selected["frame_index"].to_pylist() == large
    query = """SELECT frame_index FROM dataset WHERE "rgb:byte_size" > 600 AND "canny:image:status" = 'ok'"""
    assert [row[0] for row in duckdb.connect().execute(query).fetchall()] == large
    described = dataset.to_table(columns=["rgb"], limit=1).schema.field("rgb").type
    assert "size" in str(described)


def test_a_metadata_scan_reads_no_payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "vrekit.testing.cells.payload_bytes", lambda frame, name: random.Random(frame).randbytes(200_000)
    )
    write_cells(tmp_path, 1, width=20)
    dataset = table(tmp_path)
    dataset.io_stats_incremental()
    columns = [name for name in dataset.schema.names if name == "frame_index" or ":status" in name or "size" in name]
    assert dataset.to_table(columns=columns).num_rows == 20
    stored = sum(read_samples(tmp_path, columns=("byte_size",))["byte_size"].to_pylist())
    assert stored == 20 * len(NAMES) * 200_000
    assert dataset.io_stats_incremental().read_bytes < stored / 100


def test_the_same_rows_are_never_appended_twice(tmp_path: Path) -> None:
    one = LanceTable(tmp_path, "all", ("rgb",))
    rows = []
    for frame in range(5):
        (payload,) = make_sample(frame, ("rgb",)).payloads
        rows.append(payload.placed(shard="", byte_offset=0, checksum=1).to_dict())
    for _ in range(3):
        one.append(Cell("car", "all", 0, 4), [rows_to_table(rows)], lambda offset, size: bytes(size))
    assert table(tmp_path).count_rows() == 5
    assert sorted(one.stored(Cell("car", "all", 1, 3))["frame_index"].to_pylist()) == [1, 2, 3]


def test_a_commit_that_succeeded_but_raised_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = lance.LanceDataset.commit

    def commit_then_raise(*args: Any, **kwargs: Any) -> None:
        commit(*args, **kwargs)
        raise OSError("the connection was lost")

    dataset = make_writer(tmp_path, "lance")
    with monkeypatch.context() as patch:
        patch.setattr(lance.LanceDataset, "commit", staticmethod(commit_then_raise))
        cell = dataset.open_cell(CELL)
        write_missing(cell)
        with pytest.raises(OSError, match="connection was lost"):
            cell.commit()
        cell.suspend()
    with dataset.open_cell(CELL) as cell:
        assert write_missing(cell) == []
    assert len(identities(tmp_path)) == len(FRAMES) * len(NAMES)
    assert stored_payloads(tmp_path, "lance") == expected_payloads()


def test_a_full_disk_is_an_error_with_a_hint_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError("LanceError(IO): Generic LocalFileSystem error: No space left on device (os error 28)")

    dataset = make_writer(tmp_path, "lance")
    with monkeypatch.context() as patch:
        patch.setattr(lance.fragment, "write_fragments", full)
        cell = dataset.open_cell(CELL)
        write_missing(cell)
        with pytest.raises(StorageError, match="no space left") as caught:
            cell.commit()
        assert "vrekit resume" in str(caught.value.hint)
        cell.suspend()
    with dataset.open_cell(CELL) as cell:
        assert write_missing(cell) == []
    assert stored_payloads(tmp_path, "lance") == expected_payloads()


def test_data_files_of_an_unfinished_append_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cells(tmp_path, 1)

    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError("interrupted before the commit")

    with monkeypatch.context() as patch:
        patch.setattr(lance.LanceDataset, "commit", staticmethod(fail))
        cell = make_writer(tmp_path, "lance").open_cell(Cell("car", "all", 64, 127))
        write_missing(cell, range(64, 80))
        with pytest.raises(OSError, match="before the commit"):
            cell.commit()
        cell.suspend()
    data = table_path(tmp_path, "all") / "data"
    assert len(list(data.glob("*.lance"))) == 2
    write_cells(tmp_path, 1, first=2)
    assert len(list(data.glob("*.lance"))) == 2 == len(table(tmp_path).get_fragments())
    assert stored_payloads(tmp_path, "lance") == expected_payloads([0, 1, 128, 129])


def test_each_run_has_a_tag_at_its_version(tmp_path: Path) -> None:
    write_cells(tmp_path, 2, run_id="20261121T000000000-aaaaaa")
    write_cells(tmp_path, 1, first=2, run_id="20261121T000001000-bbbbbb")
    tags = table(tmp_path).tags.list()
    assert sorted(tags) == ["run-20261121T000000000-aaaaaa", "run-20261121T000001000-bbbbbb"]
    path = str(table_path(tmp_path, "all"))
    counts = [lance.dataset(path, version=tag).count_rows() for tag in sorted(tags)]
    assert counts == [4, 6]


def test_small_fragments_are_merged_at_the_end_and_rows_keep_their_ids(tmp_path: Path) -> None:
    cells = MERGE_FROM + 4
    dataset = make_writer(tmp_path, "lance")
    for number in range(cells):
        with dataset.open_cell(Cell("car", "all", 64 * number, 64 * number + 63)) as cell:
            write_missing(cell, range(64 * number, 64 * number + 2))
    ids = {
        (row["frame_index"], row["representation"]): row["byte_offset"] for row in read_samples(tmp_path).to_pylist()
    }
    assert len(table(tmp_path).get_fragments()) == cells
    dataset.close()
    assert len(table(tmp_path).get_fragments()) < cells / 4
    after = {
        (row["frame_index"], row["representation"]): row["byte_offset"] for row in read_samples(tmp_path).to_pylist()
    }
    assert after == ids
    frames = [64 * number + frame for number in range(cells) for frame in (0, 1)]
    assert stored_payloads(tmp_path, "lance") == expected_payloads(frames)
    assert table(tmp_path).count_rows(filter="run_id = 'run1' AND video_id = 'car'") == 2 * cells


def test_fragments_that_another_run_holds_are_left_alone(tmp_path: Path) -> None:
    write_cells(tmp_path, MERGE_FROM - 1, run_id="run1")
    data = table_path(tmp_path, "all") / "data"
    before = {path: path.read_bytes() for path in data.glob("*.lance")}
    write_cells(tmp_path, MERGE_FROM + 1, first=MERGE_FROM - 1, run_id="run2")
    fragments = table(tmp_path).get_fragments()
    assert MERGE_FROM - 1 < len(fragments) < MERGE_FROM + 4
    assert all(path.read_bytes() == content for path, content in before.items())
    frames = [64 * number + frame for number in range(2 * MERGE_FROM) for frame in (0, 1)]
    assert stored_payloads(tmp_path, "lance") == expected_payloads(frames)
    first = lance.dataset(str(table_path(tmp_path, "all")), version="run-run1")
    assert first.count_rows() == 2 * (MERGE_FROM - 1)


def test_indexes(tmp_path: Path) -> None:
    write_cells(tmp_path, 2)
    write_cells(tmp_path, 1, first=2, run_id="run2")
    kinds = {index.name: index.index_type for index in table(tmp_path).describe_indices()}
    assert kinds == {"run_id_bitmap": "Bitmap", "video_id_bitmap": "Bitmap"}
    assert "ScalarIndexQuery" in table(tmp_path).scanner(filter="run_id = 'run2'").explain_plan()
    assert table(tmp_path).count_rows(filter="run_id = 'run2'") == 2
    assert create_index(tmp_path, "canny:image:byte_size") == 1
    assert "ScalarIndexQuery" in table(tmp_path).scanner(filter="`canny:image:byte_size` < 9").explain_plan()
    with pytest.raises(UsageError, match=r"has a column 'rgb:bytesize' \(did you mean 'rgb:byte_size'\?\)"):
        create_index(tmp_path, "rgb:bytesize")


def test_upkeep_that_a_killed_run_missed_is_made_up_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(lance_writer, "tidy", _kill)
        with pytest.raises(KeyboardInterrupt):
            write_cells(tmp_path, MERGE_FROM, run_id="run1")
    assert not table(tmp_path).describe_indices()
    assert len(table(tmp_path).get_fragments()) == MERGE_FROM
    make_writer(tmp_path, "lance").close()  # it has nothing to write
    assert [index.name for index in table(tmp_path).describe_indices()] == ["run_id_bitmap", "video_id_bitmap"]
    assert len(table(tmp_path).get_fragments()) == 1
    assert table(tmp_path).tags.list()["run-run1"]["version"] == table(tmp_path).version
    assert stored_payloads(tmp_path, "lance") == expected_payloads(
        [64 * number + frame for number in range(MERGE_FROM) for frame in (0, 1)]
    )
    monkeypatch.setattr(lance_writer, "tidy", _kill)
    make_writer(tmp_path, "lance").close()


def test_the_next_run_makes_up_for_the_upkeep_of_a_killed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(lance_writer, "tidy", _kill)
        with pytest.raises(KeyboardInterrupt):
            write_cells(tmp_path, MERGE_FROM - 1, run_id="run1")
    write_cells(tmp_path, 1, first=MERGE_FROM - 1, run_id="run2")
    assert len(table(tmp_path).get_fragments()) == 1
    assert len({tag["version"] for tag in table(tmp_path).tags.list().values()}) == 1
    monkeypatch.setattr(lance_writer, "tidy", _kill)
    make_writer(tmp_path, "lance").close()


def _kill(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("call", range(1, 8))
def test_the_next_writer_lists_what_a_killed_one_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """Calls: for a new table, twice for each of two appends, for the merged fragment, and for the indexes."""
    monkeypatch.setattr(lance_upkeep, "MERGE_FROM", 2)
    calls = []

    def killed(table: Path, files: Iterable[str]) -> None:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        record_files(table, files)

    with monkeypatch.context() as patch:
        patch.setattr(lance_table, "record_files", killed)
        with pytest.raises(KeyboardInterrupt):
            write_cells(tmp_path, 2)
    write_cells(tmp_path, 2)
    found = check_ledger(table(tmp_path))
    assert (found.damaged, found.unlisted) == ([], [])
    assert len(table(tmp_path).get_fragments()) == 1
    assert stored_payloads(tmp_path, "lance") == expected_payloads(
        [64 * number + frame for number in range(2) for frame in (0, 1)]
    )


def test_files_of_an_older_version_are_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows whether they are what was written."""
    with monkeypatch.context() as patch:
        patch.setattr(lance_table, "record_files", lambda *_: None)
        write_cells(tmp_path, 1)
        patch.setattr(lance_table, "record_files", _kill)
        with pytest.raises(KeyboardInterrupt):
            write_cells(tmp_path, 1, first=1)
    old = {f"data/{path.name}" for path in (table_path(tmp_path, "all") / "data").glob("*.lance")}
    write_cells(tmp_path, 1, first=2)
    assert {path for path in check_ledger(table(tmp_path)).unlisted if path.startswith("data/")} < old


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    write_cells(tmp_path, 1)
    path = table_path(tmp_path, "all")
    for manifest in path.glob("_versions/*.manifest"):
        manifest.write_bytes(b"nonsense")
    with pytest.raises(DatasetError, match=r"all\.lance cannot be opened"):
        open_table(path)
    with pytest.raises(DatasetError, match=r"all\.lance"):
        lance_samples(tmp_path)


def test_large_payloads_share_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = np.random.default_rng(0).bytes(5_000_000)
    monkeypatch.setattr("vrekit.testing.cells.payload_bytes", lambda frame, name: large)
    dataset = make_writer(tmp_path, "lance", names=("depth",))
    with dataset.open_cell(CELL) as cell:
        write_missing(cell, range(6), names=("depth",))
    blobs = list(tmp_path.rglob("*.blob"))
    assert [path.stat().st_size for path in blobs] == [6 * 5_000_000]
    assert set(stored_payloads(tmp_path, "lance", ("depth",)).values()) == {large}


@pytest.mark.parametrize("payloads", [[b"abc"], [None], [], [b""], [b"a", None, b"", b"bc", None], [None, b"x" * 1000]])
def test_blob_arrays_are_those_of_lance(payloads: list[bytes | None]) -> None:
    expected = lance.blob_array(payloads)
    found = blob_array(payloads, expected.type)
    found.validate(full=True)
    assert found.equals(expected)


@pytest.mark.parametrize("what", ["data file", "blobs", "version"])
def test_a_commit_that_lance_takes_for_whole_and_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(
        "vrekit.testing.cells.payload_bytes", lambda frame, name: random.Random(frame).randbytes(100_000)
    )
    write_fragments, commit = lance.fragment.write_fragments, lance.LanceDataset.commit

    def write_less(*args: Any, **kwargs: Any) -> Any:
        fragments = write_fragments(*args, **kwargs)
        files = table_path(tmp_path, "all").glob("data/*/*.blob" if what == "blobs" else "data/*.lance")
        for path in files if what != "version" else ():
            os.truncate(path, path.stat().st_size - 10)
        return fragments

    def commit_less(*args: Any, **kwargs: Any) -> Any:
        done = commit(*args, **kwargs)
        if what == "version":
            os.truncate(next(iter(version_files(table_path(tmp_path, "all")).values())), 100)
        return done

    dataset = make_writer(tmp_path, "lance")
    cell = dataset.open_cell(CELL)
    write_missing(cell)
    with monkeypatch.context() as patch:
        patch.setattr(lance.fragment, "write_fragments", write_less)
        patch.setattr(lance.LanceDataset, "commit", staticmethod(commit_less))
        with pytest.raises(StorageError, match="no space left"):
            cell.commit()
        cell.suspend()
    with dataset.open_cell(CELL) as cell:
        assert write_missing(cell) == []
    assert len(identities(tmp_path)) == len(FRAMES) * len(NAMES)
    assert len(set(stored_payloads(tmp_path, "lance").values())) > 1
