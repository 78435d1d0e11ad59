"""Killed before anything but a lock or a half-written file was there: the same call again is not refused."""

from pathlib import Path

import numpy as np
import pytest

from tests.jobs.merge_datasets import make_dataset, rows_of
from tests.jobs.test_convert_vre import write_vre
from vrekit.catalog.dataset import open_dataset
from vrekit.catalog.subset import Subset
from vrekit.core.errors import UsageError
from vrekit.jobs.materialize import materialize
from vrekit.jobs.merge.run import merge
from vrekit.jobs.transcode.run import transcode
from vrekit.jobs.vre.run import VreRequest, import_vre


def make(command: str, folder: Path, output: Path) -> None:
    if command == "vre":
        arrays = dict(enumerate(np.zeros((3, 6, 8, 1), np.float32)))
        import_vre(VreRequest(source=write_vre(folder / "vre", {"depth": arrays}), output=output))
        return
    source = make_dataset(folder / "a", {"car": range(6)})
    if command == "merge":
        merge([source], output)
    elif command == "transcode":
        transcode(source, output, codecs={"rgb": "npy.zst"})
    else:
        with open_dataset(source) as dataset:
            materialize(Subset({("car", 3): None}), dataset, output)


@pytest.mark.parametrize("command", ["merge", "transcode", "materialize", "vre"])
@pytest.mark.parametrize("left", [".merge.lock", ".lock", ".origin.json.123.tmp", ".dataset.json.123.tmp"])
def test_leftovers_of_a_start(tmp_path: Path, command: str, left: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / left).write_bytes(b"")
    make(command, tmp_path, tmp_path / "out")
    assert rows_of(tmp_path / "out")


@pytest.mark.parametrize("command", ["merge", "transcode", "materialize", "vre"])
def test_something_else_is_there(tmp_path: Path, command: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".tmp").write_bytes(b"")
    (tmp_path / "out" / "notes.txt").write_bytes(b"")
    with pytest.raises(UsageError, match=r"is not empty|is no dataset"):
        make(command, tmp_path, tmp_path / "out")
    assert (tmp_path / "out" / "notes.txt").exists()
