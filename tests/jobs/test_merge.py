import errno
import gc
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.jobs.merge_datasets import COUNT, file_hashes, make_dataset, member, members_of, rows_of
from vrekit.catalog.card import CARD_NAME
from vrekit.catalog.manifest import read_manifest
from vrekit.catalog.runs import read_runs
from vrekit.catalog.statistics import STATISTICS_SCHEMA, Statistics, read_statistics, write_statistics
from vrekit.core.errors import ChecksumError, ConflictError, DatasetError, LockedError, UsageError
from vrekit.core.locks import OwnedFile
from vrekit.core.reports import ProgressListener
from vrekit.engine.export import export, recorded_requests, resume
from vrekit.engine.request import ExportRequest
from vrekit.jobs.merge import run as merge_run
from vrekit.jobs.merge.manifests import Layout
from vrekit.jobs.merge.origin import LOCK_NAME
from vrekit.jobs.merge.run import merge
from vrekit.jobs.validate import validate
from vrekit.video.selection import parse_frames
from vrekit.writers import file_ranges
from vrekit.writers.file_ranges import copy_range
from vrekit.writers.webdataset.sidecars import find_sidecars, read_sidecar


def is_clean(folder: Path) -> bool:
    report = validate(folder)
    return not report.problems and not list(folder.glob("shards/*/.*")) and not list(folder.glob(".merge*"))


def test_machines_that_shared_the_frames(tmp_path: Path) -> None:
    whole = make_dataset(tmp_path / "whole", {"car": range(40)})
    a = make_dataset(tmp_path / "a", {"car": range(13)})
    b = make_dataset(tmp_path / "b", {"car": range(13, 40)})
    report = merge([a, b], tmp_path / "out")
    assert file_hashes(tmp_path / "out", "shards/*/*.tar") == file_hashes(whole, "shards/*/*.tar")
    assert rows_of(tmp_path / "out") == rows_of(whole)
    assert is_clean(tmp_path / "out")
    assert (report.rows, report.videos, report.duplicates, report.conflicts) == (80, 1, 0, [])
    assert (report.shards, report.kept_whole) == (5, 4)  # only the cell that both wrote in is put together anew


def test_other_videos(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(20), "bus": range(5)}, shard_frames=8)
    b = make_dataset(tmp_path / "b", {"tram": range(20)}, shard_frames=8)
    report = merge([a, b], tmp_path / "out")
    assert members_of(tmp_path / "out") == members_of(a) | members_of(b)
    assert list(read_manifest(tmp_path / "out").videos) == ["car", "bus", "tram"]
    assert report.kept_whole == report.shards == 7
    assert is_clean(tmp_path / "out")


def test_overlapping_exports_count_once(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(30)})
    b = make_dataset(tmp_path / "b", {"car": range(11, COUNT)}, run_id="run-b")
    report = merge([a, b], tmp_path / "out")
    assert members_of(tmp_path / "out") == dict(
        member("car", frame, name) for frame in range(COUNT) for name in ("rgb", "depth")
    )
    rows = rows_of(tmp_path / "out")
    assert [rows["car", frame, "rgb"]["run_id"] for frame in (29, 30)] == ["run-a", "run-b"]
    assert report.duplicates == 2 * 19
    assert is_clean(tmp_path / "out")


@pytest.mark.filterwarnings("ignore")  # webdataset leaves its files open
def test_layers_are_kept_or_joined(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(20)}, ["rgb", "edges"])
    b = make_dataset(tmp_path / "b", {"car": range(4, 20)}, ["depth"], run_id="run-b")
    merge([a, b], tmp_path / "kept")
    assert read_manifest(tmp_path / "kept").groups == {"all": ["rgb", "edges"], "depth": ["depth"]}
    merge([a, b], tmp_path / "joined", layout=Layout(join=True))
    assert read_manifest(tmp_path / "joined").groups == {"all": ["rgb", "edges", "depth"]}
    assert members_of(tmp_path / "joined") == members_of(tmp_path / "kept") == members_of(a) | members_of(b)
    for folder in ("kept", "joined"):
        assert is_clean(tmp_path / folder)
    samples = _webdataset(tmp_path / "joined")
    assert [sample["__key__"] for sample in samples] == [f"car/{frame:08d}" for frame in range(20)]
    assert samples[3].keys() & {"rgb.npy", "edges.npy", "depth.npy"} == {"rgb.npy", "edges.npy"}
    assert samples[4]["depth.npy"] == member("car", 4, "depth")[1]


def _webdataset(folder: Path) -> list[dict[str, Any]]:
    import webdataset

    urls = [str(path) for path in _tars(folder)]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))  # pyright: ignore[reportAttributeAccessIssue]  # it names no exports
    gc.collect()
    return samples


def _tars(folder: Path) -> list[Path]:
    return sorted(folder.glob("shards/*/*.tar"))


def test_a_group_that_shares_a_representation_goes_on_in_it(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(8)}, ["rgb"])
    b = make_dataset(tmp_path / "b", {"bus": range(8)}, ["rgb", "depth"])
    c = make_dataset(tmp_path / "c", {"car": range(8)}, ["flow", "mask"])
    report = merge([a, b, c], tmp_path / "out")
    assert read_manifest(tmp_path / "out").groups == {"all": ["rgb", "depth"], "add1": ["flow", "mask"]}
    assert report.kept_whole == 3
    assert is_clean(tmp_path / "out")


@pytest.mark.filterwarnings("ignore")
def test_other_programs_read_the_result(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(30)})
    b = make_dataset(tmp_path / "b", {"car": range(20, 40)})
    merge([a, b], tmp_path / "out", layout=Layout(shard_frames=16))
    out = tmp_path / "out"
    assert [sample["__key__"] for sample in _webdataset(out)] == [f"car/{frame:08d}" for frame in range(40)]
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT count(*), sum(byte_size) FROM read_parquet($1) WHERE representation = 'rgb'",
            [f"{out}/shards/*/*.parquet"],
        ).fetchall()
    assert found == [(40, sum(len(member("car", frame, "rgb")[1]) for frame in range(40)))]
    for sidecar in find_sidecars(out):
        for row in read_sidecar(sidecar).to_pylist():
            data = (out / row["shard"]).read_bytes()[row["byte_offset"] : row["byte_offset"] + row["byte_size"]]
            assert data == member("car", row["frame_index"], row["representation"])[1]
    assert '- config_name: "all"' in (out / CARD_NAME).read_text()


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_merging_the_parts_of_a_dataset_gives_it_back(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    folder = tmp_path_factory.mktemp("split")
    names = ["rgb", "depth", "flow"]
    videos = {"car": range(data.draw(st.integers(1, 24))), "bus": range(data.draw(st.integers(0, 5)))}
    videos = {video_id: frames for video_id, frames in videos.items() if frames}
    grid = data.draw(st.sampled_from([3, 8, 64]))
    size = data.draw(st.sampled_from([1, 3000, 1 << 30]))
    whole = make_dataset(folder / "whole", videos, names, shard_frames=grid, shard_size_bytes=size)
    count = data.draw(st.integers(1, 4))
    parts = []
    assigned = {
        (video_id, frame): data.draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=2))
        for video_id, frames in videos.items()
        for frame in frames
    }
    for number in range(count):
        mine = {
            video_id: [frame for frame in frames if number in assigned[video_id, frame]]
            for video_id, frames in videos.items()
        }
        mine = {video_id: frames for video_id, frames in mine.items() if frames}
        if mine:
            other_grid = data.draw(st.sampled_from([grid, grid, 5]))
            parts.append(make_dataset(folder / f"part{number}", mine, names, shard_frames=other_grid))
    merge(parts, folder / "out", layout=Layout(shard_frames=grid, shard_size_bytes=size))
    assert rows_of(folder / "out") == rows_of(whole)
    assert file_hashes(folder / "out", "shards/*/*.tar") == file_hashes(whole, "shards/*/*.tar")
    assert is_clean(folder / "out")


def test_full_shards_come_out_as_they_went_in(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(COUNT)}, shard_frames=32, shard_size_bytes=9000)
    report = merge([a], tmp_path / "out")
    assert len(_tars(a)) > 4
    assert report.kept_whole == report.shards == len(_tars(a))
    assert file_hashes(tmp_path / "out", "shards/*/*") == file_hashes(a, "shards/*/*")


def test_small_shards_are_repacked_to_the_size(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(COUNT)}, shard_frames=4)
    merge([a], tmp_path / "out", layout=Layout(shard_frames=1024, shard_size_bytes=30_000))
    sizes = [path.stat().st_size for path in _tars(tmp_path / "out")]
    assert len(sizes) < len(_tars(a))
    assert all(30_000 <= size < 34_000 for size in sizes[:-1])
    assert members_of(tmp_path / "out") == members_of(a)
    assert read_manifest(tmp_path / "out").shard_frames == 1024


def test_stored_goes_before_failed_and_the_latest_failure_stays(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(4)}, ["rgb"], failed=[("car", 1, "rgb"), ("car", 2, "rgb")])
    b = make_dataset(tmp_path / "b", {"car": range(4)}, ["rgb"], run_id="run-b", failed=[("car", 2, "rgb")])
    report = merge([a, b], tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    found = {key[1]: (row["status"], row["run_id"]) for key, row in rows.items()}
    assert found == {0: ("ok", "run-a"), 1: ("ok", "run-b"), 2: ("failed", "run-b"), 3: ("ok", "run-a")}
    assert (report.duplicates, report.superseded) == (2, 2)
    assert is_clean(tmp_path / "out")


def test_a_cell_of_failures_only(tmp_path: Path) -> None:
    failed = [("car", frame, "rgb") for frame in range(8)]
    a = make_dataset(tmp_path / "a", {"car": range(9)}, ["rgb"], failed=failed)
    merge([a], tmp_path / "out")
    assert rows_of(tmp_path / "out") == rows_of(a)
    assert file_hashes(tmp_path / "out", "shards/*/*.tar") == file_hashes(a, "shards/*/*.tar")


# -- conflicts ---------------------------------------------------------------------------------------------------


@pytest.fixture
def conflicting(tmp_path: Path) -> list[Path]:
    a = make_dataset(tmp_path / "a", {"car": range(10), "bus": range(3)}, ["rgb"])
    make_dataset(a, {"car": range(10)}, ["depth"], identity={"params": {"scale": 1}})
    b = make_dataset(tmp_path / "b", {"car": range(5, 15)}, ["rgb"], salt="other", run_id="run-b")
    make_dataset(b, {"car": range(15)}, ["depth"], identity={"params": {"scale": 2}}, run_id="run-b")
    make_dataset(b, {"bus": range(4)}, ["rgb"], fingerprints={"bus": "another bus"}, run_id="run-b")
    return [a, b]


def test_all_conflicts_are_reported_at_once(conflicting: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConflictError) as caught:
        merge(conflicting, tmp_path / "out")
    text = caught.value.message
    a, b = conflicting
    assert f"video 'bus' is {COUNT} frames, 4x4, fingerprint 9-" in text
    assert f"depth.params.scale: {a} has 1, {b} has 2" in text
    assert f"video 'car': 5 frames of 'rgb' (5, 6, 7, 8, 9) differ between {a} and {b}" in text
    assert caught.value.hint is not None
    assert "--on-conflict" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_a_dry_run_reports_and_writes_nothing(conflicting: list[Path], tmp_path: Path) -> None:
    report = merge(conflicting, tmp_path / "out", dry_run=True)
    assert sorted(conflict.code for conflict in report.conflicts) == ["frame", "representation", "video"]
    assert not (tmp_path / "out").exists()
    assert report.shards == 0


def test_the_first_source_wins(conflicting: list[Path], tmp_path: Path) -> None:
    report = merge(conflicting, tmp_path / "out", on_conflict="first")
    expected = [member("car", frame, "rgb") for frame in range(10)]
    expected += [member("car", frame, "rgb", "other") for frame in range(10, 15)]
    expected += [member("car", frame, "depth") for frame in range(10)]  # all of b's depth is left out
    expected += [member("bus", frame, "rgb") for frame in range(3)]
    assert members_of(tmp_path / "out") == dict(expected)
    manifest = read_manifest(tmp_path / "out")
    assert manifest.videos["bus"] == read_manifest(conflicting[0]).videos["bus"]
    assert manifest.representations["depth"].identity["params"] == {"scale": 1}
    assert len(report.conflicts) == 3
    assert is_clean(tmp_path / "out")


def test_the_last_source_wins(conflicting: list[Path], tmp_path: Path) -> None:
    merge(conflicting, tmp_path / "out", on_conflict="last")
    expected = [member("car", frame, "rgb") for frame in range(5)]
    expected += [member("car", frame, "rgb", "other") for frame in range(5, 15)]
    expected += [member("car", frame, "depth") for frame in range(15)]
    expected += [member("bus", frame, "rgb") for frame in range(4)]
    assert members_of(tmp_path / "out") == dict(expected)
    assert read_manifest(tmp_path / "out").representations["depth"].identity["params"] == {"scale": 2}
    assert is_clean(tmp_path / "out")


def test_the_same_video_under_another_name_is_one_video(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(10)}, ["rgb"])
    b = make_dataset(tmp_path / "b", {"copy": range(10, 20)}, ["rgb"], fingerprints={"copy": "car"})
    report = merge([a, b], tmp_path / "out")
    assert report.renamed == [f"{b}: copy → car"]
    there = members_of(tmp_path / "out")
    assert list(there) == [f"car/{frame:08d}.rgb.npy" for frame in range(20)]
    assert there["car/00000012.rgb.npy"] == member("copy", 12, "rgb")[1]
    assert list(read_manifest(tmp_path / "out").videos) == ["car"]
    assert is_clean(tmp_path / "out")
    assert {run.video_id for run in read_runs(tmp_path / "out")} == {"car"}


def test_names_that_one_source_tells_apart_stay_apart(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"left": range(4)}, ["rgb"], fingerprints={"left": "stereo"})
    b = make_dataset(
        tmp_path / "b",
        {"left": range(4, 8), "right": range(4)},
        ["rgb"],
        fingerprints={"left": "stereo", "right": "stereo"},
    )
    report = merge([a, b], tmp_path / "out")
    assert report.renamed == []
    assert list(read_manifest(tmp_path / "out").videos) == ["left", "right"]


# -- sources and output ------------------------------------------------------------------------------------------


def test_the_sources_are_only_read(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(20)})
    b = make_dataset(tmp_path / "b", {"car": range(15, 30)}, writer="lance")
    before = [file_hashes(folder) for folder in (a, b)]
    merge([a, a.parent / "b"], tmp_path / "out")
    merge([a], tmp_path / "linked", link=True)
    assert [file_hashes(folder) for folder in (a, b)] == before


def test_links_share_bytes(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(16)})
    report = merge([a], tmp_path / "out", link=True)
    assert report.kept_whole == 2
    for path in _tars(tmp_path / "out"):
        assert path.stat().st_ino == (a / path.relative_to(tmp_path / "out")).stat().st_ino
    assert is_clean(tmp_path / "out")


def test_links_are_copies_where_there_can_be_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(16)})

    def refuse(*args: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "link", refuse)
    merge([a], tmp_path / "out", link=True)
    assert all(path.stat().st_nlink == 1 for path in _tars(tmp_path / "out"))
    assert is_clean(tmp_path / "out")


def test_a_damaged_payload_stops_the_merge(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(16)}, ["rgb"])
    tar = _tars(a)[1]
    data = bytearray(tar.read_bytes())
    data[512 + 100] ^= 1
    tar.write_bytes(data)
    with pytest.raises(ChecksumError, match=r"all-00000008-00000015.tar: 1 payloads do not have .*: car/00000008.rgb"):
        merge([a], tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()
    assert not (tmp_path / "out" / "shards/car/all-00000008-00000015.parquet").exists()


def test_a_damaged_header_is_written_anew(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(16)}, ["rgb"])
    whole = file_hashes(a, "shards/*/*.tar")
    tar = _tars(a)[1]
    data = bytearray(tar.read_bytes())
    data[2] ^= 1
    tar.write_bytes(data)
    merge([a], tmp_path / "out", link=True)
    assert file_hashes(tmp_path / "out", "shards/*/*.tar") == whole


def test_a_tar_that_is_gone_or_too_short(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(16)}, ["rgb"])
    tar = _tars(a)[1]
    os.truncate(tar, 1000)
    with pytest.raises(DatasetError, match=r"ends .* bytes before its metadata says"):
        merge([a], tmp_path / "out")
    tar.unlink()
    with pytest.raises(DatasetError, match="is gone, but its metadata is there"):
        merge([a], tmp_path / "other")


def test_rows_the_manifest_does_not_know(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(4)}, ["rgb"])
    manifest = read_manifest(a)
    changed = replace(manifest.representations["rgb"], identity={"name": "other"})
    from vrekit.catalog.manifest import write_manifest

    write_manifest(a, replace(manifest, representations={"rgb": changed}))
    with pytest.raises(DatasetError, match=r"config hash .* which its dataset.json does not know"):
        merge([a], tmp_path / "out")


def test_outputs_that_are_refused(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(4)}, ["rgb"])
    b = make_dataset(tmp_path / "b", {"bus": range(4)}, ["rgb"])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        merge([a], tmp_path / "full")
    with pytest.raises(UsageError, match="is one of the sources"):
        merge([a, b], a)
    with pytest.raises(UsageError, match="is a dataset already"):
        merge([a], b)
    with pytest.raises(UsageError, match="are the same dataset"):
        merge([a, tmp_path / "b" / ".." / "a"], tmp_path / "out")
    with pytest.raises(UsageError, match="nothing to merge"):
        merge([], tmp_path / "out")
    with pytest.raises(DatasetError, match="is not a dataset"):
        merge([tmp_path / "full"], tmp_path / "out")
    with pytest.raises(UsageError, match="cannot be joined"):
        merge([a], tmp_path / "out", layout=Layout(writer="lance", join=True))


def test_the_same_merge_again_does_nothing(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(4)}, ["rgb"])
    b = make_dataset(tmp_path / "b", {"bus": range(4)}, ["rgb"])
    merge([a, b], tmp_path / "out")
    before = file_hashes(tmp_path / "out")
    assert merge([a, b], tmp_path / "out").was_finished
    assert file_hashes(tmp_path / "out") == before
    with pytest.raises(UsageError, match="is a dataset already"):
        merge([a, b], tmp_path / "out", layout=Layout(join=True))


def test_one_merge_at_a_time(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(4)}, ["rgb"])
    merge([a], tmp_path / "out")
    (tmp_path / "out" / "dataset.json").unlink()
    lock = OwnedFile(tmp_path / "out" / LOCK_NAME, "out")
    with pytest.raises(LockedError, match="is writing"):
        merge([a], tmp_path / "out")
    lock.release()


def test_a_source_that_is_written_to_meanwhile(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(16)}, ["rgb"])

    class Writing(ProgressListener):
        def checking(self) -> None:
            make_dataset(a, {"car": range(16, 20)}, ["rgb"])

    with pytest.raises(DatasetError, match="was written to while it was merged"):
        merge([a], tmp_path / "out", listener=Writing())
    assert not (tmp_path / "out" / "dataset.json").exists()
    with pytest.raises(UsageError, match=f"{a} was written to since it began"):
        merge([a], tmp_path / "out")


def test_an_unfinished_merge_of_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(16)}, ["rgb"])
    b = make_dataset(tmp_path / "b", {"bus": range(16)}, ["rgb"])
    with monkeypatch.context() as patch:
        patch.setattr(merge_run, "write_manifest", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            merge([a], tmp_path / "out")
    with pytest.raises(UsageError, match=f"unfinished merge of something else: it merges {a}"):
        merge([b], tmp_path / "out")
    with pytest.raises(UsageError, match="shard_frames was None"):
        merge([a], tmp_path / "out", layout=Layout(shard_frames=99))
    assert merge([a], tmp_path / "out").already == 2


def _interrupt(*args: object) -> None:
    raise KeyboardInterrupt


def test_progress_reaches_its_total(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(40)})

    class Counting(ProgressListener):
        total = done = 0

        def started(self, totals: Mapping[str, int]) -> None:
            self.total = totals["bytes"]

        def advanced(self, name: str, done: int, failed: int = 0, stored_bytes: int = 0) -> None:
            self.done += done

    counting = Counting()
    merge([a], tmp_path / "out", listener=counting)
    tars = [path.stat().st_size for path in _tars(tmp_path / "out")]
    assert counting.total == sum(tars) - 1024 * len(tars)  # without the ends of the archives
    assert counting.done == sum(tars)


# -- what belongs to a dataset besides its samples ----------------------------------------------------------------

MakeRequest = Callable[..., ExportRequest]


def test_runs_go_on_in_the_result(make_request: MakeRequest, tmp_path: Path) -> None:
    whole = make_request(dataset=tmp_path / "whole", shard_frames=30)
    export(whole)
    a = make_request(dataset=tmp_path / "a", frames=parse_frames("0..9"))
    b = make_request(dataset=tmp_path / "b", frames=parse_frames("9..30"), shard_frames=5)
    export(a)
    export(b)
    for sidecar in find_sidecars(b.dataset)[-2:]:  # as if b had been killed before these
        sidecar.unlink()
        sidecar.with_suffix(".tar").unlink()
    out = tmp_path / "out"
    merge([a.dataset, b.dataset], out, layout=Layout(shard_frames=30))
    assert {run.run_id for run in read_runs(out)} == {
        run.run_id for folder in (a.dataset, b.dataset) for run in read_runs(folder)
    }
    assert len(list(out.glob("runs/*.log"))) == 2
    assert [request.shard_frames for request in recorded_requests(out)] == [30, 30]
    resume(out)
    assert members_of(out) == members_of(whole.dataset)
    assert is_clean(out)


def test_runs_do_not_ask_for_what_lost_a_conflict(make_request: MakeRequest, tmp_path: Path) -> None:
    other = "representations: {rgb: {type: color/rgb, codec: png}, canny: {type: edges/canny, codec: npy}}"
    from vrekit.config.loader import parse_config

    a = make_request(dataset=tmp_path / "a", frames=parse_frames("0..9"))
    b = make_request(
        dataset=tmp_path / "b", frames=parse_frames("5..12"), representations=parse_config(other).representations
    )
    export(a)
    export(b)
    merge([a.dataset, b.dataset], tmp_path / "out", on_conflict="first")
    assert [request.only for request in recorded_requests(tmp_path / "out")] == [(), ("rgb",)]
    reports = resume(tmp_path / "out")
    assert sum(report.computed_frames for report in reports) == 0
    frames = {key[1] for key in rows_of(tmp_path / "out") if key[2] == "canny"}
    assert frames == set(range(9))


def test_statistics_are_merged_value_by_value(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(3)}, ["rgb"])
    b = make_dataset(tmp_path / "b", {"car": range(1, 5)}, ["depth"])
    _write_statistics(a, range(3), luma_mean=lambda frame: frame / 10)
    _write_statistics(b, range(1, 5), depth_min=lambda frame: frame * 2.0)
    merge([a, b], tmp_path / "out")
    table = read_statistics(tmp_path / "out", "car").table
    assert table["frame_index"].to_pylist() == [0, 1, 2, 3, 4]
    assert table["depth_min"].to_pylist() == [None, 2.0, 4.0, 6.0, 8.0]
    np.testing.assert_allclose(table["luma_mean"].to_pylist()[:3], [0, 0.1, 0.2])
    assert table["luma_mean"].to_pylist()[3:] == [None, None]


def _write_statistics(folder: Path, frames: range, **columns: Callable[[int], float]) -> None:
    rows = [
        {"video_id": "car", "frame_index": frame, **{name: value(frame) for name, value in columns.items()}}
        for frame in frames
    ]
    table = pa.Table.from_pylist(
        [{name: row.get(name) for name in STATISTICS_SCHEMA.names} for row in rows], schema=STATISTICS_SCHEMA
    )
    write_statistics(folder, "car", Statistics(table, {}))


def test_open_cells_are_mentioned(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(8)}, ["rgb"])
    (a / "shards/car/.all-00000008.tar.partial").write_bytes(b"half a shard")
    report = merge([a], tmp_path / "out")
    assert report.unfinished == [f"{a}: 1 cell"]


# -- copying -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["", "copy_file_range", "both", "stops"])
def test_every_way_of_copying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    calls: list[str] = []

    def refuse(*args: object) -> int:
        calls.append("refused")
        raise OSError(errno.EXDEV, "not here")

    if missing in ("copy_file_range", "both"):
        monkeypatch.setattr(os, "copy_file_range", refuse)
    if missing == "both":
        monkeypatch.setattr(os, "sendfile", refuse)
    if missing == "stops":  # some file systems say 0 instead of an error
        monkeypatch.setattr(os, "copy_file_range", lambda *args: 0)
    monkeypatch.setattr(file_ranges, "STEP", 700)
    monkeypatch.setattr(file_ranges, "_BUFFER", 300)
    content = np.random.default_rng(0).bytes(5000)
    (tmp_path / "source").write_bytes(content)
    (tmp_path / "target").write_bytes(bytes(100))
    with (tmp_path / "source").open("rb") as source, (tmp_path / "target").open("r+b") as target:
        copy_range(source.fileno(), 1000, 3500, target.fileno(), 50)
        with pytest.raises(DatasetError, match="it ends 1000 bytes before"):
            copy_range(source.fileno(), 4000, 2000, target.fileno(), 0)
    assert (tmp_path / "target").read_bytes()[1000:3550] == content[1950:4500]
    assert bool(calls) == (missing in ("copy_file_range", "both"))


def test_a_full_disk_is_an_error_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vrekit.core.errors import StorageError

    a = make_dataset(tmp_path / "a", {"car": range(8)}, ["rgb"])

    def full(*args: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "copy_file_range", full)
        with pytest.raises(StorageError, match="no space left"):
            merge([a], tmp_path / "out")
    merge([a], tmp_path / "out")
    assert is_clean(tmp_path / "out")


def test_long_names_keep_their_headers(tmp_path: Path) -> None:
    video_id = "v" * 90
    a = make_dataset(tmp_path / "a", {video_id: range(12)}, ["representation-with-a-long-name"])
    b = make_dataset(tmp_path / "b", {video_id: range(10, 20)}, ["representation-with-a-long-name"])
    whole = make_dataset(tmp_path / "whole", {video_id: range(20)}, ["representation-with-a-long-name"])
    merge([a, b], tmp_path / "out")
    assert file_hashes(tmp_path / "out", "shards/*/*.tar") == file_hashes(whole, "shards/*/*.tar")
