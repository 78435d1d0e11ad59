"""What every storage must do; and what those on disk must do after a kill."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.contracts.writer_cells import (
    CELL,
    NAMES,
    WRITERS,
    expected_payloads,
    make_sample,
    make_writer,
    stored_payloads,
    write_missing,
)
from vrekit.catalog.cells import Cell
from vrekit.catalog.storage import storage_type
from vrekit.catalog.storage_types import STORAGES
from vrekit.testing import StorageContract


class TestLance(StorageContract):
    storage = storage_type("lance")


class TestMemory(StorageContract):
    storage = storage_type("memory")


class TestWebdataset(StorageContract):
    storage = storage_type("webdataset")


def test_every_storage_is_tested() -> None:
    tested = {contract.storage.name for contract in StorageContract.__subclasses__() if contract.__module__ == __name__}
    assert tested == set(STORAGES)


def working_files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.suffix in (".partial", ".journal", ".payloads")]


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("flip", ["payload", "journal"])
def test_a_damaged_working_file_costs_only_what_follows(tmp_path: Path, writer: str, flip: str) -> None:
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


@pytest.mark.parametrize("writer", WRITERS)
def test_sweep_removes_what_a_kill_after_the_commit_left(tmp_path: Path, writer: str) -> None:
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
