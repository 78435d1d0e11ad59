"""Exports into datasets behind URLs: commits, resume from an empty scratch, several drivers, faults, clear errors."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from tests.conftest import QUICK_CONFIG
from tests.stores.conftest import new_url
from vrekit.catalog.dataset import open_dataset
from vrekit.catalog.remote import dataset_folder
from vrekit.core.errors import AccessError, ConflictError, UsageError
from vrekit.core.stores import open_store
from vrekit.engine.export import export, resume
from vrekit.engine.request import ExportRequest
from vrekit.jobs.validate import validate
from vrekit.readers.dataset import FrameDataset
from vrekit.readers.loader import make_loader
from vrekit.video.selection import parse_frames

pytestmark = pytest.mark.usefixtures("quick_stores")
MakeRequest = Callable[..., ExportRequest]


@pytest.fixture
def url(tmp_path: Path, s3_environment: str) -> str:
    return new_url("s3", tmp_path)


def target(url: str, scratch: Path | None = None) -> Path:
    return dataset_folder(url, for_writing=True, scratch=scratch)


def names_in(url: str) -> list[str]:
    return [info.name for info in open_store(url).list()]


def check_whole(url: str, *, frames: int = 30, names: tuple[str, ...] = ("rgb", "canny", "flow")) -> None:
    """Every frame is stored once."""
    report = validate(url)
    assert report.problems == []
    with open_dataset(url) as dataset:
        rows = dataset.storage.rows(("frame_index", "representation", "status"))
    assert sorted(zip(*(rows[name].to_pylist() for name in ("representation", "frame_index")), strict=True)) == sorted(
        (name, frame) for name in names for frame in range(frames)
    )
    assert pc.all(pc.equal(rows["status"], "ok")).as_py()


@pytest.mark.parametrize("kind", ["memory", "s3"])
def test_export_is_what_a_local_one_is(
    kind: str, tmp_path: Path, make_request: MakeRequest, request: pytest.FixtureRequest
) -> None:
    if kind == "s3":
        request.getfixturevalue("s3_environment")
    url = new_url(kind, tmp_path)
    local = export(make_request())
    report = export(make_request(dataset=target(url)))
    assert report.computed_frames == local.computed_frames == 90
    check_whole(url)
    one, other = FrameDataset(local.dataset), FrameDataset(url)
    assert [sample["key"] for sample in one] == [sample["key"] for sample in other]
    assert all(np.array_equal(a["flow"], b["flow"], equal_nan=True) for a, b in zip(one, other, strict=True))
    files = {path.relative_to(local.dataset).as_posix() for path in local.dataset.rglob("*") if path.is_file()}
    shards = {name for name in files if name.startswith("shards/") and not name.endswith(".lock")}
    found = names_in(url) if kind == "s3" else [info.name for info in open_store(url).list()]
    assert {name for name in found if name.startswith("shards/")} == shards
    assert {"dataset.json", "dataset.json.bak", "README.md"} <= set(found)
    assert sorted(name.rpartition(".")[2] for name in found if name.startswith("runs/")) == ["json", "log"]
    for name in shards:
        if name.endswith(".tar"):
            assert open_store(url).read(name) == (local.dataset / name).read_bytes()


def test_a_second_export_finds_nothing_to_do(url: str, make_request: MakeRequest) -> None:
    export(make_request(dataset=target(url)))
    before = names_in(url)
    again = export(make_request(dataset=target(url)))
    assert again.run_id is None
    assert names_in(url) == before
    assert resume(target(url))[0].run_id is None


def test_more_representations_and_videos_are_added(url: str, make_request: MakeRequest, clip_npy: Path) -> None:
    export(make_request(dataset=target(url), only=("rgb",)))
    report = export(make_request(dataset=target(url)))
    assert report.computed_frames == 60
    other = shutil.copy(clip_npy, clip_npy.with_name("other.npy"))
    export(make_request(dataset=target(url), video=str(other)))
    assert len(FrameDataset(url)) == 60
    assert validate(url).problems == []


def test_a_changed_config_is_refused(url: str, make_request: MakeRequest) -> None:
    export(make_request(dataset=target(url)))
    config = "representations:\n  canny: {type: edges/canny, params: {threshold1: 3}, codec: npy.zst}\n"
    with pytest.raises(ConflictError):
        export(make_request(config, dataset=target(url)))


def test_frames_that_were_stored_meanwhile_are_not_stored_twice(
    url: str, tmp_path: Path, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another driver stores frames 4 to 11, and all of canny of 12 to 19, after this one has made its plan."""
    from vrekit.writers.webdataset import remote_writer

    folder = target(url, tmp_path / "scratch-a")
    others = [
        make_request(frames=parse_frames("4..12"), dataset=folder),
        make_request(frames=parse_frames("12..20"), only=("canny",), dataset=folder),
    ]
    put = remote_writer.RemoteTarCellWriter._publish

    def publish(writer: remote_writer.RemoteTarCellWriter) -> None:
        monkeypatch.setattr(remote_writer.RemoteTarCellWriter, "_publish", put)
        for other in others:
            export(replace(other, dataset=target(url, tmp_path / "scratch-b")))
        put(writer)

    monkeypatch.setattr(remote_writer.RemoteTarCellWriter, "_publish", publish)
    export(make_request(dataset=folder))
    check_whole(url)
    local = FrameDataset(export(make_request(dataset=tmp_path / "local")).dataset)
    for one, two in zip(local, FrameDataset(url), strict=True):
        assert all(np.array_equal(one[name], two[name], equal_nan=True) for name in ("rgb", "canny", "flow"))


def test_the_loser_of_a_cell_discards(
    url: str,
    tmp_path: Path,
    make_request: MakeRequest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from vrekit.writers.webdataset import remote_writer

    put = remote_writer.RemoteTarCellWriter._put_tar

    def put_tar(writer: remote_writer.RemoteTarCellWriter, shard: str, tar: Path) -> bool:
        monkeypatch.setattr(remote_writer.RemoteTarCellWriter, "_put_tar", put)
        export(make_request(dataset=target(url, tmp_path / "scratch-b")))
        return put(writer, shard, tar)

    monkeypatch.setattr(remote_writer.RemoteTarCellWriter, "_put_tar", put_tar)
    with caplog.at_level("INFO"):
        export(make_request(dataset=target(url, tmp_path / "scratch-a")))
    check_whole(url)
    assert sum("this shard is discarded" in message for message in caplog.messages) == 4
    assert not list((tmp_path / "scratch-a").rglob("*.partial"))


def test_a_tar_that_a_killed_driver_left_is_taken_or_passed_over(
    url: str, tmp_path: Path, make_request: MakeRequest
) -> None:
    local = export(make_request()).dataset
    tars = sorted(path.relative_to(local).as_posix() for path in local.rglob("*.tar"))
    store = open_store(url)
    folder = target(url)
    store.put_if_absent(tars[0], local / tars[0])
    store.put_if_absent(tars[1], b"half")
    export(make_request(dataset=folder))
    names = names_in(url)
    assert tars[0].replace(".tar", ".parquet") in names
    assert tars[1].replace(".tar", "-1.parquet") in names
    assert [problem.code for problem in validate(url).problems] == ["orphan"]
    assert len(FrameDataset(url)) == 30


def test_training(url: str, make_request: MakeRequest) -> None:
    export(make_request(dataset=Path(url)))  # which makes one slash of two
    batches = list(make_loader(url, representations=["rgb"], batch_size=8, seed=1))
    assert sorted(frame for batch in batches for frame in batch["frame_index"].tolist()) == list(range(30))


def test_lance_is_refused(url: str, make_request: MakeRequest) -> None:
    with pytest.raises(UsageError, match=f"{url}: lance datasets are read and written in local folders only"):
        export(make_request(dataset=target(url), writer="lance"))
    assert names_in(url) == []


def test_read_only_urls_are_refused() -> None:
    with pytest.raises(AccessError, match=r"http://127\.0\.0\.1:9/x is read-only"):
        target("http://127.0.0.1:9/x")


def test_a_folder_with_other_files_is_refused(url: str) -> None:
    open_store(url).put("notes.txt", b"mine")
    with pytest.raises(UsageError, match=f"{url} is not empty and is no vrekit dataset: it has notes.txt"):
        target(url)


def test_a_dataset_that_another_driver_begins_at_the_same_time(
    url: str, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first objects appear after this driver has found nothing."""
    from vrekit.core.stores.objects import ObjectStore

    listing = ObjectStore.list

    def list_later(store: ObjectStore, prefix: str = "", **options: int) -> object:
        if not prefix:
            monkeypatch.setattr(ObjectStore, "list", listing)
            export(make_request(dataset=target(url)))
        return listing(store, prefix, **options)

    monkeypatch.setattr(ObjectStore, "list", list_later)
    assert export(make_request(dataset=target(url))).run_id is None
    check_whole(url)


def test_what_other_machines_stored_is_seen_by_the_next_video_of_a_command(
    url: str, tmp_path: Path, make_request: MakeRequest, clip_npy: Path
) -> None:
    """One command, three videos: what another machine exported meanwhile is not computed again."""
    videos = [shutil.copy(clip_npy, clip_npy.with_name(f"{name}.npy")) for name in ("one", "two", "three")]
    requests = [make_request(dataset=target(url), video=str(video)) for video in videos]
    assert export(requests[0]).computed_frames == 90
    arguments = ["export", str(videos[2]), "-o", url, "--shard-frames", "8", "--config", str(tmp_path / "config.yaml")]
    (tmp_path / "config.yaml").write_text(QUICK_CONFIG)
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "machine")}
    assert export(requests[1]).computed_frames == 90
    subprocess.run([sys.executable, "-m", "vrekit", *arguments], check=True, env=environment, capture_output=True)
    assert export(requests[2]).run_id is None


def test_scratch_of_a_local_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--scratch is for datasets behind URLs"):
        target(str(tmp_path), tmp_path)


def test_leftovers_of_a_deleted_dataset_are_not_taken(
    url: str, tmp_path: Path, make_request: MakeRequest, clip_npy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same URL, video id and config, but another video: what is on scratch is of the first one."""
    from vrekit.writers.webdataset.remote_writer import RemoteTarCellWriter

    class Killed(Exception):
        pass

    def die(*arguments: object) -> None:
        raise Killed

    publish = RemoteTarCellWriter._publish
    monkeypatch.setattr(RemoteTarCellWriter, "_publish", die)
    with pytest.raises(Killed):
        export(make_request(dataset=target(url)))
    monkeypatch.setattr(RemoteTarCellWriter, "_publish", publish)
    for name in names_in(url):
        open_store(url).delete(name)
    np.save(clip_npy, 255 - np.load(clip_npy))
    export(make_request(dataset=target(url)))
    check_whole(url)
    assert np.array_equal(FrameDataset(url)[3]["rgb"], np.load(clip_npy)[3])


@pytest.mark.slow
def test_clips(url: str, make_request: MakeRequest, clip_mp4: Path) -> None:
    config = (
        "representations:\n  rgb: {type: color/rgb, codec: {id: video, encode: ffv1}}\n  canny: {type: edges/canny}\n"
    )
    export(make_request(config, dataset=target(url), video=str(clip_mp4), shard_frames=16))
    local = export(make_request(config, video=str(clip_mp4), shard_frames=16)).dataset
    assert validate(url).problems == []
    for one, two in zip(FrameDataset(local), FrameDataset(url), strict=True):
        assert np.array_equal(one["rgb"], two["rgb"])
