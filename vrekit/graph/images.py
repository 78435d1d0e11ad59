"""`NAME.image`: the pictures of a representation, exported beside its data; a node that computes from its owner."""

from collections.abc import Mapping
from typing import ClassVar

from vrekit.core.frames import FrameBatch, Output
from vrekit.core.spec import Kind, OutputSpec
from vrekit.representations.base import Representation


class Images(Representation):
    """Draws `owner`'s output with its own `make_images`."""

    inputs: ClassVar[tuple[tuple[Kind, ...], ...] | None] = None
    uses_frames: ClassVar[bool] = False

    def __init__(self, owner: Representation, owner_spec: OutputSpec) -> None:
        self.owner = owner
        self.owner_spec = owner_spec

    def output_spec(self, height: int, width: int, dependencies: Mapping[str, OutputSpec]) -> OutputSpec:
        """A picture as large as the owner's rows and columns, or ragged where the owner has none."""
        rows, columns = self.owner_spec.size_of("H"), self.owner_spec.size_of("W")
        shape = (rows, columns, 3) if rows is not None and columns is not None else (None, None, 3)
        return OutputSpec(kind=Kind.COLOR, dtype="uint8", shape=shape, axes="HWC", description="picture for people")

    def compute(self, batch: FrameBatch, dependencies: Mapping[str, Output]) -> Output:
        """Return the owner's pictures."""
        (output,) = dependencies.values()
        return Output(data=self.owner.make_images(output, self.owner_spec))
