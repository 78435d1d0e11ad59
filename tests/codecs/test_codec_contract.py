"""What every registered codec promises; a new codec is tested by having a case in codec_samples."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.codecs.codec_samples import CASES, arrays
from vrekit.codecs.base import Codec
from vrekit.codecs.registry import codec_from_config, codec_names
from vrekit.testing import CodecContract

NAMES = sorted(CASES)


class TestRegistered(CodecContract):
    @pytest.fixture(autouse=True, params=NAMES)
    def choose(self, request: pytest.FixtureRequest) -> None:
        self.name = request.param
        self.is_bitwise = CASES[self.name].check.__name__ == "same"  # type: ignore[misc]  # of this instance

    def make_codec(self) -> Codec:
        return codec_from_config({"id": self.name, **CASES[self.name].options})

    def make_arrays(self, seed: int = 0) -> list[NDArray[Any]]:
        return arrays(self.name, seed)

    def check(self, original: NDArray[Any], decoded: NDArray[Any]) -> None:
        CASES[self.name].check(original, decoded)

    def from_config(self, config: Mapping[str, Any]) -> Codec:
        codec = codec_from_config(config)
        assert codec.id == self.name
        return codec


def test_every_registered_codec_has_a_case() -> None:
    assert set(codec_names()) == {*NAMES, "txt"}  # txt: test_codec_text.py


@pytest.mark.parametrize("stages", [["npy", "zstd", "zstd"], ["npy", {"id": "zstd", "level": 9}, "zstd", "zstd"]])
def test_packers_of_the_same_sort_follow_each_other(stages: list[Any]) -> None:
    codec = codec_from_config({"stages": stages})
    array = np.random.default_rng(0).integers(0, 5, (40, 100)).astype(np.uint8)
    data = codec.encode(array)
    for _ in range(3):  # the second time, the memory of the first is there to be used again
        assert np.array_equal(codec.decode(data, dtype=array.dtype, shape=array.shape), array)


@pytest.mark.parametrize("config", ["json.zst", {"id": "json.zst", "columns": []}, {"stages": ["arrow", "zstd"]}])
def test_rows_without_columns_unpack(config: Any) -> None:
    codec = codec_from_config(config)
    array = np.zeros((50_000, 0), np.float32)
    if isinstance(config, dict) and "stages" in config:  # and columns without rows
        codec = codec_from_config({"stages": [{"id": "arrow", "columns": [f"c{k}" for k in range(2000)]}, "zstd"]})
        array = np.zeros((0, 2000), np.float32)
    assert codec.decode(codec.encode(array), dtype=array.dtype, shape=array.shape).shape == array.shape
