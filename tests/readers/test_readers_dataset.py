"""FrameDataset: values, checks, virtual representations, processes."""

import os
import pickle
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.metadata_files import edited
from tests.readers.reader_dataset import BOXES, DEPTH, LABEL, RGB, DatasetBuilder, Inverted, make_array, record, virtual
from vrekit.catalog.manifest import RepresentationRecord, read_manifest
from vrekit.core.errors import ChecksumError, CodecError, DatasetError, UsageError
from vrekit.core.fork_lock import ForkSafeLock
from vrekit.core.frames import FrameBatch, Output
from vrekit.core.spec import Kind, OutputSpec
from vrekit.readers import FrameDataset, collate_samples
from vrekit.representations.color.hsv import HSV

HSV_SPEC = OutputSpec(kind=Kind.COLOR, dtype="float32", shape=(6, 8, 3), axes="HWC", value_range=(0, 1))
INVERTED = OutputSpec(kind=Kind.DEPTH, dtype="float32", shape=(6, 8), axes="HW")


def test_samples_hold_what_was_stored(frames_folder: Path) -> None:
    dataset = FrameDataset(frames_folder)
    assert dataset.representations == ("rgb", "depth", "label")
    assert len(dataset) == 31
    sample = dataset["car/00000012"]
    assert np.array_equal(sample["rgb"], make_array("rgb", "car", 12, RGB))
    assert np.array_equal(sample["depth"], make_array("depth", "car", 12, DEPTH))
    assert sample["label"].item() == make_array("label", "car", 12, LABEL).item()
    assert {name: sample[name] for name in ("video_id", "frame_index", "pts_seconds", "key", "rgb.valid")} == {
        "video_id": "car",
        "frame_index": 12,
        "pts_seconds": 0.48,
        "key": "car/00000012",
        "rgb.valid": True,
    }
    assert [type(sample[name]) for name in ("frame_index", "pts_seconds", "rgb.valid")] == [int, float, bool]
    assert dataset.spec("depth") == DEPTH
    assert dataset[20]["key"] == dataset[-11]["key"] == dataset[np.int64(20)]["key"] == "car/00000012"


def test_a_slice_is_a_batch(frames_folder: Path) -> None:
    dataset = FrameDataset(frames_folder, ["rgb", "label"])
    batch = dataset[6:10]
    assert set(batch) == {
        *("rgb", "rgb.valid", "label", "label.valid"),
        *("video_id", "frame_index", "pts_seconds", "key"),
    }
    assert batch["video_id"] == ["airport", "airport", "car", "car"]
    assert batch["frame_index"].tolist() == [106, 107, 0, 1]
    assert batch["pts_seconds"].tolist() == [4.24, 4.28, 0.0, 0.04]
    assert batch["label"].dtype == torch.int64
    for at, sample in enumerate([dataset[row] for row in range(6, 10)]):
        assert torch.equal(batch["rgb"][at], sample["rgb"])
    assert dataset[::-10]["frame_index"].tolist() == [22, 12, 2, 100]
    assert dataset[5:5]["key"] == []
    again = collate_samples(dataset.__getitems__([6, 7, 8, 9]))
    assert list(again) == list(batch)
    assert torch.equal(again["rgb"], batch["rgb"])
    assert torch.equal(again["pts_seconds"], batch["pts_seconds"])


def test_no_such_row_or_key(frames_folder: Path) -> None:
    dataset = FrameDataset(frames_folder, ["label"])
    with pytest.raises(IndexError, match="row 31 of a dataset of 31 frames"):
        dataset[31]
    with pytest.raises(IndexError, match="row -32"):
        dataset[-32]
    with pytest.raises(UsageError, match="no frame 'car/00000099' here") as caught:
        dataset["car/00000099"]
    assert caught.value.hint == "car has 23 frames here, 0 to 22"
    with pytest.raises(UsageError) as caught:
        dataset["cat/00000001"]
    assert caught.value.hint == "no video 'cat' here (did you mean 'car'?)"
    with pytest.raises(UsageError, match="has no representation 'x'"):
        dataset.spec("x")
    assert [sample["frame_index"] for sample in dataset] == [*range(100, 108), *range(23)]


def test_a_plain_torch_loader_reads_it(frames_folder: Path) -> None:
    dataset = FrameDataset(frames_folder, transform=lambda sample: {**sample, "new": sample["label"] + 1})
    batch = next(iter(DataLoader(dataset, batch_size=5)))
    assert batch["rgb"].shape == (5, 6, 8, 3)
    assert torch.equal(batch["new"], batch["label"] + 1)
    assert batch["key"] == [f"airport/{frame:08d}" for frame in range(100, 105)]


def test_videos_of_two_sizes_come_as_a_list(tmp_path: Path) -> None:
    builder = DatasetBuilder(tmp_path, {"rgb": record("rgb", RGB)})
    builder.add("car", [0])
    large = np.ones((10, 4, 3), np.uint8)
    builder.put("van", 0, "rgb", large)
    builder.put("van", 1, "rgb", large)
    builder.write()
    dataset = FrameDataset(tmp_path)
    assert [tuple(image.shape) for image in dataset[:]["rgb"]] == [(6, 8, 3), (10, 4, 3), (10, 4, 3)]
    assert isinstance(dataset[1:]["rgb"], list)  # the form does not depend on the batch
    assert FrameDataset(tmp_path, subset=["van/0", "van/1"])[:]["rgb"].shape == (2, 10, 4, 3)


def flip(folder: Path, name: str, key: str, byte: int) -> None:
    """Flip one bit of a payload."""
    index = FrameDataset(folder, [name]).index
    row = index.find_key(key)
    column = index.columns[name]
    with (folder / index.shards[column.shard[row]]).open("r+b") as file:
        file.seek(int(column.offset[row]) + byte)
        old = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([old ^ 4]))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    builder = DatasetBuilder(tmp_path, {"rgb": record("rgb", RGB), "depth": record("depth", DEPTH, "npy.zst")})
    builder.add("car", range(4))
    return builder.write()


@pytest.mark.parametrize("byte", [0, 9, 127, 128, 200, 271])
def test_every_flipped_byte_is_found(small: Path, byte: int) -> None:
    flip(small, "rgb", "car/00000002", byte)
    message = r"shards/car/all-00000000.tar: frame car/00000002, representation 'rgb': the stored bytes have CRC-32"
    with pytest.raises(ChecksumError, match=message) as caught:
        FrameDataset(small)[:]
    assert "on_error='skip'" in str(caught.value.hint)
    dataset = FrameDataset(small, on_error="skip")
    batch = dataset[:]
    assert batch["frame_index"].tolist() == [0, 1, 3]
    for at, frame in enumerate([0, 1, 3]):
        assert np.array_equal(batch["rgb"][at], make_array("rgb", "car", frame, RGB))
        assert np.array_equal(batch["depth"][at], make_array("depth", "car", frame, DEPTH))
    assert dataset.skipped == 1
    assert len(FrameDataset(small, ["depth"])[:]["key"]) == 4  # bytes that are not asked for are not looked at


def test_without_checksums_damage_is_seen_by_the_codec_at_best(small: Path) -> None:
    flip(small, "rgb", "car/00000002", 200)
    silent = FrameDataset(small, verify=False)["car/00000002"]["rgb"]
    assert (silent.numpy() != make_array("rgb", "car", 2, RGB)).sum() == 1
    flip(small, "depth", "car/00000001", 0)
    with pytest.raises(CodecError, match=r"frame car/00000001, representation 'depth': .*"):
        FrameDataset(small, verify=False)["car/00000001"]
    assert FrameDataset(small, verify=False, on_error="skip")[:]["frame_index"].tolist() == [0, 2, 3]


def test_it_pickles_without_open_files(frames_folder: Path) -> None:
    dataset = FrameDataset(frames_folder)
    expected = dataset[4]["depth"]
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[4]["depth"], expected)
    assert repr(copy) == repr(dataset)


def test_threads_share_it(frames_folder: Path) -> None:
    dataset = FrameDataset(frames_folder)
    expected = dataset[:]["depth"]
    with ThreadPoolExecutor(8) as pool:
        rows = [row % 31 for row in range(400)]
        for row, sample in zip(rows, pool.map(dataset.__getitem__, rows), strict=True):
            assert torch.equal(sample["depth"], expected[row])


def test_a_lock_held_while_forking_is_open_in_the_child() -> None:
    lock = ForkSafeLock()
    with lock:
        child = os.fork()
        if not child:
            with lock:
                os._exit(7)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7


@pytest.fixture
def with_virtual(tmp_path: Path) -> Path:
    """Stored rgb and depth; hsv of rgb, inverted depth, and the inverted inverted depth are virtual."""
    records = {
        "rgb": record("rgb", RGB),
        "depth": record("depth", DEPTH),
        "hsv": virtual("hsv", HSV_SPEC, "color/hsv", "rgb"),
        "twice": virtual("twice", INVERTED, "tests.readers.reader_dataset:Inverted", "inverted", offset=1.0),
        "inverted": virtual("inverted", INVERTED, "tests.readers.reader_dataset:Inverted", "depth", offset=3.0),
    }
    builder = DatasetBuilder(tmp_path, records)
    builder.add("car", range(5))
    builder.add("van", range(3))
    return builder.write()


def test_virtual_representations_are_computed_on_read(with_virtual: Path) -> None:
    dataset = FrameDataset(with_virtual, trust_code=True)
    batch = dataset[:]
    rgb = np.stack(
        [make_array("rgb", video, frame, RGB) for video, n in (("car", 5), ("van", 3)) for frame in range(n)]
    )
    indices = np.arange(8)
    frames = FrameBatch(frames=np.empty((8, 0, 0, 3), np.uint8), indices=indices, pts_seconds=indices / 25)
    expected = HSV().compute(frames, {"rgb": Output(data=rgb)})
    assert batch["hsv"].dtype == torch.float32
    assert np.array_equal(batch["hsv"], expected.data)
    assert batch["hsv.valid"].tolist() == [True] * 8
    assert torch.equal(batch["inverted"], 3.0 - batch["depth"])
    assert torch.equal(batch["twice"], 1.0 - (3.0 - batch["depth"]))
    # alone, only what it depends on is read
    alone = FrameDataset(with_virtual, ["twice"], trust_code=True)
    assert list(alone.index.columns) == ["depth"]
    assert torch.equal(alone[:]["twice"], batch["twice"])
    assert torch.equal(alone["van/00000001"]["twice"], batch["twice"][6])
    assert alone[:]["twice.valid"].tolist() == [frame % 4 != 3 for frame in [*range(5), *range(3)]]
    assert torch.equal(pickle.loads(pickle.dumps(alone))[2]["twice"], batch["twice"][2])


def test_compute_sees_one_video_at_a_time(with_virtual: Path) -> None:
    Inverted.calls.clear()
    FrameDataset(with_virtual, ["inverted"], trust_code=True).batch([6, 0, 7, 2])
    assert Inverted.calls == [("depth", [0, 2], [0.0, 0.08]), ("depth", [1, 2], [0.04, 0.08])]


def test_virtual_of_a_missing_frame_is_filled_or_none(tmp_path: Path) -> None:
    records = {
        "rgb": record("rgb", RGB),
        "depth": record("depth", DEPTH),
        "inverted": virtual("inverted", INVERTED, "tests.readers.reader_dataset:Inverted", "depth"),
    }
    builder = DatasetBuilder(tmp_path, records)
    builder.add("car", range(3), ["rgb"])
    builder.add("car", [1], ["depth"])
    builder.write()
    assert FrameDataset(tmp_path, trust_code=True)[:]["frame_index"].tolist() == [1]
    filled = FrameDataset(tmp_path, missing="fill", trust_code=True)[:]
    assert filled["inverted.valid"].tolist() == [False, True, False]
    assert filled["inverted"][[0, 2]].isnan().all()
    assert np.array_equal(filled["inverted"][1], -make_array("depth", "car", 1, DEPTH))
    gaps = FrameDataset(tmp_path, missing="none", trust_code=True)[:]
    assert [value is None for value in gaps["inverted"]] == [True, False, True]


def test_virtual_that_cannot_be_computed_is_refused(tmp_path: Path) -> None:
    records = {
        "rgb": record("rgb", RGB),
        "edges": virtual("edges", RGB, "color/rgb", "rgb"),
        "orphan": virtual("orphan", RGB, "color/hsv", "gone"),
    }
    builder = DatasetBuilder(tmp_path, records)
    builder.add("car", [0])
    builder.write()
    with pytest.raises(UsageError, match=r"'edges' \(color/rgb\) is virtual but needs the video's pixels"):
        FrameDataset(tmp_path, ["edges"])
    with pytest.raises(DatasetError, match="orphan → gone: not in the dataset"):
        FrameDataset(tmp_path, ["orphan"])


def test_each_virtual_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To find what each is computed from anew takes seconds at 700 of them, and a stranger says how many there are."""
    looked: list[str] = []

    class Records(dict[str, RepresentationRecord]):
        def __getitem__(self, name: str) -> RepresentationRecord:
            looked.append(name)
            return super().__getitem__(name)

        def get(self, name: str, default: Any = None) -> Any:
            looked.append(name)
            return super().get(name, default)

    names = ["depth"]
    records = {"depth": record("depth", DEPTH)}
    for at in range(60):
        records[f"v{at}"] = virtual(f"v{at}", INVERTED, "tests.readers.reader_dataset:FirstOfAll", *reversed(names))
        names.append(f"v{at}")
    builder = DatasetBuilder(tmp_path, records)
    builder.add("car", [0, 1])
    builder.write()
    manifest = read_manifest(tmp_path)
    counted = replace(manifest, representations=Records(manifest.representations))
    monkeypatch.setattr("vrekit.readers.dataset.read_manifest", lambda folder: counted)
    batch = FrameDataset(tmp_path, trust_code=True)[:]
    assert torch.equal(batch["v59"], batch["depth"])
    assert max(Counter(looked).values()) < 10


def test_virtual_with_a_wrong_number_of_dependencies_is_refused(tmp_path: Path) -> None:
    records = {name: record(name, RGB) for name in (f"r{at}" for at in range(9))}
    builder = DatasetBuilder(tmp_path, records | {"hsv": virtual("hsv", HSV_SPEC, "color/hsv", *records)})
    builder.add("car", [0])
    builder.write()
    expected = (
        r"'hsv' is virtual and cannot be computed: color/hsv takes 1 dependency \(color\), got 9: \['r0', .*, …\]"
    )
    with pytest.raises(DatasetError, match=expected):
        FrameDataset(tmp_path)
    assert len(FrameDataset(tmp_path, ["r0"])) == 1


def test_what_is_left_without_refused_code(tmp_path: Path) -> None:
    records = {
        "rgb": record("rgb", RGB),
        "after": virtual("after", HSV_SPEC, "color/hsv", "code"),
        "code": virtual("code", RGB, "tests.readers.reader_dataset:FirstOfAll", "rgb"),
        "hsv": virtual("hsv", HSV_SPEC, "color/hsv", "rgb"),
        "orphan": virtual("orphan", HSV_SPEC, "color/hsv", "gone"),
        "after_orphan": virtual("after_orphan", HSV_SPEC, "color/hsv", "orphan"),
        "round": virtual("round", HSV_SPEC, "color/hsv", "round"),
    }
    builder = DatasetBuilder(tmp_path, records)
    builder.add("car", [0])
    builder.write()
    with pytest.raises(DatasetError) as caught:
        FrameDataset(tmp_path, ["after", "hsv"])
    assert caught.value.hint is not None
    assert caught.value.hint.endswith("or leave it out: representations=['rgb', 'hsv']")


def test_ragged_and_boolean_data(tmp_path: Path) -> None:
    mask = OutputSpec(kind=Kind.MASK, dtype="bool", shape=(3, 3), axes="HW")
    ids = OutputSpec(kind=Kind.INDICES, dtype="uint16", shape=(2, 2), axes="HW")
    builder = DatasetBuilder(
        tmp_path, {"boxes": record("boxes", BOXES), "mask": record("mask", mask), "ids": record("ids", ids)}
    )
    builder.add("car", range(4))
    builder.write()
    batch: dict[str, Any] = FrameDataset(tmp_path)[:]
    assert [tuple(boxes.shape) for boxes in batch["boxes"]] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert np.array_equal(batch["boxes"][3], make_array("boxes", "car", 3, BOXES))
    assert (batch["mask"].dtype, batch["ids"].dtype) == (torch.bool, torch.uint16)
    assert np.array_equal(batch["ids"][2].numpy(), make_array("ids", "car", 2, ids))
    kept = FrameDataset(tmp_path, ["boxes"], transform=lambda sample: sample)[1:2]
    assert isinstance(kept["boxes"], list)


def test_text_comes_as_str(tmp_path: Path) -> None:
    caption = OutputSpec(kind=Kind.TEXT, dtype="str", shape=(), axes="")
    builder = DatasetBuilder(tmp_path, {"rgb": record("rgb", RGB), "caption": record("caption", caption, "txt")})
    builder.add("car", range(3), ["rgb"])
    builder.put("car", 0, "caption", np.array("a red car"))
    builder.put("car", 2, "caption", np.array("ein grünes Auto"))
    builder.write()
    assert FrameDataset(tmp_path)[:]["caption"] == ["a red car", "ein grünes Auto"]
    assert FrameDataset(tmp_path, missing="fill")[:]["caption"] == ["a red car", "", "ein grünes Auto"]
    assert FrameDataset(tmp_path, missing="none")[:]["caption"] == ["a red car", None, "ein grünes Auto"]
    assert FrameDataset(tmp_path)["car/00000002"]["caption"] == "ein grünes Auto"


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        ({"id": "theirs", "stages": ["npy", "their-packer"]}, "unknown codec stage 'their-packer'"),
        ({"id": "their-codec"}, "unknown codec 'their-codec'"),
        ({"id": "mm-delta", "step": -1}, "step.step"),
    ],
)
def test_a_codec_that_is_not_there_is_named_with_its_representation(tmp_path: Path, codec: Any, message: str) -> None:
    builder = DatasetBuilder(tmp_path, {"rgb": record("rgb", RGB), "depth": record("depth", DEPTH)})
    builder.add("walk", range(3))
    folder = builder.write()
    with edited(folder / "dataset.json") as manifest:
        manifest["representations"]["depth"]["codec"] = codec
    with pytest.raises(DatasetError, match=message) as caught:
        FrameDataset(folder, ["rgb", "depth"])
    assert "'depth'" in str(caught.value)
    assert "package" in str(caught.value.hint)
    assert FrameDataset(folder, ["rgb"])[0]["rgb"].shape == RGB.shape  # the others are read


def test_virtual_frames_larger_than_the_memory(with_virtual: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: Any) -> Any:
        raise MemoryError("Unable to allocate 22 TiB")

    dataset = FrameDataset(with_virtual, ["hsv"])
    monkeypatch.setattr("vrekit.representations.color.hsv.HSV.compute", no_memory)
    with pytest.raises(DatasetError, match=r"'hsv' of 1 frames, computed on read, needs more memory .* 22 TiB"):
        dataset[1]
