"""Frames out of video clips: decoded on the fly, with the clips in use and their decoders kept open."""

import math
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.base import ClipCodec, ClipDecoder
from vrekit.core.errors import CodecError
from vrekit.core.fork_lock import ForkSafeLock

MAX_CACHE_BYTES = 256 << 20  # clips and decoders of one reader in one process; the clip in use may exceed it
_MAX_IDLE = 4  # decoders of one clip


class _OpenClip:
    """A clip's bytes, and decoders of it that no thread is using, each with the place it read last."""

    def __init__(self) -> None:
        self.lock = ForkSafeLock()
        self.data: bytes | None = None
        self.idle: list[tuple[int, ClipDecoder]] = []
        self.decoder_bytes = 0

    @property
    def size_bytes(self) -> int:
        """Memory of the bytes and of the idle decoders."""
        return len(self.data or b"") + self.decoder_bytes * len(self.idle)


class ClipReader:
    """Decodes frames of clips; threads may call it at once, and it works after pickling and in forked processes.

    A decoder serves one thread at a time; a thread gets the idle one that is nearest before the frames it wants, so
    that reading on decodes nothing twice.

    Args:
        max_bytes: Memory that clips and idle decoders may take together; those not used for longest are dropped.
    """

    def __init__(self, max_bytes: int = MAX_CACHE_BYTES) -> None:
        self.max_bytes = max_bytes
        self._lock = ForkSafeLock()
        self._clips: OrderedDict[Hashable, _OpenClip] = OrderedDict()
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_clips": OrderedDict()}

    def read(
        self,
        codec: ClipCodec,
        place: Hashable,
        load: Callable[[], bytes],
        positions: NDArray[np.int64],
        *,
        shape: Sequence[int],
    ) -> NDArray[np.uint8]:
        """Return frames of a clip, uint8 (N, H, W, 3).

        Args:
            codec: How the clip is decoded.
            place: What tells this clip from others.
            load: Returns the clip's bytes, checked; called when they are not in memory.
            positions: Places of the frames in the clip, rising.
            shape: Of a frame, as its metadata row has it.

        Raises:
            CodecError: If the clip or a frame does not decode, or its frames have another shape.
        """
        clip = self._clip(place)
        with clip.lock:  # one thread loads, others wait for it
            if clip.data is None:
                clip.data = load()
        decoder = self._take(clip, int(positions[0])) or codec.open_decoder(clip.data)
        decoder.check_frame_pixels(math.prod(shape[:2]))
        frames = decoder.read(positions)
        if frames.shape[1:] != tuple(shape):
            raise CodecError(f"the clip has frames {frames.shape[1:]}, expected {tuple(shape)}")
        clip.decoder_bytes = decoder.size_bytes
        with self._lock:
            clip.idle.append((int(positions[-1]), decoder))
            if len(clip.idle) > _MAX_IDLE:
                del clip.idle[0]
            self._drop_unused()
        return frames

    def _clip(self, place: Hashable) -> _OpenClip:
        with self._lock:
            if self._process != os.getpid():  # decoders do not survive a fork
                self._clips.clear()
                self._process = os.getpid()
            clip = self._clips.setdefault(place, _OpenClip())
            self._clips.move_to_end(place)
            return clip

    def _take(self, clip: _OpenClip, position: int) -> ClipDecoder | None:
        with self._lock:
            before = [at for at, (last, _) in enumerate(clip.idle) if last < position]
            if before:
                return clip.idle.pop(max(before, key=lambda at: clip.idle[at][0]))[1]
            # reading again from further back starts at a key frame, which any decoder can seek to
            return clip.idle.pop(0)[1] if clip.idle else None

    def _drop_unused(self) -> None:
        size = sum(clip.size_bytes for clip in self._clips.values())
        while size > self.max_bytes and len(self._clips) > 1:
            _, clip = self._clips.popitem(last=False)  # a thread that is using it keeps it
            size -= clip.size_bytes
