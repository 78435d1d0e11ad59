"""What an export wrote is what the readers read, and the examples of docs/reading.md run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import QUICK_CONFIG
from tests.readers.test_readers_loader import signature
from vrekit.core.frames import FrameBatch, Output
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest
from vrekit.readers import FrameDataset, make_loader
from vrekit.representations.color.hsv import HSV


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
