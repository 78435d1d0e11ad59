"""Video files, decoded by torchcodec (FFmpeg): frame-exact by number, presentation times from the container."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vrekit.core.errors import UsageError, VideoError
from vrekit.video.base import DecodedFrames, VideoInfo, VideoSource, positions_of
from vrekit.video.damage import SteppingReader
from vrekit.video.decoder import DecodeFault, LabelledDecoder
from vrekit.video.fingerprint import fingerprint

logger = logging.getLogger(__name__)


class FileSource(VideoSource):
    """Frames of one video stream of a file.

    Frame k is the k-th frame in presentation order. Rotation metadata is applied. Reading rising ranges one after the
    other decodes each frame once. Frames of a damaged file that decode are returned under their own number.

    Args:
        path: The file; anything FFmpeg reads.
        stream_index: Stream among all streams of the container; None takes the one FFmpeg calls best.
        threads: FFmpeg's decoding threads; 0 lets FFmpeg decide.

    Raises:
        UsageError: If `stream_index` or `threads` is negative.
        VideoError: If the file is missing, cannot be opened, or has no such video stream.
        MissingDependencyError: If torchcodec is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], *, stream_index: int | None = None, threads: int = 1) -> None:
        if threads < 0:
            raise UsageError(f"threads must be 0 or more, got {threads}", hint="0 lets FFmpeg decide")
        if stream_index is not None and stream_index < 0:  # torchcodec would count from the end, then take another one
            raise UsageError(f"stream_index must be 0 or more, got {stream_index}")
        if not Path(path).is_file():
            raise VideoError(
                f"{os.fspath(path)}: no such file", hint="check the path; videos are read from local files"
            )
        self._decoder: LabelledDecoder | None = LabelledDecoder(
            os.fspath(path), stream_index=stream_index, threads=threads
        )
        self._stepping = None if self._decoder.is_regular else SteppingReader(self._decoder)
        self._pts_seconds = self._decoder.pts_seconds
        metadata = self._decoder.metadata
        self.info = VideoInfo(
            uri=os.fspath(path),
            fingerprint=fingerprint(path),
            source="file",
            frame_count=len(self._decoder),
            height=int(metadata.height),
            width=int(metadata.width),
            fps=self._decoder.fps,
            codec=metadata.codec,
            duration_seconds=self._decoder.duration_seconds,
            rotation_degrees=float(metadata.rotation or 0.0),
            stream_index=self._decoder.stream_index,
            **self._decoder.facts,
        )

    @property
    def frame_indices(self) -> NDArray[np.int64]:
        """Return 0..n-1, where n counts the packets in the file; damaged ones count."""
        return np.arange(len(self._pts_seconds), dtype=np.int64)

    def pts_seconds(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the container's presentation times, seconds; the first one need not be 0."""
        return self._pts_seconds[np.asarray(indices, np.int64)]

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> DecodedFrames:
        """Return frames, uint8 RGB (M, H, W, 3) without a copy; frames that are damaged are in `failures`."""
        if self._decoder is None:
            raise VideoError(f"{self.info.uri}: the source is closed")
        wanted = positions_of(indices, self.frame_indices, self.info.uri)
        if self._stepping is None and len(wanted):
            try:
                frames, labels = self._decoder.batch(wanted)
                if np.array_equal(labels, wanted):
                    return DecodedFrames(frames, wanted, {})
            except DecodeFault as fault:
                logger.info("%s: frames %d..%d did not decode at once: %s", self.info.uri, wanted[0], wanted[-1], fault)
            # Frame by frame from here on: a batch that fails half-way gives nothing back, and a file that is damaged
            # in one place often is in more.
            self._stepping = SteppingReader(self._decoder)
        return self._read_singly(wanted, self._stepping)

    def damaged_frames(self) -> NDArray[np.int64]:
        """Decode the whole video, and return the numbers of the frames that FFmpeg decodes with errors, int64 (M,).

        `read` gives most of them nevertheless, as FFmpeg conceals errors. Data that is damaged and still decodes
        without an error is not found, and neither are frames that refer to a damaged one.
        """
        if self._decoder is None:
            raise VideoError(f"{self.info.uri}: the source is closed")
        return self._decoder.damaged()

    def close(self) -> None:
        """Free the decoder."""
        self._decoder = None
        self._stepping = None

    def _read_singly(self, wanted: NDArray[np.int64], reader: SteppingReader | None) -> DecodedFrames:
        shape = (self.info.height, self.info.width, 3)
        frames: list[NDArray[np.uint8]] = []
        indices: list[int] = []
        failures: dict[int, str] = {}
        for index in wanted.tolist():
            frame = reader.read(index) if reader is not None else ""
            if isinstance(frame, str):
                failures[index] = frame
            elif frame.shape != shape:
                failures[index] = f"the frame is {frame.shape[1]}x{frame.shape[0]}, the video {shape[1]}x{shape[0]}"
            else:
                frames.append(frame)
                indices.append(index)
        pixels = np.stack(frames) if frames else np.empty((0, *shape), np.uint8)
        return DecodedFrames(pixels, np.asarray(indices, np.int64), failures)
