"""Render the demo video: a fly-over whose depth, normals, flow and classes are known exactly.

    python -m tools.make_demo demo --seconds 6 --fps 25 --width 640 --height 360 --jobs 2

writes

    demo/flyover.mp4                H.264 video
    demo/telemetry.csv              time_seconds, frame, altitude, x, y, z, yaw, pitch, roll (metres, degrees)
    demo/captions.csv               time_seconds, caption
    demo/truth/depth/00000000.npz         float32 (H, W), metres along the optical axis, NaN in the sky
    demo/truth/normals/00000000.npz       float16 (H, W, 3), unit vectors in the camera frame, NaN in the sky
    demo/truth/flow/00000000.npz          float16 (H, W, 2), pixels to the next frame
    demo/truth/flow_visible/00000000.npz  bool (H, W), False where the point is hidden or out of view in the next frame
    demo/truth/classes/00000000.npz       uint8 (H, W), numbers of `tools.scene.CLASSES`

The last frame has no flow: there is no next frame. Each .npz holds one array, `arr_0`. Normals and flow are rounded to
float16 (0.03 degrees; 1/256 pixel below 8 pixels) because the truth would be twice as large otherwise; `tools.scene`
gives them in float32. Same arguments, same pixels, whatever `--jobs` is.
"""

import argparse
import csv
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.scene import CLASSES, Scene, SceneFrame

TRUTH = ("depth", "normals", "flow", "flow_visible", "classes")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What to render.

    Attributes:
        seconds: Length of the video.
        fps: Frames per second.
        width: Columns, even (H.264 stores colour at half the size).
        height: Rows, even.
        seed: Of the scene.
        jobs: Processes that render.
        truth: Whether the ground truth is written too.
    """

    seconds: float = 6.0
    fps: float = 25.0
    width: int = 640
    height: int = 360
    seed: int = 0
    jobs: int = 2
    truth: bool = True

    def __post_init__(self) -> None:
        for name in ("seconds", "fps", "jobs"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)}, expected more than 0")
        for name in ("width", "height"):
            if getattr(self, name) < 2 or getattr(self, name) % 2:
                raise ValueError(f"{name} = {getattr(self, name)}, expected an even number of pixels")

    @property
    def frame_count(self) -> int:
        """Number of frames, at least one."""
        return max(1, round(self.seconds * self.fps))


def make_demo(out: Path, options: DemoOptions, *, progress: bool = False) -> Path:
    """Render video and ground truth into a folder and return the video's path.

    Args:
        out: Folder, made when missing; files of an earlier run are replaced.
        options: What to render.
        progress: Whether to report on stderr.
    """
    for name in TRUTH if options.truth else ():
        (out / "truth" / name).mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    frames = np.empty((options.frame_count, options.height, options.width, 3), np.uint8)
    rows: list[dict[str, Any]] = []
    started = time.monotonic()
    for done, (index, rgb, row) in enumerate(_render_all(out, options), start=1):
        frames[index] = rgb
        rows.append(row)
        if progress:
            _report(done, options.frame_count, time.monotonic() - started)
    rows.sort(key=lambda row: row["frame"])
    captions = [{"time_seconds": row["time_seconds"], "caption": row.pop("caption")} for row in rows]
    _write_csv(out / "telemetry.csv", rows)
    _write_csv(out / "captions.csv", captions)
    video = out / "flyover.mp4"
    write_video(video, frames, options.fps)
    return video


def write_video(path: Path, frames: NDArray[np.uint8], fps: float) -> None:
    """Write uint8 RGB frames (N, H, W, 3) as H.264; the file appears under its name once it is complete."""
    import torch
    from torchcodec.encoders import VideoEncoder  # type: ignore[attr-defined]  # it has no __all__

    partial = path.with_name(f"partial-{path.name}")
    tensor = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()
    encoder = VideoEncoder(tensor, frame_rate=fps)
    encoder.to_file(partial, codec="libx264", pixel_format="yuv420p", crf=18, preset="medium")
    os.replace(partial, path)


def _render_all(out: Path, options: DemoOptions) -> Iterator[tuple[int, NDArray[np.uint8], dict[str, Any]]]:
    tasks = [(out, options, chunk) for chunk in _chunks(options.frame_count, options.jobs)]
    if options.jobs == 1:
        for task in tasks:
            yield from _render_chunk(task)
        return
    # spawn: forking a process in which torch already runs threads can hang
    with multiprocessing.get_context("spawn").Pool(min(options.jobs, len(tasks))) as pool:
        for results in pool.imap_unordered(_render_chunk, tasks):
            yield from results


def _chunks(count: int, jobs: int) -> list[range]:
    # the flow needs the next frame, which a chunk's last frame renders again: longer chunks waste less
    size = max(1, min(12, -(-count // jobs)))
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


def _render_chunk(task: tuple[Path, DemoOptions, range]) -> list[tuple[int, NDArray[np.uint8], dict[str, Any]]]:
    import cv2

    out, options, chunk = task
    cv2.setNumThreads(1)  # one process a core is faster than threads inside OpenCV
    scene = _scene(options.seed, options.width, options.height)
    results = []
    following: SceneFrame | None = None
    for index in chunk:
        frame = following or scene.render(index / options.fps)
        following = None
        if options.truth:
            if index + 1 < options.frame_count:
                following = scene.render((index + 1) / options.fps)
            _write_truth(out / "truth", index, scene, frame, following)
        results.append((index, frame.rgb, _telemetry(index, frame)))
    return results


@lru_cache(maxsize=1)
def _scene(seed: int, width: int, height: int) -> Scene:
    return Scene(seed=seed, width=width, height=height)


def _write_truth(folder: Path, index: int, scene: Scene, frame: SceneFrame, following: SceneFrame | None) -> None:
    arrays: dict[str, NDArray[Any]] = {
        "depth": frame.depth_meters,
        "normals": frame.normals.astype(np.float16),
        "classes": frame.classes,
    }
    if following is not None:
        flow, visible = scene.flow(frame, following)
        arrays |= {"flow": flow.astype(np.float16), "flow_visible": visible}
    for name, array in arrays.items():
        np.savez_compressed(folder / name / f"{index:08d}.npz", array)


def _telemetry(index: int, frame: SceneFrame) -> dict[str, Any]:
    pose = frame.pose
    below = frame.depth_meters[-1][np.isfinite(frame.depth_meters[-1])]
    share = np.bincount(frame.classes.ravel(), minlength=len(CLASSES)) / frame.classes.size
    seen = [CLASSES[i] for i in np.argsort(-share, kind="stable") if share[i] > 0.04]
    return {
        "time_seconds": round(frame.time_seconds, 6),
        "frame": index,
        "altitude": round(pose.z, 3),
        "x": round(pose.x, 3),
        "y": round(pose.y, 3),
        "z": round(pose.z, 3),
        "yaw": round(pose.yaw_degrees, 3),
        "pitch": round(pose.pitch_degrees, 3),
        "roll": round(pose.roll_degrees, 3),
        "nearest_meters": round(float(below.min()), 3) if below.size else None,
        "caption": f"a drone over {', '.join(seen[:-1])} and {seen[-1]}"
        if len(seen) > 1
        else f"a drone over {seen[0]}",
    }


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _report(done: int, total: int, seconds: float) -> None:
    left = seconds / done * (total - done)
    end = "\n" if done == total else ""
    line = f"\rrendering frame {done}/{total}, {done / seconds:.1f} frames/s, {left:.0f} s left   "
    sys.stderr.write(line + end)
    sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    defaults = DemoOptions()
    parser = argparse.ArgumentParser(prog="make_demo", description="Render the demo fly-over and its ground truth.")
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="folder to write")
    parser.add_argument("--seconds", type=float, default=defaults.seconds, help="length (default %(default)s)")
    parser.add_argument("--fps", type=float, default=defaults.fps, help="frames per second (default %(default)s)")
    parser.add_argument("--width", type=int, default=defaults.width, help="columns, pixels (default %(default)s)")
    parser.add_argument("--height", type=int, default=defaults.height, help="rows, pixels (default %(default)s)")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="which world (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=defaults.jobs, help="processes (default %(default)s)")
    parser.add_argument("--no-truth", dest="truth", action="store_false", help="write the video only")
    values = vars(parser.parse_args(arguments))
    out = values.pop("out")
    try:
        options = DemoOptions(**values)
    except ValueError as error:
        parser.error(str(error))
    video = make_demo(out, options, progress=True)
    print(f"{video}: {options.frame_count} frames, {video.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
