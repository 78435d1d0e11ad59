"""Subset files: what they hold, how they combine, and copies made of them."""

import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.catalog.query_dataset import NAMES, Predicate, failed_row, make_row, predicates, write_dataset
from tests.conftest import QUICK_CONFIG
from tests.storages import read_samples
from vrekit.catalog.dataset import Dataset, open_dataset
from vrekit.catalog.manifest import read_manifest
from vrekit.catalog.query import Query, select
from vrekit.catalog.runs import read_runs
from vrekit.catalog.subset import Subset, combine, read_subset, verify
from vrekit.config.loader import parse_config
from vrekit.core.errors import ChecksumError, DatasetError, UsageError
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest
from vrekit.jobs.materialize import materialize
from vrekit.jobs.stats import compute_statistics
from vrekit.jobs.validate import validate
from vrekit.readers import FrameDataset

MakeRequest = Callable[..., ExportRequest]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [make_row(video, frame, name) for video in ("bus", "car") for frame in range(10) for name in NAMES]
    return write_dataset(tmp_path / "out", [*rows, failed_row("car", 11, "rgb")])


def chosen(folder: Path, **query: object) -> Subset:
    with open_dataset(folder) as dataset:
        return Subset.from_selection(select(dataset, Query(**query)))  # type: ignore[arg-type]  # the test's own names


def test_the_file_holds_keys_and_how_they_were_chosen(folder: Path, tmp_path: Path) -> None:
    subset = chosen(folder, where="byte_size > 3 AND representation IN ('canny', 'rgb')", stride=5, seed=9)
    path = tmp_path / "some.parquet"
    subset.write(path)
    table = pq.ParquetFile(path).read()
    assert table.to_pylist()[0] == {
        "key": "bus/00000000",
        "video_id": "bus",
        "frame_index": 0,
        "representations": ["canny", "rgb"],
    }
    document = json.loads(table.schema.metadata[b"vrekit.subset"])
    assert document["format"] == 1
    assert document["count"] == 4
    assert document["digest"] == subset.digest
    assert document["dataset"]["name"] == "out"
    assert [stage["op"] for stage in document["stages"]] == ["where", "stride"]
    assert document["stages"][0]["params"]["where"] == "byte_size > 3 AND representation IN ('canny', 'rgb')"
    assert set(document["engine"]) == {"duckdb", "pyarrow", "vrekit"}
    read = read_subset(path)
    assert (read.frames, read.digest) == (subset.frames, subset.digest)
    before = path.read_bytes()
    subset.write(path)
    assert path.read_bytes() == before


def test_frames_keep_the_order_of_the_selection_and_their_representations(folder: Path) -> None:
    by_frame = chosen(folder, where="frame_index < 2", order_by="frame_index DESC", representations=("rgb", "depth"))
    assert list(by_frame.frames) == [("bus", 1), ("car", 1), ("bus", 0), ("car", 0)]
    assert set(by_frame.frames.values()) == {frozenset({"rgb", "depth"})}
    assert set(chosen(folder, where="frame_index < 2").frames.values()) == {None}


def test_what_is_not_stored_is_left_out(folder: Path) -> None:
    assert ("car", 11) not in chosen(folder).frames
    assert len(chosen(folder, where="status = 'failed'")) == 0


def test_of_a_whole_select(folder: Path) -> None:
    with open_dataset(folder) as dataset:
        sql = "SELECT video_id, frame_index, representation FROM samples WHERE frame_index = 3 AND codec = 'npy.zst'"
        subset = Subset.from_table(dataset, dataset.sql(sql), sql)
        assert subset.frames == {(video, 3): frozenset({"canny", "depth"}) for video in ("bus", "car")}
        whole = "SELECT video_id, frame_index FROM frames WHERE frame_index = 3"
        assert set(Subset.from_table(dataset, dataset.sql(whole), whole).frames.values()) == {None}
        with pytest.raises(UsageError, match="no column 'frame_index'; it has video_id"):
            Subset.from_table(dataset, dataset.sql("SELECT video_id FROM frames"), "")


def test_a_changed_file_is_noticed(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "some.parquet"
    chosen(folder, where="frame_index < 3").write(path)
    table = pq.ParquetFile(path).read()
    pq.write_table(table.slice(1), path)
    with pytest.raises(DatasetError, match="do not give its checksum"):
        read_subset(path)
    pq.write_table(table.replace_schema_metadata(None), path)
    with pytest.raises(UsageError, match="no subset of vrekit's"):
        read_subset(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(UsageError, match="no readable subset"):
        read_subset(path)
    with pytest.raises(UsageError, match="no subset file"):
        read_subset(tmp_path / "nowhere.parquet")


# -- combining ---------------------------------------------------------------------------------------------------

pairs = st.dictionaries(
    st.tuples(st.sampled_from(("bus", "car")), st.integers(0, 6)),
    st.frozensets(st.sampled_from(NAMES), min_size=1),
    max_size=10,
)


def _flat(subset: Subset) -> set[tuple[str, int, str]]:
    return {(*key, name) for key, names in subset.frames.items() for name in names or ()}


@given(pairs, pairs)
def test_sets_of_samples(a: dict[tuple[str, int], frozenset[str]], b: dict[tuple[str, int], frozenset[str]]) -> None:
    left, right = Subset(a), Subset(b)
    assert _flat(combine("union", left, right)) == _flat(left) | _flat(right)
    assert _flat(combine("intersect", left, right)) == _flat(left) & _flat(right)
    assert _flat(combine("minus", left, right)) == _flat(left) - _flat(right)
    assert list(combine("union", left, right).frames)[: len(a)] == list(a)
    assert all(combine("minus", left, right).frames.values())


def test_all_representations_of_a_frame() -> None:
    every, some = Subset({("car", 0): None, ("car", 1): None}), Subset({("car", 1): frozenset({"rgb"})})
    assert combine("union", some, every).frames == {("car", 1): None, ("car", 0): None}
    assert combine("intersect", every, some).frames == {("car", 1): frozenset({"rgb"})}
    assert combine("minus", some, every).frames == {}
    assert combine("minus", every, Subset({("car", 1): None})).frames == {("car", 0): None}
    with pytest.raises(UsageError, match="car/00000001 has all its representations"):
        combine("minus", every, some)


def test_a_combination_names_its_sources(folder: Path, tmp_path: Path) -> None:
    a, b = chosen(folder, where="frame_index < 3"), chosen(folder, where="frame_index > 1")
    combine("intersect", a, b).write(tmp_path / "c.parquet")
    stage = read_subset(tmp_path / "c.parquet").metadata["stages"][0]
    assert stage["op"] == "intersect"
    assert [source["digest"] for source in stage["sources"]] == [a.digest, b.digest]
    assert stage["sources"][0]["stages"][0]["params"]["where"] == "frame_index < 3"


def test_verify(folder: Path) -> None:
    subset = Subset(
        {("car", 0): None, ("car", 1): frozenset({"rgb", "flow"}), ("car", 11): None, ("tram", 0): frozenset({"rgb"})}
    )
    with open_dataset(folder) as dataset:
        found = verify(subset, dataset)
        assert found.missing == ("car/00000011", "tram/00000000")
        assert found.incomplete == {"car/00000001": ["flow"]}
        assert not found.is_good
        assert verify(chosen(folder), dataset).is_good


# -- readers and copies, with real data ----------------------------------------------------------------------------


def _members(folder: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for path in sorted((folder / "shards").rglob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                assert member.name not in found
                found[member.name] = file.read()
    return found


WRITERS = ["webdataset", "lance"]


@pytest.mark.parametrize("writer", WRITERS)
def test_readers_take_a_file_a_predicate_or_keys(make_request: MakeRequest, tmp_path: Path, writer: str) -> None:
    request = make_request(writer=writer)
    export(request)
    where = "representation = 'rgb' AND frame_index % 7 = 2"
    path = tmp_path / "some.parquet"
    subset = chosen(request.dataset, where=where)
    subset.write(path)
    keys = [f"square/{frame:08d}" for frame in (2, 9, 16, 23)]
    expected = [sample["rgb"].numpy() for sample in FrameDataset(request.dataset, ["rgb"], subset=keys)]
    for one in (path, str(path), where, subset.table()):
        dataset = FrameDataset(request.dataset, ["rgb"], subset=one)
        assert [sample["key"] for sample in dataset] == keys
        for sample, array in zip(dataset, expected, strict=True):
            np.testing.assert_array_equal(sample["rgb"].numpy(), array)


@pytest.mark.parametrize(("source", "target"), [("webdataset", None), ("webdataset", "lance"), ("lance", "webdataset")])
def test_a_copy_holds_exactly_the_chosen_payloads(
    make_request: MakeRequest, tmp_path: Path, source: str, target: str | None
) -> None:
    request = make_request(writer=source)
    export(request)
    subset = chosen(request.dataset, where="representation IN ('rgb', 'canny') AND frame_index % 3 = 1")
    copy = tmp_path / "copy"
    with open_dataset(request.dataset) as dataset:
        report = materialize(subset, dataset, copy, writer=target)
    assert (report.frames, report.samples, report.already) == (10, 20, 0)
    columns = ["video_id", "frame_index", "representation", "run_id", "config_hash", "codec", "dtype", "shape"]
    columns += ["pts_seconds", "compute_seconds", "raw_bytes", "byte_size", "checksum", "valid", "status"]
    before, after = (
        sorted(
            read_samples(one, columns=columns).to_pylist(), key=lambda row: (row["frame_index"], row["representation"])
        )
        for one in (request.dataset, copy)
    )
    assert after == [row for row in before if row["representation"] in ("rgb", "canny") and row["frame_index"] % 3 == 1]
    if source == "webdataset" and target is None:
        members, everything = _members(copy), _members(request.dataset)
        assert len(members) == 20
        assert all(everything[name] == data for name, data in members.items())
    assert not validate(copy).problems
    manifest = read_manifest(copy)
    assert manifest.writer == (target or source)
    assert set(manifest.representations) == {"rgb", "canny", "hsv"}  # hsv is virtual, computed from rgb
    assert [run.run_id for run in read_runs(copy)] == [run.run_id for run in read_runs(request.dataset)]
    whole, part = (FrameDataset(one, ["rgb", "hsv"]) for one in (request.dataset, copy))
    assert len(part) == 10
    for key in subset.table()["key"].to_pylist():
        np.testing.assert_array_equal(part[key]["hsv"].numpy(), whole[key]["hsv"].numpy())
    with open_dataset(copy) as dataset:
        assert verify(subset, dataset).is_good


def test_a_copy_goes_on_where_it_stopped(
    make_request: MakeRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = make_request()
    export(request)
    subset = chosen(request.dataset, where="frame_index < 25")
    with open_dataset(request.dataset) as dataset:
        materialize(subset, dataset, tmp_path / "unbroken")
        from vrekit.jobs import copying as module

        original, calls = module.sample_row, 0

        def breaks(*arguments: object) -> object:
            nonlocal calls
            calls += 1
            if calls in (20, 45, 60):
                raise KeyboardInterrupt
            return original(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(module, "sample_row", breaks)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                materialize(subset, dataset, tmp_path / "broken")
        report = materialize(subset, dataset, tmp_path / "broken")
        assert report.already > 0
        assert report.samples + report.already == 75
        again = materialize(subset, dataset, tmp_path / "broken")
        assert (again.samples, again.already) == (0, 75)
    assert _members(tmp_path / "broken") == _members(tmp_path / "unbroken")
    assert not validate(tmp_path / "broken").problems


def test_a_copy_can_be_added_to(make_request: MakeRequest, tmp_path: Path) -> None:
    request = make_request()
    export(request)
    with open_dataset(request.dataset) as dataset:
        materialize(
            chosen(request.dataset, where="representation = 'rgb' AND frame_index < 4"), dataset, tmp_path / "c"
        )
        materialize(chosen(request.dataset, where="frame_index BETWEEN 2 AND 5"), dataset, tmp_path / "c")
    copied = read_samples(tmp_path / "c", columns=["frame_index", "representation"]).to_pylist()
    found = sorted((row["frame_index"], row["representation"]) for row in copied)
    assert found == sorted(
        {(0, "rgb"), (1, "rgb")} | {(n, name) for n in range(2, 6) for name in ("canny", "flow", "rgb")}
    )
    assert not validate(tmp_path / "c").problems


def test_damage_is_not_copied(make_request: MakeRequest, tmp_path: Path) -> None:
    request = make_request()
    export(request)
    row = read_samples(request.dataset).to_pylist()[0]
    tar = request.dataset / row["shard"]
    data = bytearray(tar.read_bytes())
    data[row["byte_offset"] + 5] ^= 1
    tar.write_bytes(data)
    with (
        open_dataset(request.dataset) as dataset,
        pytest.raises(ChecksumError, match="they changed since they were written"),
    ):
        materialize(chosen(request.dataset), dataset, tmp_path / "copy")


def test_what_cannot_be_copied(make_request: MakeRequest, tmp_path: Path) -> None:
    request = make_request()
    export(request)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with open_dataset(request.dataset) as dataset:
        subset = chosen(request.dataset, where="frame_index = 0")
        with pytest.raises(UsageError, match="the subset is empty"):
            materialize(Subset({}), dataset, tmp_path / "copy")
        with pytest.raises(UsageError, match="is the dataset itself"):
            materialize(subset, dataset, request.dataset)
        with pytest.raises(UsageError, match="is no dataset"):
            materialize(subset, dataset, tmp_path / "taken")
        with pytest.raises(DatasetError, match=r"lacks 1 of the subset's 1 frames: square/00000099"):
            materialize(Subset({("square", 99): None}), dataset, tmp_path / "copy")
        with pytest.raises(UsageError, match="unknown writer 'zip'"):
            materialize(subset, dataset, tmp_path / "copy", writer="zip")
    assert not (tmp_path / "copy").exists()


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Dataset, Dataset]]:
    """The same samples as tar shards and as Lance tables."""
    home = tmp_path_factory.mktemp("twins")
    generator = np.random.default_rng(5)
    for name in ("bus", "car"):
        np.save(home / f"{name}.npy", generator.integers(0, 255, (30, 16, 24, 3), np.uint8))
        request = ExportRequest(
            video=str(home / f"{name}.npy"),
            dataset=home / "tar",
            representations=parse_config(QUICK_CONFIG).representations,
            shard_frames=8,
            threads=1,
            fps=8.0,
        )
        export(request)
    with open_dataset(home / "tar") as tar:
        materialize(Subset.from_selection(select(tar, Query())), tar, home / "lance", writer="lance")
        compute_statistics(tar)
    with open_dataset(home / "lance") as lance:
        compute_statistics(lance)
    with open_dataset(home / "tar") as tar, open_dataset(home / "lance") as lance:
        yield tar, lance


def test_both_storages_have_the_same_tables(twins: tuple[Dataset, Dataset]) -> None:
    tar, lance = twins
    assert lance.samples.to_arrow_table().schema == tar.samples.to_arrow_table().schema
    for sql in (
        "SELECT * EXCLUDE (shard, byte_offset) FROM samples ORDER BY ALL",
        "SELECT * FROM frames ORDER BY ALL",
        "SELECT * FROM videos",
        "SELECT * FROM representations",
        "SELECT * FROM runs",
    ):
        a, b = (one.sql(sql) for one in twins)
        assert a.num_rows > 0
        assert a.equals(b), sql


@given(predicates, st.integers(1, 4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_storages_select_the_same(twins: tuple[Dataset, Dataset], predicate: Predicate, stride: int) -> None:
    for query in (
        Query(where=predicate.sql),
        Query(where=f"({predicate.sql}) AND luma_mean > 0.499", on="samples", stride=stride, sample="50%"),
    ):
        a, b = (select(one, query) for one in twins)
        assert a.level == b.level
        assert a.keys().equals(b.keys()), query
