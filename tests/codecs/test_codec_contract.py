"""What every registered codec promises; a new codec is tested by having a case in codec_samples."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tests.codecs.codec_samples import CASES, arrays
from vrekit.codecs.base import Codec
from vrekit.codecs.registry import codec_from_config, codec_names
from vrekit.core.errors import CodecError

NAMES = sorted(CASES)


def make(name: str) -> Codec:
    return codec_from_config({"id": name, **CASES[name].options})


def test_every_registered_codec_has_a_case() -> None:
    assert set(codec_names()) == {*NAMES, "txt"}  # txt: test_codec_text.py


@pytest.mark.parametrize("name", NAMES)
def test_round_trip_within_the_stated_bound_for_all_shapes_and_dtypes(name: str) -> None:
    codec = make(name)
    for array in arrays(name):
        before = array.copy()
        data = codec.encode(array)
        assert type(data) is bytes
        decoded = codec.decode(data, dtype=array.dtype, shape=array.shape)
        assert (decoded.dtype, decoded.shape) == codec.decoded_layout(array.dtype, array.shape)
        assert decoded.flags.writeable
        assert decoded.flags.c_contiguous
        assert len(data) <= codec.max_encoded_size(decoded.dtype, decoded.shape)
        CASES[name].check(array, decoded)
        assert array.tobytes() == before.tobytes(), "encode changed its input"


@pytest.mark.parametrize("name", NAMES)
def test_stored_config_alone_decodes(name: str) -> None:
    codec = make(name)
    stored = json.loads(json.dumps(codec.config()))
    again = codec_from_config(stored)
    assert again == codec
    assert again.config() == codec.config()
    assert (again.id, again.suffix) == (name, codec.suffix)
    array = arrays(name)[-1]
    one, two = (c.decode(codec.encode(array), dtype=array.dtype, shape=array.shape) for c in (codec, again))
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_decodes_into_given_memory_from_any_buffer(name: str) -> None:
    codec = make(name)
    for array in arrays(name)[-4:]:
        data = codec.encode(array)
        expected = codec.decode(data, dtype=array.dtype, shape=array.shape)
        batch = np.zeros((3, *array.shape), array.dtype)
        for buffer in (data, bytearray(data), memoryview(data)):
            batch[:] = 0
            out = batch[1, ...]
            assert codec.decode(buffer, dtype=array.dtype, shape=array.shape, out=out) is out
            assert out.tobytes() == expected.tobytes()
            assert not batch[0].any()
            assert not batch[2].any()


@pytest.mark.parametrize("name", NAMES)
def test_takes_arrays_of_any_memory_order(name: str) -> None:
    codec = make(name)
    array = arrays(name)[-1]
    expected = codec.encode(array)
    assert codec.encode(np.asfortranarray(array)) == expected
    wide = np.repeat(array, 2, axis=-1)[..., ::2]
    assert codec.encode(wide) == expected
    array.flags.writeable = False
    assert codec.encode(array) == expected


@pytest.mark.parametrize("name", NAMES)
def test_refuses_out_of_another_layout(name: str) -> None:
    codec = make(name)
    array = next(a for a in reversed(arrays(name)) if a.ndim > 1 and a.size)
    data = codec.encode(array)
    other = np.dtype(np.complex64)
    read_only = np.empty(array.shape, array.dtype)
    read_only.flags.writeable = False
    wrong = (
        np.empty(array.shape, other),
        np.empty((*array.shape, 1), array.dtype),
        np.empty(array.shape[::-1], array.dtype).T if array.shape != array.shape[::-1] else read_only,
        read_only,
    )
    for out in wrong:
        if (out.dtype, out.shape) == (array.dtype, array.shape) and out.flags.c_contiguous and out.flags.writeable:
            continue
        with pytest.raises(CodecError, match="out is"):
            codec.decode(data, dtype=array.dtype, shape=array.shape, out=out)


@pytest.mark.parametrize("name", NAMES)
def test_refuses_bytes_of_another_shape_or_dtype(name: str) -> None:
    codec = make(name)
    case = CASES[name]
    array = next(a for a in reversed(arrays(name)) if a.size > 20)
    data = codec.encode(array)
    for other in (arrays(name)[0], next(a for a in arrays(name) if 0 < a.size < array.size)):
        if other.dtype == array.dtype and other.size != array.size:
            with pytest.raises(CodecError):
                codec.decode(data, dtype=array.dtype, shape=other.shape)
    if case.check.__name__ == "same":
        wider = np.dtype(np.float64) if array.dtype != np.float64 else np.dtype(np.float32)
        with pytest.raises(CodecError):
            codec.decode(data, dtype=wider, shape=array.shape)


@pytest.mark.parametrize("name", NAMES)
def test_refuses_arrays_it_cannot_hold(name: str) -> None:
    with pytest.raises(CodecError):
        make(name).encode(np.array(["text"]))
    with pytest.raises(CodecError):
        make(name).encode(np.array([object()]))


@pytest.mark.parametrize("name", NAMES)
def test_one_codec_serves_many_threads(name: str) -> None:
    codec = make(name)
    samples = [a for seed in range(3) for a in arrays(name, seed)[-3:]]
    encoded = [codec.encode(array) for array in samples]
    expected = [codec.decode(d, dtype=a.dtype, shape=a.shape).tobytes() for d, a in zip(encoded, samples, strict=True)]

    def work(at: int) -> bool:
        array = samples[at % len(samples)]
        data = codec.encode(array)
        decoded = codec.decode(data, dtype=array.dtype, shape=array.shape)
        return data == encoded[at % len(samples)] and decoded.tobytes() == expected[at % len(samples)]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(64)))


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
