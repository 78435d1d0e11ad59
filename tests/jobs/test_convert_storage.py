"""Between tar shards and Lance tables: the payloads stay what they are."""

from pathlib import Path

import lance
import pytest

from tests.jobs.merge_datasets import damage_lance, file_hashes, make_dataset, member, members_of, rows_of
from vrekit.catalog.manifest import read_manifest
from vrekit.core.errors import ChecksumError, ConflictError
from vrekit.jobs.merge.manifests import Layout
from vrekit.jobs.merge.run import merge
from vrekit.jobs.validate import validate
from vrekit.writers.lance.rows import find_tables


@pytest.fixture
def tar_dataset(tmp_path: Path) -> Path:
    failed = [("car", 3, "rgb"), ("bus", 0, "depth")]
    folder = make_dataset(tmp_path / "tar", {"car": range(30), "bus": range(5)}, failed=failed)
    make_dataset(folder, {"car": range(4, 20)}, ["flow"], run_id="run-b")
    return make_dataset(folder, {"car": [3]}, ["rgb"], run_id="run-c")  # what failed was stored later


def test_there_and_back(tar_dataset: Path, tmp_path: Path) -> None:
    merge([tar_dataset], tmp_path / "clean")  # without the failure that was mended
    there, back = tmp_path / "lance", tmp_path / "back"
    merge([tar_dataset], there, layout=Layout(writer="lance"))
    merge([there], back, layout=Layout(writer="webdataset"))
    assert rows_of(there) == rows_of(back) == rows_of(tmp_path / "clean")
    assert file_hashes(back, "shards/*/*.tar") == file_hashes(tmp_path / "clean", "shards/*/*.tar")
    for folder in (there, back):
        report = validate(folder)
        assert not report.problems
        assert report.payloads == 30 + 29 + 1 + 5 + 4 + 15 + 1
    assert read_manifest(there).groups == read_manifest(back).groups == {"all": ["rgb", "depth"], "flow": ["flow"]}


def test_lance_without_vrekit(tar_dataset: Path, tmp_path: Path) -> None:
    merge([tar_dataset], tmp_path / "out", layout=Layout(writer="lance"))
    table = lance.dataset(str(tmp_path / "out" / "lance" / "all.lance"))
    found = table.to_table(columns=["video_id", "frame_index", "rgb:status"], with_row_id=True).to_pylist()
    ids = [row["_rowid"] for row in found if row["video_id"] == "bus" and row["rgb:status"] == "ok"]
    payloads = [bytes(data or b"") for _, data in table.read_blobs("rgb", ids=ids, preserve_order=True)]
    tar = members_of(tar_dataset)
    assert sorted(payloads) == sorted(tar[f"bus/{frame:08d}.rgb.npy"] for frame in range(5))


def test_lance_tables_become_one_by_copying_fragments(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(30)}, writer="lance")
    b = make_dataset(tmp_path / "b", {"car": range(30, 50), "bus": range(6)}, writer="lance", run_id="run-b")
    report = merge([a, b], tmp_path / "out")
    assert report.kept_whole == report.shards == 4 + 4 + 1
    assert rows_of(tmp_path / "out") == rows_of(a) | rows_of(b)
    assert not validate(tmp_path / "out").problems
    (path,) = find_tables(tmp_path / "out")
    table = lance.dataset(str(path))
    assert set(table.tags.list()) == {"run-run-a", "run-run-b"}
    assert {index.name for index in table.describe_indices()} == {"run_id_bitmap", "video_id_bitmap"}
    assert len(table.versions()) == 1  # nobody needs those the merge went through


def test_overlapping_lance_tables(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(30)}, writer="lance")
    b = make_dataset(tmp_path / "b", {"car": range(21, 50)}, writer="lance", run_id="run-b")
    report = merge([a, b], tmp_path / "out")
    assert rows_of(tmp_path / "out") == {
        **rows_of(a),
        **{key: row for key, row in rows_of(b).items() if key[1] >= 30},
    }
    assert (report.duplicates, report.kept_whole) == (18, 4 + 3)  # of b, the cells from frame 32 on
    assert not validate(tmp_path / "out").problems


def test_layers_in_lance(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(30)}, ["rgb"], writer="lance")
    b = make_dataset(tmp_path / "b", {"car": range(10, 40)}, ["depth", "flow"], writer="lance")
    c = make_dataset(tmp_path / "c", {"bus": range(4)}, ["rgb", "mask"], writer="lance")
    merge([a, b, c], tmp_path / "out")
    assert read_manifest(tmp_path / "out").groups == {"all": ["rgb", "mask"], "add1": ["depth", "flow"]}
    assert rows_of(tmp_path / "out") == rows_of(a) | rows_of(b) | rows_of(c)
    assert not validate(tmp_path / "out").problems


def test_both_storages_in_one_merge(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(30)})
    b = make_dataset(tmp_path / "b", {"car": range(25, 50)}, writer="lance")
    c = make_dataset(tmp_path / "c", {"copy": range(50, 60)}, fingerprints={"copy": "car"}, writer="lance")
    merge([a, b, c], tmp_path / "tar")
    merge([b, a, c], tmp_path / "lance")
    assert [read_manifest(tmp_path / name).writer for name in ("tar", "lance")] == ["webdataset", "lance"]
    assert rows_of(tmp_path / "tar") == rows_of(tmp_path / "lance")
    assert len(rows_of(tmp_path / "tar")) == 120
    assert {key[0] for key in rows_of(tmp_path / "tar")} == {"car"}
    for name in ("tar", "lance"):
        assert not validate(tmp_path / name).problems


def test_conflicts_in_lance(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(10)}, ["rgb"], writer="lance")
    b = make_dataset(tmp_path / "b", {"car": range(8, 20)}, ["rgb"], writer="lance", salt="other", run_id="run-b")
    with pytest.raises(ConflictError, match=r"2 frames of 'rgb' \(8, 9\) differ"):
        merge([a, b], tmp_path / "out")
    merge([a, b], tmp_path / "out", on_conflict="last")
    assert rows_of(tmp_path / "out") == {**rows_of(a), **rows_of(b)}


def test_damage_in_lance_is_not_copied_on(tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(10)}, ["rgb"], writer="lance")
    damage_lance(a, member("car", 5, "rgb")[1])
    with pytest.raises(ChecksumError, match="is not what was to be written"):
        merge([a], tmp_path / "out")
    with pytest.raises(ChecksumError, match="the stored bytes have CRC-32"):
        merge([a], tmp_path / "tar", layout=Layout(writer="webdataset"))
    assert not (tmp_path / "out" / "dataset.json").exists()
