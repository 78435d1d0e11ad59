"""Captions in UTF-8."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrekit.codecs.registry import codec_for, codec_from_config
from vrekit.core.errors import CodecError
from vrekit.core.spec import Kind, OutputSpec

SPEC = OutputSpec(kind=Kind.TEXT, dtype="str", shape=(), axes="")
UNKNOWN_LENGTH = np.dtype(np.str_)


@given(st.text(st.characters(exclude_categories=["Cs"])).map(lambda text: text.rstrip("\0")))
def test_text_comes_back(text: str) -> None:
    codec = codec_for(None, SPEC)
    array = np.array(text)
    data = codec.encode(array)
    assert data == text.encode()
    assert codec.decode(data, dtype=UNKNOWN_LENGTH, shape=()).item() == text
    out = np.empty((), array.dtype)
    assert codec.decode(data, dtype=array.dtype, shape=(), out=out) is out
    assert out.item() == text


def test_it_is_a_plain_text_file() -> None:
    codec = codec_from_config("txt")
    assert (codec.id, codec.suffix, codec.config()) == ("txt", "txt", {"id": "txt"})
    assert codec.encode(np.array("ein Fluß")) == "ein Fluß".encode()


def test_wrong_text_is_refused() -> None:
    codec = codec_from_config("txt")
    with pytest.raises(CodecError, match="not UTF-8"):
        codec.decode(b"\xff\xfe", dtype=UNKNOWN_LENGTH, shape=())
    with pytest.raises(CodecError, match="no UTF-8 form"):
        codec.encode(np.array("\ud800"))
    with pytest.raises(CodecError, match="one str"):
        codec.encode(np.array(["two", "words"]))
    with pytest.raises(CodecError, match="expected at most <U2"):
        codec.decode(b"three", dtype=np.dtype("<U2"), shape=())
