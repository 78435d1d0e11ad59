"""What every payload reader must do, whatever the storage."""

import pickle
import shutil
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from tests.contracts.writer_cells import NAMES, STORAGES, make_manifest, make_sample, make_writer, payload_bytes
from tests.storages import open_payloads, read_samples
from vrekit.catalog.cells import Cell
from vrekit.catalog.storage import PayloadReader
from vrekit.core.errors import DatasetError
from vrekit.readers.index import INDEX_COLUMNS, FrameIndex

FRAMES = 60
Read = Callable[[list[int]], dict[str, list[bytes | None]]]


@pytest.fixture(params=STORAGES)
def reader(request: pytest.FixtureRequest, tmp_path: Path) -> PayloadReader:
    """The reader of a dataset with 60 frames in three cells; every seventh has no rgb."""
    writer = str(request.param)
    dataset = make_writer(tmp_path, writer, shard_frames=20)
    for first in range(0, FRAMES, 20):
        with dataset.open_cell(Cell("car", "all", first, first + 19)) as cell:
            for frame in range(first, first + 20):
                cell.append(make_sample(frame, failed=["rgb"] if frame % 7 == 3 else []))
    dataset.close()
    index = FrameIndex.from_table(read_samples(tmp_path, columns=INDEX_COLUMNS), NAMES)
    return open_payloads(tmp_path, make_manifest(writer), index)


def expected(frames: list[int]) -> dict[str, list[bytes | None]]:
    return {
        name: [None if name == "rgb" and frame % 7 == 3 else payload_bytes(frame, name) for frame in frames]
        for name in NAMES
    }


def read(reader: PayloadReader, frames: list[int]) -> dict[str, list[bytes | None]]:
    found = reader.read(np.array(frames, np.int64), NAMES)
    return {name: [None if data is None else bytes(data) for data in column] for name, column in found.items()}


@pytest.mark.parametrize("frames", [[], [3], [59, 0, 21, 20], [5, 5, 3, 3, 5], list(range(60))])
def test_payloads_come_in_the_order_asked_for(reader: PayloadReader, frames: list[int]) -> None:
    assert read(reader, frames) == expected(frames)


def test_only_the_names_asked_for_are_read(reader: PayloadReader) -> None:
    assert list(reader.read(np.array([1]), ["canny.image"])) == ["canny.image"]


def test_threads_may_read_at_once(reader: PayloadReader) -> None:
    start = threading.Barrier(8)

    def work(seed: int) -> bool:
        start.wait()
        generator = np.random.default_rng(seed)
        return all(read(reader, frames) == expected(frames) for frames in generator.integers(0, 60, (10, 5)).tolist())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_a_pickled_reader_reads_too(reader: PayloadReader) -> None:
    read(reader, [0])
    assert read(pickle.loads(pickle.dumps(reader)), [3, 4]) == expected([3, 4])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:.*fork")
@pytest.mark.skipif(sys.platform != "linux", reason="fork is the default of torch's workers on Linux only")
def test_a_forked_process_reads_too(reader: PayloadReader) -> None:
    assert read(reader, [3]) == expected([3])
    context = get_context("fork")
    results = context.SimpleQueue()
    process = context.Process(target=lambda: results.put(read(reader, [3, 59])), daemon=True)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert results.get() == expected([3, 59])


def test_a_shard_that_is_gone_is_named(reader: PayloadReader, tmp_path: Path) -> None:
    names = {path.name for path in tmp_path.iterdir()}
    if not names:
        pytest.skip("nothing is on disk")
    (root,) = names & {"shards", "lance"}
    shutil.rmtree(tmp_path / root)
    with pytest.raises(DatasetError, match=f"{root}.*(all.lance|.tar)"):
        read(reader, [0])
