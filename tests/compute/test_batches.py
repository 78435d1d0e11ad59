"""Outputs of a batch: handed on whole, and torch tensors stay tensors until their values are encoded."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine.test_export import decoded
from vrekit.compute.processor import Computed
from vrekit.core.frames import Output
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest

TENSORS = """
import numpy as np
import torch
from vrekit.representations.base import Kind, Output, OutputSpec, Representation

SEEN = []

class Model(Representation):
    def output_spec(self, height, width, dependencies):
        return OutputSpec(kind=Kind.EMBEDDING, dtype="float32", shape=(3,), axes="K")

    def compute(self, batch, dependencies):
        means = torch.from_numpy(batch.frames).float().mean(dim=(1, 2))
        return Output(data=means.requires_grad_())

class Wrong(Model):
    def compute(self, batch, dependencies):
        return Output(data=super().compute(batch, dependencies).data.double())

class OnDevice(Model):
    inputs = None
    uses_frames = False
    takes_tensors = True

    def compute(self, batch, dependencies):
        (output,) = dependencies.values()
        assert isinstance(output.data, torch.Tensor)
        return Output(data=output.data * 2)

class InNumpy(OnDevice):
    takes_tensors = False

    def compute(self, batch, dependencies):
        (output,) = dependencies.values()
        assert isinstance(output.data, np.ndarray)
        return Output(data=output.data * 2)
"""

CONFIG = """
representations:
  model: {type: 'tensors.py:Model', codec: npy}
  on_device: {type: 'tensors.py:OnDevice', deps: [model], codec: npy}
  in_numpy: {type: 'tensors.py:InNumpy', deps: [model], codec: npy}
  small: {type: 'tensors.py:Model', codec: npy, output_dtype: float16}
  wrong: {type: 'tensors.py:Wrong', codec: npy}
"""


def test_a_batch_stays_whole() -> None:
    data = np.arange(12.0).reshape(4, 3)
    computed = Computed()
    computed.add([10, 11, 12, 13], Output(data=data))
    assert np.may_share_memory(computed.output([10, 11, 12, 13]).data, data)
    assert np.may_share_memory(computed.output([11, 12]).data, data)
    assert np.array_equal(computed.output([11, 12]).data, data[1:3])
    assert np.array_equal(computed.output([10, 13]).data, data[[0, 3]])


def test_outputs_of_several_calls_are_joined() -> None:
    computed = Computed()
    computed.add([1, 2], Output(data=np.zeros((2, 3)), valid=np.array([True, False])))
    computed.add([5], Output(data=[np.ones(3)]))
    joined = computed.output([2, 5])
    assert np.asarray(joined.data).tolist() == [[0, 0, 0], [1, 1, 1]]
    assert np.asarray(joined.valid).tolist() == [False, True]
    assert (len(computed), 2 in computed, 3 in computed) == (3, True, False)


def test_text_and_ragged_outputs_are_lists() -> None:
    text, ragged = Computed(), Computed()
    text.add([0, 1], Output(data=np.array(["a", "bc"])))
    assert [str(one) for one in text.output([0, 1]).data] == ["a", "bc"]
    ragged.add([0, 1], Output(data=[np.zeros((2, 4)), np.zeros((3, 4))]))
    assert [len(one) for one in ragged.output([0, 1]).data] == [2, 3]


@pytest.mark.parametrize("frames", [[1, 2], [0, 2, 3]])
def test_tensors_are_selected_as_tensors(frames: list[int]) -> None:
    computed = Computed()
    computed.add([0, 1, 2, 3], Output(data=torch.arange(4.0)[:, None]))
    kept = computed.output(frames, tensors=True).data
    assert isinstance(kept, torch.Tensor)
    assert kept[:, 0].tolist() == frames
    assert isinstance(computed.output(frames).data, np.ndarray)


def test_a_tensor_is_converted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    computed = Computed()
    computed.add([0, 1, 2], Output(data=torch.zeros(3, 2)))
    converted: list[Output] = []
    whole = Output.as_numpy

    def counted(self: Output) -> Output:
        converted.append(self)
        return whole(self)

    monkeypatch.setattr(Output, "as_numpy", counted)
    for frame in (0, 1, 2):
        assert computed.array(frame).shape == (2,)
    assert len(converted) == 1


def test_an_export_takes_tensors(make_request: Callable[..., ExportRequest], tmp_path: Path) -> None:
    (tmp_path / "tensors.py").write_text(TENSORS)
    request = make_request(config=CONFIG, config_folder=tmp_path, max_failures=1000)
    report = export(request)
    assert report.totals["wrong"].failed == 30
    assert "returned float64 (3,), but its output_spec promises float32" in str(report.failures[0]["error"])
    frames = np.load(request.video)
    means = frames.astype(np.float32).mean(axis=(1, 2))
    found = {name: decoded(request.dataset, name) for name in ("model", "on_device", "in_numpy", "small")}
    for frame, mean in enumerate(means):
        assert np.allclose(found["model"][frame], mean, rtol=1e-5)
        assert np.array_equal(found["on_device"][frame], found["model"][frame] * 2)
        assert np.array_equal(found["in_numpy"][frame], found["model"][frame] * 2)
        assert found["small"][frame].dtype == np.float16
