"""What every writer must do, whatever its storage."""

import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from tests.contracts.writer_cells import (
    CELL,
    FRAMES,
    NAMES,
    STORAGES,
    expected_payloads,
    make_sample,
    make_writer,
    payload_bytes,
    stored_payloads,
    write_missing,
)
from tests.storages import read_progress, read_samples
from vrekit.catalog.cells import Cell
from vrekit.core.errors import LockedError
from vrekit.core.schema import SAMPLES_SCHEMA

pytestmark = pytest.mark.parametrize("writer", STORAGES)


def needs_files(writer: str) -> None:
    if writer == "memory":
        pytest.skip("nothing is on disk")


def write_all(folder: Path, writer: str) -> None:
    dataset = make_writer(folder, writer)
    with dataset.open_cell(CELL) as cell:
        write_missing(cell)
    dataset.close()


def working_files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.suffix in (".partial", ".journal", ".payloads")]


def test_what_is_written_is_read_back(tmp_path: Path, writer: str) -> None:
    write_all(tmp_path, writer)
    assert stored_payloads(tmp_path, writer) == expected_payloads()
    assert not working_files(tmp_path)


def test_metadata_rows_have_the_common_schema(tmp_path: Path, writer: str) -> None:
    dataset = make_writer(tmp_path, writer)
    with dataset.open_cell(CELL) as cell:
        cell.append(make_sample(3, failed=["rgb"]))
    dataset.close()
    table = read_samples(tmp_path)
    assert table.schema.equals(SAMPLES_SCHEMA)
    rows = {row["representation"]: row for row in table.to_pylist()}
    data = payload_bytes(3, "canny.image")
    stored, failed = rows["canny.image"], rows["rgb"]
    assert set(rows) == set(NAMES)
    assert (stored["byte_size"], stored["checksum"]) == (len(data), zlib.crc32(data))
    assert (stored["video_id"], stored["frame_index"], stored["run_id"]) == ("car", 3, "run1")
    assert (stored["pts_seconds"], stored["shape"], stored["valid"]) == (3 / 25, [len(data)], True)
    assert stored["byte_offset"] is not None
    assert writer == "memory" or (tmp_path / stored["shard"]).exists()
    assert (failed["status"], failed["error"]) == ("failed", "no weights")
    assert {failed[name] for name in ("byte_offset", "byte_size", "checksum", "dtype")} == {None}


def test_columns_and_videos_are_selected(tmp_path: Path, writer: str) -> None:
    dataset = make_writer(tmp_path, writer)
    for video_id in ("car", "bus"):
        with dataset.open_cell(Cell(video_id, "all", 0, 63)) as cell:
            cell.append(make_sample(1, video_id=video_id))
    table = read_samples(tmp_path, columns=("byte_size", "video_id", "representation"), video_ids=["bus", "none"])
    assert table.column_names == ["byte_size", "video_id", "representation"]
    assert table["video_id"].to_pylist() == ["bus"] * len(NAMES)
    assert read_samples(tmp_path, video_ids=[]).num_rows == 0


def test_nothing_is_visible_before_the_commit(tmp_path: Path, writer: str) -> None:
    cell = make_writer(tmp_path, writer).open_cell(CELL)
    write_missing(cell)
    cell.flush()
    assert read_samples(tmp_path).num_rows == 0
    cell.commit()
    assert read_samples(tmp_path).num_rows == len(FRAMES) * len(NAMES)


def test_a_suspended_cell_goes_on(tmp_path: Path, writer: str) -> None:
    dataset = make_writer(tmp_path, writer)
    first = dataset.open_cell(CELL)
    assert first.recovered == {}
    write_missing(first, range(15))
    first.append(make_sample(15, failed=["rgb"]))
    first.suspend()
    second = dataset.open_cell(CELL)
    assert second.recovered[15] == {"rgb": "failed", "a(b)+c-d": "ok", "canny.image": "ok"}
    assert write_missing(second) == list(range(16, 40))
    second.commit()
    dataset.close()
    expected = expected_payloads()
    del expected["car", 15, "rgb"]
    assert stored_payloads(tmp_path, writer) == expected


def test_an_exception_keeps_what_was_written(tmp_path: Path, writer: str) -> None:
    dataset = make_writer(tmp_path, writer)

    def break_off() -> None:
        with dataset.open_cell(CELL) as cell:
            write_missing(cell, range(7))
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        break_off()
    assert read_samples(tmp_path).num_rows == 0
    with dataset.open_cell(CELL) as cell:
        assert sorted(cell.recovered) == list(range(7))


def test_an_empty_cell_leaves_nothing(tmp_path: Path, writer: str) -> None:
    dataset = make_writer(tmp_path, writer)
    dataset.open_cell(CELL).commit()
    dataset.open_cell(CELL).suspend()
    dataset.close()
    assert read_samples(tmp_path).num_rows == 0
    assert not working_files(tmp_path)


def test_one_owner_at_a_time(tmp_path: Path, writer: str) -> None:
    dataset = make_writer(tmp_path, writer)
    with dataset.open_cell(CELL):
        with pytest.raises(LockedError, match="another process"):
            dataset.open_cell(CELL)
        dataset.open_cell(Cell("car", "all", 64, 127)).commit()
    dataset.open_cell(CELL).commit()


def test_what_another_process_committed_meanwhile_is_recovered(tmp_path: Path, writer: str) -> None:
    write_all(tmp_path, writer)
    dataset = make_writer(tmp_path, writer)
    with dataset.open_cell(CELL) as cell:
        assert write_missing(cell, range(45)) == list(range(40, 45))
    assert stored_payloads(tmp_path, writer) == expected_payloads(range(45))


def test_failed_frames_can_be_tried_again(tmp_path: Path, writer: str) -> None:
    dataset = make_writer(tmp_path, writer)
    with dataset.open_cell(CELL) as cell:
        for frame in range(5):
            cell.append(make_sample(frame, failed=["rgb"] if frame in (0, 4) else []))
    assert list(read_progress(tmp_path, "car").failed_frames("rgb")) == [0, 4]
    for count in (1, 2):
        dataset = make_writer(tmp_path, writer)
        with dataset.open_cell(CELL) as cell:
            assert "rgb" not in cell.recovered[0]
            cell.append(make_sample(0, ["rgb"], failed=["rgb"] * (count == 1), run_id=f"again{count}"))
            cell.append(make_sample(4, ["rgb"], failed=["rgb"] * (count == 1), run_id=f"again{count}"))
        dataset.close()
    progress = read_progress(tmp_path, "car")
    assert (list(progress.done_frames("rgb")), list(progress.failed_frames("rgb"))) == ([0, 1, 2, 3, 4], [])
    assert stored_payloads(tmp_path, writer) == expected_payloads(range(5))


def test_a_frame_that_comes_again_gets_a_row_of_its_own(tmp_path: Path, writer: str) -> None:
    dataset = make_writer(tmp_path, writer)
    with dataset.open_cell(CELL) as cell:
        for names, run_id in (("rgb",), "one"), (NAMES[1:], "two"):
            for frame in range(3):
                cell.append(make_sample(frame, names, run_id=run_id))
    assert stored_payloads(tmp_path, writer) == expected_payloads(range(3))
    rows = read_samples(tmp_path, columns=("representation", "run_id")).to_pylist()
    assert {(row["representation"], row["run_id"]) for row in rows} == {
        ("rgb", "one"),
        ("a(b)+c-d", "two"),
        ("canny.image", "two"),
    }


def test_a_cell_is_committed_in_parts_of_the_size_asked_for(tmp_path: Path, writer: str) -> None:
    needs_files(writer)
    dataset = make_writer(tmp_path, writer, shard_size_bytes=20_000)
    cell = dataset.open_cell(CELL)
    write_missing(cell)
    committed = read_samples(tmp_path).num_rows
    assert 0 < committed < len(FRAMES) * len(NAMES)
    cell.commit()
    dataset.close()
    assert stored_payloads(tmp_path, writer) == expected_payloads()


def test_groups_do_not_touch_each_other(tmp_path: Path, writer: str) -> None:
    write_all(tmp_path, writer)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    dataset = make_writer(tmp_path, writer, names=("depth",), layout="representation")
    with dataset.open_cell(Cell("car", "depth", 0, 63)) as cell:
        write_missing(cell, names=("depth",))
    dataset.close()
    assert all(path.read_bytes() == data for path, data in before.items())
    names = (*NAMES, "depth")
    assert stored_payloads(tmp_path, writer, names) == expected_payloads(names=names)


@pytest.mark.parametrize("flip", ["payload", "journal"])
def test_a_damaged_working_file_costs_only_what_follows(tmp_path: Path, writer: str, flip: str) -> None:
    needs_files(writer)
    dataset = make_writer(tmp_path, writer)
    cell = dataset.open_cell(CELL)
    write_missing(cell)
    cell.suspend()
    suffixes = (".partial", ".payloads") if flip == "payload" else (".journal",)
    (path,) = [path for path in tmp_path.rglob("*") if path.suffix in suffixes]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with dataset.open_cell(CELL) as cell:
        kept = sorted(cell.recovered)
        assert kept == list(range(len(kept)))
        assert 5 < len(kept) < 40
        write_missing(cell)
    assert stored_payloads(tmp_path, writer) == expected_payloads()


def test_sweep_removes_what_a_kill_after_the_commit_left(tmp_path: Path, writer: str) -> None:
    needs_files(writer)
    command = [sys.executable, "-m", "tests.contracts.writer_cells", writer, str(tmp_path), "run1", "removing"]
    assert subprocess.run(command, cwd=Path(__file__).parents[2], check=False).returncode == -9
    assert working_files(tmp_path)
    dataset = make_writer(tmp_path, writer)
    unfinished = dataset.open_cell(Cell("car", "all", 64, 127))
    unfinished.append(make_sample(70))
    unfinished.suspend()
    dataset.sweep("car")
    assert [name for name in working_files(tmp_path) if "00000000" in name] == []
    assert dataset.open_cell(Cell("car", "all", 64, 127)).recovered[70] == dict.fromkeys(NAMES, "ok")
