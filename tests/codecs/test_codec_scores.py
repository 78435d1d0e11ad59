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


@pytest.mark.parametrize("classes", [19, 300, 3000])
@pytest.mark.parametrize("store_as", [None, "top-k", "top-7"])
def test_float16_probabilities_of_many_classes_sum_to_one(classes: int, store_as: str | None) -> None:
    scores = np.random.default_rng(0).normal(0, 0.3, (classes, 11, 13))
    scores[3] += 4
    array = softmax(scores.reshape(classes, -1)).reshape(scores.shape).astype(np.float16)
    option = "npy.zst" if store_as else "gaplog-delta"
    spec = OutputSpec(kind=Kind.PROBABILITIES, dtype="float16", shape=array.shape, axes="CHW")
    decoded, _ = stored(array, spec, option, store_as=store_as)
    np.testing.assert_allclose(decoded.astype(np.float64).sum(axis=0), 1.0, atol=2e-3)
    np.testing.assert_array_equal(winner(decoded), winner(array))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("store_as", [None, "top-3"])
def test_the_finest_levels_keep_the_winner(dtype: str, store_as: str | None) -> None:
    scores = np.random.default_rng(0).normal(0, 0.02, (7, 200, 100))
    array = softmax(scores.reshape(7, -1)).reshape(scores.shape).astype(dtype)
    spec = OutputSpec(kind=Kind.PROBABILITIES, dtype=dtype, shape=array.shape, axes="CHW")
    fine = {"levels": 253, "max_gap": 0.1, "scores": "probabilities"}
    stage = {"id": "topk", "k": 3, **fine} if store_as else {"id": "gaplog", **fine}
    decoded, _ = stored(array, spec, {"stages": [stage, "planes", "npy"]})
    np.testing.assert_array_equal(winner(decoded), winner(array))


@pytest.mark.parametrize("stage", ["gaplog", {"id": "topk", "k": 2}, {"id": "topk", "k": 4}])
@pytest.mark.parametrize(
    ("scores", "dtype"),
    [([0, -10, -105, -200], "float32"), ([3e38, 0, -3e38, -3e38], "float32"), ([1e300, 0, -1e300, -1e308], "float64")],
)
def test_gaps_of_any_size_saturate_and_are_not_taken_for_impossible(
    stage: Any, scores: list[float], dtype: str
) -> None:
    array = np.array(scores, dtype).reshape(4, 1, 1)
    decoded, _ = stored(array, spec_of(array), {"stages": [stage, "planes", "npy"]})
    np.testing.assert_allclose(decoded[2:].ravel(), -16, rtol=1e-6)
    assert decoded[0] == 0
    array[3] = -np.inf
    decoded, _ = stored(array, spec_of(array), {"stages": ["gaplog", "npy"]})
    assert np.isneginf(decoded[3]).all()


def test_the_smallest_probabilities_saturate_and_are_not_taken_for_zero() -> None:
    array = np.array([1, 1e-45, 1e-40, 0], np.float32).reshape(4, 1, 1)
    decoded, _ = stored(array, spec_of(array, Kind.PROBABILITIES), "gaplog-jls")
    np.testing.assert_allclose(decoded.ravel(), [1, np.exp(-16), np.exp(-16), 0], rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("axes", ["CHW", "HWC"])
def test_logits_of_probabilities_keep_a_winner_that_rounding_would_level(dtype: str, axes: str) -> None:
    rng = np.random.default_rng(0)
    array = rng.uniform(0.01, 0.2, (6, 100, 100)).astype(dtype)
    best, at = array.max(axis=0), array.argmax(axis=0)
    np.put_along_axis(array, (at[None] - 1) % 6, np.nextafter(best, np.zeros_like(best))[None], 0)
    array[:, 0, 0] = np.nan
    array[:, 1, 1] = 0
    wanted = winner(array)
    array = np.ascontiguousarray(np.moveaxis(array, 0, axes.index("C")))
    converted = as_logits(array, spec_of(array, Kind.PROBABILITIES, axes))
    logits = np.moveaxis(converted.data, axes.index("C"), 0)
    np.testing.assert_array_equal(winner(logits), wanted)
    assert np.isneginf(logits[:, 1, 1]).all()
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(converted.data, np.log(array), rtol=4 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("axes", ["CHW", "HWC"])
@pytest.mark.parametrize(
    ("convert", "kind"),
    [
        *(
            (convert, kind)
            for convert in (as_indices, as_logits, as_probabilities)
            for kind in (Kind.LOGITS, Kind.PROBABILITIES)
        ),
        (as_indices, Kind.INDICES),
        (as_probabilities, Kind.INDICES),
    ],
)
def test_a_batch_is_converted_frame_by_frame(convert: Any, kind: Kind, axes: str) -> None:
    rng = np.random.default_rng(1)
    if kind is Kind.INDICES:
        batch = rng.integers(0, 5, (3, 7, 11)).astype(np.uint8)
        spec = OutputSpec(kind=kind, dtype="uint8", shape=batch.shape[1:], axes="HW", classes=NAMES)
    else:
        batch = np.stack([sample(kind=kind) + np.float32(0) for _ in range(3)])
        batch[1] = batch[1, :, ::-1]
        batch = np.ascontiguousarray(np.moveaxis(batch, 1, 1 + axes.index("C")))
        spec = spec_of(batch[0], kind, axes)
    whole = convert(batch, spec)
    for frame, data in zip(batch, whole.data, strict=True):
        one = convert(frame, spec)
        assert data.dtype == one.data.dtype
        np.testing.assert_array_equal(data, one.data)
        assert whole.spec == one.spec
    assert convert(batch[:0], spec).data.shape == (0, *whole.data.shape[1:])


def test_tensors_of_a_loader_are_converted() -> None:
    torch = pytest.importorskip("torch")
    array = sample()
    expected = as_indices(array, spec_of(array)).data
    batch = torch.from_numpy(np.stack([array, array]))
    np.testing.assert_array_equal(as_indices(batch, spec_of(array)).data, np.stack([expected, expected]))


@pytest.mark.parametrize("convert", [as_indices, as_logits, as_probabilities])
def test_scores_of_another_shape_are_refused(convert: Any) -> None:
    array = sample()
    for wrong in (array[0], array[None, None], array[:4], np.moveaxis(array, 0, 2)):
        with pytest.raises(UsageError, match="shape"):
            convert(wrong, spec_of(array))
