"""What every storage must do: a plug-in's tests inherit it."""

import dataclasses
import pickle
import threading
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from vrekit.catalog.cells import Cell, CellWriter, DatasetWriter
from vrekit.catalog.index import frames_of
from vrekit.catalog.progress import read_progress
from vrekit.catalog.rows import byte_shares
from vrekit.catalog.storage import PayloadReader, Storage
from vrekit.core.errors import LockedError
from vrekit.core.schema import SAMPLES_SCHEMA
from vrekit.readers.index import INDEX_COLUMNS, FrameIndex
from vrekit.testing.assertions import raises
from vrekit.testing.cells import (
    CELL,
    FRAMES,
    NAMES,
    clip_bytes,
    expected_payloads,
    make_clip,
    make_manifest,
    make_sample,
    payload_bytes,
    stored_payloads,
    write_missing,
)

_READ_FRAMES = 60


class StorageContract:
    """Tests of one storage; pytest runs those of a subclass.

    Attributes:
        storage: The storage, a subclass of `vrekit.catalog.storage.Storage`.

    Example:
        >>> class TestMyStorage(StorageContract):
        ...     storage = MyStorage
    """

    storage: ClassVar[type[Storage]]

    def open(self, folder: Path, names: Iterable[str] = NAMES, **changes: Any) -> Storage:
        """Return a handle of the dataset in a folder; `changes` are fields of its manifest."""
        return self.storage(folder, make_manifest(self.storage.name, names, **changes))

    def writer(self, folder: Path, names: Iterable[str] = NAMES, **changes: Any) -> DatasetWriter:
        """Return what adds samples."""
        return self.open(folder, names, **changes).writer()

    def rows(
        self, folder: Path, *, columns: Iterable[str] | None = None, video_ids: Iterable[str] | None = None
    ) -> pa.Table:
        """Return the metadata rows."""
        return self.open(folder).rows(
            None if columns is None else list(columns), None if video_ids is None else list(video_ids)
        )

    def stored_payloads(self, folder: Path, names: Iterable[str] = NAMES) -> dict[tuple[str, int, str], bytes]:
        """Return the payloads by (video, frame, representation)."""
        return stored_payloads(self.open(folder, names))

    def write_all(self, folder: Path) -> None:
        """Write FRAMES into CELL."""
        dataset = self.writer(folder)
        with dataset.open_cell(CELL) as cell:
            write_missing(cell)
        dataset.close()

    # -- writing -----------------------------------------------------------------------------------------------

    def test_what_is_written_is_read_back(self, tmp_path: Path) -> None:
        self.write_all(tmp_path)
        assert self.stored_payloads(tmp_path) == expected_payloads()
        assert self.open(tmp_path).open_cells() == []

    def test_metadata_rows_have_the_common_schema(self, tmp_path: Path) -> None:
        dataset = self.writer(tmp_path)
        with dataset.open_cell(CELL) as cell:
            cell.append(make_sample(3, failed=["rgb"]))
        dataset.close()
        table = self.rows(tmp_path)
        assert table.schema.equals(SAMPLES_SCHEMA)
        rows = {row["representation"]: row for row in table.to_pylist()}
        data = payload_bytes(3, "canny.image")
        stored, failed = rows["canny.image"], rows["rgb"]
        assert set(rows) == set(NAMES)
        assert (stored["byte_size"], stored["checksum"]) == (len(data), zlib.crc32(data))
        assert (stored["video_id"], stored["frame_index"], stored["run_id"]) == ("car", 3, "run1")
        assert (stored["pts_seconds"], stored["shape"], stored["valid"]) == (3 / 25, [len(data)], True)
        assert stored["byte_offset"] is not None
        assert not self.storage.outlives_process or (tmp_path / stored["shard"]).exists()
        assert (failed["status"], failed["error"]) == ("failed", "no weights")
        assert {failed[name] for name in ("byte_offset", "byte_size", "checksum", "dtype")} == {None}

    def test_columns_and_videos_are_selected(self, tmp_path: Path) -> None:
        dataset = self.writer(tmp_path)
        for video_id in ("car", "bus"):
            with dataset.open_cell(Cell(video_id, "all", 0, 63)) as cell:
                cell.append(make_sample(1, video_id=video_id))
        table = self.rows(tmp_path, columns=("byte_size", "video_id", "representation"), video_ids=["bus", "none"])
        assert table.column_names == ["byte_size", "video_id", "representation"]
        assert table["video_id"].to_pylist() == ["bus"] * len(NAMES)
        assert self.rows(tmp_path, video_ids=[]).num_rows == 0

    def test_nothing_is_visible_before_the_commit(self, tmp_path: Path) -> None:
        cell = self.writer(tmp_path).open_cell(CELL)
        write_missing(cell)
        cell.flush()
        assert self.rows(tmp_path).num_rows == 0
        cell.commit()
        assert self.rows(tmp_path).num_rows == len(FRAMES) * len(NAMES)

    def test_a_suspended_cell_goes_on(self, tmp_path: Path) -> None:
        dataset = self.writer(tmp_path)
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
        assert self.stored_payloads(tmp_path) == expected

    def test_an_exception_keeps_what_was_written(self, tmp_path: Path) -> None:
        dataset = self.writer(tmp_path)

        def break_off() -> None:
            with dataset.open_cell(CELL) as cell:
                write_missing(cell, range(7))
                raise RuntimeError("broken")

        with raises(RuntimeError, match="broken"):
            break_off()
        assert self.rows(tmp_path).num_rows == 0
        with dataset.open_cell(CELL) as cell:
            assert sorted(cell.recovered) == list(range(7))

    def test_an_empty_cell_leaves_nothing(self, tmp_path: Path) -> None:
        dataset = self.writer(tmp_path)
        dataset.open_cell(CELL).commit()
        dataset.open_cell(CELL).suspend()
        dataset.close()
        assert self.rows(tmp_path).num_rows == 0
        assert self.open(tmp_path).open_cells() == []

    def test_one_owner_at_a_time(self, tmp_path: Path) -> None:
        dataset = self.writer(tmp_path)
        with dataset.open_cell(CELL):
            with raises(LockedError, match="another process"):
                dataset.open_cell(CELL)
            dataset.open_cell(Cell("car", "all", 64, 127)).commit()
        dataset.open_cell(CELL).commit()

    def test_what_another_process_committed_meanwhile_is_recovered(self, tmp_path: Path) -> None:
        self.write_all(tmp_path)
        dataset = self.writer(tmp_path)
        with dataset.open_cell(CELL) as cell:
            assert write_missing(cell, range(45)) == list(range(40, 45))
        assert self.stored_payloads(tmp_path) == expected_payloads(range(45))

    def test_failed_frames_can_be_tried_again(self, tmp_path: Path) -> None:
        dataset = self.writer(tmp_path)
        with dataset.open_cell(CELL) as cell:
            for frame in range(5):
                cell.append(make_sample(frame, failed=["rgb"] if frame in (0, 4) else []))
        assert list(read_progress(self.open(tmp_path), "car").failed_frames("rgb")) == [0, 4]
        for count in (1, 2):
            dataset = self.writer(tmp_path)
            with dataset.open_cell(CELL) as cell:
                assert "rgb" not in cell.recovered[0]
                cell.append(make_sample(0, ["rgb"], failed=["rgb"] * (count == 1), run_id=f"again{count}"))
                cell.append(make_sample(4, ["rgb"], failed=["rgb"] * (count == 1), run_id=f"again{count}"))
            dataset.close()
        progress = read_progress(self.open(tmp_path), "car")
        assert (list(progress.done_frames("rgb")), list(progress.failed_frames("rgb"))) == ([0, 1, 2, 3, 4], [])
        assert self.stored_payloads(tmp_path) == expected_payloads(range(5))

    def test_a_frame_that_comes_again_gets_a_row_of_its_own(self, tmp_path: Path) -> None:
        dataset = self.writer(tmp_path)
        with dataset.open_cell(CELL) as cell:
            for names, run_id in (("rgb",), "one"), (NAMES[1:], "two"):
                for frame in range(3):
                    cell.append(make_sample(frame, names, run_id=run_id))
        assert self.stored_payloads(tmp_path) == expected_payloads(range(3))
        rows = self.rows(tmp_path, columns=("representation", "run_id")).to_pylist()
        assert {(row["representation"], row["run_id"]) for row in rows} == {
            ("rgb", "one"),
            ("a(b)+c-d", "two"),
            ("canny.image", "two"),
        }

    def test_a_cell_is_committed_in_parts_of_the_size_asked_for(self, tmp_path: Path) -> None:
        if not self.storage.outlives_process:
            return
        dataset = self.writer(tmp_path, shard_size_bytes=20_000)
        cell = dataset.open_cell(CELL)
        write_missing(cell)
        committed = self.rows(tmp_path).num_rows
        assert 0 < committed < len(FRAMES) * len(NAMES)
        cell.commit()
        dataset.close()
        assert self.stored_payloads(tmp_path) == expected_payloads()

    def test_groups_do_not_touch_each_other(self, tmp_path: Path) -> None:
        self.write_all(tmp_path)
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        dataset = self.writer(tmp_path, names=("depth",), layout="representation")
        with dataset.open_cell(Cell("car", "depth", 0, 63)) as cell:
            write_missing(cell, names=("depth",))
        dataset.close()
        assert all(path.read_bytes() == data for path, data in before.items())
        names = (*NAMES, "depth")
        assert self.stored_payloads(tmp_path, names) == expected_payloads(names=names)

    # -- reading -----------------------------------------------------------------------------------------------

    def reader(self, folder: Path) -> PayloadReader:
        """Return the reader of a dataset with 60 frames in three cells; every seventh has no rgb."""
        dataset = self.writer(folder, shard_frames=20)
        for first in range(0, _READ_FRAMES, 20):
            with dataset.open_cell(Cell("car", "all", first, first + 19)) as cell:
                for frame in range(first, first + 20):
                    cell.append(make_sample(frame, failed=["rgb"] if frame % 7 == 3 else []))
        dataset.close()
        index = FrameIndex.from_table(self.rows(folder, columns=INDEX_COLUMNS), NAMES)
        return self.open(folder).payloads(index)

    def test_payloads_come_in_the_order_asked_for(self, tmp_path: Path) -> None:
        reader = self.reader(tmp_path)
        for frames in ([], [3], [59, 0, 21, 20], [5, 5, 3, 3, 5], list(range(_READ_FRAMES))):
            assert read_frames(reader, frames) == expected_frames(frames)

    def test_only_the_names_asked_for_are_read(self, tmp_path: Path) -> None:
        assert list(self.reader(tmp_path).read(np.array([1]), ["canny.image"])) == ["canny.image"]

    def test_threads_may_read_at_once(self, tmp_path: Path) -> None:
        reader = self.reader(tmp_path)
        start = threading.Barrier(8)

        def work(seed: int) -> bool:
            start.wait()
            asked = np.random.default_rng(seed).integers(0, _READ_FRAMES, (10, 5)).tolist()
            return all(read_frames(reader, frames) == expected_frames(frames) for frames in asked)

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(work, range(8)))

    def test_a_pickled_reader_reads_too(self, tmp_path: Path) -> None:
        reader = self.reader(tmp_path)
        read_frames(reader, [0])
        assert read_frames(pickle.loads(pickle.dumps(reader)), [3, 4]) == expected_frames([3, 4])

    # -- clips -------------------------------------------------------------------------------------------------

    def clip_cell(self, folder: Path) -> CellWriter:
        """Return an open cell of a dataset with one representation."""
        return self.writer(folder, ["rgb"]).open_cell(CELL)

    def payload_of(self, folder: Path, frame: int) -> bytes | None:
        """Return the payload of one frame of it."""
        index = FrameIndex.from_table(self.rows(folder), ["rgb"])
        (row,) = np.flatnonzero(index.frame_index == frame)
        (data,) = self.open(folder, ["rgb"]).payloads(index).read(np.array([row]), ["rgb"])["rgb"]
        return None if data is None else bytes(data)

    def test_every_frame_of_a_clip_finds_it(self, tmp_path: Path) -> None:
        with self.clip_cell(tmp_path) as cell:
            cell.append_clip(make_clip(range(10, 20), failed=(10, 15)))
            cell.append_clip(make_clip(range(20, 30)))
        rows = {row["frame_index"]: row for row in self.rows(tmp_path).to_pylist()}
        assert sorted(rows) == list(range(10, 30))
        assert [rows[frame]["payload_index"] for frame in range(9, 31) if frame in rows] == [
            *(None if frame in (10, 15) else frame - 8 for frame in range(10, 20)),
            *range(2, 12),
        ]
        for frames in (range(10, 20), range(20, 30)):
            stored = [rows[frame] for frame in frames if rows[frame]["status"] == "ok"]
            data = clip_bytes(frames)
            assert {(row["byte_size"], row["checksum"]) for row in stored} == {(len(data), zlib.crc32(data))}
            assert len({(row["shard"], row["byte_offset"]) for row in stored}) == 1
            assert all(self.payload_of(tmp_path, row["frame_index"]) == data for row in stored)
        assert self.payload_of(tmp_path, 15) is None
        assert rows[15]["byte_size"] is rows[15]["checksum"] is None

    def test_bytes_of_a_clip_are_counted_once(self, tmp_path: Path) -> None:
        with self.clip_cell(tmp_path) as cell:
            cell.append_clip(make_clip(range(7), failed=(3,)))
            cell.append_clip(make_clip(range(7, 10)))
        table = self.rows(tmp_path)
        sizes = [len(clip_bytes(frames)) for frames in (range(7), range(7, 10))]
        shares = byte_shares(table)
        assert shares.sum() == sum(sizes)
        assert shares[[0, 3, 7]].tolist() == [sizes[0] // 6 + sizes[0] % 6, 0, sizes[1] // 3 + sizes[1] % 3]
        assert sum(frames_of(table)["total_bytes"].to_pylist()) == sum(sizes)

    def test_a_suspended_clip_is_recovered_whole_or_not_at_all(self, tmp_path: Path) -> None:
        cell = self.clip_cell(tmp_path)
        cell.append_clip(make_clip(range(5)))
        cell.suspend()
        again = self.clip_cell(tmp_path)
        assert again.recovered == {frame: {"rgb": "ok"} for frame in range(5)}
        again.append_clip(make_clip(range(5, 9)))
        again.suspend()
        with self.clip_cell(tmp_path) as last:
            assert last.recovered == {frame: {"rgb": "ok"} for frame in range(9)}
        assert [self.payload_of(tmp_path, frame) for frame in (4, 5)] == [
            clip_bytes(range(5)),
            clip_bytes(range(5, 9)),
        ]
        assert self.rows(tmp_path).num_rows == 9

    def test_a_clip_without_a_frame_that_is_good_is_rows_only(self, tmp_path: Path) -> None:
        clip = make_clip(range(4), failed=(0, 1, 2, 3))
        with self.clip_cell(tmp_path) as cell:
            cell.append_clip(dataclasses.replace(clip, data=None))
        rows = self.rows(tmp_path).to_pylist()
        assert [(row["status"], row["byte_size"], row["payload_index"]) for row in rows] == [("failed", None, None)] * 4


def read_frames(reader: PayloadReader, frames: list[int]) -> dict[str, list[bytes | None]]:
    """Return what `StorageContract.reader` has of some frames."""
    found = reader.read(np.array(frames, np.int64), NAMES)
    return {name: [None if data is None else bytes(data) for data in column] for name, column in found.items()}


def expected_frames(frames: list[int]) -> dict[str, list[bytes | None]]:
    """Return what it should have of them."""
    return {
        name: [None if name == "rgb" and frame % 7 == 3 else payload_bytes(frame, name) for frame in frames]
        for name in NAMES
    }
