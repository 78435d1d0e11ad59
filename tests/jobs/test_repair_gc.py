import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import lance
import pytest

from tests.jobs.merge_datasets import file_hashes, make_dataset, member, members_of, rows_of
from vrekit.catalog.dataset import open_dataset
from vrekit.catalog.garbage import GcReport
from vrekit.catalog.statistics import STATISTICS_SCHEMA, Statistics, write_statistics
from vrekit.core.errors import DatasetError
from vrekit.core.locks import OwnedFile
from vrekit.engine.cell_run import CellRun
from vrekit.engine.export import export, resume
from vrekit.engine.request import ExportRequest
from vrekit.jobs.gc import collect_garbage
from vrekit.jobs.repair import repair
from vrekit.jobs.validate import validate
from vrekit.writers.lance.writer import LanceWriter
from vrekit.writers.webdataset.sidecars import find_sidecars, read_sidecar

MakeRequest = Callable[..., ExportRequest]
NOW = timedelta(0)


def age(path: Path, hours: float) -> None:
    then = time.time() - 3600 * hours
    os.utime(path, (then, then))


def whys(report: GcReport) -> dict[str, str]:
    return {entry["path"]: entry["why"] for entry in report.removed}


def test_a_clean_dataset_stays_as_it_is(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", {"car": range(20)})
    with open_dataset(folder):  # makes an index
        pass
    before = file_hashes(folder)
    report = collect_garbage(folder, older_than=NOW)
    assert report == GcReport()
    assert file_hashes(folder) == before


def test_a_tar_that_lost_its_sidecar_stays(tmp_path: Path) -> None:
    """It may be the only copy: of a merge or an import no run can compute it again."""
    folder = make_dataset(tmp_path / "d", {"car": range(16)}, ["rgb"])
    orphan = folder / "shards/car/all-00000008-00000015.tar"
    content = orphan.read_bytes()
    orphan.with_suffix(".parquet").unlink()
    report = collect_garbage(folder, older_than=NOW)
    assert report.removed == []
    why = "it has no sidecar; `vrekit repair` moves it to quarantine"
    assert report.kept == [{"path": "shards/car/all-00000008-00000015.tar", "why": why}]
    assert orphan.read_bytes() == content
    assert repair(folder, validate(folder).problems).left == []
    (aside,) = folder.glob("quarantine/*/shards/car/*.tar")
    assert aside.read_bytes() == content
    assert not validate(folder).problems


def test_a_tar_of_an_interrupted_commit_goes_with_its_open_shard(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", {"car": range(8)}, ["rgb"])
    home = folder / "shards/car"
    partial = home / ".all-00000008.tar.partial"
    partial.write_bytes(bytes(5000))
    (home / ".all-00000008.journal").write_bytes(b"")
    (home / "all-00000008-00000015.tar").hardlink_to(partial)
    dry = collect_garbage(folder, older_than=NOW, dry_run=True)
    assert {entry["path"].rpartition("/")[2] for entry in dry.removed} == {
        "all-00000008-00000015.tar",
        partial.name,
        ".all-00000008.journal",
    }
    collect_garbage(folder, older_than=NOW)
    assert sorted(path.name for path in home.iterdir()) == [
        "all-00000000-00000007.parquet",
        "all-00000000-00000007.tar",
    ]
    assert not validate(folder).problems


def test_what_a_process_is_writing_stays(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", {"car": range(8)}, ["rgb"])
    home = folder / "shards/car"
    for name in (".all-00000008.tar.partial", ".all-00000008.journal"):
        (home / name).write_bytes(b"x")
        age(home / name, 100)
    (home / "all-00000008-00000015.tar").hardlink_to(home / ".all-00000008.tar.partial")
    lock = OwnedFile(home / ".all-00000008.lock", "it")
    report = collect_garbage(folder)
    assert report.removed == []
    assert {entry["why"] for entry in report.kept} == {"a process is writing it", "a process is writing its cell"}
    lock.release()
    assert len(collect_garbage(folder).removed) == 3
    assert sorted(path.name for path in home.iterdir()) == [
        "all-00000000-00000007.parquet",
        "all-00000000-00000007.tar",
    ]


def test_interrupted_exports_stay_until_they_are_old(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = make_request()
    with monkeypatch.context() as patch:
        patch.setattr(CellRun, "commit", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            export(request)
    partials = list(request.dataset.glob("shards/square/.*.partial"))
    assert partials
    report = collect_garbage(request.dataset)
    assert report.removed == []
    assert "`vrekit resume` can go on with" in report.kept[0]["why"]
    for path in request.dataset.glob("shards/square/.*"):
        age(path, 25)
    report = collect_garbage(request.dataset)
    assert set(whys(report).values()) == {"an interrupted export that nobody resumed"}
    assert not list(request.dataset.glob("shards/square/.*"))
    resume(request.dataset)  # it has to compute again, and can
    assert len(members_of(request.dataset)) == 90


def _interrupt(self: object, cell: object) -> None:
    if cell is not None:
        raise KeyboardInterrupt


def test_superseded_rows_go(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", {"car": range(8)}, ["rgb"], failed=[("car", 3, "rgb"), ("car", 4, "rgb")])
    make_dataset(folder, {"car": [3, 4]}, ["rgb"], run_id="run-b", failed=[("car", 4, "rgb")])
    tars = file_hashes(folder, "shards/*/*.tar")
    assert sum(len(read_sidecar(path)) for path in find_sidecars(folder)) == 10
    report = collect_garbage(folder)
    assert report.rows == 2
    rows = rows_of(folder)
    assert len(rows) == 8
    assert (rows["car", 3, "rgb"]["status"], rows["car", 3, "rgb"]["run_id"]) == ("ok", "run-b")
    assert (rows["car", 4, "rgb"]["status"], rows["car", 4, "rgb"]["run_id"]) == ("failed", "run-b")
    assert file_hashes(folder, "shards/*/*.tar") == tars  # a row without payload goes without touching a tar
    assert not validate(folder).problems


def test_what_is_stored_twice_goes_with_its_payload(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", {"car": range(8)}, ["rgb"])
    other = make_dataset(tmp_path / "other", {"car": range(4, 16)}, ["rgb"], shard_frames=64)
    for path in other.glob("shards/car/*"):
        target = folder / "shards/car" / path.name
        target.write_bytes(path.read_bytes())
    assert [problem.code for problem in validate(folder).problems] == ["duplicate"] * 4
    dry = collect_garbage(folder, dry_run=True)
    assert dry.rows == 4
    assert dry.freed_bytes == sum(len(member("car", frame, "rgb")[1]) for frame in range(4, 8))
    assert collect_garbage(folder) == dry
    assert members_of(folder) == dict(member("car", frame, "rgb") for frame in range(16))
    assert not validate(folder).problems


def test_temporary_files_and_stale_indexes_go(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", {"car": range(8)}, ["rgb"])
    with open_dataset(folder):
        pass
    make_dataset(folder, {"car": range(8, 16)}, ["rgb"])
    left = folder / "runs" / ".run-x.json.123.tmp"
    left.write_bytes(b"half")
    assert set(whys(collect_garbage(folder)).values()) == {"a stale index"}
    with open_dataset(folder):
        pass
    write_statistics(folder, "car", Statistics(STATISTICS_SCHEMA.empty_table()))
    assert whys(collect_garbage(folder)) == {"index/frames.parquet": "a stale index"}
    age(left, 30)
    assert whys(collect_garbage(folder)) == {"runs/.run-x.json.123.tmp": "a temporary file"}
    with open_dataset(folder) as dataset:
        assert len(dataset.samples.fetchall()) == 16


@pytest.mark.parametrize("how", ["export", "resume", "gc"])
def test_lance_upkeep_that_was_missed(make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    request = make_request(writer="lance")
    with monkeypatch.context() as patch:
        patch.setattr(LanceWriter, "close", _interrupt_close)
        with pytest.raises(KeyboardInterrupt):
            export(request)
    tables = [lance.dataset(str(path)) for path in request.dataset.glob("lance/*.lance")]
    assert [table.describe_indices() for table in tables] == [[]] * len(tables)
    if how == "export":
        assert export(request).run_id is None
    elif how == "resume":
        assert [report.run_id for report in resume(request.dataset)] == [None]
    else:
        collect_garbage(request.dataset, dry_run=True)
        assert list(request.dataset.glob("lance/.*.untidy"))
        collect_garbage(request.dataset)
    for table in tables:
        table.checkout_latest()  # type: ignore[no-untyped-call]  # missing in its stub
        assert [index.name for index in table.describe_indices()] == ["run_id_bitmap", "video_id_bitmap"]
    assert not list(request.dataset.glob("lance/.*.untidy"))
    assert not validate(request.dataset).problems


def _interrupt_close(self: object) -> None:
    raise KeyboardInterrupt


def test_lance_leftovers(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", {"car": range(40)}, writer="lance")
    before = rows_of(folder)
    for name in ("all-00000040.payloads", "all-00000040.journal"):
        path = folder / "lance/.open/car" / name
        path.write_bytes(b"x")
        age(path, 30)
    report = collect_garbage(folder, older_than=timedelta(hours=24))
    assert len(report.removed) == 2
    report = collect_garbage(folder, older_than=NOW)
    assert [entry["why"].split(" ", 1)[1] for entry in report.removed] == ["old versions"]
    assert report.freed_bytes > 0
    assert rows_of(folder) == before
    assert not validate(folder).problems


def test_temporary_files_of_lance(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", {"car": range(20)}, writer="lance")
    before = rows_of(folder)
    table = folder / "lance/all.lance"
    left = [
        table / "_transactions/.tmpXF14DO",
        table / "_versions/.tmpzz0ABC",
        table / "_refs/tags/.tmpaaaaaa",
        table / f"_refs/tags/run-x.json.tmp.{'0a' * 16}#1",
    ]
    for path in left:
        path.write_bytes(b"half")
    assert not collect_garbage(folder).removed
    assert set(whys(collect_garbage(folder, older_than=NOW, dry_run=True)).values()) == {"a temporary file of Lance"}
    for path in left:
        age(path, 30)
    assert whys(collect_garbage(folder)).keys() == {path.relative_to(folder).as_posix() for path in left}
    assert not [path for path in left if path.exists()]
    assert rows_of(folder) == before


def test_what_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not exist"):
        collect_garbage(tmp_path / "none")
