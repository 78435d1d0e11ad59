"""Which frames a selection chooses, and which ones are refused."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrekit.core.errors import UsageError
from vrekit.video.selection import FrameRange, FrameSelection, parse_frames

HUNDRED = np.arange(100)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0..100", list(range(100))),
        ("5", [5]),
        ("5,8,22", [5, 8, 22]),
        ("22, 5 ,8,5", [5, 8, 22]),
        ("97..", [97, 98, 99]),
        ("..3", [0, 1, 2]),
        ("..", list(range(100))),
        ("0..1000:10", list(range(0, 100, 10))),
        ("95..:3", [95, 98]),
        ("0..3,50..52", [0, 1, 2, 50, 51]),
        ("0..5,3..7,6", list(range(7))),
        ("90..110", list(range(90, 100))),
        ("3..4", [3]),
        ("007", [7]),
        (None, list(range(100))),
    ],
)
def test_choices(text: str | None, expected: list[int]) -> None:
    chosen = parse_frames(text).select(HUNDRED)
    assert chosen.dtype == np.int64
    assert chosen.tolist() == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10..5", "runs backwards"),
        ("5..5", "is empty"),
        ("..0", "is empty"),
        ("0..10:0", "step must be 1"),
        ("-5", "no frame number and no range"),
        ("-5..3", "no frame number and no range"),
        ("", "no frame number and no range"),
        ("1,,2", "no frame number and no range"),
        ("1..2..3", "no frame number and no range"),
        ("1-5", "no frame number and no range"),
        ("1:5", "no frame number and no range"),
        ("a..b", "no frame number and no range"),
        ("1.5", "no frame number and no range"),
        ("٣", "no frame number and no range"),
        ("9" * 5000, "no frame number and no range"),
    ],
)
def test_mistakes_in_the_text(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_frames(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [("100", "no frame 100"), ("5,500", "no frame 500"), ("100..", "holds no frame"), ("200..300", "holds no frame")],
)
def test_frames_the_video_does_not_have(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_frames(text).select(HUNDRED)
    assert "frames 0..99" in str(caught.value.hint)


def test_sparse_numbers_stay() -> None:
    sparse = np.array([5, 8, 22])
    assert parse_frames("0..10").select(sparse).tolist() == [5, 8]
    assert parse_frames("5..30:3").select(sparse).tolist() == [5, 8]
    assert parse_frames(None, every=2).select(sparse).tolist() == [5, 22]
    with pytest.raises(UsageError, match="no frame 6") as caught:
        parse_frames("6").select(sparse)
    assert "5..22 (the last one included) with gaps, 3 in all" in str(caught.value.hint)
    with pytest.raises(UsageError, match="holds no frame"):
        parse_frames("9..20").select(sparse)


def test_every() -> None:
    assert parse_frames("10..20", every=3).select(HUNDRED).tolist() == [10, 13, 16, 19]
    for wrong in (0, -2):
        with pytest.raises(UsageError, match="every must be 1 or more"):
            parse_frames(None, every=wrong)


def test_fps_on_a_steady_clock() -> None:
    pts = 8.333 + HUNDRED / 25
    assert parse_frames(None, fps=5).select(HUNDRED, pts).tolist() == list(range(0, 100, 5))
    assert parse_frames(None, fps=25).select(HUNDRED, pts).tolist() == list(range(100))
    assert parse_frames(None, fps=1e12).select(HUNDRED, pts).tolist() == list(range(100))
    assert parse_frames(None, fps=0.001).select(HUNDRED, pts).tolist() == [0]


def test_fps_over_a_gap_takes_the_nearest_frames() -> None:
    pts = np.array([0.0, 0.1, 0.2, 1.5, 1.6, 2.1])
    # Ticks 0, .5, 1, 1.5, 2: .5 is nearest to .2, 1 to 1.5, 2 to 2.1.
    assert parse_frames(None, fps=2).select(np.arange(6), pts).tolist() == [0, 2, 3, 5]


def test_fps_needs_times() -> None:
    with pytest.raises(UsageError, match="no presentation times"):
        parse_frames(None, fps=2).select(HUNDRED)
    with pytest.raises(UsageError, match="no presentation times"):
        parse_frames(None, fps=2).select(HUNDRED, np.full(100, np.nan))
    with pytest.raises(UsageError, match="100 frames, but 3"):
        parse_frames(None, fps=2).select(HUNDRED, np.arange(3.0))
    with pytest.raises(UsageError, match="nearest to a tick"):
        parse_frames("3", fps=1).select(HUNDRED, HUNDRED / 25)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="positive"):
            parse_frames(None, fps=wrong)
    with pytest.raises(UsageError, match="both"):
        parse_frames(None, fps=1, every=2)


def test_a_video_without_frames() -> None:
    with pytest.raises(UsageError, match="no frames"):
        parse_frames(None).select(np.zeros(0, np.int64))


ranges = st.builds(
    lambda start, length, step: FrameRange(start, None if length is None else start + length, step),
    st.integers(0, 120),
    st.none() | st.integers(1, 60),
    st.integers(1, 20),
)
selections = st.builds(FrameSelection, st.lists(ranges | st.integers(0, 120), max_size=4).map(tuple))


@given(selections, st.sets(st.integers(0, 150), min_size=1, max_size=60))
def test_chooses_what_the_words_say(selection: FrameSelection, existing: set[int]) -> None:
    numbers = np.array(sorted(existing))
    wanted: set[int] = set() if selection.parts else existing
    complete = True
    for part in selection.parts:
        if isinstance(part, int):
            members = {part} & existing
        else:
            stop = 1000 if part.stop is None else part.stop
            members = set(range(part.start, stop, part.step)) & existing
        complete &= bool(members)
        wanted |= members
    if not complete:
        with pytest.raises(UsageError):
            selection.select(numbers)
        return
    assert selection.select(numbers).tolist() == sorted(wanted)


@given(selections, st.none() | st.integers(1, 9))
def test_text_and_json_mean_the_same(selection: FrameSelection, every: int | None) -> None:
    if selection.parts:
        assert parse_frames(str(selection)) == selection
    thinned = FrameSelection(selection.parts, every=every)
    again = FrameSelection.from_json(json.loads(json.dumps(thinned.to_json())))
    assert str(again) == str(thinned)
    assert again.every == every


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=30),
    st.integers(1, 30),
    st.integers(0, 30),
)
def test_fps_is_the_nearest_frame_of_each_tick(gaps: list[int], fps: int, split: int) -> None:
    # Whole milliseconds against ticks of 1000/fps ms, in integers scaled by fps: no rounding in the expectation.
    milliseconds = np.concatenate([[0], np.cumsum(gaps)]) * 10
    scaled = milliseconds * fps
    expected = {int(np.abs(scaled - tick).argmin()) for tick in range(0, int(scaled[-1]) + 1, 1000)}
    unclear = {  # a tick exactly between two frames may fall to either by rounding
        number
        for tick in range(0, int(scaled[-1]) + 1, 1000)
        for number in np.flatnonzero(np.abs(scaled - tick) == np.abs(scaled - tick).min()).tolist()
        if (np.abs(scaled - tick) == np.abs(scaled - tick).min()).sum() > 1
    }
    numbers, pts = np.arange(len(milliseconds)), 3.0 + milliseconds / 1000
    chosen = set(parse_frames(None, fps=fps).select(numbers, pts).tolist())
    assert chosen ^ expected <= unclear
    # Ranges that split a video choose what the whole would.
    parts: set[int] = set()
    for text in (f"..{split}", f"{split}.."):
        try:
            parts |= set(parse_frames(text, fps=fps).select(numbers, pts).tolist())
        except UsageError:
            continue
    assert parts == chosen


@given(st.text(max_size=12))
def test_any_text_is_a_selection_or_a_usage_error(text: str) -> None:
    try:
        selection = parse_frames(text)
    except UsageError:
        return
    assert parse_frames(str(selection)) == selection
