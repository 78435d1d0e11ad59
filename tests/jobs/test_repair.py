"""`validate --repair` and `resume` after it: what was damaged is computed again, what was good is what it was."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.jobs.merge_datasets import damage_lance, make_dataset, member, members_of, rows_of
from vrekit.catalog.repairs import RepairReport
from vrekit.core.locks import OwnedFile
from vrekit.engine.export import export, resume
from vrekit.engine.request import ExportRequest
from vrekit.jobs.gc import collect_garbage
from vrekit.jobs.repair import repair
from vrekit.jobs.validate import validate
from vrekit.writers.webdataset.new_shard import NewShard
from vrekit.writers.webdataset.sidecars import find_sidecars, read_sidecar, sidecar_bytes
from vrekit.writers.webdataset.tar_format import BLOCK

MakeRequest = Callable[..., ExportRequest]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def mend(folder: Path) -> RepairReport:
    return repair(folder, validate(folder).problems)


def tar_and_rows(folder: Path, number: int) -> tuple[Path, list[dict[str, object]]]:
    sidecar = find_sidecars(folder)[number]
    return sidecar.with_suffix(".tar"), read_sidecar(sidecar).to_pylist()


@pytest.mark.parametrize(
    "damage", ["payload", "header", "truncated", "tar-gone", "sidecar", "no-end", "stray-member", "undecodable"]
)
def test_repair_and_resume_give_back_what_was_there(make_request: MakeRequest, damage: str) -> None:
    request = make_request()
    export(request)
    whole, rows = members_of(request.dataset), rows_of(request.dataset)
    tar, shard_rows = tar_and_rows(request.dataset, 1)
    at = shard_rows[4]["byte_offset"]
    assert isinstance(at, int)
    lost = 24  # everything of the shard
    if damage == "payload":
        flip(tar, at + 3)
        lost = 1
    elif damage == "header":
        flip(tar, at - BLOCK + 1)
        lost = 0
    elif damage == "truncated":
        os.truncate(tar, at + 7)
        lost = 24 - 4
    elif damage == "tar-gone":
        tar.unlink()
    elif damage == "sidecar":
        flip(tar.with_suffix(".parquet"), -3)
    elif damage == "no-end":
        tar.write_bytes(tar.read_bytes()[:-1024])
        lost = 0
    elif damage == "stray-member":
        _add_member(tar)
        lost = 0
    elif damage == "undecodable":
        _replace_payload(request.dataset, tar, 4)
        lost = 1
    assert validate(request.dataset).problems
    report = mend(request.dataset)
    assert report.left == []
    assert not validate(request.dataset).problems
    kept = rows_of(request.dataset)
    assert len(kept) == len(rows) - lost
    assert all(row == rows[key] for key, row in kept.items())
    reports = resume(request.dataset)
    assert sum(one.computed_frames for one in reports) == lost
    assert members_of(request.dataset) == whole
    assert not validate(request.dataset).problems
    assert report.quarantine is not None
    noted = json.loads((request.dataset / report.quarantine / "problems.json").read_text())
    assert noted
    assert all(entry["path"].startswith("shards/square/") for entry in noted)


def _add_member(tar: Path) -> None:
    from vrekit.writers.webdataset.tar_format import END_OF_ARCHIVE, header, padding

    content = tar.read_bytes().removesuffix(END_OF_ARCHIVE)
    tar.write_bytes(content + header("square/00000099.rgb.png", 5) + b"stray" + padding(5) + END_OF_ARCHIVE)


def _replace_payload(folder: Path, tar: Path, number: int) -> None:
    """Make a payload that has its checksum and is no array: what a bug would write."""
    from vrekit.core.checksum import crc32

    sidecar = tar.with_suffix(".parquet")
    rows = read_sidecar(sidecar).to_pylist()
    row = rows[number]
    data = bytes(row["byte_size"])
    content = bytearray(tar.read_bytes())
    content[row["byte_offset"] : row["byte_offset"] + row["byte_size"]] = data
    tar.write_bytes(content)
    row["checksum"] = crc32(data)
    from vrekit.core.schema import rows_to_table

    sidecar.write_bytes(sidecar_bytes(rows_to_table(rows)))


def test_what_is_taken_out_is_kept(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", {"car": range(16)}, ["rgb"])
    tar, rows = tar_and_rows(folder, 0)
    at = rows[5]["byte_offset"]
    assert isinstance(at, int)
    flip(tar, at + 100)
    damaged = tar.read_bytes()
    report = mend(folder)
    assert report.samples == ["car/00000005.rgb.npy"]
    assert report.shards == ["shards/car/all-00000000-00000007.tar"]
    assert report.quarantine is not None
    size = rows[5]["byte_size"]
    assert isinstance(size, int)
    assert (folder / report.quarantine / "car" / "00000005.rgb.npy").read_bytes() == damaged[at : at + size]
    assert [path.name for path in sorted(folder.glob("shards/car/*.tar"))] == [
        "all-00000000-00000007-1.tar",
        "all-00000008-00000015.tar",
    ]
    assert members_of(folder) == dict(member("car", frame, "rgb") for frame in range(16) if frame != 5)
    assert mend(folder) == RepairReport()


def test_several_shards_at_once_and_the_whole_of_one(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", {"car": range(9), "bus": range(4)}, ["rgb"])
    for path in folder.glob("shards/*/*.tar"):
        flip(path, BLOCK + 100)
    report = mend(folder)
    assert sorted(report.samples) == ["bus/00000000.rgb.npy", "car/00000000.rgb.npy", "car/00000008.rgb.npy"]
    assert len(members_of(folder)) == 10
    assert not list(folder.glob("shards/car/all-00000008*"))  # nothing was left of it


def test_warnings_and_gc_matters_are_left(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", {"car": range(8)}, ["rgb"])
    (folder / "shards/car/.all-00000016.tar.partial").write_bytes(b"")
    report = mend(folder)
    assert report.quarantine is None
    assert sorted(line.split(": ")[1] for line in report.left) == [
        "unfinished (`vrekit resume` goes on with it)",
    ]


def test_a_shard_that_is_being_written_is_left(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", {"car": range(8)}, ["rgb"])
    (tar,) = folder.glob("shards/car/*.tar")
    flip(tar, BLOCK + 100)
    lock = OwnedFile(folder / "shards/car/.all-00000000.lock", "it")
    report = mend(folder)
    assert "another process" in report.left[0]
    lock.release()
    assert mend(folder).samples == ["car/00000000.rgb.npy"]


@pytest.mark.parametrize("point", ["commit", "unlink-sidecar", "unlink-tar"])
def test_killed_while_repairing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    folder = make_dataset(tmp_path / "d", {"car": range(8)}, ["rgb"])
    (tar,) = folder.glob("shards/car/*.tar")
    flip(tar, BLOCK + 100)

    class Killed(BaseException):
        pass

    real_unlink = Path.unlink

    def unlink(self: Path, missing_ok: bool = False) -> None:
        if self in (tar, tar.with_suffix(".parquet")) and self.suffix == {
            "unlink-sidecar": ".parquet",
            "unlink-tar": ".tar",
        }.get(point):
            raise Killed
        real_unlink(self, missing_ok)

    def commit(self: object, advance: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        if point == "commit":
            patch.setattr(NewShard, "commit", commit)
        with pytest.raises(Killed):
            mend(folder)
    left = {row["frame_index"] for sidecar in find_sidecars(folder) for row in read_sidecar(sidecar).to_pylist()}
    assert left >= set(range(1, 8))  # at no time is a good sample gone
    mend(folder)
    collect_garbage(folder)
    assert members_of(folder) == dict(member("car", frame, "rgb") for frame in range(1, 8))
    assert rows_of(folder).keys() == {("car", frame, "rgb") for frame in range(1, 8)}
    assert not validate(folder).problems


def test_rows_the_manifest_does_not_know_are_moved_aside(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", {"car": range(8)}, ["rgb"])
    other = make_dataset(tmp_path / "other", {"car": range(8, 12)}, ["rgb"], identity={"params": 2})
    for path in other.glob("shards/car/*"):
        shutil.copy(path, folder / "shards" / "car")
    report = mend(folder)
    assert sorted(report.samples) == [f"car/{frame:08d}.rgb.npy" for frame in range(8, 12)]
    assert len(rows_of(folder)) == 8
    assert not validate(folder).problems


def test_lance_rows(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", {"car": range(20), "bus": range(3)}, writer="lance")
    before = rows_of(folder)
    damage_lance(folder, member("car", 5, "rgb")[1])
    damage_lance(folder, member("bus", 1, "depth")[1])
    report = mend(folder)
    assert sorted(report.samples) == ["bus/00000001.depth.npy", "car/00000005.rgb.npy"]
    assert report.quarantine is not None
    kept = (folder / report.quarantine / "car" / "00000005.rgb.npy").read_bytes()
    assert len(kept) == len(member("car", 5, "rgb")[1])
    assert not validate(folder).problems
    gone = {("car", 5), ("bus", 1)}  # whole rows: all representations of the frame
    assert rows_of(folder) == {key: row for key, row in before.items() if key[:2] not in gone}
    make_dataset(folder, {"car": [5], "bus": [1]})  # what resume does
    assert rows_of(folder) == before
    assert not validate(folder).problems
