"""What the reader of a page has before its first block."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

import vrekit

Setup = Callable[[Path], None]


def make_clip(path: Path, size: str = "96x64", frames: int = 30, source: str = "testsrc2") -> None:
    """Write an H.264 video."""
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", f"{source}=size={size}:rate=25", "-frames:v", str(frames)]
    subprocess.run([*command, "-pix_fmt", "yuv420p", str(path)], check=True)


def make_dataset(folder: Path) -> None:
    """Export `clip.mp4` into `out` as the README does."""
    vrekit.export(folder / "clip.mp4", folder / "out", "quickstart", threads=2)


def _readme(folder: Path) -> None:
    """Another dataset, to be merged; `clip.mp4` and `out` are made on the page."""
    (folder / "clip.mp4").rename(folder / "other.mp4")
    shutil.rmtree(folder / "out")
    make_clip(folder / "second.mp4", source="mandelbrot")
    vrekit.export(folder / "second.mp4", folder / "other", "quickstart", frames="0..4")


def _codecs(folder: Path) -> None:
    """Class scores as `seg`."""
    (folder / "scores").mkdir()
    generator = np.random.default_rng(0)
    for frame in range(8):
        np.save(folder / "scores" / f"{frame:06d}.npy", generator.normal(0, 3, (5, 8, 12)).astype(np.float32))
    seg = {"type": "external/files", "params": {"path": "scores/{frame:06d}.npy", "kind": "logits", "axes": "CHW"}}
    config = {"representations": {"seg": seg | {"store_as": "indices"}}}
    vrekit.export(folder / "clip.mp4", folder / "out", config, frames="0..8")


def _merging(folder: Path) -> None:
    """Two halves of a dataset, and an output folder of VRE."""
    for name, frames in (("machine-a", "0..6"), ("machine-b", "6..12")):
        vrekit.export(folder / "clip.mp4", folder / name, "quickstart", frames=frames)
    (folder / "vre-output" / "rgb" / "npz").mkdir(parents=True)
    for frame in range(4):
        np.savez(folder / "vre-output" / "rgb" / "npz" / f"{frame}.npz", np.full((64, 96, 3), frame, np.uint8))
    (folder / "vre.yaml").write_text("representations: {rgb: {type: color/rgb, dependencies: [], parameters: {}}}")


def _queries(folder: Path) -> None:
    """Boxes, sensor values and descriptors, for `items`."""
    (folder / "boxes").mkdir()
    for frame in range(30):
        np.save(folder / "boxes" / f"{frame:06d}.npy", np.array([[4, 5, 9, 9, frame / 30, 2]], np.float32))
    rows = [f"{frame},{90 + frame}" for frame in range(30)]
    (folder / "gps.csv").write_text("\n".join(["frame,alt", *rows]))
    columns = ["x1", "y1", "x2", "y2", "score", "label"]
    boxes = {"type": "external/files", "params": {"path": "boxes", "kind": "boxes", "columns": columns}}
    gps = {"type": "external/table", "params": {"path": "gps.csv", "frame_column": "frame"}}
    config = {"representations": {"boxes": boxes, "gps": gps, "sift": {"type": "descriptor/sift"}}}
    vrekit.export(folder / "clip.mp4", folder / "out", config)


SETUP: dict[str, Setup] = {
    "README.md": _readme,
    "docs/codecs.md": _codecs,
    "docs/merging.md": _merging,
    "docs/queries.md": _queries,
}
