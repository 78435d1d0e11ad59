"""`vrekit.open`: frames, queries, pictures and loaders of one object."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import vrekit
from vrekit.core.errors import DatasetError, UsageError

CONFIG = """
representations:
  rgb: {type: color/rgb, codec: png}
  flow: {type: flow/dis, params: {preset: ultrafast}, codec: npy.zst}
  hsv: {type: color/hsv, deps: [rgb], store: false}
"""


@pytest.fixture(scope="module", params=["webdataset", "lance"])
def folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, clip_array: NDArray[np.uint8]
) -> Path:
    """Two videos: 12 frames with both, 4 frames with rgb only."""
    folder = tmp_path_factory.mktemp("api")
    for name, count in (("a", 12), ("b", 4)):
        np.save(folder / f"{name}.npy", clip_array[:count])
    vrekit.export(folder / "a.npy", folder / "out", CONFIG, writer=request.param, images="png")
    vrekit.export(folder / "b.npy", folder / "out", CONFIG, representations=["rgb"])
    return folder / "out"


def test_what_it_holds(folder: Path) -> None:
    with vrekit.open(folder) as dataset:
        assert repr(dataset) == f"Dataset({str(folder)!r}: 16 frames of 2 videos; {', '.join(dataset.representations)})"
        assert set(dataset.representations) == {"rgb", "flow", "hsv", "rgb.image_png", "flow.image_png"}
        assert (dataset.videos["a"].frame_count, dataset.videos["b"].height) == (12, 32)
        assert dataset.representations["flow"].stored.unit == "px"
        assert [run.video_id for run in dataset.runs] == ["a", "b"]
        assert dataset.keys()[:2] == ["a/00000000", "a/00000001"]
        assert [frame.key for frame in dataset] == dataset.keys()
        assert "b/3" in dataset
        assert "b/4" not in dataset
        assert "no key" not in dataset


def test_a_frame(folder: Path, clip_array: NDArray[np.uint8]) -> None:
    dataset = vrekit.open(folder)
    frame = dataset["a/5"]
    assert (frame.key, frame.video_id, frame.frame_index) == ("a/00000005", "a", 5)
    rgb = frame["rgb"]
    assert isinstance(rgb, np.ndarray)
    np.testing.assert_array_equal(rgb, clip_array[5])
    assert (frame.torch("flow").dtype, tuple(frame.torch("flow").shape)) == (torch.float32, (32, 48, 2))
    assert frame["hsv"].shape == (32, 48, 3)  # type: ignore[union-attr]  # an array: computed on reading
    assert frame.valid("flow")
    assert not dataset["a/11"].valid("flow")
    assert set(dict(frame)) == set(frame.representations) == set(dataset.representations)
    assert dataset[5].key == frame.key
    assert dataset[-1].key == "b/00000003"


def test_what_a_frame_lacks(folder: Path) -> None:
    dataset = vrekit.open(folder)
    frame = dataset["b/1"]
    assert frame.representations == ("rgb", "hsv")
    assert "flow" not in frame
    with pytest.raises(UsageError, match="frame b/00000001 has no 'flow'") as caught:
        frame["flow"]
    assert "it has rgb, hsv" in str(caught.value.hint)
    with pytest.raises(UsageError, match=r"no representation 'flwo' \(did you mean 'flow'\?\)"):
        frame["flwo"]
    with pytest.raises(UsageError, match="no frame 'b/9'"):
        dataset["b/9"]
    with pytest.raises(IndexError):
        dataset[16]


def test_what_is_stored_later_is_not_seen(tmp_path: Path, clip_npy: Path, clip_array: NDArray[np.uint8]) -> None:
    vrekit.export(clip_npy, tmp_path / "out", CONFIG, frames="5..8")
    dataset = vrekit.open(tmp_path / "out")
    vrekit.export(clip_npy, tmp_path / "out", CONFIG, frames="0..5")
    assert len(dataset) == 3
    np.testing.assert_array_equal(dataset[1]["rgb"], clip_array[6])
    np.testing.assert_array_equal(dataset["square/7"]["rgb"], clip_array[7])
    assert len(vrekit.open(tmp_path / "out")) == 8


def test_pictures(folder: Path, tmp_path: Path) -> None:
    picture = vrekit.open(folder).show("a/5", "flow")
    assert repr(picture) == "ShownPicture('a/00000005 flow', 48x32)"
    shown = np.asarray(Image.open(io.BytesIO(picture._repr_png_())))
    np.testing.assert_array_equal(shown, picture.array)
    picture.save(tmp_path / "flow.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "flow.png")), picture.array)
    np.testing.assert_array_equal(vrekit.open(folder).show("a/5").array, vrekit.open(folder)["a/5"]["rgb"])
    with pytest.raises(UsageError, match=r"does not end in \.png or \.jpg"):
        picture.save(tmp_path / "flow.tiff")


def test_sql_and_queries(folder: Path) -> None:
    with vrekit.open(folder) as dataset:
        counts = dataset.sql("SELECT video_id, count(*) AS n FROM frames GROUP BY 1 ORDER BY 1").to_pylist()
        assert counts == [{"video_id": "a", "n": 12}, {"video_id": "b", "n": 4}]
        part = dataset.query("frame_index >= 2", stride=2)
        assert part.keys() == [f"a/{n:08d}" for n in (2, 4, 6, 8, 10)] + ["b/00000002"]
        assert part.query("video_id = 'a'").keys() == part.keys()[:-1]
        assert dataset[3:6].query("frame_index > 3").keys() == ["a/00000004", "a/00000005"]
        assert len(dataset.query(representations=["flow"])) == 12
        assert len(dataset.query("representation = 'rgb'", per_video=1)) == 2
        assert len(dataset.query(sample=5, seed=1)) == 5
        assert len(dataset.query("false")) == 0
        assert "part of" in repr(part)
        with pytest.raises(UsageError):
            dataset.query("frame_indx > 2")
        with pytest.raises(UsageError, match="is the text 'flow'"):
            dataset.query(representations="flow")


def test_a_part_reads_its_own_frames(folder: Path, clip_array: NDArray[np.uint8]) -> None:
    part = vrekit.open(folder).query("video_id = 'a' AND frame_index % 5 = 0")
    for frame, number in zip(part, (0, 5, 10), strict=True):
        np.testing.assert_array_equal(frame["rgb"], clip_array[number])
    (batch,) = part.loader(["rgb"], batch_size=3, shuffle=False)
    assert batch["key"] == part.keys()
    (everything,) = vrekit.open(folder).loader(["rgb"], batch_size=16, shuffle=False)
    assert everything["rgb"].shape == (16, 32, 48, 3)
    assert len(vrekit.open(folder).frame_dataset(["flow"])) == 12


def test_decode_and_validate(folder: Path, tmp_path: Path) -> None:
    dataset = vrekit.open(folder)
    payload = (tmp_path / "x.png", dataset.show("a/5"))
    payload[1].save(payload[0])
    np.testing.assert_array_equal(dataset.decode(payload[0].read_bytes(), "rgb"), dataset["a/5"]["rgb"])
    assert dataset.validate().problems == []


def test_what_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no dataset"):
        vrekit.open(tmp_path)


def test_untrusted_code_is_refused(tmp_path: Path, clip_npy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "from vrekit.representations.base import *\n"
        "class Half(Representation):\n"
        "    inputs = ((Kind.COLOR,),)\n"
        "    uses_frames = False\n"
        "    def output_spec(self, height, width, dependencies):\n"
        "        return next(iter(dependencies.values()))\n"
        "    def compute(self, batch, dependencies):\n"
        "        return Output(data=next(iter(dependencies.values())).data // 2)\n"
    )
    monkeypatch.chdir(tmp_path)
    config = "representations: {rgb: {type: color/rgb, codec: png}, half: {type: mine.py:Half, deps: [rgb], store: no}}"
    vrekit.export(clip_npy, tmp_path / "out", config.replace("no}", "false}"), frames=[3])
    assert int(np.max(vrekit.open("out")[0]["half"])) < 128  # this account made it
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    with pytest.raises(DatasetError, match="half"):
        vrekit.open("out")[0]["half"]
    assert vrekit.open("out", trust_code=True)[0]["half"].shape == (32, 48, 3)  # type: ignore[union-attr]
