"""`dataset.json`: a trip through the file, what is refused, and which shards a representation goes to."""

import json
import multiprocessing
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from vrekit.catalog.storage import open_storage
from vrekit.core.documents import document_bytes
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


def stored_json() -> dict[str, Any]:
    """Return the content of a file with one video, a stored and a virtual representation."""
    one = with_names(manifest(), "rgb").with_video("a", VIDEO)
    one = one.with_representations({"hsv": record("hsv", store=False)})
    return dict(json.loads(json.dumps(one.to_json())))


EVIL_NAMES = ["../x", "a/b", "", ".", "..", "a\nb", "a\0b", "é", "x" * 300, "/x"]


BAD_VALUES: dict[str, list[Any]] = {
    "format_version": [-1, 0, True, 1.0, "1", None, 3, 2**63],
    "writer": ["../x", "tar", None, ["lance"]],
    "layout": ["samples", None, {}],
    "shard_frames": [0, -5, True, 1.5, 2**54, None],
    "shard_size_bytes": [0, -5, False, "1GB"],
    "videos": [[]],
    "videos.a": [[]],
    "videos.a.uri": [None],
    "videos.a.frame_count": [-1, 1e9, True, 2**54, None],
    "videos.a.height": [-1, 2**21, "2"],
    "videos.a.fps": [-1, True, float("nan"), float("inf"), "10"],
    "representations.rgb.group": [*EVIL_NAMES, "a-b", "a.b", None, 1],
    "representations.rgb.suffix": [*EVIL_NAMES, "../../x", ".png", "png.", "a..b", None, []],
    "representations.rgb.clips": [1],
    "representations.rgb.codec": [[1, 2], "png", 5, {"id": 5}, {"id": ["png"]}],
    "representations.rgb.config_hash": ["0" * 16, None, 5],
    "representations.rgb.identity": [None, [], {"type": "other"}],
    "representations.rgb.spec.name": [*EVIL_NAMES, "canny", None, 1],
    "representations.rgb.spec.output_size": [[5], [0, 5], [10**6, 10**6], [True, 5], "5"],
    "representations.rgb.spec.dependencies": ["rgb", [5], ["../x"]],
    "representations.rgb.spec.params": [None, [], 5],
    "representations.rgb.stored.kind": ["colour", None, []],
    "representations.rgb.stored.dtype": [
        *("i1,(99999999999)f8", "(99999999999)f8", "O", "object", "V8", "f8,f8", "U10", "os:system", 5)
    ],
    "representations.rgb.stored.shape": [
        *([2, 3], [-1, 3, 3], [2**31, 1, 1], [2**20, 2**20, 3], [True, 3, 3], [1.5, 3, 3], 5, None)
    ],
    "representations.rgb.stored.axes": ["HW", 5, None, "../"],
    "representations.rgb.stored.value_range": [[0], [0, "1"], [0, float("nan")], 5],
    "representations.rgb.stored.classes": [5, [5], "ab"],
    "representations.rgb.stored.color_map": [[5], [[0, 0]], [[0, 0, 256]], [["0", 0, 0]]],
    "representations.hsv.group": ["all"],
    "representations.hsv.suffix": ["png"],
    "representations.hsv.codec": [{"id": "png"}],
}


@pytest.mark.parametrize(
    ("place", "value"), [(place, value) for place, values in BAD_VALUES.items() for value in values]
)
def test_a_value_that_cannot_be_is_one_clear_error(tmp_path: Path, place: str, value: object) -> None:
    data = stored_json()
    (tmp_path / "dataset.json").write_bytes(document_bytes(data))
    assert list(read_manifest(tmp_path).representations) == ["rgb", "hsv"]
    *above, key = place.split(".")
    inside = data
    for part in above:
        inside = inside[part]
    inside[key] = value
    (tmp_path / "dataset.json").write_bytes(document_bytes(data))
    with pytest.raises(DatasetError) as caught:
        read_manifest(tmp_path)
    assert str(tmp_path) in caught.value.message
    assert caught.value.hint is not None
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize("kind", ["videos", "representations"])
@pytest.mark.parametrize("name", [*EVIL_NAMES, "a.b", "frame_index"])
def test_names_that_would_leave_the_folder_are_refused(tmp_path: Path, kind: str, name: str) -> None:
    data = stored_json()
    if kind == "videos" and name == "frame_index":
        name = "a b"
    data[kind][name] = data[kind].popitem()[1]
    (tmp_path / "dataset.json").write_bytes(document_bytes(data))
    with pytest.raises(DatasetError, match=f"dataset.json: {kind} is damaged: .* is not allowed|is taken"):
        read_manifest(tmp_path)


def test_dependencies_of_virtual_representations_that_cannot_be_met() -> None:
    one = with_names(manifest(), "rgb")
    records = {name: record(name, store=False) for name in ("good", "lacking", "a", "b", "behind", "deep0")}
    depends = {"good": ["rgb"], "lacking": ["gone"], "a": ["b"], "b": ["a"], "behind": ["a"], "deep0": ["rgb"]}
    for number in range(1, 3000):
        depends[f"deep{number}"] = [f"deep{number - 1}"]
        records[f"deep{number}"] = records["deep0"]
    one = one.with_representations(
        {
            name: replace(its, spec=RepresentationSpec(name=name, type="x", dependencies=tuple(depends[name])))
            for name, its in records.items()
        }
    )
    problems = one.dependency_problems()
    assert sorted(problems) == ["a", "b", "behind", "lacking"]
    assert problems["lacking"] == "it is computed from gone, which the dataset does not have"
    assert problems["a"] == "it depends on itself, or on some that do"


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


def test_no_groups_shards_pass_for_those_of_another(tmp_path: Path) -> None:
    import fnmatch

    names = ["flow", "flow-raft", "flow-00000000", "svd(x)", "svd(x)+y"]
    one = with_names(manifest("representation"), *names)
    patterns = re.findall(r'path: "(.+)"', card_text(open_storage(tmp_path, one)))
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
