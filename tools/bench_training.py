"""Time reading a dataset of the `training` profile beside one of the files that data loaders usually read.

    OMP_NUM_THREADS=1 python -m tools.bench_training [--frames 40] [--rounds 9] [--arrays ARRAYS | --folder FOLDER]

Both hold rgb, depth, normals and class ids of the same frames: by default of the demo video at 960x540 with its exact
truth (`tools.make_demo`); or of the arrays `rgb`, `depth_metric`, `normals` and `argmax19` (`.npy`) in a folder, moved
sideways a little from frame to frame; or of a folder with the frames themselves, one `.npy` each, in `rgb/`,
`truth/depth/`, `truth/normals/`, `truth/classes/`. The usual files are JPEG of quality 90 with colour at half size
(what OpenCV and Pillow write), float16 in zstd, 8-bit PNG and PNG.

The reader is vrekit's own, `FrameDataset.batch` with 8 frames, so that both sides pay for checksums and collation;
they take turns, and the median over the rounds counts. Single thread, warm page cache, CPU milliseconds a sample.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from tools.make_demo import DemoOptions, make_demo
from vrekit.config.loader import load_config
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest
from vrekit.readers.dataset import FrameDataset

BATCH_SIZE = 8
ROLL_COLUMNS = 16  # so that no two frames of `--arrays` are the same
FILES = {"depth": "depth_metric", "normals": "normals", "classes": "argmax19"}
USUAL = {
    "rgb": "{id: jpg, quality: 90, subsampling: '420'}",
    "depth": "{stages: [float16, npy, {id: zstd, level: 3}]}",
    "normals": "{stages: [{id: uniform, minimum: -1, maximum: 1, bits: 8}, png]}",
    "classes": "png",
}
CONFIG = """
representations:
  rgb: {{type: color/rgb{rgb}}}
  depth: {{type: external/files, params: {{path: {truth}/depth, kind: depth, unit: m}}{depth}}}
  normals: {{type: external/files, params: {{path: {truth}/normals, kind: normals}}{normals}}}
  classes: {{type: external/files, params: {{path: {truth}/classes, kind: indices}}{classes}}}
"""


def make_frames(arrays: Path, out: Path, frame_count: int) -> Path:
    """Write frames made from one array of each kind, and return the folder of the rgb ones."""
    for name, file in {"rgb": "rgb", **FILES}.items():
        folder = out / ("rgb" if name == "rgb" else f"truth/{name}")
        folder.mkdir(parents=True)
        array = np.load(arrays / f"{file}.npy")
        for index in range(frame_count):
            np.save(folder / f"{index:08d}.npy", np.roll(array, ROLL_COLUMNS * index, axis=1))
    return out / "rgb"


def make_dataset(video: Path, truth: Path, out: Path, codecs: dict[str, str], profile: str) -> FrameDataset:
    """Export the four representations and open them."""
    options = {name: f", codec: {codecs[name]}" if name in codecs else "" for name in USUAL}
    config = out.with_suffix(".yaml")
    config.write_text(CONFIG.format(truth=truth, **options))
    loaded = load_config(config)
    fps = 25.0 if video.is_dir() else None
    export(
        ExportRequest(
            video=str(video), dataset=out, representations=loaded.representations, fps=fps, profile=profile, threads=1
        )
    )
    return FrameDataset(out, list(USUAL))


def cpu_ms(dataset: FrameDataset) -> float:
    """Return the CPU milliseconds a sample of reading the whole dataset once."""
    count = len(dataset)
    started = time.process_time()
    for first in range(0, count, BATCH_SIZE):
        dataset.batch(np.arange(first, min(first + BATCH_SIZE, count)))
    return (time.process_time() - started) / count * 1e3


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=40, help="frames of each dataset; default 40")
    parser.add_argument("--rounds", type=int, default=9, help="times that each is read; default 9")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--arrays", type=Path, help="folder of .npy files, one a kind, instead of the demo video")
    source.add_argument("--folder", type=Path, help="folder with rgb/ and truth/, one .npy file a frame")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth = folder / "truth"
        if options.folder is not None:
            video, truth = options.folder / "rgb", options.folder / "truth"
        elif options.arrays is not None:
            video = make_frames(options.arrays, folder, options.frames)
        else:
            video = make_demo(folder, DemoOptions(seconds=options.frames / 25, width=960, height=540))
        usual = make_dataset(video, truth, folder / "usual", USUAL, "balanced")
        training = make_dataset(video, truth, folder / "training", {}, "training")
        report(usual, training, options.rounds)


def report(usual: FrameDataset, training: FrameDataset, rounds: int) -> None:
    """Print the table: each representation by itself, then all four together."""
    print("| data | usual files: bytes | ms | training profile | bytes | ms | times as many a second |")
    print("|---|---:|---:|---|---:|---:|---:|")
    for names in (*((name,) for name in USUAL), tuple(USUAL)):
        pair = [FrameDataset(dataset.path, names) for dataset in (usual, training)]
        runs = [[cpu_ms(dataset) for dataset in pair] for _ in range(rounds + 1)][1:]  # the first one warms up
        ms = [statistics.median(run[side] for run in runs) for side in (0, 1)]
        ratio = statistics.median(run[0] / run[1] for run in runs)
        size = [sum(int(d.index.columns[name].size.sum()) for name in names) // len(d) for d in pair]
        codec = (training.manifest.representations[names[0]].codec or {})["id"] if len(names) == 1 else ""
        title = names[0] if len(names) == 1 else "all"
        print(f"| {title} | {size[0]:,} | {ms[0]:.2f} | {codec} | {size[1]:,} | {ms[1]:.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
