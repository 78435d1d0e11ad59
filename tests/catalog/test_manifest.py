"""`dataset.json`: a trip through the file, what is refused, and which shards a representation goes to."""

import json
import multiprocessing
import re
from pathlib import Path

import pytest

from vrekit.catalog.card import card_text
from vrekit.catalog.manifest import (
    Manifest,
    RepresentationRecord,
    file_name_part,
    manifest_lock,
    read_manifest,
    write_manifest,
)
from vrekit.core.errors import ConflictError, DatasetError
from vrekit.core.spec import Kind, OutputSpec, RepresentationSpec
from vrekit.video.base import VideoInfo

PIXELS = OutputSpec(kind=Kind.COLOR, dtype="uint8", shape=(2, 3, 3), axes="HWC")
VIDEO = VideoInfo(uri="a.mp4", fingerprint="5-abc", source="file", frame_count=9, height=2, width=3, fps=10.0)


def record(name: str, *, level: int = 6, store: bool = True) -> RepresentationRecord:
    codec = {"id": "png", "stages": [{"id": "png", "level": level}]} if store else None
    return RepresentationRecord(
        spec=RepresentationSpec(name=name, type="color/rgb", store=store),
        identity={"type": "color/rgb", "codec": codec},
        memory=PIXELS,
        stored=PIXELS,
        codec=codec,
        suffix="png" if store else None,
    )


def manifest(layout: str = "sample") -> Manifest:
    return Manifest(writer="webdataset", layout=layout, shard_frames=8, shard_size_bytes=10**9)


def with_names(one: Manifest, *names: str) -> Manifest:
    return one.with_representations({name: record(name) for name in names})


def test_it_survives_the_file(tmp_path: Path) -> None:
    one = with_names(manifest(), "rgb", "x(y)+z").with_video("a", VIDEO)
    one = one.with_representations({"hsv": record("hsv", store=False)})
    write_manifest(tmp_path, one)
    assert read_manifest(tmp_path) == one
    assert one.stored_names == ["rgb", "x(y)+z"]
    json.loads((tmp_path / "dataset.json").read_text(), parse_constant=pytest.fail)


def test_keys_of_newer_versions_are_ignored(tmp_path: Path) -> None:
    one = with_names(manifest(), "rgb").with_video("a", VIDEO)
    data = one.to_json()
    for place in (data, data["videos"]["a"], data["representations"]["rgb"], data["representations"]["rgb"]["spec"]):
        place["invented_later"] = 1
    (tmp_path / "dataset.json").write_text(json.dumps(data))
    assert read_manifest(tmp_path) == one


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff", '{"format_version": "1"}', '{"format_version": 1}'])
def test_damaged_files_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset.json").write_text(text, encoding="latin-1")
    with pytest.raises(DatasetError, match=re.escape(str(tmp_path / "dataset.json"))):
        read_manifest(tmp_path)


def test_the_first_export_shares_shards_and_later_ones_get_their_own() -> None:
    one = with_names(manifest(), "rgb", "flow")
    assert one.groups == {"all": ["rgb", "flow"]}
    one = with_names(one, "canny")
    one = with_names(one, "rgb", "depth", "normals")
    one = with_names(one, "all", "add3")
    assert one.groups == {
        "all": ["rgb", "flow"],
        "canny": ["canny"],
        "add2": ["depth", "normals"],
        "add3": ["all", "add3"],
    }
    assert with_names(manifest(), "rgb").groups == {"all": ["rgb"]}
    assert with_names(with_names(manifest(), "rgb"), "all").groups == {"all": ["rgb"], "all_": ["all"]}


def test_the_layout_of_a_representation_each() -> None:
    one = with_names(manifest("representation"), "flow", "flow-raft", "flow_raft", "rgb.image", "rgb_image")
    assert {name: members for name, (members,) in one.groups.items()} == {
        "flow": "flow",
        "flow_raft": "flow-raft",
        "flow_raft_": "flow_raft",
        "rgb_image": "rgb.image",
        "rgb_image_": "rgb_image",
    }


def test_no_groups_shards_pass_for_those_of_another() -> None:
    import fnmatch

    names = ["flow", "flow-raft", "flow-00000000", "svd(x)", "svd(x)+y"]
    one = with_names(manifest("representation"), *names)
    patterns = re.findall(r'path: "(.+)"', card_text(one))
    files = [f"shards/a/{group}-00000000-00000007.tar" for group in one.groups]
    matches = [[file for file in files if fnmatch.fnmatchcase(file, pattern)] for pattern in patterns]
    assert matches == [[file] for file in files]
    assert not [name for name in names if "-" in file_name_part(name)]


def test_other_settings_are_refused_with_what_differs() -> None:
    one = with_names(manifest(), "rgb")
    with pytest.raises(ConflictError, match=r"rgb\.codec\.stages: dataset has .*6.*, asked for .*9") as caught:
        one.with_representations({"rgb": record("rgb", level=9)})
    assert "new name" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "5-def"}, "another video named 'a'"),
        ({"stream_index": 2}, "with stream –, asked for 2"),
        ({"source": "arrays", "fps": 20.0}, "with fps 10, asked for 20"),
    ],
)
def test_another_video_or_another_reading_of_it(change: dict[str, object], message: str) -> None:
    one = manifest().with_video("a", VIDEO)
    other = VideoInfo(**{**VIDEO.to_json(), **change})
    with pytest.raises(ConflictError, match=message) as caught:
        one.with_video("a", other)
    assert "--video-id" in str(caught.value.hint)
    assert set(one.with_video("b", other).videos) == {"a", "b"}


def test_where_a_video_lies_does_not_matter() -> None:
    one = manifest().with_video("a", VIDEO)
    moved = VideoInfo(**{**VIDEO.to_json(), "uri": "elsewhere/a.mp4"})
    assert one.with_video("a", moved) == one


def add_video(folder: Path, number: int) -> None:
    for round_number in range(5):
        with manifest_lock(folder):
            one = read_manifest(folder) if (folder / "dataset.json").exists() else manifest()
            write_manifest(folder, one.with_video(f"v{number}-{round_number}", VIDEO))


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=add_video, args=(tmp_path / "out", number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert set(read_manifest(tmp_path / "out").videos) == {f"v{n}-{r}" for n in range(3) for r in range(5)}


def test_there_is_an_end_to_representations() -> None:
    manifest = Manifest(writer="webdataset", layout="sample", shard_frames=1, shard_size_bytes=1)
    one = record("rgb", store=False)
    full = manifest.with_representations(dict.fromkeys((f"r{at}" for at in range(4096)), one))
    with pytest.raises(ConflictError, match="would have 4097 representations"):
        full.with_representations({"one_more": one})
