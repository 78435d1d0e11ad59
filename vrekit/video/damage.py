"""Reading around damage: every frame that decodes, under its own number, and a reason for each that does not.

A damaged packet makes the decoder raise, or skip frames silently, or end early; and in formats without an index (MPEG
transport streams) a seek may land behind the frame it was meant for. `SteppingReader` walks past all of these frame by
frame. Read in rising order it decodes each frame once however much is damaged: what is skipped on the way to a frame is
remembered as lost, and what lies behind the last frame that decodes is not tried again.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vrekit.video.decoder import DecodeFault, EndOfStream, LabelledDecoder

# Key frames before the last possible one to start at. Two at least: FFmpeg garbles the first frames that it gives
# behind the key frame of an intra refresh.
_EARLIER_KEYS = (2, 4)
_SKIPPED = "the decoder skipped it: the data is damaged"
_ENDED = "the stream ends before it: the file is cut short or damaged"


@dataclass(frozen=True, slots=True)
class _Found:
    """Frame `number` came when `asked` was wanted: the frames from `asked` up to it are lost."""

    asked: int
    number: int
    pixels: NDArray[np.uint8]


class SteppingReader:
    """Reads single frames of a stream in which some may not decode."""

    def __init__(self, decoder: LabelledDecoder) -> None:
        self._decoder = decoder
        self._found: _Found | None = None
        self._fault = ""  # FFmpeg's latest complaint on the way to `_found`
        self._end = len(decoder)  # no frame from here on decodes
        self._end_reason = ""

    def read(self, index: int) -> NDArray[np.uint8] | str:
        """Return the pixels of a frame, uint8 (H, W, 3), or why there are none."""
        if index >= self._end:
            return self._end_reason
        found = self._found
        if found is None or not found.asked <= index <= found.number:
            found = self._found = self._find(index)
        if found is None:
            self._end, self._end_reason = index, f"{_ENDED} ({self._fault})" if self._fault else _ENDED
            self._decoder.restart()
            return self._end_reason
        return found.pixels if index == found.number else self._fault or _SKIPPED

    def _find(self, index: int) -> _Found | None:
        """Return the first frame at or behind `index` that decodes, None when there is none."""
        if self._decoder.position is not None and self._decoder.position == index - 1:
            return self._walk_to(index)
        self._decoder.seek(index)
        found = self._walk_to(index)
        if found is not None and found.number == index:
            return found
        # Either the frame is lost, or the seek landed behind it, or decoding cannot start at its key frame: that of an
        # intra refresh holds a part of the picture only. Starting some key frames earlier tells.
        own = int(np.searchsorted(self._decoder.keys, index, side="right")) - 1
        for earlier in _EARLIER_KEYS:
            key = own - earlier
            if found is None or key < 0:
                self._decoder.restart()
            if key >= 0:
                self._decoder.seek(int(self._decoder.keys[key]))
            found = self._walk_to(index)
            if key < 0 or (found is not None and found.number == index):
                break
        return found

    def _walk_to(self, index: int) -> _Found | None:
        self._fault = ""
        for _ in range(2 * len(self._decoder) + 64):  # each pull takes a packet; the bound is for faults that stay
            try:
                number, pixels = self._decoder.pull()
            except DecodeFault as fault:
                self._fault = str(fault)
            except EndOfStream:
                return None
            else:
                if number >= index:
                    return _Found(index, number, pixels)
        return None
