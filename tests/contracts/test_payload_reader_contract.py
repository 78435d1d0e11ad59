"""Payload readers in forked processes, and without their shards; `StorageContract` has what all storages share."""

import shutil
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest

from tests.contracts.writer_cells import STORAGES, WRITERS
from vrekit.catalog.storage import PayloadReader, storage_type
from vrekit.core.errors import DatasetError
from vrekit.testing import StorageContract
from vrekit.testing.storages import expected_frames, read_frames


def reader_of(folder: Path, writer: str) -> PayloadReader:
    contract = StorageContract()
    contract.storage = storage_type(writer)  # type: ignore[misc]  # one instance stands for the class
    return contract.reader(folder)


@pytest.mark.parametrize("writer", STORAGES)
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:.*fork")
@pytest.mark.skipif(sys.platform != "linux", reason="fork is the default of torch's workers on Linux only")
def test_a_forked_process_reads_too(tmp_path: Path, writer: str) -> None:
    reader = reader_of(tmp_path, writer)
    assert read_frames(reader, [3]) == expected_frames([3])
    context = get_context("fork")
    results = context.SimpleQueue()
    process = context.Process(target=lambda: results.put(read_frames(reader, [3, 59])), daemon=True)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert results.get() == expected_frames([3, 59])


@pytest.mark.parametrize("writer", WRITERS)
def test_a_shard_that_is_gone_is_named(tmp_path: Path, writer: str) -> None:
    reader = reader_of(tmp_path, writer)
    names = {path.name for path in tmp_path.iterdir()}
    (root,) = names & {"shards", "lance"}
    shutil.rmtree(tmp_path / root)
    with pytest.raises(DatasetError, match=f"{root}.*(all.lance|.tar)"):
        read_frames(reader, [0])
