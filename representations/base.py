"""The contract of a representation: frames and dependencies in, arrays out. It never sees a path or a writer.

A representation type is a class; a dataclass is the shortest way to write one:

    @dataclass
    class Invert(Representation):
        strength: float = 1.0

        def output_spec(self, height, width, dependencies):
            return OutputSpec(kind=Kind.COLOR, dtype="uint8", shape=(height, width, 3), axes="HWC")

        def compute(self, batch, dependencies):
            return Output(data=(255 - batch.frames * self.strength).astype(np.uint8))

Parameters are the arguments of `__init__`; the config is checked against their names and annotations.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from vrekit.core.counting import counted
from vrekit.core.frames import FrameBatch, Output
from vrekit.core.spec import Kind, OutputSpec, RepresentationSpec

__all__ = ["FrameBatch", "Kind", "LearnedRepresentation", "Output", "OutputSpec", "Representation"]
_MOST_NAMED = 8  # dependencies in a message


class Representation(ABC):
    """Definition and computation of one modality.

    Class attributes a type may set:
        inputs: Accepted kinds of each dependency, in order: `((Kind.DEPTH,),)` takes exactly one depth.
            `()` takes none. None accepts any number of any kind.
        uses_frames: False when `compute` never looks at pixels: the video is then not decoded for its sake.
        thread_safe: False when one instance must not run in two threads at once.
        takes_tensors: True when `compute` takes dependencies as they were computed: torch tensors, on any device.
            Otherwise it gets numpy arrays.
        version: Raised when the same parameters give other values than before; part of the config hash.
        is_source: True when `compute` gives the frames as they were decoded: they may be stored as the video itself.
        path_parameters: Parameters that are paths: relative ones start from the config's folder if they are there.
    """

    inputs: ClassVar[tuple[tuple[Kind, ...], ...] | None] = ()
    uses_frames: ClassVar[bool] = True
    thread_safe: ClassVar[bool] = True
    takes_tensors: ClassVar[bool] = False
    version: ClassVar[int] = 1
    is_source: ClassVar[bool] = False
    path_parameters: ClassVar[tuple[str, ...]] = ()

    @property
    def context(self) -> tuple[int, int]:
        """Frames needed (before, after) each frame; they come through `FrameBatch.neighbour`."""
        return (0, 0)

    def data_digest(self) -> str | None:
        """Return a digest of the data it reads besides frames, part of the config hash; None when there is none."""
        return None

    @abstractmethod
    def output_spec(self, height: int, width: int, dependencies: Mapping[str, OutputSpec]) -> OutputSpec:
        """Return what one frame of the output looks like for (height, width) input frames.

        Args:
            height: Rows of a decoded frame, pixels.
            width: Columns of a decoded frame, pixels.
            dependencies: Specs of the dependencies by name, in config order.
        """

    @abstractmethod
    def compute(self, batch: FrameBatch, dependencies: Mapping[str, Output]) -> Output:
        """Return the output for every frame of the batch, in order.

        Args:
            batch: N frames; `batch.frames` is uint8 RGB (N, H, W, 3).
            dependencies: Memory-form outputs of the dependencies for the same frames, by name in config order.
        """

    def make_images(self, output: Output, spec: OutputSpec) -> NDArray[np.uint8]:
        """Return pictures for people, uint8 (N, H, W, 3); by default drawn from the kind (see `pictures.py`).

        Each picture depends on its own frame only, so it is the same whatever the batch.
        """
        from vrekit.representations.pictures import draw

        return draw(output, spec)


class LearnedRepresentation(Representation):
    """A representation with weights: they load only when something must be computed, and are freed after."""

    thread_safe: ClassVar[bool] = False

    @abstractmethod
    def load_weights(self, device: str) -> None:
        """Put the model on `device`; called once before the first `compute`."""

    def unload_weights(self) -> None:
        """Free the model; called after the last `compute`."""


def input_count_problem(cls: type[Representation], spec: RepresentationSpec) -> str | None:
    """Return what is wrong with the number of dependencies of `spec`, None if its type takes as many."""
    if cls.inputs is None or len(spec.dependencies) == len(cls.inputs):
        return None
    wanted = ", ".join("|".join(kinds) for kinds in cls.inputs) or "none"
    shown = ", ".join(map(repr, spec.dependencies[:_MOST_NAMED])) or "none"
    more = ", …" if len(spec.dependencies) > _MOST_NAMED else ""
    return (
        f"{spec.type} takes {counted(len(cls.inputs), 'dependency', 'dependencies')} ({wanted}), "
        f"got {len(spec.dependencies)}: "
        f"{f'[{shown}{more}]' if spec.dependencies else 'none'}"
    )
