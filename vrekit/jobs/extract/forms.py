"""In which files a representation may be extracted, and what goes into them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.base import Codec
from vrekit.codecs.registry import codec_for, codec_from_config, default_codec
from vrekit.core.errors import UsageError
from vrekit.core.frames import Output
from vrekit.core.names import did_you_mean, sample_key
from vrekit.core.spec import Kind, OutputSpec
from vrekit.representations.pictures import Picture, draw

FORMATS = ("png", "jpg", "npy", "json", "txt", "mp4")
_PICTURES = ("png", "jpg", "mp4")
_SMALL = (Kind.BOXES, Kind.POINTS, Kind.TABLE, Kind.EMBEDDING)  # what is worth a JSON file


@dataclass(frozen=True, slots=True)
class Form:
    """One sort of file of one representation; `codec` is None for a video of its pictures."""

    name: str
    spec: OutputSpec
    ending: str
    codec: Codec | None
    is_picture: bool

    def path(self, video_id: str, frame: int) -> str:
        """Return where the file goes, relative to the folder."""
        if self.codec is None:
            return f"{video_id}/{self.name}.{self.ending}"
        return f"{sample_key(video_id, frame)}.{self.name}.{self.ending}"

    def encoded(self, array: NDArray[Any], is_valid: bool) -> tuple[NDArray[Any], bytes]:
        """Return what the file of one frame holds, and its bytes.

        Raises:
            CodecError: If the values do not fit.
        """
        if self.codec is None:
            raise TypeError(f"{self.name} goes into a video")
        content = picture_of(self.spec, array, is_valid) if self.is_picture else array
        return content, self.codec.encode(content)


def forms_of(name: str, spec: OutputSpec, formats: Sequence[str]) -> Iterator[Form]:
    """Yield the files to write of a representation.

    Raises:
        UsageError: If there is no such format, or none of those that were asked for fits.
    """
    for ending in formats:
        if ending not in FORMATS:
            raise UsageError(
                f"unknown format {ending!r}{did_you_mean(ending, FORMATS)}", hint=f"--to takes {', '.join(FORMATS)}"
            )
    if not formats:
        codec = default_codec(spec, profile="plain", lossy=False)
        yield Form(name, spec, codec.suffix, codec, is_picture=False)
        return
    fitting = [ending for ending in dict.fromkeys(formats) if _fits(ending, spec)]
    if not fitting:
        fits = [ending for ending in FORMATS if _fits(ending, spec)]
        raise UsageError(
            f"{name} ({spec.kind}, {spec.dtype}) cannot be written as {' or '.join(formats)}",
            hint=f"it fits --to {', '.join(fits)}; -r chooses representations",
        )
    for ending in fitting:
        if ending == "mp4":
            yield Form(name, spec, ending, None, is_picture=True)
        elif ending in _PICTURES:
            yield Form(name, spec, ending, codec_from_config(ending), is_picture=True)
        else:
            yield Form(name, spec, ending, codec_for(ending, spec), is_picture=False)


def _fits(ending: str, spec: OutputSpec) -> bool:
    if ending in _PICTURES:
        return True
    if spec.dtype == "str":
        return ending == "txt"
    return ending == "npy" or (ending == "json" and spec.kind in _SMALL)


def picture_of(spec: OutputSpec, array: NDArray[Any], is_valid: bool) -> Picture:
    """Return the picture of one frame: uint8 (H, W, 3)."""
    spec = spec if spec.is_ragged else replace(spec, shape=tuple(array.shape))  # of this frame's video
    picture: Picture = draw(Output(data=[array], valid=np.array([is_valid])), spec)[0]
    return picture
