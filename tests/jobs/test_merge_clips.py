"""Clips: payloads that frames share stay shared, each in a shard of its own."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.jobs.merge_datasets import COUNT, file_hashes, make_dataset, member, members_of, record, video
from tests.storages import open_writer, read_samples
from vrekit.catalog.cells import Cell, Clip
from vrekit.catalog.manifest import MANIFEST_NAME, Manifest, read_manifest, write_manifest
from vrekit.core.schema import SampleRow
from vrekit.core.spec import Kind, OutputSpec
from vrekit.jobs.merge.manifests import Layout
from vrekit.jobs.merge.run import merge
from vrekit.jobs.repair import repair
from vrekit.jobs.validate import validate
from vrekit.writers.webdataset.sidecars import find_sidecars, read_sidecar


def clip_bytes(first: int, last: int, salt: str = "") -> bytes:
    return b"".join(hashlib.sha256(f"{frame}/{salt}".encode()).digest() * 20 for frame in range(first, last + 1))


FILM = OutputSpec(kind=Kind.COLOR, dtype="uint8", shape=(4, 4, 3), axes="HWC", value_range=(0, 255))


def add_clips(
    folder: Path,
    spans: Sequence[tuple[int, int]],
    *,
    failed: Sequence[int] = (),
    shard_frames: int = 16,
    salt: str = "",
) -> Path:
    """Add clips of video `car`, representation `film`; each span is one clip, all of it in one cell."""
    if (folder / MANIFEST_NAME).exists():
        manifest = read_manifest(folder)
    else:
        folder.mkdir(parents=True)
        manifest = Manifest(
            writer="webdataset", layout="sample", shard_frames=shard_frames, shard_size_bytes=1 << 30, created_with="t"
        )
    film = replace(record("film"), memory=FILM, stored=FILM, codec={"id": "video"}, clips=True, suffix="mp4")
    manifest = manifest.with_video("car", video("car")).with_representations({"film": film})
    write_manifest(folder, manifest)
    writer = open_writer(folder, manifest)
    group = manifest.representations["film"].group
    assert group is not None
    for first, last in spans:
        start = first // shard_frames * shard_frames
        with writer.open_cell(Cell("car", group, start, start + shard_frames - 1)) as cell:
            rows = tuple(_row(manifest, frame, first, failed) for frame in range(first, last + 1))
            cell.append_clip(Clip(rows, "mp4", clip_bytes(first, last, salt)))
    return folder


def _row(manifest: Manifest, frame: int, first: int, failed: Sequence[int]) -> SampleRow:
    row = SampleRow(
        video_id="car",
        frame_index=frame,
        pts_seconds=frame / 10,
        representation="film",
        kind="color",
        run_id="run-a",
        config_hash=manifest.representations["film"].config_hash,
    )
    if frame in failed:
        return replace(row, status="failed", error="it did not decode")
    return replace(row, codec="video", dtype="uint8", shape=(4, 4, 3), raw_bytes=48, payload_index=frame - first)


def film_rows(folder: Path) -> dict[int, tuple[bytes | None, int | None]]:
    """Frame → (the clip it is in, its place there), read from the tars."""
    rows: dict[int, tuple[bytes | None, int | None]] = {}
    for row in read_samples(folder).to_pylist():
        if row["representation"] == "film":
            assert row["frame_index"] not in rows
            data = None
            if row["status"] == "ok":
                content = (folder / row["shard"]).read_bytes()
                data = content[row["byte_offset"] : row["byte_offset"] + row["byte_size"]]
            rows[row["frame_index"]] = (data, row["payload_index"])
    return rows


def test_clips_come_out_as_they_went_in(tmp_path: Path) -> None:
    a = add_clips(tmp_path / "a", [(0, 9), (10, 15), (16, 31)], failed=[3, 10, 31])
    make_dataset(a, {"car": range(20)}, ["rgb"])
    report = merge([a], tmp_path / "out")
    assert file_hashes(tmp_path / "out", "shards/*/*") == file_hashes(a, "shards/*/*")
    assert report.kept_whole == report.shards == 3 + 2
    assert report.payload_bytes == 32 * 640 + sum(len(member("car", frame, "rgb")[1]) for frame in range(20))
    assert not validate(tmp_path / "out", decode=False).problems


def test_joined_layers_leave_clips_alone(tmp_path: Path) -> None:
    a = add_clips(tmp_path / "a", [(0, 9)])
    b = make_dataset(tmp_path / "b", {"car": range(20)}, ["rgb"], shard_frames=16)
    merge([a, b], tmp_path / "out", layout=Layout(join=True))
    assert read_manifest(tmp_path / "out").groups == {"film": ["film"], "all": ["rgb"]}
    assert members_of(tmp_path / "out") == members_of(a) | members_of(b)


def test_overlapping_clips(tmp_path: Path) -> None:
    a = add_clips(tmp_path / "a", [(0, 9)])
    b = add_clips(tmp_path / "b", [(5, 12), (13, 15)], salt="b")
    report = merge([a, b], tmp_path / "out")
    assert report.conflicts == []  # the same frames in other clips: not other frames
    rows = film_rows(tmp_path / "out")
    assert sorted(rows) == list(range(16))
    assert rows[9] == (clip_bytes(0, 9), 9)
    assert rows[10] == (clip_bytes(5, 12, "b"), 5)
    assert rows[15] == (clip_bytes(13, 15, "b"), 2)
    assert sorted(members_of(tmp_path / "out")) == [f"car/{frame:08d}.film.mp4" for frame in (0, 10, 13)]
    assert not validate(tmp_path / "out", decode=False).problems


def test_a_finer_grid_gives_each_cell_its_copy(tmp_path: Path) -> None:
    a = add_clips(tmp_path / "a", [(0, 15), (16, 20)], failed=[7, 8])
    merge([a], tmp_path / "out", layout=Layout(shard_frames=8))
    assert film_rows(tmp_path / "out") == film_rows(a)
    assert sorted(path.name for path in tmp_path.glob("out/shards/car/*.tar")) == [
        "film-00000000-00000007.tar",
        "film-00000008-00000015.tar",
        "film-00000016-00000020.tar",
    ]
    assert not validate(tmp_path / "out", decode=False).problems


def test_failures_alone(tmp_path: Path) -> None:
    a = add_clips(tmp_path / "a", [(0, 3)], failed=range(4))
    for sidecar in find_sidecars(a):
        assert read_sidecar(sidecar)["status"].to_pylist() == ["failed"] * 4
    merge([a], tmp_path / "out")
    assert film_rows(tmp_path / "out") == dict.fromkeys(range(4), (None, None))


def test_a_damaged_clip_is_taken_out_whole(tmp_path: Path) -> None:
    a = add_clips(tmp_path / "a", [(0, 9), (10, 15)], failed=[3])
    tar = a / "shards/car/film-00000000-00000009.tar"
    data = bytearray(tar.read_bytes())
    data[2000] ^= 1
    tar.write_bytes(data)
    report = repair(a, validate(a, decode=False).problems)
    assert report.samples == ["car/00000000.film.mp4"]
    rows = film_rows(a)
    assert sorted(rows) == [3, *range(10, 16)]
    assert rows[3] == (None, None)
    assert not validate(a, decode=False).problems


@pytest.mark.parametrize("writer", ["lance", "webdataset"])
def test_clips_through_lance(tmp_path: Path, writer: str) -> None:
    a = add_clips(tmp_path / "a", [(0, 9), (10, 15), (COUNT - 8, COUNT - 1)], failed=[3])
    merge([a], tmp_path / "lance", layout=Layout(writer="lance"))
    merge([tmp_path / "lance"], tmp_path / "out", layout=Layout(writer=writer))
    merge([tmp_path / "out"], tmp_path / "back", layout=Layout(writer="webdataset"))
    assert file_hashes(tmp_path / "back", "shards/*/*.tar") == file_hashes(a, "shards/*/*.tar")
