"""`codec: video`: the source's own packets as clips, read frame by frame."""

import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.conftest import QUICK_CONFIG
from tests.engine.test_export import payloads
from tests.storages import read_samples
from vrekit.core.errors import ConfigError
from vrekit.engine.cell_run import CellRun
from vrekit.engine.export import export, resume
from vrekit.engine.request import ExportRequest
from vrekit.jobs.validate import validate
from vrekit.readers.dataset import FrameDataset
from vrekit.readers.loader import FrameLoader, make_loader
from vrekit.video.opener import open_source
from vrekit.video.selection import parse_frames

MakeRequest = Callable[..., ExportRequest]
REMUX = QUICK_CONFIG.replace("{type: color/rgb, codec: png}", "{type: color/rgb, codec: video}")
FFV1 = QUICK_CONFIG.replace("{type: color/rgb, codec: png}", "{type: color/rgb, codec: {id: video, encode: ffv1}}")


def source_frames(path: Path) -> NDArray[np.uint8]:
    with open_source(path) as source:
        return source.read(source.frame_indices).frames


@pytest.mark.parametrize("config", [REMUX, FFV1], ids=["remux", "ffv1"])
def test_every_frame_is_that_of_the_source(make_request: MakeRequest, clip_mp4: Path, config: str) -> None:
    request = make_request(config=config, video=str(clip_mp4), shard_frames=14)  # cells end inside groups of pictures
    report = export(request)
    assert report.totals["rgb"].computed == 40
    expected = source_frames(clip_mp4)
    dataset = FrameDataset(request.dataset, ["rgb", "hsv"])
    assert len(dataset) == 40
    for row in np.random.default_rng(0).permutation(40).tolist():
        np.testing.assert_array_equal(np.asarray(dataset[row]["rgb"]), expected[row])
    assert dataset[7]["hsv"].shape == expected[7].shape
    assert not validate(request.dataset).problems
    assert export(request).run_id is None


def test_a_clip_is_one_member_that_ffmpeg_plays(make_request: MakeRequest, clip_mp4: Path, tmp_path: Path) -> None:
    request = make_request(config=REMUX, video=str(clip_mp4), shard_frames=64)
    export(request)
    rows = [row for row in read_samples(request.dataset).to_pylist() if row["representation"] == "rgb"]
    assert [row["payload_index"] for row in rows] == list(range(40))
    assert len({(row["byte_offset"], row["byte_size"], row["checksum"]) for row in rows}) == 1
    (tar,) = request.dataset.glob("shards/*/rgb-*.tar")
    with tarfile.open(tar) as archive:
        (member,) = archive.getmembers()
        assert member.name == "clip/00000000.rgb.mp4"
        archive.extract(member, tmp_path, filter="data")
    command = ["ffmpeg", "-v", "error", "-i", str(tmp_path / member.name), "-f", "framemd5", "-"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert sum(not line.startswith("#") for line in shown.splitlines()) == 40
    assert {name.split(".", 1)[1] for name in payloads(request.dataset)} == {
        "rgb.mp4",
        "canny.npy.zst",
        "flow.npy.zst",
    }


def test_an_interrupted_export_makes_its_clips_again(
    make_request: MakeRequest, clip_mp4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_request(config=REMUX, video=str(clip_mp4), shard_frames=14, dataset=tmp_path / "whole")
    export(whole)
    request = make_request(config=REMUX, video=str(clip_mp4), shard_frames=14)
    append, count = CellRun.append, iter(range(100))

    def interrupted(self: CellRun, result: object) -> None:
        if next(count) == 1:
            raise KeyboardInterrupt
        append(self, result)  # type: ignore[arg-type]  # handed on as it came

    with monkeypatch.context() as patch:
        patch.setattr(CellRun, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            export(request)
    resume(request.dataset)
    assert payloads(request.dataset) == payloads(whole.dataset)
    assert not validate(request.dataset).problems


def test_some_frames_only(make_request: MakeRequest, clip_mp4: Path) -> None:
    request = make_request(config=REMUX, video=str(clip_mp4), frames=parse_frames("5..30:5"))
    export(request)
    expected = source_frames(clip_mp4)
    dataset = FrameDataset(request.dataset, ["rgb"])
    for row, frame in enumerate((5, 10, 15, 20, 25)):
        np.testing.assert_array_equal(np.asarray(dataset[row]["rgb"]), expected[frame])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_decodes_and_resumes(make_request: MakeRequest, clip_mp4: Path, workers: int) -> None:
    request = make_request(config=REMUX, video=str(clip_mp4), shard_frames=14)
    export(request)

    def loader() -> FrameLoader:
        return make_loader(request.dataset, representations=["rgb"], batch_size=7, seed=3, num_workers=workers)

    first = loader()
    batches = iter(first)
    for _ in range(2):
        next(batches)
    state = first.state_dict()
    rest = [(batch["frame_index"].tolist(), batch["rgb"].clone()) for batch in batches]
    second = loader()
    second.load_state_dict(state)
    again = [(batch["frame_index"].tolist(), batch["rgb"]) for batch in second]
    assert [frames for frames, _ in rest] == [frames for frames, _ in again]
    assert all(torch.equal(one, other) for (_, one), (_, other) in zip(rest, again, strict=True))


def test_what_is_no_source_frame_cannot_be_cut_from_the_source(make_request: MakeRequest, clip_mp4: Path) -> None:
    config = "representations:\n  canny: {type: edges/canny, codec: video}\n"
    with pytest.raises(ConfigError, match="canny"):
        export(make_request(config=config, video=str(clip_mp4)))
