"""Thinning out: what stays, checked against the plain definition."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vrekit.catalog import stages
from vrekit.catalog.stages import Rows
from vrekit.core.errors import UsageError

Key = tuple[int, int, int]
keys = st.sets(st.tuples(st.integers(0, 3), st.integers(0, 60), st.integers(0, 2)), max_size=80).map(sorted)
NAMES = ("canny", "depth", "rgb")


def make_rows(wanted: list[Key], pts_of_frame: float = 0.125) -> Rows:
    table = np.array(wanted, np.int64).reshape(-1, 3)
    return Rows(
        ("a", "b", "c", "d"),
        table[:, 0],
        table[:, 1],
        (table[:, 1] * pts_of_frame).astype(np.float64),
        NAMES,
        table[:, 2],
    )


def frames_by_video(wanted: list[Key]) -> dict[int, list[int]]:
    result: dict[int, list[int]] = {}
    for video, frame in sorted({key[:2] for key in wanted}):
        result.setdefault(video, []).append(frame)
    return result


def kept(wanted: list[Key], positions: np.ndarray) -> list[Key]:
    return [wanted[at] for at in positions.tolist()]


@given(keys, st.integers(1, 9))
@settings(deadline=None)
def test_stride_keeps_every_nth_frame_of_each_video(wanted: list[Key], step: int) -> None:
    stay = {(video, frame) for video, frames in frames_by_video(wanted).items() for frame in frames[::step]}
    expected = [key for key in wanted if key[:2] in stay]
    assert kept(wanted, stages.stride(make_rows(wanted), step)) == expected


@given(keys, st.integers(1, 70))
@settings(deadline=None)
def test_per_video_spreads_evenly(wanted: list[Key], count: int) -> None:
    result = kept(wanted, stages.per_video(make_rows(wanted), count))
    before, after = frames_by_video(wanted), frames_by_video(result)
    assert {key for key in wanted if key[1] in after.get(key[0], [])} == set(result)
    for video, frames in before.items():
        assert len(after[video]) == min(count, len(frames))
        assert after[video][0] == frames[0]
        places = [frames.index(frame) for frame in after[video]]
        gaps = np.diff(places)
        assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


@given(keys, st.sampled_from([0.5, 1.0, 2.0, 3.0, 8.0, 24.0]))
@settings(deadline=None)
def test_fps_keeps_the_nearest_frame_to_each_tick(wanted: list[Key], fps: float) -> None:
    stay = set()
    for video, frames in frames_by_video(wanted).items():
        ticks: dict[int, list[tuple[Fraction, int]]] = {}
        for frame in frames:
            time = Fraction(frame, 8)
            tick = (time * Fraction(fps) - Fraction(1, 2)).__ceil__()
            ticks.setdefault(tick, []).append((abs(time - tick / Fraction(fps)), frame))
        stay |= {(video, min(near)[1]) for near in ticks.values()}
    result = kept(wanted, stages.at_fps(make_rows(wanted), fps))
    if fps == 3.0:  # a third of a second is no binary fraction: ties may fall either way, the number may not
        assert len({key[:2] for key in result}) == len(stay)
    else:
        assert result == [key for key in wanted if key[:2] in stay]


def test_fps_needs_timestamps() -> None:
    with pytest.raises(UsageError, match="frames of 'b' have none"):
        stages.at_fps(make_rows([(1, 0, 0)], float("nan")), 2)


@given(keys, st.integers(0, 90), st.integers(0, 2**40))
@settings(deadline=None)
def test_sample_takes_that_many_in_order_and_is_reproducible(wanted: list[Key], count: int, seed: int) -> None:
    result = kept(wanted, stages.sample(make_rows(wanted), count, seed))
    assert len(result) == min(count, len(wanted))
    assert result == sorted(result)
    assert result == kept(wanted, stages.sample(make_rows(wanted), count, seed))


def test_the_luck_of_a_frame_does_not_depend_on_what_else_is_there() -> None:
    wanted = [(0, frame, 0) for frame in range(1000)]
    every = set(kept(wanted, stages.sample(make_rows(wanted), 500, 3)))
    half = wanted[::2]
    # the luckiest of all are the luckiest of any part they are in
    luckiest = set(kept(wanted, stages.sample(make_rows(wanted), 50, 3))) & set(half)
    assert luckiest <= set(kept(half, stages.sample(make_rows(half), 50, 3)))
    assert 200 < len(every & set(half)) < 300


def test_samples_are_stable_across_versions() -> None:
    wanted = [(0, frame, 0) for frame in range(20)]
    assert [key[1] for key in kept(wanted, stages.sample(make_rows(wanted), 5, 0))] == [0, 8, 10, 14, 19]


def test_seeds_and_videos_draw_independently() -> None:
    wanted = [(video, frame, 0) for video in range(2) for frame in range(500)]
    chosen = [set(kept(wanted, stages.sample(make_rows(wanted), 500, seed))) for seed in range(20)]
    shares = [len([key for key in one if key[0] == 0]) / 500 for one in chosen]
    assert abs(np.mean(shares) - 0.5) < 0.02
    frames = [({key[1] for key in one if key[0] == 0}, {key[1] for key in one if key[0] == 1}) for one in chosen]
    overlap = np.mean([len(a & b) / len(a) for a, b in frames])
    assert abs(overlap - 0.5) < 0.05


@pytest.mark.parametrize(
    ("text", "count"), [("10", 10), ("10%", 20), ("0.6%", 1), ("100%", 200), ("0", 0), ("999", 200), (" 50 % ", 100)]
)
def test_sizes_of_samples(text: str, count: int) -> None:
    assert stages.sample_count(text, 200) == count


@pytest.mark.parametrize("text", ["x", "", "-1", "1.5", "101%", "%", "nan", "1e400"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="neither a number nor a share"):
        stages.sample_count(text, 200)
