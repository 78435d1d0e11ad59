"""Frames and outputs in memory: what `compute` gets and what it gives back.

Legend: N frames, H height, W width, C channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameBatch:
    """Some frames of one video, in the order they are to be computed.

    Attributes:
        frames: RGB pixels, uint8, shape (N, H, W, 3). Shape (N, 0, 0, 3) when nothing asked for pixels.
        indices: Frame numbers in the source, int64, shape (N,). They need not be consecutive.
        pts_seconds: Presentation times, float64 seconds, shape (N,).
        neighbours: Frame number -> (H, W, 3) pixels of frames around these that `context` asked for.
    """

    frames: NDArray[np.uint8]
    indices: NDArray[np.int64]
    pts_seconds: NDArray[np.float64]
    neighbours: Mapping[int, NDArray[np.uint8]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        span = f"{self.indices[0]}..{self.indices[-1]}" if len(self.indices) else "empty"
        return f"FrameBatch({span}, frames={self.frames.shape} {self.frames.dtype})"

    def neighbour(self, position: int, offset: int) -> NDArray[np.uint8] | None:
        """Return frame `indices[position] + offset` of the video as (H, W, 3), None where the video has none."""
        wanted = int(self.indices[position]) + offset
        at = position + offset
        if 0 <= at < len(self.indices) and int(self.indices[at]) == wanted:
            frame: NDArray[np.uint8] = self.frames[at]
            return frame
        return self.neighbours.get(wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a representation computed for N frames.

    Attributes:
        data: One array or torch tensor (N, ...), or a list of N where frames differ in shape. Text is a list of 0-d
            str arrays. A tensor stays on its device until its values are encoded.
        valid: bool (N,): False where a frame has a placeholder only (flow at the last frame). None: all valid.
    """

    data: "NDArray[np.generic] | Sequence[NDArray[np.generic]] | torch.Tensor | Sequence[torch.Tensor]"
    valid: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        shape = f"{len(self.data)} ragged" if isinstance(self.data, Sequence) else tuple(self.data.shape)
        return f"Output({shape})"

    def frame(self, position: int) -> NDArray[np.generic]:
        """Return the array of one frame."""
        return to_numpy(self.data[position])

    def as_numpy(self) -> "Output":
        """Return the output with numpy arrays, itself if it has no tensors."""
        if isinstance(self.data, np.ndarray):
            return self
        if isinstance(self.data, Sequence):
            if all(isinstance(array, np.ndarray) for array in self.data):
                return self
            return Output(data=[to_numpy(array) for array in self.data], valid=self.valid)
        return Output(data=to_numpy(self.data), valid=self.valid)

    def is_valid(self, position: int) -> bool:
        """Return whether frame `position` holds a measurement."""
        return self.valid is None or bool(self.valid[position])


def to_numpy(data: Any) -> NDArray[np.generic]:
    """Return an array as it is, and a torch tensor as an array in the computer's memory."""
    return np.asarray(data.detach().cpu().numpy() if hasattr(data, "detach") else data)
