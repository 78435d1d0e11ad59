"""torchcodec, with every frame labelled by what it is instead of by what was asked for.

Asked for frame k+1 after frame k, torchcodec hands out whatever the decoder yields next. When frame k+1 is damaged
that is frame k+2, and from there on every number is off by one. Only the presentation time tells, so each frame gets
its number by looking its time up in the packet table.
"""

import logging
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrekit.core.errors import MissingDependencyError, VideoError
from vrekit.video.packets import PacketTable, describe_video_streams, read_packet_table

logger = logging.getLogger(__name__)

_INSTALL_FFMPEG = (
    "install FFmpeg (4 to 8) with its shared libraries: `apt install ffmpeg`, `brew install ffmpeg` or "
    "`conda install -c conda-forge ffmpeg`"
)
_PTS_TOLERANCE_SECONDS = 1e-6  # below a tick of real time bases (mkv 1e-3, mp4 about 1e-5), above float64 rounding
_PTS_CHUNK = 16  # frames decoded at once when the times must be found by decoding


class DecodeFault(Exception):
    """FFmpeg refused a packet; the next pull goes on behind it."""


class EndOfStream(Exception):
    """The decoder has nothing more to give."""


class LabelledDecoder:
    """A torchcodec decoder of one video stream whose frames carry their true numbers.

    Attributes:
        stream_index: Stream that is decoded.
        metadata: torchcodec's `VideoStreamMetadata`.
        pts_seconds: float64 (N,): presentation time of each frame, rising.
        keys: int64 (K,): numbers of the frames that decoding can start at; empty when unknown.
        position: Number of the frame that was decoded last, None at the start of the file.

    Raises:
        VideoError: If the file cannot be opened or has no such video stream.
        MissingDependencyError: If torchcodec is not installed.
    """

    def __init__(self, path: str, *, stream_index: int | None, threads: int) -> None:
        self._path = path
        self._url = f"file:{path}"  # the prefix keeps FFmpeg from reading a colon in a name as a protocol
        self._threads = threads
        self._decoder = _open(path, self._url, stream_index, threads)
        self.metadata = self._decoder.metadata
        self.stream_index = int(self._decoder.stream_index)
        if not self.metadata.num_frames:
            raise VideoError(f"{path}: the video holds no frames")
        self.position: int | None = None
        table = self._packet_table()
        self.pts_seconds = self._pts_by_decoding() if table is None else table.pts_seconds
        self.keys = np.zeros(0, np.int64) if table is None else np.flatnonzero(table.is_key).astype(np.int64)

    def __len__(self) -> int:
        return len(self.pts_seconds)

    def batch(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return as many frames as asked for, uint8 (M, H, W, 3), and their true numbers, int64 (M,).

        Raises:
            DecodeFault: If one of them does not decode; none is returned then.
        """
        try:
            batch = self._opened().get_frames_at(indices.tolist())
        except (RuntimeError, IndexError) as error:
            self.restart()
            raise DecodeFault(_plain(error)) from error
        labels = self._labels(batch.pts_seconds.numpy())
        self.position = int(labels[-1])
        return batch.data.numpy(), labels

    def seek(self, index: int) -> None:
        """Make the next `pull` give the first frame at or behind `index`."""
        _operators().seek_to_pts(self._opened()._decoder, float(self.pts_seconds[index]))

    def pull(self) -> tuple[int, NDArray[np.uint8]]:
        """Return (number, pixels) of the frame the decoder gives next; the number is -1 when its time is unknown.

        Raises:
            DecodeFault: If a packet on the way is damaged; pulling again goes on behind it.
            EndOfStream: If no frame is left.
        """
        try:
            pixels, pts, _ = _operators().get_next_frame(self._opened()._decoder)
        except (RuntimeError, IndexError) as error:
            if "no more frames" in str(error):
                raise EndOfStream from error
            raise DecodeFault(_plain(error)) from error
        label = int(self._labels(np.asarray([pts.item()]))[0])
        if label >= 0:
            self.position = label
        return label, pixels.numpy()

    def restart(self) -> None:
        """Go to the start of the file with a new decoder.

        Needed after an error or the end of the stream: torchcodec then takes itself to be where it last succeeded,
        and leaves out the seek when the next frame is not far from there.
        """
        self._decoder = None
        self.position = None

    def _opened(self) -> Any:
        if self._decoder is None:
            self._decoder = _open(self._path, self._url, self.stream_index, self._threads)
        return self._decoder

    def _labels(self, pts_seconds: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the numbers of the frames shown at these times, -1 for a time the packet table does not have."""
        after = np.searchsorted(self.pts_seconds, pts_seconds - _PTS_TOLERANCE_SECONDS)
        labels = np.minimum(after, len(self) - 1).astype(np.int64)
        labels[np.abs(self.pts_seconds[labels] - pts_seconds) > _PTS_TOLERANCE_SECONDS] = -1
        return labels

    def _packet_table(self) -> PacketTable | None:
        table = read_packet_table(self._url, self.stream_index)
        if table is None:
            return None
        if table.guessed:
            raise VideoError(
                f"{self._path}: the container stores no presentation times for a stream with reordered frames, "
                "so frame numbers cannot be told exactly",
                hint="convert it first: ffmpeg -i INPUT -c:v libx264 -crf 10 OUTPUT.mp4",
            )
        if len(table.pts_ticks) != self.metadata.num_frames:
            return None  # ffprobe belongs to another FFmpeg than the one torchcodec loaded and reads the file otherwise
        return table

    def _pts_by_decoding(self) -> NDArray[np.float64]:
        logger.warning(
            "%s: without a matching `ffprobe` the file is decoded once to learn its frames' times", self._path
        )
        count = int(self.metadata.num_frames)
        pts = np.empty(count, np.float64)
        try:
            for start in range(0, count, _PTS_CHUNK):
                stop = min(start + _PTS_CHUNK, count)
                pts[start:stop] = self._opened().get_frames_in_range(start, stop).pts_seconds.numpy()
        except (RuntimeError, IndexError) as error:
            raise VideoError(
                f"{self._path}: damaged, and which frames are cannot be told without `ffprobe`: {_plain(error)}",
                hint="install FFmpeg's command line tools (`apt install ffmpeg`)",
            ) from error
        self.restart()
        return pts


def _open(path: str, url: str, stream_index: int | None, threads: int) -> Any:
    try:
        from torchcodec.decoders import VideoDecoder  # type: ignore[attr-defined] # exported, but in no __all__
    except (ImportError, OSError, RuntimeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name in ("torch", "torchcodec"):
            raise MissingDependencyError(
                f"{path}: reading video files needs the package {error.name!r}", hint=f"pip install {error.name}"
            ) from error
        raise VideoError(
            f"{path}: torchcodec cannot load FFmpeg's shared libraries: {_plain(error)}", hint=_INSTALL_FFMPEG
        ) from error
    try:
        return VideoDecoder(
            url,
            stream_index=stream_index,
            dimension_order="NHWC",
            num_ffmpeg_threads=threads,
            device="cpu",
            seek_mode="exact",
        )
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        streams = describe_video_streams(url)
        if streams and stream_index is not None and "stream" in str(error):
            raise VideoError(f"{path}: stream {stream_index} is no video stream", hint=f"it has {streams}") from error
        if "best video stream is unknown" in str(error):
            raise VideoError(f"{path}: there is no video in this file", hint="give a video file") from error
        reason = _plain(error).removeprefix("Could not open input file: ").removeprefix(f"{url} ")
        raise VideoError(
            f"{path}: cannot be opened as a video: {reason}",
            hint="is it a complete video file? `ffprobe FILE` shows what FFmpeg sees; a recording that was cut off "
            "before its index was written has to be repaired first",
        ) from error


def _operators() -> Any:
    """Return torchcodec's operators below `VideoDecoder`.

    The class gives frames by number only: asked again after a fault it seeks back and meets the same fault, so that
    nothing behind a damaged packet in the first group of pictures could be reached.
    """
    import torch

    return torch.ops.torchcodec_ns


def _plain(error: BaseException) -> str:
    """Return FFmpeg's reason without torchcodec's source location: `Could not push packet to decoder: Invalid data`."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^\w+, \S+:\d+, ", "", lines[0])
