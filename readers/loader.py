"""make_loader: shuffled batches in a reproducible order, with exact and instant resume."""

import multiprocessing
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, Self

import torch
from torch.utils.data import IterableDataset, get_worker_info
from torchdata.stateful_dataloader import StatefulDataLoader

from vrekit.core.errors import DatasetError, UsageError
from vrekit.core.threads import usable_cpus
from vrekit.readers.batches import BatchPlan
from vrekit.readers.dataset import Collate, FrameDataset, Transform
from vrekit.readers.order import Order
from vrekit.readers.prefetch import Prefetcher, PrefetchOptions
from vrekit.readers.subset import Subset

STATE_VERSION = 1
_MAX_THREADS = 16


class BatchStream(IterableDataset[Any]):
    """The batches of one epoch from a position on; worker w of n yields every n-th from the w-th.

    The loader asks workers in turn, so the batches come in the plan's order whatever the number of workers.
    """

    def __init__(self, dataset: FrameDataset, plan: BatchPlan, options: PrefetchOptions) -> None:
        self.dataset = dataset
        self.plan = plan
        self.options = options
        self.epoch = 0
        self.position = 0

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        epoch = self.epoch
        numbers = range(self.position + first, len(self.plan), step)
        batches = ((f"batch {number} of epoch {epoch}", self.plan.rows(epoch, number)) for number in numbers)
        return Prefetcher(self.dataset, batches, self.options)


class FrameLoader(StatefulDataLoader[Any]):  # type: ignore[misc]  # torchdata ships no types
    """A StatefulDataLoader whose state is one global cursor: which batch of which epoch comes next.

    Worker positions are no part of the state, so it is below 1 kB, a state saved with two workers continues with none
    or with eight, and on another number of ranks as long as the global batch size is the same. Made by `make_loader`.

    - Each `iter(loader)` starts the next epoch, in another order. The first one after `load_state_dict` continues
      where the state was taken.
    - A state taken after the last batch of an epoch continues with the first batch of the next.
    - `load_state_dict`, or another `iter(loader)`, ends a running iteration: asking it for a batch is an error.
    """

    dataset: BatchStream

    def __init__(self, stream: BatchStream, **options: Any) -> None:
        # The base class draws seeds for its workers; from a generator of ours, so that the global one is not touched
        # and a resumed training sees the same random numbers.
        generator = torch.Generator().manual_seed(stream.plan.order.seed & (2**63 - 1))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="'set_vital' is deprecated")  # torchdata 0.11 with torch 2.13
            super().__init__(stream, batch_size=None, collate_fn=_as_it_is, generator=generator, **options)
        self.plan = stream.plan
        self._epoch = 0
        self._position = 0
        self._resuming = False
        self._running: weakref.ref[_Iteration] | None = None

    @property
    def epoch(self) -> int:
        """The epoch of the next batch, from 0."""
        return self._epoch

    @property
    def position(self) -> int:
        """The number of the next batch within its epoch, from 0."""
        return self._position

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch."""
        return len(self.plan)

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]  # ours counts batches
        self._stop_running("another iteration of this loader began")
        if self._position and not self._resuming:
            self._epoch, self._position = self._epoch + 1, 0
        self._resuming = False
        self.dataset.epoch, self.dataset.position = self._epoch, self._position
        iteration = _Iteration(self, super().__iter__())
        self._iterator = None  # only `iteration` holds the workers: they end with it
        self._running = weakref.ref(iteration)
        return iteration

    def _stop_running(self, reason: str) -> None:
        iteration = self._running() if self._running is not None else None
        if iteration is not None:
            iteration.stop(reason)
        self._running = None

    def _advance(self) -> None:
        self._position += 1
        if self._position == len(self.plan):
            self._epoch, self._position = self._epoch + 1, 0

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a position to mean the same batch."""
        order = self.plan.order
        return {
            "version": STATE_VERSION,
            "digest": self.dataset.dataset.digest,
            "frames": order.length,
            "seed": order.seed,
            "shuffle": order.shuffle,
            "global_batch_size": self.plan.global_batch_size,
            "drop_last": self.plan.drop_last,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the state: plain JSON-able values, less than 1 kB. Cheap at any time, also before the first batch."""
        return {**self._identity(), "epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue with the next `iter(loader)` where the state was taken.

        Raises:
            DatasetError: If the state is of another dataset, subset, batch size, seed, ...; the message says which.
        """
        if not {"epoch", "position", "version"} <= set(state_dict):
            raise DatasetError(
                "this is not the state of a vrekit loader", hint="pass what loader.state_dict() returned"
            )
        differences = [
            f"  {_WORDS[name]}: state has {state_dict.get(name)!r}, this loader {value!r}"
            for name, value in self._identity().items()
            if state_dict.get(name) != value
        ]
        if differences:
            raise DatasetError(
                "the state does not belong to this loader:\n" + "\n".join(differences),
                hint="make the loader with the same data and arguments; num_workers, threads, transform and "
                "prefetching may differ",
            )
        epoch, position = state_dict["epoch"], state_dict["position"]
        if not (
            isinstance(epoch, int) and isinstance(position, int) and epoch >= 0 and 0 <= position <= len(self.plan)
        ):
            raise DatasetError(f"the state is damaged: {epoch = }, {position = } of {len(self.plan)} batches")
        self._stop_running("load_state_dict was called")
        self._epoch, self._position = epoch, position
        self._resuming = True


_WORDS = {
    "version": "version of the state",
    "digest": "frames (digest of the dataset or subset)",
    "frames": "number of frames",
    "seed": "seed",
    "shuffle": "shuffle",
    "global_batch_size": "batch_size times world_size",
    "drop_last": "drop_last",
}


class _Iteration(Iterator[Any]):
    """Hands out the base class's batches and moves the loader's cursor with each."""

    def __init__(self, loader: FrameLoader, batches: Iterator[Any]) -> None:
        self._loader = loader
        self._batches: Iterator[Any] | None = batches
        self._stopped: str | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if self._stopped is not None:
            raise UsageError(
                f"this iteration is over: {self._stopped}", hint="call iter(loader) again, or make a second loader"
            )
        if self._batches is None:
            raise StopIteration
        try:
            batch = next(self._batches)
        except BaseException:
            self._end()
            raise
        self._loader._advance()
        return batch

    def _end(self) -> None:
        # After an error the base class's iterator is part of a reference cycle (its traceback); collected from there,
        # it waits five seconds for each worker, because their queues are gone before it can tell them to stop.
        shut_down = getattr(self._batches, "_shutdown_workers", None)
        self._batches = None
        if shut_down is not None:
            shut_down()

    def __len__(self) -> int:
        return len(self._loader)

    def stop(self, reason: str) -> None:
        """End the iteration; its threads and workers end with it."""
        self._end()
        self._stopped = reason


def make_loader(
    dataset: FrameDataset | str | Path,
    *,
    batch_size: int,
    representations: Sequence[str] | None = None,
    subset: Subset | None = None,
    transform: Transform | None = None,
    seed: int = 0,
    shuffle: bool = True,
    drop_last: bool = False,
    num_workers: int = 0,
    threads: int | None = None,
    prefetch_batches: int = 2,
    prefetch_bytes: int = 1 << 30,
    rank: int | None = None,
    world_size: int | None = None,
    collate: Collate | None = None,
    pin_memory: bool = False,
    multiprocessing_context: str | BaseContext | None = None,
    trust_code: bool = False,
) -> FrameLoader:
    """Return a `StatefulDataLoader` over the batches of a dataset.

    The order of an epoch is a pure function of (seed, epoch): `num_workers`, `threads` and prefetching never change
    it. Threads are the faster choice: decoding releases the GIL and writes into the batch, while worker processes
    hand every batch over. Use workers when `transform` or `collate` are slow Python.

    Args:
        dataset: A FrameDataset, or the folder or URL of a dataset.
        batch_size: Frames in a batch of this rank.
        representations: Names to read, when `dataset` is a folder.
        subset: Frames to read, when `dataset` is a folder.
        transform: Called with every sample, when `dataset` is a folder.
        seed: Decides the order.
        shuffle: False reads the frames as the dataset has them, in every epoch.
        drop_last: Leave out what does not fill a (global) batch; see `BatchPlan`.
        num_workers: Worker processes; 0 reads in threads of this process.
        threads: Threads that read and decode, in each process; None shares out the usable CPUs.
        prefetch_batches: Batches each process reads ahead.
        prefetch_bytes: Memory for that, each process; 1 GiB.
        rank: This rank; None asks `torch.distributed` if it is initialised.
        world_size: Number of ranks; None likewise.
        collate: Called with the list of a batch's samples, returns the batch.
        pin_memory: Copy batches into pinned memory, for asynchronous copies to a GPU.
        multiprocessing_context: How workers start: `"fork"`, `"spawn"`, `"forkserver"`; for a dataset behind a URL
            `"forkserver"` by default, and never `"fork"`.
        trust_code: Let virtual representations run code that the dataset records, when `dataset` is a folder; see
            FrameDataset.

    Raises:
        DatasetError, UsageError: As FrameDataset does, and if an option cannot be right.

    Example:
        >>> loader = make_loader("out", representations=["rgb"], batch_size=8, seed=1)
        >>> for batch in loader:
        ...     checkpoint = {"loader": loader.state_dict()}
    """
    if not isinstance(dataset, FrameDataset):
        dataset = FrameDataset(dataset, representations, subset=subset, transform=transform, trust_code=trust_code)
    elif not (representations is None and subset is None and transform is None and not trust_code):
        raise UsageError(
            "representations, subset, transform and trust_code belong to the FrameDataset",
            hint="pass them to FrameDataset(…)",
        )
    for name, value, least in (
        ("num_workers", num_workers, 0),
        ("threads", threads, 1),
        ("prefetch_batches", prefetch_batches, 0),
        ("prefetch_bytes", prefetch_bytes, 1),
    ):
        if value is not None and value < least:
            raise UsageError(f"{name} is {value}, expected at least {least}")
    rank, world_size = _rank_and_world_size(rank, world_size)
    plan = BatchPlan(
        order=Order(length=len(dataset), seed=seed, shuffle=shuffle),
        batch_size=batch_size,
        drop_last=drop_last,
        rank=rank,
        world_size=world_size,
    )
    options = PrefetchOptions(
        threads=threads or max(1, min(_MAX_THREADS, usable_cpus() // max(1, num_workers))),
        batches=prefetch_batches,
        size_bytes=prefetch_bytes,
        collate=collate,
    )
    return FrameLoader(
        BatchStream(dataset, plan, options),
        num_workers=num_workers,
        pin_memory=pin_memory,
        multiprocessing_context=_worker_start(dataset, multiprocessing_context) if num_workers else None,
    )


def _worker_start(dataset: FrameDataset, context: str | BaseContext | None) -> str | BaseContext | None:
    """Return how workers start; the clients of object stores hang in forked processes."""
    if not dataset.is_remote:
        return context
    if context is None:
        methods = multiprocessing.get_all_start_methods()
        return "forkserver" if "forkserver" in methods else "spawn"
    if (context if isinstance(context, str) else context.get_start_method()) == "fork":
        raise UsageError(
            "workers that read from a URL cannot be forked", hint='use multiprocessing_context="forkserver" or "spawn"'
        )
    return context


def _rank_and_world_size(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if (rank is None) != (world_size is None):
        raise UsageError("rank and world_size go together: pass both or none")
    if rank is not None and world_size is not None:
        return rank, world_size
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _as_it_is(batch: Any) -> Any:
    return batch
