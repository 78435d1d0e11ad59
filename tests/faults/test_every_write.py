"""A full disk, a failing disk and SIGKILL at every call that writes, makes, renames, syncs or deletes a file.

After each of them the same command, or `vrekit resume`, gives what an unbroken export gives. By default some of the
calls are tried; VREKIT_EXHAUSTIVE=1 tries all, which takes about half an hour.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None or sys.platform != "linux", reason="needs gcc and Linux")

KINDS = {"count": 0, "kill": 1, "no space": 2, "io error": 3, "no space once": 4, "io error once": 5}
EXHAUSTIVE = os.environ.get("VREKIT_EXHAUSTIVE", "") not in ("", "0")
SAMPLED = 4  # calls of each kind and writer that are tried by default
CONFIG = """
representations:
  rgb: {type: color/rgb, codec: npy}
  hsv: {type: color/hsv, deps: [rgb], store: false}
  canny: {type: edges/canny, codec: npy}
"""


class Server:
    """A process that runs vrekit commands in forks of itself, with the shim."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shim = folder / "shim.so"
        source = Path(__file__).with_name("shim.c")
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(shim), str(source), "-ldl"], check=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.server", str(shim)],
            env=os.environ | {"LD_PRELOAD": str(shim), "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return dict(json.loads(self.process.stdout.readline()))

    def run(self, *args: str, arm: tuple[int, int, str] | None = None) -> tuple[int, str, int]:
        """Run a command; returns its exit code (negative: the signal), its output and the calls counted."""
        output = self.folder / "output.txt"
        answer = self.ask(args=args, output=str(output), **({"arm": arm} if arm else {}))
        return os.waitstatus_to_exitcode(answer["status"]), output.read_text(), answer["said"] or 0

    def close(self) -> None:
        self.process.communicate()


class Export:
    """One small export that is broken again and again, and what it gives when it is not."""

    def __init__(self, server: Server, folder: Path, writer: str) -> None:
        self.server = server
        self.writer = writer
        self.output = folder / writer
        self.command = ["export", str(folder / "clip.npy"), "-o", str(self.output), "-c", str(folder / "config.yaml")]
        self.command += ["--writer", writer, "--shard-frames", "4", "--threads", "1", "--no-progress"]
        code, output, self.calls = server.run(*self.command, arm=(KINDS["count"], 0, str(self.output)))
        assert code == 0, output
        self.unbroken = self.state()
        assert not self.unbroken["problems"]
        self.outcomes: Counter[str] = Counter()

    def state(self) -> dict[str, Any]:
        code, output, _ = self.server.run("gc", str(self.output), "--older-than", "0")
        assert code == 0, output
        state: dict[str, Any] = self.server.ask(check=str(self.output))["said"]
        assert state is not None
        state["files"] = [name for name in state["files"] if not _has_a_name_of_its_own(name)]
        return state

    def broken_at(self, kind: str, k: int) -> str:
        """Break an export at call k, go on, and return what is wrong then."""
        shutil.rmtree(self.output, ignore_errors=True)
        code, output, _ = self.server.run(*self.command, arm=(KINDS[kind], k, str(self.output)))
        if (
            code not in ((-signal.SIGKILL, 0) if kind == "kill" else (0, 1))
            or "Traceback" in output
            or "Logging" in output
        ):
            return f"exit code {code}, {output}"
        stopped = {-signal.SIGKILL: "killed", 0: "finished", 1: "error"}[code]
        resumed, output, _ = self.server.run("resume", str(self.output), "--no-progress") if k % 2 else (1, "", 0)
        if "Traceback" in output:
            return f"resume: {output}"
        self.outcomes[f"{stopped}, then {'resumed' if resumed == 0 else 'exported again'}"] += 1
        if resumed != 0:
            code, output, _ = self.server.run(*self.command)
            if code != 0 or "Traceback" in output:
                return f"again: exit code {code}, {output}"
        try:
            state = self.state()
        except AssertionError as error:
            return str(error)
        return "; ".join(
            f"{what}: {state[what]}, unbroken {self.unbroken[what]}"
            for what in state
            if state[what] != self.unbroken[what]
        )


def _has_a_name_of_its_own(name: str) -> bool:
    """Return whether a file's name differs from run to run; temporary files never count as such."""
    return "tmp" not in name and name.startswith(("runs/", "lance/all.lance/", "index/"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    one = Server(tmp_path_factory.mktemp("server"))
    yield one
    one.close()


@pytest.fixture(scope="module", params=["webdataset", "lance"])
def broken(request: pytest.FixtureRequest, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Export:
    folder = tmp_path_factory.mktemp("export")
    clip: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (8, 16, 24, 3), np.uint8)
    np.save(folder / "clip.npy", clip)
    (folder / "config.yaml").write_text(CONFIG)
    return Export(server, folder, request.param)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "count"])
def test_every_write(broken: Export, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    step = 1 if EXHAUSTIVE else max(1, broken.calls // SAMPLED)
    broken.outcomes.clear()
    wrong = {}
    for k in range((step + 1) // 2, broken.calls + 1, step):
        if found := broken.broken_at(kind, k):
            wrong[k] = found
    if EXHAUSTIVE:
        with capsys.disabled():
            print(f"\n{broken.writer}, {kind}: {broken.calls} calls, {len(wrong)} wrong, {dict(broken.outcomes)}")
    assert not wrong, "\n".join(f"call {k} of {broken.calls}: {found}" for k, found in wrong.items())
