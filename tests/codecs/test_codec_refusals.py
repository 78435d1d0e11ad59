"""Data that a codec cannot hold: the error says what to use instead, and that does hold it."""

import re

import numpy as np
import pytest

from vrekit.codecs.registry import STAGES, codec_for, codec_from_config, codec_names
from vrekit.core.errors import CodecError, UsageError
from vrekit.core.spec import Kind, OutputSpec

SHAPES = [(), (5,), (9, 8), (2, 9, 8), (9, 8, 3), (9, 8, 4), (2, 3, 4, 5)]
DTYPES = ["bool", "uint8", "uint16", "int32", "int64", "float16", "float64", "complex64"]
WITH_RANGE = ("u8-delta", "u8-jls", "u16-delta", "u16-jxl")


def refusal(option: object, dtype: str, shape: tuple[int, ...]) -> CodecError | None:
    """Return the error of a codec for such arrays, None if it takes them."""
    try:
        codec_from_config(option).decoded_layout(np.dtype(dtype), shape)  # type: ignore[arg-type]  # name or config
    except CodecError as error:
        return error
    return None


def has_way_out(error: CodecError, dtype: str, shape: tuple[int, ...]) -> bool:
    words = set(re.findall(r"[\w.-]*\w", error.hint or ""))
    return any(name in words and refusal(name, dtype, shape) is None for name in codec_names())


@pytest.mark.parametrize("name", [name for name in codec_names() if name != "txt"])
def test_a_hint_names_a_codec_that_takes_the_data(name: str) -> None:
    option = {"id": name, "minimum": 0, "maximum": 1} if name in WITH_RANGE else name
    refused = 0
    for dtype in DTYPES:
        for shape in SHAPES:
            error = refusal(option, dtype, shape)
            if error is not None:
                refused += 1
                assert has_way_out(error, dtype, shape), (dtype, shape, error.message, error.hint)
    assert refused or name in ("npy", "npy.zst")


@pytest.mark.parametrize("name", ["arrow", "json"])
def test_columns_that_are_not_those_of_the_array(name: str) -> None:
    error = refusal({"id": name, "columns": ["x", "y"]}, "float32", (4, 3))
    assert error is not None
    assert has_way_out(error, "float32", (4, 3))
    assert "`columns`" in (error.hint or "")


def test_more_classes_than_ids() -> None:
    spec = OutputSpec(kind=Kind.LOGITS, dtype="float32", shape=(65536, 1, 2), axes="CHW")
    with pytest.raises(CodecError, match="up to 65535 classes") as caught:
        codec_for("npy", spec, store_as="indices")
    assert "store_as" in (caught.value.hint or "")


def test_text_is_for_txt_and_nothing_else() -> None:
    text = OutputSpec(kind=Kind.TEXT, dtype="str", shape=(), axes="")
    with pytest.raises(CodecError) as caught:
        codec_for("npy", text)
    assert "txt" in (caught.value.hint or "")
    rows = OutputSpec(kind=Kind.TABLE, dtype="float64", shape=(3,), axes="D")
    with pytest.raises((CodecError, UsageError)) as refused:
        codec_for("txt", rows)
    assert "npy.zst" in (refused.value.hint or "")


def test_each_stage_is_in_a_codec_that_was_tried() -> None:
    tried = {stage["id"] for name in codec_names() if name != "txt" for stage in _stages(name)}
    assert set(STAGES) - tried <= {"indices", "softmax", "topk"}  # of `store_as`


def _stages(name: str) -> list[dict[str, object]]:
    option = {"id": name, "minimum": 0, "maximum": 1} if name in WITH_RANGE else {"id": name}
    stages: list[dict[str, object]] = codec_from_config(option).config()["stages"]
    return stages
