"""Names and keys: what is legal, and that a key comes back as what it was made of."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrekit.core.errors import UsageError
from vrekit.core.names import (
    MAX_NAME_LENGTH,
    REPRESENTATION_NAME,
    VIDEO_ID,
    check_representation_name,
    check_video_id,
    closest,
    did_you_mean,
    parse_key,
    sample_key,
    video_id_from_path,
)

video_ids = st.from_regex(VIDEO_ID, fullmatch=True).filter(lambda text: len(text) <= MAX_NAME_LENGTH)


@given(video_ids, st.integers(0, 2**53))
def test_a_key_comes_back(video_id: str, frame: int) -> None:
    key = sample_key(video_id, frame)
    assert parse_key(key) == (video_id, frame)
    assert "." not in key


def test_keys_are_eight_digits_and_more_where_needed() -> None:
    assert sample_key("car", 12) == "car/00000012"
    assert sample_key("car", 1234567890) == "car/1234567890"


@pytest.mark.parametrize("key", ["", "car", "car/", "/00000012", "car/12a", "car/-1", "a/b/00000012", "ca r/00000012"])
def test_what_is_no_key(key: str) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(key))):
        parse_key(key)


@pytest.mark.parametrize("name", ["rgb", "svd(depth)+x", "a", "9", "x" * MAX_NAME_LENGTH, "flow-raft_2"])
def test_legal_representation_names(name: str) -> None:
    assert check_representation_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "../evil", "a/b", "a.b", ".a", "-a", "_a", "(a)", "a b", "a\n", "ä", "x" * (MAX_NAME_LENGTH + 1), "a\0"],
)
def test_illegal_names(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_representation_name(name)
    assert repr(name)[:60] in caught.value.message  # of long ones, the beginning
    assert caught.value.hint is not None
    with pytest.raises(UsageError):
        check_video_id(name)


def test_a_name_that_every_frame_has_already_is_refused() -> None:
    with pytest.raises(UsageError, match="'pts_seconds' is taken"):
        check_representation_name("pts_seconds")


@pytest.mark.parametrize(
    ("path", "video_id"),
    [
        ("videos/My clip.v2.mp4", "My_clip_v2"),
        ("a/b/", "b"),
        ("видео.mp4", "video"),
        ("__x__.mp4", "x"),
        ("..", "video"),
        (".hidden", "hidden"),
        ("x" * 200 + ".mp4", "x" * MAX_NAME_LENGTH),
    ],
)
def test_a_video_is_named_after_its_file(path: str, video_id: str) -> None:
    assert video_id_from_path(path) == video_id


@given(st.text(max_size=150))
def test_every_path_gives_a_legal_video_id(path: str) -> None:
    assert check_video_id(video_id_from_path(path))


def test_closest_names() -> None:
    assert closest("cany", ["canny", "rgb"]) == "canny"
    assert closest("zzz", ["canny", "rgb"]) is None
    assert did_you_mean("cany", ["canny"]) == " (did you mean 'canny'?)"
    assert did_you_mean("zzz", ["canny"]) == ""


@given(st.from_regex(REPRESENTATION_NAME, fullmatch=True))
def test_the_pattern_lets_nothing_through_that_is_a_path(name: str) -> None:
    assert not {"/", "\\", ".", "\0", "\n", " "} & set(name)
