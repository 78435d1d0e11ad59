"""What is added to a dataset later is computed from what it holds exactly, without decoding the video again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.test_export import file_hashes
from tests.storages import read_samples
from vrekit.catalog.manifest import read_manifest
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest
from vrekit.jobs.validate import validate
from vrekit.representations.color.rgb import RGB
from vrekit.video.base import VideoSource
from vrekit.video.opener import open_source
from vrekit.video.selection import parse_frames

MakeRequest = Callable[..., ExportRequest]

CONFIG = """
representations:
  rgb: {type: color/rgb, codec: %s}
  hsv: {type: color/hsv, deps: [rgb], codec: npy.zst}
  canny: {type: edges/canny, codec: npy.zst}
"""
EXACT = CONFIG % "png"
LOSSY = CONFIG % "jpg"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which videos were opened so far."""
    calls: list[str] = []

    def counted(path: str, **options: Any) -> VideoSource:
        calls.append(path)
        return open_source(path, **options)

    monkeypatch.setattr("vrekit.engine.preparation.open_source", counted)
    return calls


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the frames that `color/rgb` computed so far."""
    frames: list[int] = []
    original = RGB.compute

    def compute(self, batch, dependencies):  # type: ignore[no-untyped-def]  # as the method it stands for
        frames.extend(batch.indices.tolist())
        return original(self, batch, dependencies)

    monkeypatch.setattr(RGB, "compute", compute)
    return frames


def payload_rows(dataset: Path, name: str) -> list[tuple[int, int, float | None]]:
    table = read_samples(dataset, columns=("frame_index", "representation", "checksum", "pts_seconds", "status"))
    rows = [row for row in table.to_pylist() if row["representation"] == name and row["status"] == "ok"]
    return sorted((row["frame_index"], row["checksum"], row["pts_seconds"]) for row in rows)


@pytest.mark.parametrize("writer", ["webdataset", "lance"])
def test_a_dependent_added_later_is_as_if_computed_at_once_and_the_video_stays_closed(
    make_request: MakeRequest, tmp_path: Path, clip_mp4: Path, opened: list[str], writer: str
) -> None:
    clip = str(clip_mp4)
    whole = make_request(EXACT, video=clip, dataset=tmp_path / "whole", writer=writer, layout="representation")
    later = make_request(EXACT, video=clip, only=("rgb",), writer=writer, layout="representation")
    export(whole)
    export(later)
    assert len(opened) == 2
    report = export(make_request(EXACT, video=clip, only=("hsv",)))
    assert report.computed_frames == 40
    assert len(opened) == 2
    assert payload_rows(later.dataset, "hsv") == payload_rows(whole.dataset, "hsv")
    assert len(payload_rows(later.dataset, "hsv")) == 40
    if writer == "webdataset":
        assert file_hashes(later.dataset, "shards/*/hsv-*.tar") == file_hashes(whole.dataset, "shards/*/hsv-*.tar")


def test_pictures_added_later_need_no_video(make_request: MakeRequest, tmp_path: Path, opened: list[str]) -> None:
    whole = make_request(EXACT, dataset=tmp_path / "whole", layout="representation", images="jpg")
    later = make_request(EXACT, layout="representation")
    export(whole)
    export(later)
    assert len(opened) == 2
    report = export(make_request(EXACT, images="jpg"))
    assert {name: totals.computed for name, totals in report.totals.items()} == dict.fromkeys(
        ("rgb.image", "hsv.image", "canny.image"), 30
    )
    assert len(opened) == 3  # an array has no frame count of its own: it is opened to know its frames, not read
    assert file_hashes(later.dataset, "shards/*/*.tar") == file_hashes(whole.dataset, "shards/*/*.tar")
    assert not validate(later.dataset).problems


def test_lossy_dependencies_are_computed_again(make_request: MakeRequest, computed: list[int], tmp_path: Path) -> None:
    whole = make_request(LOSSY, dataset=tmp_path / "whole", layout="representation")
    export(whole)
    later = make_request(LOSSY, only=("rgb",), layout="representation")
    export(later)
    del computed[:]
    export(make_request(LOSSY, only=("hsv",)))
    assert sorted(computed) == list(range(30))
    assert file_hashes(later.dataset, "shards/*/hsv-*.tar") == file_hashes(whole.dataset, "shards/*/hsv-*.tar")


def test_only_the_batches_that_lack_a_frame_are_computed(
    make_request: MakeRequest, computed: list[int], tmp_path: Path
) -> None:
    whole = make_request(EXACT, dataset=tmp_path / "whole", layout="representation")
    export(whole)
    for part in ("0..11", "12..30"):  # frame 11 is missing
        export(make_request(EXACT, only=("rgb",), layout="representation", frames=parse_frames(part)))
    del computed[:]
    dataset = make_request().dataset
    export(make_request(EXACT, only=("hsv",)))
    assert sorted(computed) == list(range(8, 16))  # the batch of its shard
    assert file_hashes(dataset, "shards/*/hsv-*.tar") == file_hashes(whole.dataset, "shards/*/hsv-*.tar")


def test_a_changed_config_under_the_same_name_is_not_read_back(make_request: MakeRequest, tmp_path: Path) -> None:
    """`-r` leaves the dependency out of what is checked against the dataset: its identity must be looked at."""
    small = EXACT.replace("codec: png", "codec: png, output_size: [16, 24]")
    export(make_request(small, only=("rgb",)))
    export(make_request(EXACT, only=("hsv",)))
    whole = make_request(EXACT, dataset=tmp_path / "whole", layout="representation")
    export(whole)
    assert payload_rows(make_request().dataset, "hsv") == payload_rows(whole.dataset, "hsv")


def test_a_damaged_dependency_fails_its_frame_with_the_reason(make_request: MakeRequest) -> None:
    request = make_request(EXACT, only=("rgb",))
    export(request)
    rows = read_samples(request.dataset).to_pylist()
    row = next(row for row in rows if row["frame_index"] == 20)
    with (request.dataset / row["shard"]).open("r+b") as file:
        file.seek(row["byte_offset"] + row["byte_size"] // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    report = export(make_request(EXACT, only=("hsv",)))
    (failure,) = report.failures
    assert failure["frame_index"] == 20
    assert "dependency 'rgb' failed: the stored payload changed since it was written" in str(failure["error"])
    assert report.computed_frames == 29
    assert [frame for frame, *_ in payload_rows(request.dataset, "hsv")] == [n for n in range(30) if n != 20]
    assert "hsv" in read_manifest(request.dataset).representations
