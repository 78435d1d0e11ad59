"""Batches and samples: split a batch into its frames, and put samples together again."""

from collections.abc import Collection, Sequence
from typing import Any

import torch

from vrekit.readers.batch_reader import FRAME_FIELDS, VALID_SUFFIX

Sample = dict[str, Any]


def split_batch(batch: dict[str, Any]) -> list[Sample]:
    """Return the samples of a batch; their tensors are views of the batch's.

    A sample holds Python values where a batch holds one per frame: `frame_index` int, `pts_seconds` float,
    `<name>.valid` bool.
    """
    samples = []
    for at in range(len(batch["key"])):
        sample = {name: values[at] for name, values in batch.items()}
        for name, value in sample.items():
            if name in FRAME_FIELDS or name.endswith(VALID_SUFFIX):
                sample[name] = value.item() if isinstance(value, torch.Tensor) else value
        samples.append(sample)
    return samples


def collate_samples(samples: Sequence[Sample], lists: Collection[str] = ()) -> dict[str, Any]:
    """Return samples as a batch: tensors of equal shape are stacked, numbers become tensors, the rest lists.

    Args:
        samples: Samples with the same names.
        lists: Names that stay lists even when their tensors happen to have equal shapes.
    """
    return {name: _join([sample[name] for sample in samples], name in lists) for name in samples[0]}


def _join(values: list[Any], as_list: bool) -> Any:
    first = values[0]
    if as_list:
        return values
    if isinstance(first, torch.Tensor):
        return torch.stack(values) if all(_alike(first, value) for value in values) else values
    if isinstance(first, (bool, int, float)) and all(type(value) is type(first) for value in values):
        return torch.tensor(values, dtype=torch.float64 if isinstance(first, float) else None)
    return values


def _alike(first: torch.Tensor, value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.shape == first.shape and value.dtype == first.dtype
