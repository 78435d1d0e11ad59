"""flow/dis: dense optical flow by Dense Inverse Search (Kroeger et al., ECCV 2016; OpenCV's implementation)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vrekit.core.errors import UsageError
from vrekit.representations.base import FrameBatch, Kind, Output, OutputSpec, Representation

_SMALLEST_SIDE = 32  # below it OpenCV picks pyramid levels from the width alone and reads outside narrow images (5.0)


@dataclass
class DIS(Representation):
    """Motion from each frame to the frame `delta` later: float32 (H, W, 2), (dx, dy) in pixels.

    The pixel at (x, y) of the frame is seen at (x + dx, y + dy) in the other one. Where the video has no such frame
    the map is all NaN and the frame is marked invalid.

    Args:
        preset: Speed against quality: `ultrafast`, `fast` or `medium` (about 6, 11 and 50 ms at 960x540).
        delta: Frames from this frame to the other one; negative gives backward flow. As many frames are
            held in memory.
    """

    _PRESETS: ClassVar[Mapping[str, int]] = {
        "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
        "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
        "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
    }

    preset: Literal["ultrafast", "fast", "medium"] = "medium"
    delta: Annotated[int, Field(ge=-1000, le=1000)] = 1

    def __post_init__(self) -> None:
        if self.preset not in self._PRESETS:
            raise UsageError(f"preset must be one of {', '.join(self._PRESETS)}, got {self.preset!r}")
        if self.delta == 0:
            raise UsageError("delta must not be 0: a frame does not move against itself")

    @property
    def context(self) -> tuple[int, int]:
        """Frames needed (before, after) each frame."""
        return (max(0, -self.delta), max(0, self.delta))

    def output_spec(self, height: int, width: int, dependencies: Mapping[str, OutputSpec]) -> OutputSpec:
        """Return a float32 (height, width, 2) map."""
        return OutputSpec(
            kind=Kind.FLOW,
            dtype="float32",
            shape=(height, width, 2),
            axes="HWC",
            unit="px",
            invalid_value="nan",
            description=f"DIS optical flow (dx, dy) to frame {self.delta:+d}",
        )

    def compute(self, batch: FrameBatch, dependencies: Mapping[str, Output]) -> Output:
        """Match each frame with its neighbour; no state is carried from pair to pair."""
        # The matcher owns scratch buffers and must not run in two threads at once; making one takes 0.2 ms.
        matcher: Any = cv2.DISOpticalFlow.create(self._PRESETS[self.preset])
        count, height, width = batch.frames.shape[:3]
        flow = np.empty((count, height, width, 2), np.float32)
        valid = np.ones(count, np.bool_)
        gray: dict[int, NDArray[Any]] = {}  # most frames are both source and target
        for position, index in enumerate(batch.indices.tolist()):
            target = batch.neighbour(position, self.delta)
            if target is None:
                flow[position] = np.nan
                valid[position] = False
                continue
            for number, image in ((index, batch.frames[position]), (index + self.delta, target)):
                if number not in gray:
                    gray[number] = _to_gray(image)
            matched = matcher.calc(gray[index], gray[index + self.delta], None)
            flow[position] = matched[:height, :width]
        return Output(data=flow, valid=valid)


def _to_gray(image: NDArray[np.uint8]) -> NDArray[Any]:
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    rows, columns = (max(0, _SMALLEST_SIDE - side) for side in gray.shape)
    return cv2.copyMakeBorder(gray, 0, rows, 0, columns, cv2.BORDER_REPLICATE) if rows or columns else gray
