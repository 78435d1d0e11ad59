"""A dataset of two videos, 23 + 8 frames, with colour, depth and one number per frame."""

from pathlib import Path

import pytest

from tests.readers.reader_dataset import DEPTH, LABEL, RGB, DatasetBuilder, record


@pytest.fixture(scope="session")
def frames_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = {"rgb": record("rgb", RGB), "depth": record("depth", DEPTH, "npy.zst"), "label": record("label", LABEL)}
    builder = DatasetBuilder(tmp_path_factory.mktemp("frames"), records)
    builder.add("car", range(23))
    builder.add("airport", range(100, 108))
    return builder.write()
