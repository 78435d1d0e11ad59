"""One frame of a dataset that `vrekit.open` returned."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vrekit.api.picture import ShownPicture
from vrekit.core.errors import UsageError

if TYPE_CHECKING:
    import torch

    from vrekit.api.dataset import Dataset
    from vrekit.readers.collate import Sample

Value: TypeAlias = NDArray[Any] | str


class Frame:
    """One frame of an open dataset. Its values are read when they are asked for.

    Attributes:
        key: `car/00000012`.
        video_id: Which video.
        frame_index: Number in the video, from 0.
        pts_seconds: Presentation time, seconds; NaN where unknown.
    """

    def __init__(self, dataset: "Dataset", row: int) -> None:
        index = dataset._index
        self._dataset = dataset
        self._row = row
        self.key = index.key(row)
        self.video_id = index.videos[index.video[row]]
        self.frame_index = int(index.frame_index[row])
        self.pts_seconds = float(index.pts_seconds[row])

    def __repr__(self) -> str:
        return f"Frame({self.key!r}; {', '.join(self.representations)})"

    @property
    def representations(self) -> tuple[str, ...]:
        """Names of what the frame has: what is stored, and what is computed from that on reading."""
        return self._dataset._names_of(self._row)

    def __iter__(self) -> Iterator[str]:
        return iter(self.representations)

    def __len__(self) -> int:
        return len(self.representations)

    def __contains__(self, name: object) -> bool:
        return name in self.representations

    def keys(self) -> tuple[str, ...]:
        """Return `representations`, so that `dict(frame)` reads all of them."""
        return self.representations

    def __getitem__(self, name: str) -> Value:
        """Return the values of a representation: an array in its stored dtype and shape; text as `str`.

        Raises:
            UsageError: If the dataset or this frame has no such representation.
            ChecksumError: If the payload changed since it was written.
            DatasetError: If it needs code of the dataset that is not trusted (`vrekit.open(…, trust_code=True)`).
        """
        value = self._sample(name)[name]
        return value if isinstance(value, str) else value.numpy()

    def torch(self, name: str) -> "torch.Tensor":
        """Return the values of a representation as a tensor.

        Raises:
            UsageError: If it is text, or as for `frame[name]`.
        """
        value = self._sample(name)[name]
        if isinstance(value, str):
            raise UsageError(f"{name!r} is text, which is no tensor", hint=f"frame[{name!r}] is a str")
        return value  # type: ignore[no-any-return]  # a tensor

    def valid(self, name: str) -> bool:
        """Return whether the values are a measurement, not a placeholder (flow of the last frame)."""
        return bool(self._sample(name)[f"{name}.valid"])

    def show(self, name: str | None = None) -> ShownPicture:
        """Return a picture of a representation, which a notebook draws.

        Args:
            name: The representation; by default the first one of the frame.

        Raises:
            UsageError: As for `frame[name]`.
        """
        from vrekit.jobs.extract.forms import picture_of

        if name is None:
            if not self.representations:
                raise UsageError(f"nothing is stored of frame {self.key}", hint="`vrekit info` lists failures")
            name = self.representations[0]
        value, spec = self[name], self._dataset.representations[name].stored
        array = np.array(value) if isinstance(value, str) else value
        return ShownPicture(f"{self.key} {name}", picture_of(spec, array, self.valid(name)))

    def _sample(self, name: str) -> "Sample":
        sample = self._dataset._reader(name)[self._row]
        if sample[name] is None:
            has = ", ".join(self.representations) or "nothing"
            raise UsageError(f"frame {self.key} has no {name!r}", hint=f"it has {has}; `vrekit show` tells failures")
        return sample
