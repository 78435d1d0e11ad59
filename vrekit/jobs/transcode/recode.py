"""One payload from one codec to another, through the values that both agree on, checked before it is handed on."""

import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.base import ClipCodec, Codec
from vrekit.codecs.measure import compare, same_bytes
from vrekit.codecs.pipeline import PipelineCodec
from vrekit.codecs.stage import ArrayStage
from vrekit.core.errors import CodecError
from vrekit.core.spec import OutputSpec


@dataclass(frozen=True, slots=True)
class Recoded:
    """A payload in its new form.

    Attributes:
        data: The bytes.
        encode_seconds: Time that encoding took.
        errors: Where values changed, how much (names as in `vrekit.codecs.measure.compare`).
    """

    data: bytes
    encode_seconds: float
    errors: dict[str, float] = field(default_factory=dict)


class Recoder:
    """Decodes with one codec and encodes with another; threads may share one.

    Both codecs may begin with the same stages, such as the rounding to millimetres of `mm-delta` and `mm-jxl`. What
    these give is then handed over as it is: that loses nothing, and the result is what encoding the original values
    would have given.
    """

    def __init__(self, source: Codec | ClipCodec, target: Codec | ClipCodec, spec: OutputSpec) -> None:
        """Plan the way from `source` to `target`.

        Args:
            source: Codec of the stored payloads; frames of clips are decoded elsewhere, and handed to `encode`.
            target: Codec of the new ones; clips are made elsewhere, of what `decode` gives.
            spec: What decoding gives.

        Raises:
            CodecError: If `target` would keep another thing than `source` does (class ids of scores).
        """
        self._source = source
        self._target = target
        self._spec = spec
        self._shared: tuple[ArrayStage, ...] = ()
        self._decoder: Codec | ClipCodec = source
        self._encoder: Codec | ClipCodec = target
        if isinstance(source, PipelineCodec) and isinstance(target, PipelineCodec):
            self._shared = _shared_stages(source, target)
            skipped = len(self._shared)
            self._decoder = PipelineCodec.from_stages(source.stages[skipped:], source.id)
            self._encoder = PipelineCodec.from_stages(target.stages[skipped:], target.id)
            for stages in (source.array_stages[skipped:], target.array_stages[skipped:]):
                if any(stage.one_way for stage in stages):
                    raise CodecError(
                        f"codec {target.id!r} does not keep the same thing as {source.id!r}",
                        hint="transcoding changes how values are stored; export again to store others",
                    )

    @property
    def source_loses(self) -> bool:
        """Whether the values that are handed over are not those that went into the source's codec, nor its codes."""
        return not self._decoder.is_exact

    @property
    def target_loses(self) -> bool:
        """Whether the new form loses something that the old one had."""
        return not self._encoder.is_exact

    @property
    def hands_over_rounded(self) -> bool:
        """Whether the stages that both codecs begin with had lost something, and neither loses it again."""
        return any(not stage.is_exact for stage in self._shared)

    @property
    def makes_clips(self) -> ClipCodec | None:
        """The target, where it keeps many frames in one payload."""
        return self._target if isinstance(self._target, ClipCodec) else None

    def decode(self, data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Return what the source's codec gives, of this dtype and shape.

        Raises:
            CodecError: If it does not decode.
        """
        if isinstance(self._source, ClipCodec):
            raise TypeError("clips are decoded as a whole")
        return self._source.decode(data, dtype=dtype, shape=shape)

    def recode(self, data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Recoded:
        """Return the payload in the target's form.

        Args:
            data: The stored payload; let go as soon as it is decoded, where the caller keeps no reference.
            dtype: dtype of what decoding it gives.
            shape: Shape of that.

        Raises:
            CodecError: If it does not decode, does not fit the target's codec, or would not come back.
        """
        layout = (dtype, shape)
        for stage in self._shared:
            layout = stage.encoded_layout(*layout)
        if isinstance(self._source, ClipCodec) or isinstance(self._decoder, ClipCodec):
            raise TypeError("clips are decoded as a whole")
        if isinstance(self._target, ClipCodec):
            raise TypeError("clips are encoded as a whole")
        codes = self._decoder.decode(data, dtype=layout[0], shape=layout[1])
        if not (self._shared and self.target_loses):
            del data
            return self.encode(codes)
        recoded = self.encode(codes)
        del codes
        values = self._source.decode(data, dtype=dtype, shape=shape)
        del data
        back = self._target.decode(recoded.data, dtype=dtype, shape=shape)
        return replace(recoded, errors=compare(values, back, self._spec, self._spec))

    def encode(self, values: NDArray[Any]) -> Recoded:
        """Return what the source's codec gave in the target's form.

        Raises:
            CodecError: If it does not fit the target's codec, or would not come back.
        """
        if isinstance(self._encoder, ClipCodec):
            raise TypeError("clips are encoded as a whole")
        started = time.perf_counter()
        new = self._encoder.encode(values)
        seconds = time.perf_counter() - started
        back = self._encoder.decode(new, dtype=values.dtype, shape=values.shape)
        if self.target_loses:
            return Recoded(new, seconds, {} if self._shared else compare(values, back, self._spec, self._spec))
        if not _same(values, back):
            raise CodecError(
                f"codec {self._target.id!r} did not give back what it was given: {values.dtype} {values.shape}"
            )
        return Recoded(new, seconds)


def _shared_stages(source: PipelineCodec, target: PipelineCodec) -> tuple[ArrayStage, ...]:
    shared = []
    for mine, other in zip(source.array_stages, target.array_stages, strict=False):
        if mine.config() != other.config():
            break
        shared.append(mine)
    return tuple(shared)


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    if a.dtype.kind == "U":
        return str(a) == str(b)
    return same_bytes(a, b) or bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
