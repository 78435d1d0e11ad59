"""A codec made of stages: any number of array → array, exactly one array → bytes, any number of bytes → bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.base import Bytes, Codec
from vrekit.codecs.scratch import scratch
from vrekit.codecs.stage import ArrayStage, ArrayToBytesStage, BytesStage, Layout, Shape, Stage
from vrekit.core.errors import CodecError, UsageError
from vrekit.core.spec import OutputSpec

_PACKER_BYTES = 64 << 10  # that packers may add to a file they cannot make smaller, beside an eighth of it
CODED_SUFFIX = "vrk"  # last ending of a file that has the format before it, but holds codes instead of the values


@dataclass(frozen=True, slots=True, repr=False)
class PipelineCodec(Codec):
    """Stages run in order on `encode` and backwards on `decode`.

    `name` is a label for people; the stages alone decide what the bytes mean, and `config()` lists all of them with
    all of their options.
    """

    name: str
    array_stages: tuple[ArrayStage, ...]
    format: ArrayToBytesStage
    bytes_stages: tuple[BytesStage, ...] = ()

    @classmethod
    def from_stages(cls, stages: Sequence[Stage], name: str | None = None) -> Self:
        """Return the codec of these stages.

        Raises:
            UsageError: If they are not in the order array → array, one array → bytes, bytes → bytes, or a one-way
                stage comes after another array stage.
        """
        listing = " → ".join(stage.id for stage in stages) or "nothing"
        formats = [at for at, stage in enumerate(stages) if isinstance(stage, ArrayToBytesStage)]
        if len(formats) != 1:
            raise UsageError(f"a codec needs exactly one array → bytes stage such as npy or jxl, got {listing}")
        at = formats[0]
        arrays = [stage for stage in stages[:at] if isinstance(stage, ArrayStage)]
        packers = [stage for stage in stages[at + 1 :] if isinstance(stage, BytesStage)]
        file_format = stages[at]
        if len(arrays) != at or len(packers) != len(stages) - at - 1 or not isinstance(file_format, ArrayToBytesStage):
            raise UsageError(
                f"codec stages in the wrong order: {listing}",
                hint="array → array stages first, then one array → bytes stage, then bytes → bytes stages",
            )
        reversible_seen = False
        for stage in arrays:
            if stage.one_way and reversible_seen:
                raise UsageError(f"codec stage {stage.id!r} keeps less than it gets and must come first: {listing}")
            reversible_seen = reversible_seen or not stage.one_way
        label = name or "+".join(stage.id for stage in stages)
        return cls(label, tuple(arrays), file_format, tuple(packers))

    def __repr__(self) -> str:
        return f"{self.name}: {' → '.join(stage.id for stage in self.stages)}"

    @property
    def id(self) -> str:
        """The label."""
        return self.name

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages, in encoding order."""
        return (*self.array_stages, self.format, *self.bytes_stages)

    @property
    def suffix(self) -> str:
        """The file format's ending, then those of the packers: `npy.zst`; `npy.zst.vrk` where the file holds codes.

        Other programs decode a file by its last ending. None knows `.vrk`, so none takes codes for values.
        """
        endings = [self.format.suffix, *(stage.suffix for stage in self.bytes_stages)]
        is_plain = all(stage.is_plain for stage in self.array_stages)
        return ".".join(endings if is_plain else [*endings, CODED_SUFFIX])

    @property
    def is_exact(self) -> bool:
        """Whether every stage is."""
        return all(stage.is_exact for stage in self.stages)

    def config(self) -> dict[str, Any]:
        """Return `{"id": label, "stages": [...]}`."""
        return {"id": self.name, "stages": [stage.config() for stage in self.stages]}

    def decoded_spec(self, spec: OutputSpec) -> OutputSpec:
        """Return the spec of what decoding gives."""
        for stage in self.array_stages:
            spec = stage.decoded_spec(spec)
        return spec

    def decoded_layout(self, dtype: np.dtype[Any], shape: Shape) -> Layout:
        """Return dtype and shape of what decoding gives.

        Raises:
            CodecError: If a stage cannot take such arrays.
        """
        for stage in self.array_stages:
            dtype, shape = stage.decoded_layout(dtype, shape)
        self._layouts(dtype, shape)
        return dtype, shape

    def file_layout(self, dtype: np.dtype[Any], shape: Shape) -> Layout:
        """Return dtype and shape of the array that the file format holds, for a decoded array of this layout.

        Raises:
            CodecError: If a stage cannot take such arrays.
        """
        return self._layouts(dtype, shape)[-1]

    def max_encoded_size(self, dtype: np.dtype[Any], shape: Shape) -> int:
        """Return a bound on the bytes of a payload; see `Codec.max_encoded_size`."""
        size = self.format.max_encoded_size(*self.file_layout(dtype, shape))
        return size + (size // 8 + _PACKER_BYTES if self.bytes_stages else 0)

    def _layouts(self, dtype: np.dtype[Any], shape: Shape) -> list[Layout]:
        """Return the layouts before each array stage and before the format, for a decoded array."""
        layouts = [(dtype, shape)]
        for stage in self.array_stages:
            layouts.append(stage.encoded_layout(*layouts[-1]))
        self.format.check(*layouts[-1])
        return layouts

    def encode(self, array: NDArray[Any]) -> bytes:
        """Return the bytes of one frame's array.

        Raises:
            CodecError: If dtype, shape or values do not fit a stage.
        """
        self.decoded_layout(array.dtype, array.shape)
        for stage in self.array_stages:
            array = stage.encode(array)
        data = self.format.encode(np.asarray(array, order="C"))
        for packer in self.bytes_stages:
            data = packer.encode(data)
        return data

    def decode(
        self, data: Bytes, *, dtype: np.dtype[Any], shape: Shape, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Return the array in `data`; see `Codec.decode`."""
        dtype, shape = np.dtype(dtype), tuple(shape)
        layouts = self._layouts(dtype, shape)
        if out is None:
            try:
                out = np.empty(shape, dtype)
            except (MemoryError, ValueError) as error:
                raise CodecError(f"no memory for an array {dtype} {shape}: {error}") from error
        elif out.dtype != dtype or out.shape != shape or not out.flags.c_contiguous or not out.flags.writeable:
            raise CodecError(f"out is {out.dtype} {out.shape}, expected writable C-contiguous {dtype} {shape}")
        for packer in reversed(self.bytes_stages):
            data = packer.decode(data, self.format.max_encoded_size(*layouts[-1]))
        # Each stage decodes into its own target; a target that is a view of the one before needs no work afterwards.
        targets, is_view = [out], []
        for at, (stage, layout) in enumerate(zip(self.array_stages, layouts[1:], strict=True)):
            view = stage.view(targets[-1])
            is_view.append(view is not None)
            targets.append(scratch(f"stage {at}", *layout) if view is None else view)
        last = len(self.array_stages)
        source = self.format.peek(data, *layouts[-1]) if last and not is_view[-1] else None
        if source is None:
            source = targets[-1]
            self.format.decode(data, source)
        for at in reversed(range(last)):
            if not is_view[at]:
                self.array_stages[at].decode(source, targets[at])
            source = targets[at]
        return out
