"""A plug-in in a folder of its own: the contracts pass on a good one, and name what a bad one breaks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

REPRESENTATION = """
import numpy as np
from vrekit.representations.base import Kind, Output, OutputSpec, Representation
from vrekit.testing import RepresentationContract

class Mean(Representation):
    def __init__(self, scale: float = 1.0):
        self.scale = scale
    def output_spec(self, height, width, dependencies):
        return OutputSpec(kind=Kind.TABLE, dtype="float64", shape=(3,), axes="D")
    def compute(self, batch, dependencies):
        means = batch.frames.mean((1, 2)) * self.scale
        return Output(data=GOOD)

class TestMean(RepresentationContract):
    def make_representation(self):
        return Mean(2.0)
"""
CODEC = """
import numpy as np
from vrekit.codecs.base import Codec
from vrekit.core.errors import CodecError
from vrekit.testing import CodecContract

class Plain(Codec):
    id = suffix = "plain"
    def config(self):
        return {"id": "plain"}
    def __eq__(self, other):
        return type(other) is Plain
    __hash__ = None
    def encode(self, array):
        if array.dtype.kind not in "biuf":
            raise CodecError("no numbers")
        return bytes([array.dtype.num, *array.shape]) + np.ascontiguousarray(array).tobytes()
    def decode(self, data, *, dtype, shape, out=None):
        data = bytes(data)
        if data[: 1 + len(shape)] != bytes([dtype.num, *shape]):
            raise CodecError("another array")
        if out is None:
            out = np.empty(shape, dtype)
        elif (out.dtype, out.shape) != (dtype, shape) or not (out.flags.c_contiguous and out.flags.writeable):
            raise CodecError(f"out is {out.dtype} {out.shape}")
        out[...] = np.frombuffer(data, dtype, offset=1 + len(shape)).reshape(shape)
        return GOOD

class TestPlain(CodecContract):
    def make_codec(self):
        return Plain()
    def make_arrays(self, seed=0):
        shapes = [(0, 5), (1, 1), (3, 4), (1, 30), (13, 17)]
        return [np.random.default_rng(seed).random(shape, np.float32) for shape in shapes]
    def from_config(self, config):
        return Plain()
"""
STORAGE = """
from vrekit.testing import StorageContract
from vrekit.writers.memory.storage import MemoryStorage

class Mine(MemoryStorage):
    name = "mine"
    def rows(self, columns=None, video_ids=None):
        table = super().rows(columns, video_ids)
        return GOOD

class TestMine(StorageContract):
    storage = Mine
"""


def _pytest(text: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    (folder / "test_plugin.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), "."]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "good", "bad", "broken"),
    [
        (REPRESENTATION, "means", "means - means.mean()", "test_values_do_not_depend_on_the_batch"),
        (REPRESENTATION, "means", "means.astype(np.float32)", "test_output_is_what_the_spec_says"),
        (CODEC, "out", "np.round(out, 3)", "test_round_trip_within_the_stated_bound_for_all_shapes_and_dtypes"),
        (CODEC, "out", "out.copy()", "test_decodes_into_given_memory_from_any_buffer"),
        (STORAGE, "table", "table.slice(1)", "test_what_is_written_is_read_back"),
    ],
    ids=["batch", "dtype", "loss", "memory", "storage"],
)
def test_contracts_pass_good_plugins_and_name_what_bad_ones_break(
    text: str, good: str, bad: str, broken: str, tmp_path: Path
) -> None:
    right = _pytest(text.replace("GOOD", good), tmp_path)
    assert right.returncode == 0, right.stdout[-3000:]
    wrong = _pytest(text.replace("GOOD", bad), tmp_path)
    assert wrong.returncode == 1
    assert f"::{broken}" in wrong.stdout


def test_contracts_need_no_pytest(tmp_path: Path) -> None:
    """Importing vrekit and its contracts works where pytest is not installed."""
    script = "import sys; sys.modules['pytest'] = None; import vrekit; from vrekit.testing import StorageContract"
    hide = "import importlib.util as util; find = util.find_spec; "
    hide += "util.find_spec = lambda name, *rest: name != 'pytest' and find(name, *rest)"
    done = subprocess.run([sys.executable, "-c", f"{hide}; {script}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
