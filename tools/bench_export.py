"""Time RGB + HSV of one video, as the VRE paper's section 3.1 does, beside upstream VRE if it is installed.

    python -m tools.bench_export VIDEO [--frames 100] [--rounds 3] [--vre-venv FOLDER]

Every line is whole processes: CPU seconds (user + system), wall seconds, peak resident memory, bytes written. CPU per
frame leaves out what the same command needs for one frame (start-up: imports, opening the video). The runs take turns,
so that a slow moment of a shared machine hits all of them; medians are printed. Upstream VRE (1.18.6) is installed into
a virtual environment of its own, with the packages its colour representations need.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CONFIGS = {
    "vrekit, hsv virtual": """
representations:
  rgb: {type: color/rgb}
  hsv: {type: color/hsv, deps: [rgb], store: false}
""",
    "vrekit, hsv stored, npy": """
representations:
  rgb: {type: color/rgb, codec: npy}
  hsv: {type: color/hsv, deps: [rgb], codec: npy}
""",
}

VRE_CONFIG = """
default_compute_parameters: {batch_size: 1}
default_io_parameters: {binary_format: npz, image_format: not-set, compress: false}
default_learned_parameters: {device: cpu}
representations:
  rgb: {type: color/rgb, dependencies: [], parameters: {}}
  hsv: {type: color/hsv, dependencies: [rgb], parameters: {}}
"""

VRE_TYPES = """
def get():
    from vre_repository.color.hsv import HSV
    from vre_repository.color.rgb import RGB
    return {"color/rgb": RGB, "color/hsv": HSV}
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process took."""

    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int
    written_bytes: int


def measure(command: Sequence[str], output: Path, environment: dict[str, str]) -> Cost:
    """Run a command that writes into `output`, and return what it took; its children count too."""
    shutil.rmtree(output, ignore_errors=True)
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}")
    written = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    shutil.rmtree(output)
    return Cost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * 1024, written)


def commands(video: Path, frames: int, folder: Path, vre_venv: Path | None) -> dict[str, tuple[list[str], Path]]:
    """Return name → (command for `frames` frames, its output folder)."""
    found = {}
    for number, (name, config) in enumerate(CONFIGS.items()):
        path = folder / f"config{number}.yaml"
        path.write_text(config)
        output = folder / f"out{number}"
        export = [sys.executable, "-m", "vrekit", "export", str(video), "-o", str(output), "-c", str(path)]
        found[name] = ([*export, "--frames", f"0..{frames}"], output)
    if vre_venv is not None:
        (folder / "vre.yaml").write_text(VRE_CONFIG)
        (folder / "types.py").write_text(VRE_TYPES)
        output = folder / "vre"
        command = [str(vre_venv / "bin" / "vre"), str(video), "-o", str(output), "--config_path"]
        command += [str(folder / "vre.yaml"), "--no_vre_repository", "-J", f"{folder / 'types.py'}:get"]
        found["upstream VRE 1.18.6, npz"] = ([*command, "--frames", f"0..{frames}"], output)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vre-venv", type=Path)
    options = parser.parse_args(arguments)
    environment = os.environ | {"VRE_PBAR": "0", "VRE_LOGLEVEL": "0"}
    if options.vre_venv is not None:
        environment["PATH"] = f"{options.vre_venv.resolve() / 'bin'}{os.pathsep}{environment['PATH']}"
    costs: dict[str, list[Cost]] = {}
    one_frame: dict[str, list[Cost]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for count, results in ((1, one_frame), (options.frames, costs)):
            for _ in range(options.rounds):
                for name, (command, output) in commands(
                    options.video.resolve(), count, Path(scratch), options.vre_venv
                ).items():
                    results.setdefault(name, []).append(measure(command, output, environment))
    print(f"| {options.video.name}, {options.frames} frames | CPU s | CPU ms a frame | wall s | RSS MB | MB written |")
    print("|---|---|---|---|---|---|")
    for name, runs in costs.items():
        cpu = statistics.median(run.cpu_seconds for run in runs)
        startup = statistics.median(run.cpu_seconds for run in one_frame[name])
        wall = statistics.median(run.wall_seconds for run in runs)
        peak = max(run.peak_bytes for run in runs) / 1e6
        per_frame = (cpu - startup) / max(1, options.frames - 1) * 1000
        print(f"| {name} | {cpu:.1f} | {per_frame:.1f} | {wall:.1f} | {peak:.0f} | {runs[0].written_bytes / 1e6:.1f} |")


if __name__ == "__main__":
    main()
