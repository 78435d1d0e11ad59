"""Which rows make up which batch: fixed slices of the order, the same for any number of workers or ranks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vrekit.core.errors import UsageError
from vrekit.readers.order import Order


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """The batches of every epoch, for one rank.

    Global batch g holds positions `[g * batch_size * world_size, (g + 1) * batch_size * world_size)` of the order, and
    rank r takes the r-th `batch_size` of them. So every rank has the same number of batches and no frame occurs twice.
    What is left at the end of an epoch, fewer frames than a global batch holds:

    - `drop_last=True`: left out (other frames in every epoch, when shuffled).
    - `drop_last=False`: shared out evenly, so the last batches of two ranks differ by at most one frame. Only when
      fewer frames than ranks are left, ranks repeat some of them: no rank may lack a batch, or the others would wait
      for it forever.

    Attributes:
        order: The order of the rows.
        batch_size: Frames in a batch of one rank.
        drop_last: See above.
        rank: This rank, from 0.
        world_size: Number of ranks.
    """

    order: Order
    batch_size: int
    drop_last: bool = False
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"batch_size is {self.batch_size}, expected at least 1")
        if self.world_size < 1 or not 0 <= self.rank < self.world_size:
            raise UsageError(f"rank {self.rank} of world_size {self.world_size}: expected 0 <= rank < world_size")

    @property
    def global_batch_size(self) -> int:
        """Frames in a batch of all ranks together."""
        return self.batch_size * self.world_size

    def __len__(self) -> int:
        """Return the number of batches in an epoch, the same on every rank."""
        full, left = divmod(self.order.length, self.global_batch_size)
        return full if self.drop_last or not left else full + 1

    def rows(self, epoch: int, number: int) -> NDArray[np.int64]:
        """Return the row numbers of batch `number` of an epoch, for this rank."""
        start = number * self.global_batch_size
        left = min(self.global_batch_size, self.order.length - start)
        if left == self.global_batch_size:
            first, last = self.rank * self.batch_size, (self.rank + 1) * self.batch_size
        elif left >= self.world_size:
            first, last = self.rank * left // self.world_size, (self.rank + 1) * left // self.world_size
        else:
            first = self.rank % left
            last = first + 1
        return self.order.rows(epoch, np.arange(start + first, start + last))
