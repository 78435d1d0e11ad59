"""Datasets behind URLs are read as local ones are: readers, queries, checks, and jobs that take them as a source."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.readers.reader_dataset import DEPTH, RGB, DatasetBuilder, record
from tests.stores.conftest import Place, upload
from tests.stores.servers import http_server
from vrekit.catalog.dataset import open_dataset
from vrekit.cli.app import app
from vrekit.core.errors import ChecksumError, DatasetError, MissingObjectError, UsageError
from vrekit.core.stores import Store
from vrekit.jobs.gc import collect_garbage
from vrekit.jobs.repair_dataset import repair_dataset
from vrekit.jobs.validate import validate
from vrekit.readers.dataset import FrameDataset
from vrekit.readers.loader import make_loader
from vrekit.readers.webdataset_decoder import webdataset_decoder

pytestmark = pytest.mark.usefixtures("quick_stores")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    builder = DatasetBuilder(tmp_path / "original", {"rgb": record("rgb", RGB), "depth": record("depth", DEPTH)})
    builder.add("car", range(23))
    builder.add("airport", range(100, 108))
    return builder.write()


@pytest.fixture
def store(folder: Path, make_place: Callable[[str], Place]) -> Store:
    place = make_place("s3")
    upload(folder, place.store)
    return place.store


@pytest.fixture
def url(store: Store) -> str:
    return str(store.location)


def assert_equal_samples(local: FrameDataset, remote: FrameDataset) -> None:
    assert len(local) == len(remote)
    for one, other in zip(local, remote, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in ("rgb", "depth"))


@pytest.mark.parametrize("kind", ["memory", "s3"])
def test_samples_are_those_of_the_local_dataset(kind: str, folder: Path, make_place: Callable[[str], Place]) -> None:
    store = make_place(kind).store
    upload(folder, store)
    assert_equal_samples(FrameDataset(folder), FrameDataset(str(store.location)))


def test_http(folder: Path) -> None:
    with open_dataset(folder):  # which makes the index: HTTP has no listings
        pass
    with http_server(folder.parent) as url:
        assert_equal_samples(FrameDataset(folder), FrameDataset(f"{url}/original"))
        assert validate(f"{url}/original").problems == []


def test_fsspec(folder: Path, make_place: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch) -> None:
    place = make_place("fsspec")
    folder.rename(folder.with_name("behind"))
    monkeypatch.setattr("vrekit.core.stores.open_store", lambda location: place.store)
    remote = FrameDataset("hf://datasets/somebody/data")
    assert remote.is_remote
    assert_equal_samples(FrameDataset(folder.with_name("behind")), remote)


def test_file_url_is_a_path(folder: Path) -> None:
    assert FrameDataset(f"file://{folder}").path == folder


def test_a_batch_from_several_shards(folder: Path, url: str) -> None:
    rows = [25, 0, 30, 9, 10, 22, 1]
    local, remote = FrameDataset(folder).batch(rows), FrameDataset(url).batch(rows)
    assert torch.equal(local["rgb"], remote["rgb"])
    assert local["key"] == remote["key"]


def test_subset_by_predicate(url: str) -> None:
    assert len(FrameDataset(url, subset="video_id = 'car' AND frame_index < 5")) == 5


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_loader(workers: int, folder: Path, url: str) -> None:
    options = {"batch_size": 4, "seed": 3}
    batches = list(make_loader(url, num_workers=workers, **options))  # type: ignore[arg-type]  # real options
    expected = list(make_loader(folder, **options))  # type: ignore[arg-type]  # real options
    assert [batch["key"] for batch in batches] == [batch["key"] for batch in expected]
    assert all(torch.equal(one["rgb"], other["rgb"]) for one, other in zip(batches, expected, strict=True))


def test_forked_workers_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="workers that read from a URL cannot be forked") as caught:
        make_loader(url, batch_size=4, num_workers=1, multiprocessing_context="fork")
    assert "forkserver" in str(caught.value.hint)


def test_webdataset_decoder(folder: Path, url: str) -> None:
    payload = FrameDataset(folder).index.columns["rgb"]
    tar = (folder / "shards/airport/all-00000100.tar").read_bytes()
    data = tar[payload.offset[0] : payload.offset[0] + payload.size[0]]
    decoded = webdataset_decoder(url)({"__key__": "airport/00000100", "rgb.npy": data})
    assert np.array_equal(decoded["rgb.npy"], FrameDataset(folder)[0]["rgb"].numpy())


def test_query_and_info(url: str) -> None:
    runner = CliRunner()
    found = runner.invoke(app, ["query", url, "frame_index = 5", "--format", "json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)[0]["video_id"] == "car"
    found = runner.invoke(app, ["info", url])
    assert found.exit_code == 0, found.output
    assert found.stdout.startswith(f"{url}: webdataset, format version 2, 4 shards")
    found = runner.invoke(app, ["info", url, "--json"])
    assert json.loads(found.stdout)["folder"] == url


def test_validate_reads_every_payload(folder: Path, store: Store) -> None:
    url = str(store.location)
    report = validate(url)
    assert report.problems == []
    assert report.payloads == validate(folder).payloads == 62
    name = "shards/car/all-00000000.tar"
    data = bytearray(store.read(name))
    data[512 + 130] ^= 1
    store.put(name, bytes(data))
    store.delete("shards/car/all-00000010.tar")
    store.put_if_absent("shards/car/all-00000050.tar", b"x")
    codes = sorted((problem.code, problem.path) for problem in validate(url).problems)
    assert codes == [
        ("checksum", name),
        ("missing-shard", "shards/car/all-00000010.tar"),
        ("orphan", "shards/car/all-00000050.tar"),
    ]
    damaged = FrameDataset(url)
    with pytest.raises(ChecksumError, match="car/00000000"):
        damaged["car/00000000"]
    with pytest.raises(DatasetError, match=rf"{url}/shards/car/all-00000010.tar is gone"):
        damaged["car/00000012"]


@pytest.mark.parametrize("command", ["merge", "transcode", "convert", "extract"])
def test_sources_of_jobs(command: str, folder: Path, url: str, tmp_path: Path) -> None:
    options = {
        "merge": ["--no-progress"],
        "transcode": ["--codec", "depth=npy.zst"],
        "convert": ["--writer", "webdataset"],
        "extract": [],
    }
    out = tmp_path / "out"
    found = CliRunner().invoke(app, [command, url, "-o", str(out), *options[command]])
    assert found.exit_code == 0, found.output
    if command != "extract":
        assert_equal_samples(FrameDataset(folder), FrameDataset(out))
        assert json.loads((out / "origin.json").read_text())["sources"][0]["folder"] == url
    else:
        assert len(list(out.rglob("*rgb*"))) == 31


@pytest.mark.parametrize("command", ["gc", "repair", "stats", "items"])
def test_what_changes_local_datasets_only(command: str, url: str) -> None:
    found = CliRunner().invoke(app, [command, url])
    assert found.exit_code == 2
    assert f"{url} is a URL; this needs a local" in found.output
    assert "take a local folder, and copy from or to it" in found.output


def test_what_changes_local_datasets_only_in_python(url: str) -> None:
    folder = FrameDataset(url).path
    for change in (collect_garbage, repair_dataset):
        with pytest.raises(UsageError, match=f"{url}: datasets are"):
            change(folder)
    found = CliRunner().invoke(app, ["validate", url, "--repair"])
    assert found.exit_code == 2
    assert f"{url}: datasets are repaired in local folders only" in found.output


def test_no_dataset_there(url: str) -> None:
    found = CliRunner().invoke(app, ["info", f"{url}/nothing"])
    assert found.exit_code == 1
    assert f"{url}/nothing is no dataset: it has no dataset.json" in found.output


def test_no_bucket(url: str) -> None:
    with pytest.raises((MissingObjectError, DatasetError), match="s3://no-such-bucket/data"):
        FrameDataset("s3://no-such-bucket/data")


def test_local_datasets_know_nothing_of_it(folder: Path) -> None:
    dataset = FrameDataset(folder)
    assert not dataset.is_remote
    assert np.array_equal(dataset[0]["frame_index"], 100)
