"""Fixtures that many tests share: small real videos made with FFmpeg, and arrays."""

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vrekit.config.loader import parse_config
from vrekit.engine.request import ExportRequest

QUICK_CONFIG = """
representations:
  rgb: {type: color/rgb, codec: png}
  hsv: {type: color/hsv, deps: [rgb], store: false}
  canny: {type: edges/canny, codec: npy.zst}
  flow: {type: flow/dis, params: {preset: ultrafast}, codec: npy.zst}
"""


def pytest_configure() -> None:
    """Have commands that tests start heed SIGINT: what a script runs in the background inherits that it is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's state folder, a temporary one: no test writes into the real home."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def clip_mp4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An H.264 clip with B-frames: 40 frames of 96x64 at 10 fps."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=96x64:rate=10", "-frames:v", "40"]
    command += ["-c:v", "libx264", "-g", "12", "-bf", "2", "-pix_fmt", "yuv420p", str(path)]
    subprocess.run(command, check=True)
    return path


@pytest.fixture(scope="session")
def clip_array() -> NDArray[np.uint8]:
    """30 frames of 32x48 with a bright square moving over a textured background, uint8 (30, 32, 48, 3)."""
    generator = np.random.default_rng(0)
    background = generator.integers(0, 80, (32, 48, 3), np.uint8)
    frames = np.repeat(background[None], 30, 0)
    for number, frame in enumerate(frames):
        frame[8:20, number : number + 12] = (250, 240 - 4 * number, 60)
    return frames


@pytest.fixture
def clip_npy(tmp_path: Path, clip_array: NDArray[np.uint8]) -> Path:
    """The array clip as a file."""
    path = tmp_path / "square.npy"
    np.save(path, clip_array)
    return path


@pytest.fixture
def make_request(tmp_path: Path, clip_npy: Path) -> Callable[..., ExportRequest]:
    """Return requests for the array clip with QUICK_CONFIG; keyword arguments override."""

    def make(config: str = QUICK_CONFIG, **changes: object) -> ExportRequest:
        fields: dict[str, object] = {
            "video": str(clip_npy),
            "dataset": tmp_path / "out",
            "representations": parse_config(config).representations,
            "shard_frames": 8,
            "threads": 2,
        }
        return ExportRequest(**(fields | changes))  # type: ignore[arg-type]  # the test names real fields

    return make
