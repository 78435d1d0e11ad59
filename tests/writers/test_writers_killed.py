"""SIGKILL at each step of a writer: nothing is lost, nothing is there twice."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.contracts.writer_cells import (
    CELL,
    FRAMES,
    NAMES,
    POINTS,
    expected_payloads,
    identities,
    make_writer,
    stored_payloads,
    write_missing,
)
from tests.storages import read_samples
from vrekit.writers.webdataset.tar_format import END_OF_ARCHIVE

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("writer", "point"), [(writer, point) for writer in POINTS for point in POINTS[writer]])
def test_killed_at_any_step(tmp_path: Path, writer: str, point: str) -> None:
    command = [sys.executable, "-m", "tests.contracts.writer_cells", writer, str(tmp_path), "run1", point]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == -9, done.stderr
    assert {row[0] for row in identities(tmp_path)} in (set(), set(FRAMES))
    dataset = make_writer(tmp_path, writer)
    cell = dataset.open_cell(CELL)
    added = write_missing(cell, run_id="run2")
    # 25 frames were appended, 20 of them flushed
    assert added == (list(range(20, 40)) if point == "torn-flush" else [])
    cell.commit()
    dataset.close()
    assert identities(tmp_path) == sorted((frame, name, "ok") for frame in FRAMES for name in NAMES)
    assert stored_payloads(tmp_path, writer) == expected_payloads()
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".partial", ".journal", ".payloads")]
    assert all(tar.read_bytes().endswith(END_OF_ARCHIVE) for tar in tmp_path.rglob("*.tar"))
    runs = set(read_samples(tmp_path, columns=("run_id",))["run_id"].to_pylist())
    assert runs == ({"run1", "run2"} if point == "torn-flush" else {"run1"})


def test_processes_write_their_cells_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.contracts.writer_cells", "lance", str(tmp_path)]
    processes = [
        subprocess.Popen([*command, f"run{number}", "never", str(number)], stderr=subprocess.PIPE, cwd=ROOT)
        for number in range(4)
    ]
    for process in processes:
        _, messages = process.communicate(timeout=120)
        assert process.returncode == 0, messages.decode()
    frames = [64 * number + frame for number in range(4) for frame in FRAMES]
    assert stored_payloads(tmp_path, "lance") == expected_payloads(frames)
    assert len(identities(tmp_path)) == len(frames) * len(NAMES)
