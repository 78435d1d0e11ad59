"""The reading order of an epoch: a pure function of (seed, epoch, position), computed for any position by itself.

A keyed permutation of 0..n-1 instead of a shuffled list: position 3,000,000 costs as much as position 0, nothing of
size n is ever held, and resuming is asking for the next position.

Construction: an alternating Feistel network over the smallest power of two 2^b >= n, whose halves have b // 2 and
b - b // 2 bits, with splitmix64's finaliser as the round function (Steele, Lea, Flood: Fast Splittable Pseudorandom
Number Generators, 2014). Results >= n are fed in again until they are below n (cycle walking: Black, Rogaway: Ciphers
with Arbitrary Finite Domains, 2002); as 2^b < 2n that is one extra turn on average at most.

Changing anything here is ITERATION ORDER BREAKING: the goldens in tests/readers/test_readers_order.py say so.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vrekit.core.splitmix import mix

_ROUNDS = 8  # each changes both halves; with 6, orders of five rows are measurably uneven, with 4 also those of 17
_VERSION = "vrekit order 1"


@dataclass(frozen=True, slots=True)
class Order:
    """The order in which the n rows of a dataset are read, for every epoch.

    Attributes:
        length: Number of rows, n.
        seed: Any integer; another seed gives unrelated orders.
        shuffle: False reads the rows as they lie, in every epoch.

    Example:
        >>> Order(length=5, seed=0).rows(epoch=0, positions=np.arange(5)).tolist()
        [4, 3, 0, 2, 1]
    """

    length: int
    seed: int = 0
    shuffle: bool = True

    def rows(self, epoch: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row numbers at these positions of an epoch.

        Args:
            epoch: Which epoch, from 0.
            positions: Positions 0..length-1, int64, any shape.

        Returns:
            int64, the shape of `positions`; over all positions each row occurs exactly once.
        """
        if not self.shuffle or self.length < 2:
            return positions.astype(np.int64)
        bits = (self.length - 1).bit_length()
        keys = _round_keys(self.seed, epoch)
        values = _permute(positions.astype(np.uint64), bits, keys)
        outside = values >= self.length
        while outside.any():
            values[outside] = _permute(values[outside], bits, keys)
            outside = values >= self.length
        return values.astype(np.int64)


@lru_cache(maxsize=64)
def _round_keys(seed: int, epoch: int) -> tuple[np.uint64, ...]:
    text = f"{_VERSION}|{seed}|{epoch}".encode()
    raw = hashlib.shake_128(text).digest(16 * _ROUNDS)
    return tuple(np.frombuffer(raw, "<u8"))


def _permute(values: NDArray[np.uint64], bits: int, keys: tuple[np.uint64, ...]) -> NDArray[np.uint64]:
    """Permute 0..2^bits-1. Each step XORs one half with a hash of the other, so it can be undone whatever the hash."""
    low_bits = np.uint64(bits - bits // 2)
    low_mask = np.uint64((1 << int(low_bits)) - 1)
    high_mask = np.uint64((1 << bits // 2) - 1)
    high, low = values >> low_bits, values & low_mask
    for at in range(0, len(keys), 2):
        high = high ^ (mix(low ^ keys[at]) & high_mask)
        low = low ^ (mix(high ^ keys[at + 1]) & low_mask)
    return (high << low_bits) | low
