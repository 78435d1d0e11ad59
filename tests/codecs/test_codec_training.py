"""What only the training profile uses: one neighbour, frames without a checksum, fast up-sampling, tables of pairs."""

import io
from dataclasses import replace

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tests.codecs.codec_samples import FLOATS, Array, same, unit_or_nan, within
from vrekit.codecs.registry import codec_for, codec_from_config, default_codec
from vrekit.codecs.stages import quantiser
from vrekit.codecs.stages.delta import Delta, add_down
from vrekit.codecs.stages.jpg import Jpg
from vrekit.codecs.stages.uniform import Uniform
from vrekit.codecs.stages.zstd import Zstd
from vrekit.core.errors import CodecError, UsageError
from vrekit.core.spec import Kind, OutputSpec

ROWS, COLUMNS = np.mgrid[0:60, 0:90]


def normals_spec(shape: tuple[int, ...], dtype: str = "float32", axes: str = "HWC") -> OutputSpec:
    return OutputSpec(kind=Kind.NORMALS, dtype=dtype, shape=shape, axes=axes)


@given(
    array=npst.arrays(st.sampled_from([np.uint8, np.uint16]), npst.array_shapes(min_dims=1, max_dims=4, max_side=9)),
    across=st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_one_neighbour_is_undone_exactly(array: Array, across: bool) -> None:
    stage = Delta(down=not across, across=across)
    decoded = np.empty_like(array)
    stage.decode(stage.encode(array), decoded)
    same(array, decoded)


@given(rows=npst.arrays(st.sampled_from([np.uint8, np.uint16]), st.tuples(st.integers(1, 40), st.integers(0, 5))))
@settings(deadline=None, max_examples=150)
def test_add_down_is_the_running_sum_also_in_place(rows: Array) -> None:
    expected = np.cumsum(rows, axis=0, dtype=rows.dtype)
    out = np.empty_like(rows)
    add_down(rows, out)
    same(expected, out)
    add_down(rows, rows)
    same(expected, rows)


def test_channels_behind_the_columns_are_part_of_the_row_only_without_across() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    residual = Delta(across=False).encode(image)
    assert np.array_equal(residual[1:], image[1:] - image[:-1])
    assert np.array_equal(residual[0], image[0])
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    assert np.array_equal(Delta(across=False).encode(planes)[:, 1:], planes[:, 1:] - planes[:, :-1])


def test_a_delta_of_no_neighbour_is_refused() -> None:
    with pytest.raises(UsageError, match="down and across are both false"):
        Delta(down=False, across=False)


def test_options_that_came_later_are_stored_only_where_they_are_used() -> None:
    assert Delta().config() == {"id": "delta", "down": True}
    assert Zstd().config() == {"id": "zstd", "level": 3}
    assert Jpg().config() == {"id": "jpg", "quality": 95, "subsampling": "444"}
    for stage in (Delta(across=False), Zstd(checksum=False), Jpg(fast_upsampling=True)):
        assert type(stage).from_config(stage.config()) == stage


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("shape", "axes"), [((6, 10, 3), "HWC"), ((7, 9, 3), "HWC"), ((3, 7, 9), "CHW")])
def test_training_normals_keep_the_bound(dtype: str, shape: tuple[int, ...], axes: str) -> None:
    codec = default_codec(normals_spec(shape, dtype, axes), profile="training")
    assert codec.id == "normals-delta"
    normals = unit_or_nan(np.random.default_rng(1), shape, np.dtype(dtype))
    decoded = codec.decode(codec.encode(normals), dtype=normals.dtype, shape=shape)
    within(1 / 254)(normals, decoded)


def test_training_normals_are_no_worse_than_the_8_bit_png_of_the_loaders() -> None:
    normals = np.random.default_rng(2).normal(size=(200, 300, 3))
    normals = (normals / np.linalg.norm(normals, axis=-1, keepdims=True)).astype(np.float32)
    codec = default_codec(normals_spec(normals.shape), profile="training")
    decoded = codec.decode(codec.encode(normals), dtype=normals.dtype, shape=normals.shape)
    one, two = normals.astype(np.float64), decoded.astype(np.float64)
    angle = np.degrees(np.arctan2(np.linalg.norm(np.cross(one, two), axis=-1), (one * two).sum(axis=-1)))
    assert angle.mean() <= 0.175
    assert angle.max() <= 0.4


def test_numpy_reads_training_normals() -> None:
    normals = np.stack([np.sin(ROWS / 9), np.cos(COLUMNS / 7), np.cos(ROWS / 5)], axis=-1)
    normals = (normals / np.linalg.norm(normals, axis=-1, keepdims=True)).astype(np.float32)
    data = default_codec(normals_spec(normals.shape), profile="training").encode(normals)
    residual = np.load(io.BytesIO(zstandard.ZstdDecompressor().decompress(data)))
    code = np.cumsum(residual, axis=0, dtype=np.uint8)
    assert np.abs(code * (2 / 254) - 1 - normals).max() <= 1 / 254 + 1e-6


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("bits", "size"), [(8, 256), (8, 255), (5, 31), (16, 65536), (12, 4095)])
def test_every_table_gives_what_indexing_gives(
    dtype: str, bits: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Uniform(-1.0, 3.0, bits=bits)
    codes = np.arange(size, dtype=np.uint8 if bits <= 8 else np.uint16)[::-1].copy()
    expected = stage.values().astype(dtype)[codes]
    fast, slow = np.empty(size, dtype), np.empty(size, dtype)
    stage.decode(codes, fast)
    monkeypatch.setattr(quantiser, "_has_wide_tables", lambda: False)
    stage.decode(codes, slow)
    assert expected.tobytes() == fast.tobytes() == slow.tobytes()


def test_codes_beyond_the_last_one_are_refused() -> None:
    stage = Uniform(0.0, 1.0, bits=12, nan=False)
    with pytest.raises(CodecError, match="code 4096 is beyond the last one, 4095"):
        stage.decode(np.array([1, 4096], np.uint16), np.empty(2, np.float32))


def test_frames_of_the_training_profile_have_no_checksum_and_truncation_still_shows() -> None:
    depth = (3 + np.sin(ROWS / 9) + COLUMNS / 30).astype(np.float32)
    spec = OutputSpec(kind=Kind.DEPTH, dtype="float32", shape=depth.shape, axes="HW", unit="m")
    for profile, has_checksum in (("training", False), ("balanced", True)):
        codec = default_codec(spec, profile=profile)
        data = codec.encode(depth)
        assert zstandard.get_frame_parameters(data).has_checksum is has_checksum
        within(relative=4e-4)(depth, codec.decode(data, dtype=depth.dtype, shape=depth.shape))
        for end in (0, 5, len(data) // 2, len(data) - 1):
            with pytest.raises(CodecError):
                codec.decode(data[:end], dtype=depth.dtype, shape=depth.shape)


def test_fast_upsampling_reads_the_same_file_and_is_nearer_to_frames_with_colour_at_half_size() -> None:
    small = np.random.default_rng(3).integers(60, 196, (30, 45, 3)).astype(np.uint8)
    image = small.repeat(2, axis=0).repeat(2, axis=1)  # as most video decoders hand colour out
    options = {"id": "jpg", "quality": 90, "subsampling": "420"}
    plain, fast = codec_from_config(options), codec_from_config({**options, "fast_upsampling": True})
    data = fast.encode(image)
    assert data == plain.encode(image)
    decoded = [codec.decode(data, dtype=image.dtype, shape=image.shape) for codec in (plain, fast)]
    errors = [float(np.mean((array.astype(float) - image) ** 2)) for array in decoded]
    assert errors[1] < 0.5 * errors[0]
    again = codec_from_config(fast.config()).decode(data, dtype=image.dtype, shape=image.shape)
    assert np.array_equal(again, decoded[1])


def test_the_profile_fills_in_what_docs_say() -> None:
    color = OutputSpec(kind=Kind.COLOR, dtype="uint8", shape=(4, 5, 3), axes="HWC", natural=True)
    assert codec_for(None, color, profile="training").config()["stages"][0]["fast_upsampling"] is True
    computed = replace(color, natural=None)  # a halftone, say: its dots would not survive a JPEG
    assert codec_for(None, computed, profile="training").is_exact
    stages = default_codec(normals_spec((4, 5, 3)), profile="training").config()["stages"]
    assert stages[1] == {"id": "channels-first", "axis": 0}
    assert stages[2] == {"id": "delta", "down": True, "across": False}
    assert stages[-1] == {"id": "zstd", "level": 9, "checksum": False}
