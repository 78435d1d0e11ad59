"""Reading payloads out of tars: what is read, in how many reads, and what a damaged shard gives."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.metadata_files import edited
from tests.readers.reader_dataset import RGB, DatasetBuilder, record
from vrekit.core.errors import DatasetError
from vrekit.readers import FrameDataset
from vrekit.writers.webdataset import payloads as tar_payloads
from vrekit.writers.webdataset.payloads import TarPayloads


class Reads:
    """Counts positioned reads and their bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        real = os.pread

        def pread(descriptor: int, size: int, offset: int) -> bytes:
            self.sizes.append(size)
            return real(descriptor, size, offset)

        monkeypatch.setattr(os, "pread", pread)


def test_neighbours_are_read_in_one_go(frames_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = FrameDataset(frames_folder).index
    payloads = TarPayloads(frames_folder, index)
    reads = Reads(monkeypatch)
    rows = np.arange(8, 31)  # 23 frames of `car`: three shards
    result = payloads.read(rows[::-1], ["rgb", "depth"])
    assert len(reads.sizes) == 3
    for name in ("rgb", "depth"):
        column = index.columns[name]
        for row, data in zip(rows[::-1].tolist(), result[name], strict=True):
            shard = (frames_folder / index.shards[column.shard[row]]).read_bytes()
            assert data == shard[column.offset[row] : column.offset[row] + column.size[row]]


def test_what_lies_far_apart_is_read_apart(frames_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = FrameDataset(frames_folder).index
    monkeypatch.setattr(tar_payloads, "MAX_GAP_BYTES", 0)
    reads = Reads(monkeypatch)
    TarPayloads(frames_folder, index).read(np.array([10, 12]), ["rgb"])
    assert reads.sizes == [272, 272]  # the payloads, and no byte more
    monkeypatch.setattr(tar_payloads, "MAX_GAP_BYTES", 1 << 20)
    monkeypatch.setattr(tar_payloads, "MAX_READ_BYTES", 3000)
    reads.sizes.clear()
    TarPayloads(frames_folder, index).read(np.arange(8, 14), ["rgb"])
    assert len(reads.sizes) > 1
    assert max(reads.sizes) <= 3000


def test_few_files_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = DatasetBuilder(tmp_path, {"rgb": record("rgb", RGB)})
    builder.add("car", range(40))
    builder.write(shard_frames=1)
    monkeypatch.setattr(tar_payloads, "MAX_OPEN_FILES", 5)
    dataset = FrameDataset(tmp_path)
    expected = dataset[:]["rgb"]

    def open_files() -> int:
        links = [Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd")]
        targets = [os.readlink(link) for link in links if link.is_symlink()]
        # Arrow's threads may close the last sidecars a moment after they were read
        return sum(target.startswith(str(tmp_path)) and target.endswith(".tar") for target in targets)

    assert open_files() == 5
    with ThreadPoolExecutor(4) as pool:  # files are closed under other threads' feet: never while they read
        batches = [batch["rgb"] for batch in pool.map(dataset.__getitem__, [slice(None)] * 20)]
    assert all((batch == expected).all() for batch in batches)
    assert open_files() == 5
    del dataset
    assert open_files() == 0


def test_a_shard_that_is_cut_off_is_named(tmp_path: Path) -> None:
    builder = DatasetBuilder(tmp_path, {"rgb": record("rgb", RGB)})
    builder.add("car", range(4))
    builder.write()
    shard = tmp_path / "shards/car/all-00000000.tar"
    dataset = FrameDataset(tmp_path)
    end = int(dataset.index.columns["rgb"].offset[3] + 100)
    os.truncate(shard, end)
    with pytest.raises(DatasetError, match=rf"all-00000000.tar ends at byte {end}, but its metadata says"):
        dataset[:]
    lenient = FrameDataset(tmp_path, on_error="skip")
    assert lenient[:]["frame_index"].tolist() == [0, 1, 2]
    assert lenient.skipped == 1
    with pytest.raises(DatasetError, match="all 1 frames of a batch are damaged"):
        lenient[3]


def test_a_shard_that_is_gone_is_named(tmp_path: Path) -> None:
    builder = DatasetBuilder(tmp_path, {"rgb": record("rgb", RGB)})
    builder.add("car", range(4))
    builder.write()
    (tmp_path / "shards/car/all-00000000.tar").unlink()
    with pytest.raises(DatasetError, match=r"all-00000000.tar cannot be opened: No such file"):
        FrameDataset(tmp_path)[0]


def test_a_storage_of_another_version_is_refused(tmp_path: Path) -> None:
    builder = DatasetBuilder(tmp_path, {"rgb": record("rgb", RGB)})
    builder.add("car", range(4))
    builder.write()
    with edited(tmp_path / "dataset.json") as manifest:
        manifest["writer"] = "scroll"
    with pytest.raises(DatasetError, match="'writer' is 'scroll', expected 'lance' or 'memory' or 'webdataset'"):
        FrameDataset(tmp_path)
