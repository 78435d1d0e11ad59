"""Class scores: stored forms, winners that survive, and what a reader gets back."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.codecs.codec_samples import Array, gaps_kept, logits, probabilities, winner
from vrekit.codecs.registry import codec_for
from vrekit.codecs.stages.softmax import softmax
from vrekit.codecs.store_as import as_indices, as_logits, as_probabilities
from vrekit.core.errors import UsageError
from vrekit.core.spec import Kind, OutputSpec

NAMES = ("road", "car", "tree", "sky", "house")


def spec_of(array: Array, kind: Kind = Kind.LOGITS, axes: str = "CHW") -> OutputSpec:
    return OutputSpec(kind=kind, dtype=array.dtype.name, shape=array.shape, axes=axes, classes=NAMES)


def sample(dtype: str = "float32", kind: Kind = Kind.LOGITS) -> Array:
    make = logits if kind is Kind.LOGITS else probabilities
    return make(np.random.default_rng(3), (5, 13, 17), np.dtype(dtype))


def stored(array: Array, spec: OutputSpec, option: Any = None, **options: Any) -> tuple[Array, OutputSpec]:
    codec = codec_for(option, spec, **options)
    dtype, shape = codec.decoded_layout(array.dtype, array.shape)
    decoded_spec = codec.decoded_spec(spec)
    assert decoded_spec.dtype == dtype.name
    assert decoded_spec.shape == shape
    return codec.decode(codec.encode(array), dtype=dtype, shape=shape), decoded_spec


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("option", ["gaplog-jls", "gaplog-delta", {"id": "gaplog-jxl", "levels": 63}])
def test_probabilities_keep_winner_sum_and_gaps(dtype: str, option: Any) -> None:
    array = sample(dtype, Kind.PROBABILITIES)
    decoded, _ = stored(array, spec_of(array, Kind.PROBABILITIES), option)
    levels = option["levels"] if isinstance(option, dict) else 100
    gaps_kept(levels, 16.0, are_probabilities=True)(array, decoded)
    valid = ~np.isnan(array).any(axis=0)
    np.testing.assert_allclose(decoded.astype(np.float64).sum(axis=0)[valid], 1.0, atol=2e-3)
    assert (decoded[:, valid][array[:, valid] == 0] == 0).all()


def test_channel_last_scores_give_the_same_bytes() -> None:
    array = sample()
    last = np.ascontiguousarray(np.moveaxis(array, 0, 2))
    for option in ("gaplog-jls", "gaplog-delta", "pco"):
        first_codec, last_codec = codec_for(option, spec_of(array)), codec_for(option, spec_of(last, axes="HWC"))
        data = first_codec.encode(array)
        assert last_codec.encode(last) == data
        one = first_codec.decode(data, dtype=array.dtype, shape=array.shape)
        two = last_codec.decode(data, dtype=last.dtype, shape=last.shape)
        np.testing.assert_array_equal(np.moveaxis(two, 2, 0), one)


@pytest.mark.parametrize("form", ["logits", "probabilities", "indices", "top-k", "top-2", "top-9"])
@pytest.mark.parametrize("option", [None, "npy.zst", "lossless", "lossy"])
def test_the_winner_survives_every_form_and_codec(form: str, option: Any) -> None:
    array = sample()
    decoded, spec = stored(array, spec_of(array), option, store_as=form)
    found = as_indices(decoded, spec).data
    expected = as_indices(array, spec_of(array)).data
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(expected, np.where(winner(array) < 0, 255, winner(array)))


@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64]),
        st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4)),
        elements=st.floats(-2, 2, width=16) | st.sampled_from([1.0, 1 + 2**-10]),
    ),
    st.sampled_from(["logits", "probabilities", "indices", "top-k"]),
)
@settings(deadline=None, max_examples=60)
def test_the_winner_survives_near_ties(array: Array, form: str) -> None:
    spec = OutputSpec(kind=Kind.LOGITS, dtype=array.dtype.name, shape=array.shape, axes="CHW")
    decoded, decoded_spec = stored(array, spec, store_as=form)
    np.testing.assert_array_equal(as_indices(decoded, decoded_spec).data, array.argmax(axis=0))


def test_softmax_keeps_a_winner_that_rounding_would_level() -> None:
    close = np.nextafter(np.float32(1), np.float32(0))
    column = np.array([[close * 1e-7], [np.float32(1e-7)], [-1.0]], np.float32)
    assert column.argmax() == 1
    assert softmax(column).argmax() == 1
    assert softmax(np.array([[1.0], [1.0]], np.float32)).argmax() == 0


def test_top_k_keeps_the_best_and_shares_the_rest() -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(0, 3, (5, 9, 11)).astype(np.float32)
    decoded, spec = stored(array, spec_of(array), store_as="top-2")
    assert spec.kind is Kind.LOGITS
    order = np.argsort(-array, axis=0, kind="stable")
    exact, found = as_probabilities(array, spec).data, as_probabilities(decoded, spec).data
    np.testing.assert_allclose(
        np.take_along_axis(found, order[:2], 0), np.take_along_axis(exact, order[:2], 0), atol=0.006
    )
    rest = np.take_along_axis(found, order[2:], 0)
    assert (rest == rest[0]).all()
    np.testing.assert_allclose(rest.sum(axis=0), np.take_along_axis(exact, order[2:], 0).sum(axis=0), atol=0.006)


def test_top_k_of_many_classes_and_of_probabilities() -> None:
    rng = np.random.default_rng(1)
    many = rng.normal(0, 3, (300, 4, 5)).astype(np.float32)
    spec = OutputSpec(kind=Kind.LOGITS, dtype="float32", shape=many.shape, axes="CHW")
    decoded, _ = stored(many, spec, store_as="top-k")
    np.testing.assert_array_equal(decoded.argmax(axis=0), many.argmax(axis=0))
    array = sample(kind=Kind.PROBABILITIES)
    decoded, spec = stored(array, spec_of(array, Kind.PROBABILITIES), store_as="top-k")
    assert spec.kind is Kind.PROBABILITIES
    np.testing.assert_array_equal(winner(decoded), winner(array))


def test_readers_learn_what_was_lost() -> None:
    array = sample()
    spec = spec_of(array)
    assert as_logits(array, spec).lost == ""
    probable = as_probabilities(array, spec)
    assert "offset" in probable.lost
    assert probable.spec.kind is Kind.PROBABILITIES
    np.testing.assert_allclose(np.nansum(probable.data, axis=0)[~np.isnan(probable.data).any(axis=0)], 1, atol=1e-6)
    back = as_logits(probable.data, probable.spec)
    np.testing.assert_array_equal(winner(back.data), winner(array))
    ids = as_indices(array, spec)
    assert "only the winner" in ids.lost
    assert (ids.spec.kind, ids.spec.shape, ids.spec.axes, ids.spec.invalid_value) == (Kind.INDICES, (13, 17), "HW", 255)
    hot = as_probabilities(ids.data, ids.spec)
    assert hot.data.shape == (5, 13, 17)
    np.testing.assert_array_equal(winner(hot.data), winner(array))
    with pytest.raises(UsageError, match="no logits"):
        as_logits(ids.data, ids.spec)
    depth = OutputSpec(kind=Kind.DEPTH, dtype="float32", shape=(13, 17), axes="HW")
    with pytest.raises(UsageError, match="depth cannot be read as indices"):
        as_indices(array[0], depth)


def test_impossible_forms_are_refused() -> None:
    array = sample(kind=Kind.PROBABILITIES)
    spec = spec_of(array, Kind.PROBABILITIES)
    with pytest.raises(UsageError, match="'logits' does not go with probabilities") as caught:
        codec_for(None, spec, store_as="logits")
    assert "indices" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="did you mean 'indices'"):
        codec_for(None, spec, store_as="indixes")
    with pytest.raises(UsageError, match="depth"):
        codec_for(None, OutputSpec(kind=Kind.DEPTH, dtype="float32", shape=(3, 4), axes="HW"), store_as="indices")
