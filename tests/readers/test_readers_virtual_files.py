"""Virtual representations whose class stands in a file of the user's."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest
from vrekit.readers.dataset import FrameDataset

TYPE = """
from vrekit.representations.base import Kind, Output, OutputSpec, Representation

class Negative(Representation):
    inputs = ((Kind.COLOR,),)
    uses_frames = False
    def output_spec(self, height, width, dependencies):
        return next(iter(dependencies.values()))
    def compute(self, batch, dependencies):
        return Output(data=255 - next(iter(dependencies.values())).data)
"""


def test_the_file_is_found_from_any_folder(
    make_request: Callable[..., ExportRequest],
    clip_array: NDArray[np.uint8],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "mine.py").write_text(TYPE)
    config = """
representations:
  rgb: {type: color/rgb, codec: png}
  negative: {type: "mine.py:Negative", deps: [rgb], store: false}
"""
    request = make_request(config=config, config_folder=folder)
    export(request)
    monkeypatch.chdir("/")
    dataset = FrameDataset(request.dataset, ["negative"])
    np.testing.assert_array_equal(np.asarray(dataset[4]["negative"]), 255 - clip_array[4])
