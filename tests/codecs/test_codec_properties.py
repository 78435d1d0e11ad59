"""Codecs against arrays that hypothesis makes up: any bits, any shape."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.codecs.codec_samples import CASES, Array, gaps_kept, within
from vrekit.codecs.registry import codec_from_config
from vrekit.core.errors import CodecError

some = settings(deadline=None, max_examples=60)
SIDES = st.tuples(st.integers(0, 9), st.integers(0, 9))


def round_trip(name: str, array: Array, **options: object) -> Array:
    codec = codec_from_config({"id": name, **options})
    return codec.decode(codec.encode(array), dtype=array.dtype, shape=array.shape)


@pytest.mark.parametrize("name", ["npy", "npy.zst", "pco"])
@some
@given(st.data())
def test_lossless_codecs_keep_every_bit(name: str, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(CASES[name].dtypes))
    array = data.draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6)))
    assert round_trip(name, array).tobytes() == array.tobytes()


@pytest.mark.parametrize("name", ["jls", "jxl", "png"])
@some
@given(st.data())
def test_image_codecs_keep_every_bit(name: str, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["uint8", "uint16"]))
    array = data.draw(hnp.arrays(dtype, SIDES))
    assert round_trip(name, array).tobytes() == array.tobytes()


@pytest.mark.parametrize("name", ["bits.npy.zst", "coco-rle"])
@some
@given(hnp.arrays(np.bool_, st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 9))))
def test_mask_codecs_keep_every_bit(name: str, array: Array) -> None:
    assert round_trip(name, array).tobytes() == array.tobytes()


@pytest.mark.parametrize("down", [True, False])
@some
@given(hnp.arrays(st.sampled_from([np.uint8, np.uint16]), hnp.array_shapes(min_dims=1, min_side=0, max_side=7)))
def test_delta_keeps_every_bit(down: bool, array: Array) -> None:
    codec = codec_from_config({"stages": [{"id": "delta", "down": down}, "byteplanes", "npy"]})
    assert codec.decode(codec.encode(array), dtype=array.dtype, shape=array.shape).tobytes() == array.tobytes()


@some
@given(hnp.arrays(st.sampled_from([np.float32, np.float64]), hnp.array_shapes(min_dims=0, min_side=0, max_side=6)))
def test_json_keeps_every_number(array: Array) -> None:
    np.testing.assert_array_equal(round_trip("json", array), array)


@some
@given(
    hnp.arrays(np.float32, SIDES, elements=st.floats(-5, 40, width=32) | st.just(np.nan)),
    st.integers(2, 16),
)
def test_uniform_error_is_at_most_half_a_step(array: Array, bits: int) -> None:
    decoded = round_trip("u16-delta", array, minimum=-5.0, maximum=40.0, bits=bits)
    within(45 / (2**bits - 2) / 2)(array, decoded)


@some
@given(hnp.arrays(np.float32, SIDES, elements=st.floats(0, 2**40, width=32) | st.sampled_from([np.nan, np.inf])))
def test_log_error_is_relative(array: Array) -> None:
    within(1e-6, relative=4e-4)(array, round_trip("log-delta", array))


@some
@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64]),
        st.tuples(st.integers(1, 6), st.integers(0, 5), st.integers(0, 5)),
        elements=st.floats(-40, 40, width=32) | st.integers(-3, 3).map(float) | st.sampled_from([np.nan, -np.inf]),
    ),
    st.integers(1, 253),
)
def test_gaplog_keeps_winner_and_gaps(array: Array, levels: int) -> None:
    decoded = round_trip("gaplog-delta", array, levels=levels)
    gaps_kept(levels, 16.0, are_probabilities=False)(array, decoded)


@pytest.mark.parametrize(
    "name", ["mm-delta", "flow-delta", "u16-delta", "u8-jls", "log-jxl", "oct-delta", "gaplog-jls"]
)
@some
@given(data=st.data())
def test_any_floats_are_kept_or_refused(name: str, data: st.DataObject) -> None:
    """Never a silently wrong value: what comes back is within the bound, or encode raises CodecError."""
    case = CASES[name]
    channels = {"flow-delta": (2,), "oct-delta": (3,)}.get(name, ())
    leading = (data.draw(st.integers(1, 4)),) if name == "gaplog-jls" else ()
    shape = (*leading, *data.draw(SIDES), *channels)
    array = data.draw(hnp.arrays(np.float32, shape))
    codec = codec_from_config({"id": name, **case.options})
    refused = None
    try:
        data_bytes = codec.encode(array)
    except CodecError as error:
        refused, data_bytes = error, b""
    if refused is None:
        case.check(array, codec.decode(data_bytes, dtype=array.dtype, shape=array.shape))
    else:
        assert refused.hint
