"""What an export wrote is what the readers read, and the examples of docs/reading.md run."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.conftest import QUICK_CONFIG
from tests.readers.test_readers_loader import signature
from vrekit.core.frames import FrameBatch, Output
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest
from vrekit.readers import FrameDataset, make_loader
from vrekit.representations.color.hsv import HSV

READING = Path(__file__).resolve().parents[2] / "docs" / "reading.md"


@pytest.fixture
def exported(make_request: Callable[..., ExportRequest]) -> Path:
    request = make_request(QUICK_CONFIG.replace("ultrafast}, codec: npy.zst}", "ultrafast}}"))
    export(request)
    return Path(request.dataset)


def test_an_export_reads_back(exported: Path, clip_array: NDArray[np.uint8]) -> None:
    dataset = FrameDataset(exported)
    assert dataset.representations == ("rgb", "hsv", "canny", "flow")
    batch = dataset[:]
    assert np.array_equal(batch["rgb"], clip_array)
    frames = FrameBatch(
        frames=np.empty((30, 0, 0, 3), np.uint8), indices=np.arange(30), pts_seconds=batch["pts_seconds"].numpy()
    )
    expected = HSV().compute(frames, {"rgb": Output(data=clip_array)})
    assert np.array_equal(batch["hsv"], expected.data)
    assert batch["flow.valid"].tolist() == [True] * 29 + [False]
    for name in dataset.representations:
        spec = dataset.spec(name)
        assert batch[name].shape == (30, *spec.shape)
        assert str(batch[name].dtype) == f"torch.{spec.dtype}"


def test_an_export_resumes_with_virtual_representations_and_a_subset(exported: Path) -> None:
    subset = [f"square/{frame:08d}" for frame in range(0, 30, 2)]
    options: dict[str, Any] = {"representations": ["hsv", "flow"], "subset": subset, "batch_size": 4, "seed": 9}
    loader = make_loader(exported, **options)
    states, sequence = [], []
    for batch in loader:
        sequence.append(signature(batch))
        states.append(loader.state_dict())
    for step, state in enumerate(states[:-1]):
        resumed = make_loader(exported, **options)
        resumed.load_state_dict(state)
        assert [signature(batch) for batch in resumed] == sequence[step + 1 :]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its tars open
def test_the_examples_of_the_docs_run(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(exported.parent)
    blocks = re.findall(r"```python\n(.*?)```", READING.read_text(), re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(READING), "exec"), names)
    assert names["loader"].epoch == 3
    assert torch.equal(names["sample"]["rgb"], names["again"]["rgb"])
    assert capsys.readouterr().out.splitlines() == [
        "30 edges torch.Size([32, 48, 3])",
        "['square/00000003', 'square/00000001'] torch.Size([2, 3, 32, 48])",
        "['square/00000002'] torch.Size([1, 3, 32, 48])",
    ]
    assert names["decoded"]["flow.npy.zst.vrk"].shape == (32, 48, 2)
