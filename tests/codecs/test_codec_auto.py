"""`codec: auto`: what is tried, what is kept, and the measurements behind it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vrekit.codecs import auto
from vrekit.codecs.auto import candidates, choose_codec, fitting_codecs
from vrekit.codecs.measure import Measurement, measure, measure_npz
from vrekit.codecs.profiles import PROFILES, is_auto
from vrekit.codecs.registry import codec_for, codec_from_config
from vrekit.codecs.stages.octahedral import _vectors
from vrekit.core.errors import CodecError, UsageError
from vrekit.core.spec import Kind, OutputSpec


def spec(kind: Kind, dtype: str, shape: tuple[int | None, ...], axes: str, **options: Any) -> OutputSpec:
    return OutputSpec(kind=kind, dtype=dtype, shape=shape, axes=axes, **options)


RGB = spec(Kind.COLOR, "uint8", (24, 32, 3), "HWC", natural=True)
METRES = spec(Kind.DEPTH, "float32", (24, 32), "HW", unit="m")
NORMALS = spec(Kind.NORMALS, "float32", (24, 32, 3), "HWC")
LOGITS = spec(Kind.LOGITS, "float32", (5, 24, 32), "CHW")
BOXES = spec(Kind.BOXES, "float32", (None, 4), "KC", unit="px", columns=("x1", "y1", "x2", "y2"))
TEXT = spec(Kind.TEXT, "str", (), "")


def frames(of: OutputSpec, count: int = 3) -> list[NDArray[Any]]:
    """Smooth content that changes a little from frame to frame."""
    height, width = 24, 32
    y, x = np.mgrid[0:height, 0:width] / 32
    result: list[NDArray[Any]] = []
    for number in range(count):
        wave = np.sin(5 * x + y + 0.1 * number)
        if of is RGB:
            result.append((127 + 100 * np.stack([wave, -wave, wave**2], -1)).astype(np.uint8))
        elif of is METRES:
            result.append((5 + 3 * wave).astype(np.float32))
        elif of is NORMALS:
            vectors = np.stack([wave, 0.3 * np.cos(y), np.ones_like(wave)], -1)
            result.append((vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32))
        elif of is LOGITS:
            result.append(np.stack([wave * (4 - c) - c for c in range(5)]).astype(np.float32))
        else:
            result.append(np.arange(4 * number, dtype=np.float32).reshape(-1, 4) + 0.25)
    return result


def speeds(by_label: dict[str, tuple[int, float]]) -> Callable[..., Measurement]:
    """A stand-in for the clock: sizes and decoding speeds (MB/s) by label; of all others large and slow."""

    def fake(codec: Any, arrays: Any, spec: Any, *, label: str, **options: Any) -> Measurement:
        size, mbps = by_label.get(label, (1 << 30, 1.0))
        return Measurement(
            label=label,
            config=codec.config(),
            frames=len(arrays),
            raw_bytes=1_000_000,
            stored_bytes=size,
            encode_seconds=1.0,
            decode_seconds=1.0 / mbps,
            errors={},
            fidelity="",
        )

    return fake


def test_what_asks_for_a_choice() -> None:
    assert is_auto("auto")
    assert is_auto({"id": "auto", "min_decode_mbps": 200})
    assert not any(is_auto(option) for option in (None, "npy", {"id": "npy"}, {"stages": ["npy"]}))


@pytest.mark.parametrize("profile", PROFILES)
def test_where_the_default_is_exact_only_exact_codecs_are_tried(profile: str) -> None:
    for one in (spec(Kind.INDICES, "uint8", (24, 32), "HW"), spec(Kind.EMBEDDING, "float32", (64,), "D")):
        tried = candidates(one, profile=profile)
        assert len(tried) > 2 or profile == "plain"
        assert all(candidate.codec.is_exact for candidate in tried)
    balanced = [candidate.label for candidate in candidates(RGB, profile="balanced")]
    assert {"jxl", "jxl (effort: 7)", "png", "rgb-delta", "webp"} <= set(balanced)
    assert not {"arrow", "jpg", "json", "json.zst"} & set(balanced)


def test_a_lossy_default_is_tried_with_the_same_loss_only() -> None:
    for of, prefix in ((METRES, "log-"), (LOGITS, "gaplog-")):
        lossy = [one.label for one in candidates(of, profile="balanced") if not one.codec.is_exact]
        assert len(lossy) >= 3
        assert all(label.startswith(prefix) for label in lossy)
    (jpg,) = [one.codec for one in candidates(RGB, profile="training") if not one.codec.is_exact]
    assert jpg.config() == codec_for(None, RGB, profile="training").config()
    boxes = [one.label for one in candidates(BOXES, profile="balanced")]
    assert {"arrow", "json", "json.zst", "npy", "npy.zst", "pco"} <= set(boxes)
    assert not {"f16.npy", "jxl", "log-delta"} & set(boxes)


def test_a_stored_form_is_never_traded_for_another() -> None:
    for candidate in candidates(LOGITS, profile="balanced", store_as="indices"):
        decoded = candidate.codec.decoded_spec(LOGITS)
        assert (decoded.kind, decoded.dtype) == (Kind.INDICES, "uint8")


def test_the_smallest_that_is_fast_enough_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"jxl (effort: 7)": (60, 20.0), "jxl": (100, 180.0), "rgb-delta": (110, 600.0), "png": (200, 300.0)}
    monkeypatch.setattr(auto, "measure", speeds(table))
    chosen = {
        floor: choose_codec({"id": "auto", "min_decode_mbps": floor}, RGB, frames(RGB)).config["id"]
        for floor in (0, 150, 200, 10_000)
    }
    assert chosen == {0: "jxl", 150: "jxl", 200: "rgb-delta", 10_000: "rgb-delta"}  # none is fast enough: the fastest
    slow = choose_codec({"id": "auto", "min_decode_mbps": 0}, RGB, frames(RGB))
    assert slow.config["stages"][0]["effort"] == 7
    assert choose_codec("auto", RGB, frames(RGB), profile="archive").config == slow.config
    assert choose_codec("auto", RGB, frames(RGB), profile="balanced").config["stages"][0]["effort"] == 1


@pytest.mark.parametrize("of", [RGB, METRES, NORMALS, LOGITS, BOXES], ids=lambda one: one.kind)
def test_what_is_chosen_is_no_larger_than_the_default_and_decodes(of: OutputSpec) -> None:
    arrays = [array for array in frames(of) if array.size]
    choice = choose_codec({"id": "auto", "min_decode_mbps": 0}, of, arrays)
    codec, default = codec_from_config(choice.config), codec_for(None, of)
    assert sum(len(codec.encode(array)) for array in arrays) <= sum(len(default.encode(array)) for array in arrays)
    for array in arrays:
        dtype, shape = codec.decoded_layout(array.dtype, array.shape)
        decoded = codec.decode(codec.encode(array), dtype=dtype, shape=shape)
        expected = default.decode(default.encode(array), dtype=dtype, shape=shape)
        if not codec.is_exact:
            np.testing.assert_array_equal(decoded, expected)


def test_the_config_does_not_repeat_the_stored_form() -> None:
    choice = choose_codec("auto", LOGITS, frames(LOGITS), store_as="indices")
    codec = codec_for(choice.config, LOGITS, store_as="indices")
    assert [stage["id"] for stage in codec.config()["stages"]].count("indices") == 1
    assert codec.id == f"indices-{choice.config['id']}"


def test_without_a_frame_or_an_alternative_it_is_the_default() -> None:
    assert choose_codec("auto", RGB, []).config == codec_for(None, RGB).config()
    assert choose_codec("auto", TEXT, [np.array("a caption")]).config == codec_for(None, TEXT).config()
    assert codec_for("auto", RGB, profile="training").config() == codec_for(None, RGB, profile="training").config()


def test_codecs_that_refuse_the_frames_are_left_out() -> None:
    """Infinite depth fits `log-*` and `pco`; depth beyond 65.5 m fits no `mm-*`."""
    near = spec(Kind.DEPTH, "float32", (24, 32), "HW", unit="m", value_range=(0.0, 60.0))
    far = [array * 20 for array in frames(METRES)]
    choice = choose_codec({"id": "auto", "min_decode_mbps": 0}, near, far)
    assert codec_from_config(choice.config).is_exact
    with pytest.raises(CodecError):
        codec_for(None, near).encode(far[0])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"id": "auto", "min_decode": 3}, "has no option 'min_decode' .*min_decode_mbps"),
        ({"id": "auto", "min_decode_mbps": "fast"}, "is 'fast', expected a number"),
        ({"id": "auto", "min_decode_mbps": -1}, "is -1, expected a number"),
        ({"id": "auto", "min_decode_mbps": True}, "is True, expected a number"),
    ],
)
def test_mistakes_in_the_option(option: Any, message: str) -> None:
    for ask in (lambda: codec_for(option, RGB), lambda: choose_codec(option, RGB, frames(RGB))):
        with pytest.raises(UsageError, match=message):
            ask()


def test_every_codec_that_suits_the_data_is_listed_once() -> None:
    found = fitting_codecs(METRES)
    labels = [candidate.label for candidate in found]
    assert len(labels) == len(set(labels))
    assert {"pco", "pco (level: 12)", "log-delta", "log-jxl (effort: 7)", "npy", "npy.zst"} <= set(labels)
    assert not {"jpg", "txt", "coco-rle", "oct-delta", "flow-delta"} & set(labels)


def test_measuring_says_how_large_the_error_is() -> None:
    depth = measure(codec_from_config("mm-delta"), frames(METRES), METRES)
    assert depth.frames == 3
    assert depth.raw_bytes == 3 * 24 * 32 * 4
    assert 0.0001 < depth.errors["max_error"] <= 0.00051
    assert depth.fidelity.startswith("max 0.")
    assert measure(codec_from_config("pco"), frames(METRES), METRES).fidelity == "exact"
    normals = measure(codec_for("oct-delta", NORMALS), frames(NORMALS), NORMALS)
    assert 0 < normals.errors["mean_degrees"] < normals.errors["max_degrees"] <= 0.25
    scores = measure(codec_for("gaplog-jls", LOGITS), frames(LOGITS), LOGITS)
    assert scores.errors["argmax_agreement"] == 1.0
    assert 0 < scores.errors["kl_divergence"] < 1e-3
    ids = measure(codec_for("npy.zst", LOGITS, store_as="indices"), frames(LOGITS), LOGITS)
    assert ids.errors == {"argmax_agreement": 1.0}
    assert measure(codec_from_config("txt"), [np.array("a caption")], TEXT).fidelity == "exact"
    picture = measure(codec_for("jpg", RGB), frames(RGB), RGB)
    assert "dB PSNR" in picture.fidelity


def test_measuring_copes_with_nan_infinity_and_nothing() -> None:
    holes = frames(METRES)[0]
    holes[:3], holes[3] = np.nan, np.inf
    result = measure(codec_for("log-delta", METRES), [holes], METRES)
    assert 0 < result.errors["max_relative_error"] <= 4e-4 * 1.01
    empty = np.zeros((0, 4), np.float32)
    assert measure(codec_for("json.zst", BOXES), [empty], BOXES).fidelity == "exact"
    scores = frames(LOGITS)[0]
    scores[:, 0] = np.nan
    assert measure(codec_for("gaplog-jls", LOGITS), [scores], LOGITS).errors["argmax_agreement"] == 1.0


def test_npz_is_the_yardstick() -> None:
    result = measure_npz(frames(METRES), rounds=2)
    assert result.stored_bytes > 0
    assert result.fidelity == "exact"
    assert result.encode_mbps > 0
    assert result.decode_mbps > 0


def test_what_is_done_once_in_a_process_is_not_measured() -> None:
    normals = np.zeros((32, 32, 3), np.float32)
    normals[..., 2] = 1
    of = spec(Kind.NORMALS, "float32", normals.shape, "HWC")
    codec = codec_for({"id": "oct-delta", "bits": 10}, of)
    _vectors.cache_clear()  # a table of 12 MB, made by the first frame
    assert measure(codec, [normals], of, rounds=1).decode_seconds < 0.02
