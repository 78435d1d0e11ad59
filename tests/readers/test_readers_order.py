from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrekit.core.errors import UsageError
from vrekit.readers.batches import BatchPlan
from vrekit.readers.order import Order


def epoch_rows(order: Order, epoch: int = 0) -> list[int]:
    return [int(row) for row in order.rows(epoch, np.arange(order.length))]


@pytest.mark.parametrize("length", [*range(40), 63, 64, 65, 127, 128, 129, 255, 256, 257, 1000, 1023, 1024, 1025, 2000])
def test_every_row_occurs_exactly_once(length: int) -> None:
    assert sorted(epoch_rows(Order(length=length, seed=length), epoch=length % 3)) == list(range(length))


@given(st.integers(0, 5000), st.integers(), st.integers(0, 1000), st.booleans())
def test_order_is_a_bijection_for_any_seed_and_epoch(length: int, seed: int, epoch: int, shuffle: bool) -> None:
    rows = epoch_rows(Order(length=length, seed=seed, shuffle=shuffle), epoch)
    assert sorted(rows) == list(range(length))
    assert shuffle or rows == list(range(length))


# ITERATION ORDER: a change of these breaks the resume of every training in progress.
GOLDEN = {
    (10, 0, 0): [0, 8, 4, 2, 7, 1, 6, 9, 5, 3],
    (10, 0, 1): [7, 5, 1, 4, 0, 9, 6, 8, 2, 3],
    (33, -7, 5): [
        27,
        1,
        0,
        26,
        22,
        13,
        17,
        10,
        18,
        2,
        24,
        28,
        15,
        7,
        16,
        11,
        9,
        8,
        30,
        19,
        25,
        6,
        3,
        32,
        23,
        31,
        14,
        5,
        20,
        4,
        12,
        21,
        29,
    ],
}


@pytest.mark.parametrize(("length", "seed", "epoch"), GOLDEN)
def test_order_never_changes(length: int, seed: int, epoch: int) -> None:
    assert epoch_rows(Order(length=length, seed=seed), epoch) == GOLDEN[length, seed, epoch]


def test_order_of_a_trillion_rows_never_changes() -> None:
    order = Order(length=10**12, seed=3)
    assert order.rows(2, np.array([0, 1, 10**12 - 1])).tolist() == [312364345719, 21217558359, 745084543100]


def test_a_position_does_not_depend_on_what_else_is_asked_for() -> None:
    order = Order(length=777, seed=4)
    rows = epoch_rows(order, 9)
    positions = np.array([776, 0, 13, 13, 400])
    assert order.rows(9, positions).tolist() == [rows[position] for position in positions]
    assert [int(order.rows(9, np.array([position]))[0]) for position in (5, 6)] == rows[5:7]


def test_seeds_and_epochs_give_unrelated_orders() -> None:
    orders = [epoch_rows(Order(length=1000, seed=seed), epoch) for seed in range(4) for epoch in range(4)]
    for at, first in enumerate(orders):
        for second in orders[at + 1 :]:
            fixed = sum(a == b for a, b in zip(first, second, strict=True))
            assert fixed < 10  # one is expected


@pytest.mark.parametrize("length", [2, 5, 16, 17, 40])
def test_every_row_is_equally_likely_at_every_position(length: int) -> None:
    epochs = 2000
    counts = np.zeros((length, length))
    jumps = np.zeros(length)
    for epoch in range(epochs):
        rows = Order(length=length, seed=11).rows(epoch, np.arange(length))
        counts[np.arange(length), rows] += 1
        jumps += np.bincount(np.diff(rows) % length, minlength=length)
    expected = epochs / length
    freedom = (length - 1) ** 2
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom) + 4
    # and what follows a row is as good as any other row: 4 rounds fail this with a deviation of 17 for 5 rows
    expected = jumps.sum() / (length - 1)
    chi_square = ((jumps[1:] - expected) ** 2 / expected).sum()
    assert abs(chi_square - (length - 2)) < 4 * np.sqrt(2 * length) + 4


def test_neighbouring_positions_are_far_apart() -> None:
    rows = Order(length=1 << 20, seed=1).rows(0, np.arange(50_000))
    distance = np.abs(np.diff(rows)) / (1 << 20)
    assert abs(distance.mean() - 1 / 3) < 0.005  # of two uniform numbers
    assert abs(np.corrcoef(rows[:-1], rows[1:])[0, 1]) < 0.02


@given(
    length=st.integers(0, 90),
    batch_size=st.integers(1, 9),
    world_size=st.integers(1, 6),
    drop_last=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_ranks_share_an_epoch(length: int, batch_size: int, world_size: int, drop_last: bool, epoch: int) -> None:
    order = Order(length=length, seed=5)
    plans = [
        BatchPlan(order=order, batch_size=batch_size, drop_last=drop_last, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    batches = [[plan.rows(epoch, number).tolist() for number in range(len(plan))] for plan in plans]
    assert len({len(own) for own in batches}) == 1  # the same number of steps on every rank
    global_size = batch_size * world_size
    together = [row for number in range(len(plans[0])) for own in batches for row in own[number]]
    left = length % global_size
    if drop_last:
        assert all(len(batch) == batch_size for own in batches for batch in own)
        assert together == epoch_rows(order, epoch)[: length - left]
    elif left == 0 or left >= world_size:
        assert together == epoch_rows(order, epoch)  # complete, and no frame twice
        sizes = [len(own[-1]) for own in batches if own]
        assert not sizes or max(sizes) - min(sizes) <= 1
    else:
        assert set(together) == set(range(length))
        assert len(together) == length - left + world_size
    assert all(own[number] for own in batches for number in range(len(own)))


def test_batches_of_one_rank_are_those_of_any_world_with_the_same_global_batch() -> None:
    order = Order(length=100, seed=2)
    single = BatchPlan(order=order, batch_size=12)
    for world_size in (2, 3, 4):
        plans = [
            BatchPlan(order=order, batch_size=12 // world_size, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        for number in range(len(single)):
            parts = [plan.rows(1, number) for plan in plans]
            assert np.concatenate(parts).tolist() == single.rows(1, number).tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
        ({"batch_size": 1, "rank": 2, "world_size": 2}, "rank 2 of world_size 2"),
        ({"batch_size": 1, "rank": -1, "world_size": 2}, "rank -1 of world_size 2"),
    ],
)
def test_impossible_plans_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BatchPlan(order=Order(length=4), **options)
