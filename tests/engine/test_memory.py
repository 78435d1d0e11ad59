"""Peak memory of the commands with frames that are larger than `--memory`: what docs/architecture.md promises."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FRAMES, CLASSES, HEIGHT, WIDTH = 6, 19, 540, 960
FRAME_MB = CLASSES * HEIGHT * WIDTH * 4 / 1e6
MEMORY_MB = 32
BUFFERS_MB = 40.0  # the largest measured excess is 26 MB, of `transcode` to a larger type

SCORES = f"""
import numpy as np
from vrekit.representations.base import Kind, Output, OutputSpec, Representation

class Scores(Representation):
    def output_spec(self, height, width, dependencies):
        names = tuple(f"class {{n}}" for n in range({CLASSES}))
        shape = ({CLASSES}, height, width)
        return OutputSpec(kind=Kind.LOGITS, dtype="float32", shape=shape, axes="CHW", classes=names)

    def compute(self, batch, dependencies):
        green = batch.frames[:, None, :, :, 1].astype(np.float32)
        return Output(data=green * np.arange(1, {CLASSES} + 1, dtype=np.float32)[:, None, None])
"""

RUN = """
import sys
from vrekit.cli.app import app

try:
    app(sys.argv[1:], prog_name="vrekit")
except SystemExit as error:
    assert not error.code, error.code
lines = dict(line.split(":") for line in open("/proc/self/status"))
print(int(lines["VmHWM"].split()[0]) * 1024 / 1e6)
"""


def peak_mb(*arguments: object) -> float:
    """Return the largest resident memory of a `vrekit` process."""
    command = [sys.executable, "-c", RUN, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.split()[-1])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return two folders with a video each, of large frames and of tiny ones."""
    choose = np.random.default_rng(0)
    made = []
    for name, height, width in (("large", HEIGHT, WIDTH), ("tiny", 4, 4)):
        folder = tmp_path_factory.mktemp(name)
        np.save(folder / "video.npy", choose.integers(0, 255, (FRAMES, height, width, 3), np.uint8))
        (folder / "scores.py").write_text(SCORES)
        (folder / "c.yaml").write_text("representations: {scores: {type: 'scores.py:Scores', codec: npy}}\n")
        made.append(folder)
    return made[0], made[1]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_peaks_are_bounded(folders: tuple[Path, Path]) -> None:
    peaks: dict[str, list[float]] = {}
    bounded: set[str] = set()
    for folder in folders:
        bound = ("--memory", f"{MEMORY_MB}MB")
        config = ("--config", folder / "c.yaml", "--threads", 2)
        commands: dict[str, tuple[object, ...]] = {
            "export": ("export", folder / "video.npy", "-o", folder / "tar", *config, *bound),
            "export lance": ("export", folder / "video.npy", "-o", folder / "l", *config, *bound, "--writer", "lance"),
            "merge": ("merge", folder / "tar", "-o", folder / "merged"),
            "merge lance": ("merge", folder / "l", "-o", folder / "merged-l"),
            "to lance": ("convert", folder / "tar", "-o", folder / "to-lance", "--writer", "lance"),
            "to tar": ("convert", folder / "l", "-o", folder / "to-tar", "--writer", "webdataset"),
            "transcode": ("transcode", folder / "tar", "-o", folder / "f16", "--codec", "scores=f16.npy", *bound),
            "to float": ("transcode", folder / "f16", "-o", folder / "f32", "--codec", "scores=npy", *bound),
            "transcode lance": ("transcode", folder / "l", "-o", folder / "f16-l", "--codec", "scores=f16.npy", *bound),
            "validate": ("validate", folder / "tar"),
            "validate lance": ("validate", folder / "l"),
        }
        for name, arguments in commands.items():
            peaks.setdefault(name, []).append(peak_mb(*arguments))
            bounded |= {name} if "--memory" in arguments else set()
    over = {name: large - tiny for name, (large, tiny) in peaks.items()}
    # Tiny frames do not fill the buffers that are part of the base: BUFFERS_MB.
    allowed = {name: 3 * FRAME_MB + BUFFERS_MB + (1.5 * MEMORY_MB if name in bounded else 0.0) for name in over}
    allowed["merge"] = 40.0
    assert {name: round(mb) for name, mb in over.items() if mb > allowed[name]} == {}
