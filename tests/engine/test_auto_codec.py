"""`codec: auto` in an export: chosen once, then kept, whatever a later measurement would say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.test_export import decoded, file_hashes
from vrekit.catalog.manifest import read_manifest
from vrekit.catalog.runs import read_runs
from vrekit.codecs.auto import AutoChoice
from vrekit.codecs.registry import codec_from_config
from vrekit.core.errors import ConfigError, ConflictError
from vrekit.engine.auto_codec import measured_codecs
from vrekit.engine.estimate import estimate
from vrekit.engine.export import export, resume
from vrekit.engine.request import ExportRequest
from vrekit.video.selection import parse_frames

MakeRequest = Callable[..., ExportRequest]

AUTO = """
representations:
  rgb: {type: color/rgb, codec: {id: auto, min_decode_mbps: 0}}
  hsv: {type: color/hsv, deps: [rgb], codec: auto}
  canny: {type: edges/canny, codec: npy.zst}
"""


def codec_ids(dataset: Path) -> dict[str, str]:
    records = read_manifest(dataset).representations
    return {name: record.codec["id"] for name, record in records.items() if record.codec is not None}


@pytest.fixture
def choices(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Codecs that the next measurements shall end with; each is used up."""
    queue: list[str] = []

    def choose(option: object, spec: object, arrays: object, **options: object) -> AutoChoice:
        return AutoChoice(codec_from_config(queue.pop(0)).config(), ())

    monkeypatch.setattr("vrekit.codecs.auto.choose_codec", choose)
    return queue


def test_the_choice_is_recorded_and_exact(make_request: MakeRequest, clip_array: np.ndarray) -> None:
    request = make_request(AUTO)
    report = export(request)
    assert report.computed_frames == 3 * 30
    for name in ("rgb", "hsv"):
        record = read_manifest(request.dataset).representations[name]
        assert record.codec is not None
        assert codec_from_config(record.codec).is_exact
        assert record.identity["codec"] == record.codec
    for frame, array in decoded(request.dataset, "rgb").items():
        np.testing.assert_array_equal(array, clip_array[frame])
    (run,) = read_runs(request.dataset)
    assert run.request["representations"][0]["codec"] == {"id": "auto", "min_decode_mbps": 0}


def test_what_was_chosen_once_stays(make_request: MakeRequest, choices: list[str], clip_mp4: Path) -> None:
    choices += ["png", "npy", "webp"]  # the third is what a later measurement would say
    export(make_request(AUTO, frames=parse_frames("0..10")))
    export(make_request(AUTO, frames=parse_frames("10..20")))
    export(make_request(AUTO, video=str(clip_mp4)))
    resume(make_request().dataset)
    assert choices == ["webp"]
    assert codec_ids(make_request().dataset) == {"rgb": "png", "hsv": "npy", "canny": "npy.zst"}


def test_an_explicit_codec_counts_too(make_request: MakeRequest, choices: list[str]) -> None:
    export(make_request(AUTO.replace("{id: auto, min_decode_mbps: 0}", "webp").replace("codec: auto", "codec: npy")))
    export(make_request(AUTO))  # nothing left to measure
    assert codec_ids(make_request().dataset) == {"rgb": "webp", "hsv": "npy", "canny": "npy.zst"}
    with pytest.raises(ConflictError, match="rgb"):
        export(make_request(AUTO.replace("{id: auto, min_decode_mbps: 0}", "png")))


def test_another_export_that_chose_meanwhile_was_first(
    make_request: MakeRequest, choices: list[str], monkeypatch: pytest.MonkeyPatch, clip_mp4: Path
) -> None:
    choices += ["jxl", "npy"]
    calls = []

    def while_measuring(*arguments: Any) -> Any:
        chosen = measured_codecs(*arguments)
        calls.append(chosen)
        if len(calls) == 1:
            choices.extend(["webp", "npy.zst"])
            export(make_request(AUTO, video=str(clip_mp4)))
        return chosen

    monkeypatch.setattr("vrekit.engine.preparation.measured_codecs", while_measuring)
    assert export(make_request(AUTO)).computed_frames == 3 * 30
    assert len(calls) == 2
    assert codec_ids(make_request().dataset) == {"rgb": "webp", "hsv": "npy.zst", "canny": "npy.zst"}


def test_it_is_measured_on_eight_of_the_first_frames(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, int] = {}

    def choose(option: object, spec: object, arrays: list[np.ndarray], **options: object) -> AutoChoice:
        seen[arrays[0].nbytes] = len(arrays)
        return AutoChoice(codec_from_config("npy").config(), ())

    monkeypatch.setattr("vrekit.codecs.auto.choose_codec", choose)
    export(make_request(AUTO))
    assert seen == {32 * 48 * 3: 8, 32 * 48 * 3 * 4: 8}
    export(make_request(AUTO, dataset=make_request().dataset / "2", memory_bytes=1))
    assert set(seen.values()) == {1}


def test_only_what_is_stored_is_measured(make_request: MakeRequest, choices: list[str]) -> None:
    choices += ["npy"]
    export(make_request(AUTO, only=("hsv",)))
    assert codec_ids(make_request().dataset) == {"hsv": "npy"}
    assert not choices


def test_a_dry_run_says_what_would_be_chosen_and_writes_nothing(make_request: MakeRequest) -> None:
    request = make_request(AUTO)
    found = {part.name: part.codec for part in estimate(request).parts}
    assert found["rgb"] in {"jxl", "rgb-delta", "webp", "png", "npy.zst"}
    assert not request.dataset.exists()


def test_mistakes_name_the_representation(make_request: MakeRequest) -> None:
    with pytest.raises(ConfigError, match=r"rgb: codec 'auto' has no option 'min_decode'"):
        export(make_request(AUTO.replace("min_decode_mbps", "min_decode")))


def test_an_export_with_the_chosen_codec_written_out_gives_the_same_bytes(
    make_request: MakeRequest, tmp_path: Path, choices: list[str]
) -> None:
    choices += ["png", "npy"]
    export(make_request(AUTO))
    explicit = AUTO.replace("{id: auto, min_decode_mbps: 0}", "png").replace("codec: auto", "codec: npy")
    export(make_request(explicit, dataset=tmp_path / "explicit"))
    assert file_hashes(make_request().dataset, "shards/*/*.tar") == file_hashes(tmp_path / "explicit", "shards/*/*.tar")
    hashes = [
        {name: record.config_hash for name, record in read_manifest(dataset).representations.items()}
        for dataset in (make_request().dataset, tmp_path / "explicit")
    ]
    assert hashes[0] == hashes[1]
