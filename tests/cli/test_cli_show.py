"""`vrekit show`: one frame, as text, JSON and picture."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from numpy.typing import NDArray
from PIL import Image

from tests.every_type import FRAMES, every_type
from vrekit.cli import show as module
from vrekit.cli.show import half_blocks
from vrekit.config.loader import parse_config
from vrekit.core.frames import Output
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest
from vrekit.readers import FrameDataset
from vrekit.representations.pictures import draw

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, clip_array: NDArray[np.uint8]) -> Path:
    """Every built-in type."""
    folder = tmp_path_factory.mktemp("show")
    np.save(folder / "square.npy", clip_array[:FRAMES])
    request = ExportRequest(
        video=str(folder / "square.npy"),
        dataset=folder / "out",
        representations=parse_config(every_type(folder / "external", 32, 48)).representations,
        fps=10.0,
        threads=2,
    )
    assert not export(request).failures
    return folder / "out"


def described(result: Result) -> dict[str, dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return {one["name"]: one for one in json.loads(result.stdout)["representations"]}


def test_json_tells_what_the_readers_and_the_metadata_say(dataset: Path, run: Run) -> None:
    result = run("show", dataset, "square/3", "--json")
    found = described(result)
    assert (json.loads(result.stdout)["key"], json.loads(result.stdout)["pts_seconds"]) == ("square/00000003", 0.3)
    frames = FrameDataset(dataset)
    sample = frames["square/00000003"]
    assert set(found) == {name for name in frames.representations if name != "virtual"}
    for name, one in found.items():
        assert one["problem"] is None
        assert one["valid"] == sample[f"{name}.valid"]
        assert one["stored"]["byte_size"] > 0
        value = sample[name]
        if isinstance(value, str):
            assert one["values"] == value
            continue
        array = value.numpy()
        assert (one["dtype"], one["shape"]) == (array.dtype.name, list(array.shape))
        if array.dtype.kind == "f" and np.isfinite(array).all():
            said = [one["statistics"][part] for part in ("min", "max", "mean", "std")]
            wide = array.astype(np.float64)
            np.testing.assert_allclose(said, [wide.min(), wide.max(), wide.mean(), wide.std()])
    assert found["mask"]["statistics"]["true_share"] == float(sample["mask"].numpy().mean())
    assert sum(one["share"] for one in found["classes"]["statistics"]["classes"]) == pytest.approx(1)
    np.testing.assert_allclose(found["boxes"]["values"], sample["boxes"].numpy())
    assert "values" not in found["rgb"]


def test_text_names_each_representation_and_how_it_is_stored(dataset: Path, run: Run) -> None:
    result = run("show", dataset, "square/00000003", "depth", "boxes", "caption", "virtual")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "square/00000003, 0.300 s"
    assert "depth  depth, float32 32x48, unit m" in lines
    assert any(line.startswith("  log-delta, ") and "times smaller" in line for line in lines)
    assert "boxes  boxes, float32 3x5" in lines
    assert "  frame 3 é" in lines
    assert "virtual  color, float32 32x48x3, range 0 to 1" in lines
    assert sum(line.startswith("  run ") for line in lines) == 3
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in result.stdout  # no picture, as this is no terminal


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_picture_is_saved(dataset: Path, tmp_path: Path, run: Run, ending: str) -> None:
    path = tmp_path / f"flow.{ending}"
    result = run("show", dataset, "square/2", "flow", "-o", path)
    assert result.exit_code == 0, result.output
    frames = FrameDataset(dataset, ["flow"])
    expected = draw(Output(data=frames["square/00000002"]["flow"].numpy()[None]), frames.spec("flow"))[0]
    found = np.asarray(Image.open(path)).astype(int)
    assert np.abs(found - expected).mean() <= (0 if ending == "png" else 8)


def test_a_terminal_gets_a_picture_of_half_blocks(dataset: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_has_colours", lambda: True)
    monkeypatch.setattr(module, "_columns", lambda: 48)
    result = run("show", dataset, "square/2", "rgb")
    rows = [line for line in result.stdout.splitlines() if "▀" in line]
    assert [row.count("▀") for row in rows] == [48] * 16
    picture = FrameDataset(dataset, ["rgb"])["square/00000002"]["rgb"].numpy()
    assert rows == half_blocks(picture, width=48).splitlines()
    red, green, blue = picture[0, 0]
    assert rows[0].startswith(f"\x1b[38;2;{red};{green};{blue}m\x1b[48;2;{';'.join(map(str, picture[1, 0]))}m▀")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["square/99"], "no frame 'square/99' in"),
        (["squar/1"], "has no video 'squar' (did you mean 'square'?)"),
        (["square"], "not a sample key: 'square'"),
        (["square/1", "rbg"], "has no representation 'rbg' (did you mean 'rgb'?)"),
        (["square/1", "-o", "flow.gif"], "flow.gif does not end in .png or .jpg"),
    ],
)
def test_mistakes_are_named(dataset: Path, run: Run, arguments: list[str], message: str) -> None:
    result = run("show", dataset, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "hint:" in result.stderr


def test_damage_and_failures_are_told_and_do_not_hide_the_rest(
    tmp_path: Path, run: Run, make_request: Callable[..., ExportRequest]
) -> None:
    (tmp_path / "boxes").mkdir()
    for frame in range(30):
        np.save(tmp_path / "boxes" / f"{frame}.npy", np.ones((frame, 4), np.float32))
    (tmp_path / "boxes" / "1.npy").write_bytes(b"no array")
    files = f'{{type: external/files, params: {{path: "{tmp_path}/boxes/{{frame}}.npy", kind: boxes}}}}'
    config = f"representations: {{rgb: {{type: color/rgb, codec: png}}, canny: {{type: edges/canny}}, boxes: {files}}}"
    request = make_request(config)
    export(request)
    tar = sorted(request.dataset.glob("shards/*/*.tar"))[0]
    data = bytearray(tar.read_bytes())
    data[600] ^= 1  # in the first picture
    tar.write_bytes(data)
    result = run("show", request.dataset, "square/0", "--json")
    assert result.exit_code == 1
    found = {one["name"]: one for one in json.loads(result.stdout)["representations"]}
    assert "CRC-32" in found["rgb"]["problem"]
    assert found["canny"]["problem"] is None
    assert found["canny"]["statistics"]["max"] <= 1
    failed = run("show", request.dataset, "square/1", "boxes")
    assert failed.exit_code == 0
    assert "problem: it failed: " in failed.stdout
    nothing = run("show", request.dataset, "square/1", "boxes", "-o", tmp_path / "boxes.png")
    assert nothing.exit_code == 1
    assert "no representation of this frame has values to draw" in nothing.stderr
