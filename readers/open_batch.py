"""A batch that is being filled: its memory, what stands in its gaps, and how it becomes tensors."""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch.utils.data import get_worker_info

from vrekit.core.errors import DatasetError
from vrekit.core.spec import OutputSpec
from vrekit.readers.columns import Layout
from vrekit.readers.pages import PagePool

Arrays = NDArray[Any] | list[NDArray[Any] | None]

# glibc gives larger memory back to the system when it is freed: always above 32 MB, below if it lies last in the heap.
_NEW_PAGES_BYTES = 4 << 20


@dataclass(slots=True)
class OpenBatch:
    """A batch that is being filled; threads fill different positions of it at once.

    Attributes:
        rows: Row of each frame, int64 (N,).
        arrays: Stored representations by name: one array (N, ...), or a list of N arrays.
        tensors: The tensors whose memory the arrays (N, ...) are.
        damaged: Which frames have a payload that could not be read, bool (N,).
    """

    rows: NDArray[np.int64]
    arrays: dict[str, Arrays]
    tensors: dict[str, torch.Tensor]
    damaged: NDArray[np.bool_]

    def without_damaged(self) -> "OpenBatch":
        """Return the batch without its damaged frames.

        Raises:
            DatasetError: If every frame of it is damaged.
        """
        keep = np.flatnonzero(~self.damaged)
        if not len(keep):
            raise DatasetError(
                f"all {len(self.rows)} frames of a batch are damaged", hint="`vrekit validate` lists what is damaged"
            )
        arrays: dict[str, Arrays] = {
            name: array[keep] if isinstance(array, np.ndarray) else [array[at] for at in keep.tolist()]
            for name, array in self.arrays.items()
        }
        tensors = {name: tensor[torch.from_numpy(keep)] for name, tensor in self.tensors.items()}
        return OpenBatch(self.rows[keep], arrays, tensors, np.zeros(len(keep), np.bool_))


def empty_tensor(shape: Sequence[int], dtype: DTypeLike, pages: PagePool) -> torch.Tensor:
    """Return a tensor to decode a batch into; its values are undefined.

    Args:
        shape: Shape of the batch.
        dtype: numpy dtype of the batch.
        pages: Lends the memory of large batches.
    """
    dtype = np.dtype(dtype)
    size_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    torch_dtype = torch.from_numpy(np.empty(0, dtype)).dtype
    if get_worker_info() is not None:
        # Worker processes hand tensors over through shared memory: decoding into it saves copying every batch.
        storage = torch.UntypedStorage._new_shared(size_bytes)  # type: ignore[no-untyped-call]  # torch's stubs
        return torch.empty(0, dtype=torch_dtype).set_(storage).view(*shape)
    if size_bytes > _NEW_PAGES_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.from_numpy(pages.array(size_bytes).view(dtype).reshape(shape))
    return torch.empty(*shape, dtype=torch_dtype)


def fallback_layout(spec: OutputSpec) -> Layout:
    """Return the layout of a filled frame when no other frame shows one; ragged axes have length 0."""
    return Layout(np.dtype(spec.dtype), tuple(length or 0 for length in spec.shape))


def fill_value(spec: OutputSpec, dtype: np.dtype[Any]) -> Any:
    """Return what stands for "no measurement": the spec's invalid value, else NaN, 0, False or an empty text."""
    if dtype.kind == "U":
        return ""
    if spec.invalid_value is not None:
        return dtype.type(float(spec.invalid_value))
    return dtype.type(np.nan if dtype.kind in "fc" else 0)


def to_torch(arrays: Arrays, *, is_text: bool) -> Any:
    """Return a finished representation as a tensor, or as a list with None in its gaps."""
    if isinstance(arrays, np.ndarray):
        return torch.from_numpy(arrays)
    if is_text:
        return [None if array is None else str(array[()]) for array in arrays]
    return [None if array is None else torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
