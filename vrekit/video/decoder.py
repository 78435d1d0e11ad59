"""torchcodec, with every frame labelled by what it is instead of by what was asked for.

Asked for frame k+1 after frame k, torchcodec hands out whatever the decoder yields next. When frame k+1 is damaged
that is frame k+2, and from there on every number is off by one. Only the presentation time tells, so each frame gets
its number by looking its time up in the packet table.

Where times do not tell (the container's clock stands still or jumps back) or FFmpeg cannot seek (a file that was cut
off), frames are counted from the start of the file, or from a key frame whose time no other frame has.
"""

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrekit.core.errors import MissingDependencyError, VideoError
from vrekit.core.ffmpeg import HEAD_BYTES, has_playlist_mark
from vrekit.video.containers import is_cut_off
from vrekit.video.facts import other_streams, pixel_facts, ranges
from vrekit.video.packets import MOST_REORDERED, Packets, PacketTable, Probe, probe, read_decoded_pts
from vrekit.video.pictures import is_heic, several_pictures

logger = logging.getLogger(__name__)

_INSTALL_FFMPEG = (
    "install FFmpeg (4 to 8) with its shared libraries: `apt install ffmpeg`, `brew install ffmpeg` or "
    "`conda install -c conda-forge ffmpeg`"
)
_PTS_TOLERANCE_SECONDS = 1e-6  # below a tick of real time bases (mkv 1e-3, mp4 about 1e-5), above float64 rounding
_PTS_CHUNK = 16  # frames decoded at once when the times must be found by decoding
_FAR_FRAMES = 1024  # how many lost frames are passed over where the clock does not rise
_FIRST_PACKETS = 48  # packets that are decoded to see whether frames come in the order of their times
_CANNOT_SEEK = re.compile("Could not seek file|Failed to read frame")


class DecodeFault(Exception):
    """FFmpeg refused a packet; the next pull goes on behind it."""


class EndOfStream(Exception):
    """The decoder has nothing more to give."""


class LabelledDecoder:
    """A torchcodec decoder of one video stream whose frames carry their true numbers.

    Frame k is the k-th that FFmpeg's decoder gives.

    Attributes:
        stream_index: Stream that is decoded.
        metadata: torchcodec's `VideoStreamMetadata`.
        pts_seconds: float64 (N,): presentation time of each frame; they rise if `is_regular`.
        keys: int64 (K,): numbers of the frames that decoding can start at; empty when unknown.
        facts: What the container tells about pixels and damage, by the names of `VideoInfo`.
        is_regular: Times rise and FFmpeg can seek, so frames may be read in batches.
        position: Number of the frame that was decoded last, None at the start of the file.

    Raises:
        VideoError: If the file cannot be opened, has no such video stream, or is a playlist of other files.
        MissingDependencyError: If torchcodec is not installed.
    """

    def __init__(self, path: str, *, stream_index: int | None, threads: int) -> None:
        self._path = path
        self._url = f"file:{path}"  # the prefix keeps FFmpeg from reading a colon in a name as a protocol
        self._threads = threads
        self.probe = probe(self._url)
        _check_format(path, self.probe)
        # Times for torchcodec, where it cannot read them itself or must not use them to find the start of the file.
        self._decoder, self._mappings = self._first_open(stream_index)
        self.metadata = self._decoder.metadata
        self.stream_index = int(self._decoder.stream_index)
        if not self.metadata.num_frames and self._mappings is None:
            raise VideoError(f"{path}: the video holds no frames")
        self.position: int | None = None
        self.facts: dict[str, Any] = {}
        self._counted: int | None = -1  # number of the last frame where frames are counted; None: behind a seek
        self._packets = None if self.probe is None else self.probe.packets(self.stream_index)
        table = self._packet_table()
        self.pts_seconds = self._pts_by_decoding() if table is None else table.pts_seconds
        self.keys = np.zeros(0, np.int64) if table is None else np.flatnonzero(table.is_key).astype(np.int64)
        self.is_regular = self._mappings is None and bool(np.all(np.diff(self.pts_seconds) > 0))
        self._gather_facts()
        if not self.is_regular:
            self.keys = np.zeros(0, np.int64)
            if table is not None and self._mappings is None:
                self.keys = table.seek_points
                self._mappings = _mappings(table)
                self.restart()
        if self.probe is not None:
            self.probe = self.probe.without_packets()

    def __len__(self) -> int:
        return len(self.pts_seconds)

    @property
    def duration_seconds(self) -> float:
        """Return how long the video takes; where its clock starts again, the parts together."""
        if self.is_regular:
            return float(self.metadata.end_stream_seconds - self.metadata.begin_stream_seconds)
        steps = np.diff(self.pts_seconds)
        step = float(np.median(np.abs(steps[steps != 0]))) if steps.any() else 0.0
        restarts = np.flatnonzero(steps < -MOST_REORDERED * step) + 1
        return float(sum(np.ptp(part) + step for part in np.split(self.pts_seconds, restarts)))

    @property
    def fps(self) -> float | None:
        """Return the average frames per second, None without a clock."""
        if self.is_regular:
            fps = self.metadata.average_fps
            return None if fps is None else float(fps)
        return len(self) / self.duration_seconds if self.duration_seconds > 0 else None

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
        """Make the next `pull` give the first frame at or behind `index`, or one before it if not `is_regular`."""
        if self.is_regular:
            _operators().seek_to_pts(self._opened()._decoder, float(self.pts_seconds[index]))
            return
        before = np.searchsorted(self.keys, index, side="right")
        key = int(self.keys[before - 1]) if before else -1
        if self._counted is not None and key <= self._counted < index:
            return  # it is on the way
        if key < 0:
            self.restart()
            return
        _operators().seek_to_pts(self._opened()._decoder, float(self.pts_seconds[key]))
        self._counted = None

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
        label = int(self._labels(np.asarray([pts.item()]))[0]) if self.is_regular else self._count(pts.item())
        if label >= 0:
            self.position = label
        return label, pixels.numpy()

    def damaged(self) -> NDArray[np.int64]:
        """Decode the whole stream, and return the numbers of the frames that FFmpeg decodes with errors, int64.

        A decoder conceals most errors: it fills in what it cannot decode. This one gives no such frames.
        """
        if self._packets is None:
            raise VideoError(
                f"{self._path}: damage can be looked for with `ffprobe` only",
                hint="install FFmpeg's command line tools (`apt install ffmpeg`)",
            )
        ticks, _ = read_decoded_pts(self._url, self.stream_index, is_strict=True)
        times = replace(self._packets.table, pts_ticks=ticks).pts_seconds
        self.restart()
        sound = self._labels(times) if self.is_regular else np.array([self._count(at) for at in times.tolist()])
        self.restart()
        corrupt = self._packets.is_corrupt[self._packets.shown]
        found = np.setdiff1d(np.arange(len(self)), sound)
        if len(corrupt) == len(self):
            found = np.union1d(found, np.flatnonzero(corrupt))
        return found.astype(np.int64)

    def restart(self) -> None:
        """Go to the start of the file with a new decoder.

        Needed after an error or the end of the stream: torchcodec then takes itself to be where it last succeeded,
        and leaves out the seek when the next frame is not far from there.
        """
        self._decoder = None
        self.position = None
        self._counted = -1

    def _first_open(self, stream_index: int | None) -> tuple[Any, str | None]:
        """Return torchcodec's decoder, and the times it had to be given."""
        try:
            return _open(self._path, self._url, stream_index, self._threads, self.probe), None
        except VideoError as error:
            # torchcodec goes to the start of the file once it has listed the packets. FFmpeg cannot do that in files
            # that were cut off in front of their index, but it can decode them.
            if self.probe is None or not _CANNOT_SEEK.search(str(error.__cause__)):
                raise
            if stream_index is None:
                stream_index = _best_stream(self._url)
            packets = None if stream_index is None else self.probe.packets(stream_index)
            if packets is None:
                raise
            mappings = _mappings(packets.table)
            return _open(self._path, self._url, stream_index, self._threads, self.probe, mappings), mappings

    def _opened(self) -> Any:
        if self._decoder is None:
            self._decoder = _open(self._path, self._url, self.stream_index, self._threads, self.probe, self._mappings)
        return self._decoder

    def _labels(self, pts_seconds: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the numbers of the frames shown at these times, -1 for a time the packet table does not have."""
        after = np.searchsorted(self.pts_seconds, pts_seconds - _PTS_TOLERANCE_SECONDS)
        labels = np.minimum(after, len(self) - 1).astype(np.int64)
        labels[np.abs(self.pts_seconds[labels] - pts_seconds) > _PTS_TOLERANCE_SECONDS] = -1
        return labels

    def _count(self, pts_seconds: float) -> int:
        """Return the number of the frame that was decoded after frame `_counted`, -1 when it cannot be told."""
        if self._counted is None:  # behind a seek: a time tells if no other frame has it
            found = np.flatnonzero(np.abs(self.pts_seconds - pts_seconds) <= _PTS_TOLERANCE_SECONDS)
            if len(found) != 1:
                return -1
            self._counted = int(found[0])
            return self._counted
        number = self._counted + 1
        if number >= len(self):
            return -1
        near = self.pts_seconds[number : number + _FAR_FRAMES]
        ahead = np.flatnonzero(np.abs(near - pts_seconds) <= _PTS_TOLERANCE_SECONDS)
        self._counted = number + (int(ahead[0]) if len(ahead) else 0)  # frames that are passed over did not decode
        return self._counted

    def _gather_facts(self) -> None:
        """Fill `facts`: what of `VideoInfo` the container tells beyond torchcodec's metadata."""
        self.facts["other_streams"] = other_streams(_operators(), self._opened()._decoder, self.stream_index)
        if self.probe is None:
            return
        stream = self.probe.streams.get(self.stream_index, {})
        self.facts |= pixel_facts(stream, rotation_degrees=float(self.metadata.rotation or 0.0))
        self.facts["is_truncated"] = is_cut_off(self._path, self.probe.complaints)
        if self._packets is not None and len(self._packets.shown) == len(self):
            corrupt = self._packets.is_corrupt
            self.facts["is_truncated"] |= bool(corrupt[-1])
            self.facts["damaged_frames"] = ranges(np.flatnonzero(corrupt[self._packets.shown])) or None

    def _packet_table(self) -> PacketTable | None:
        packets = self._packets
        if packets is None:
            return None
        table = packets.table
        if table.guessed:
            raise VideoError(
                f"{self._path}: the container stores no presentation times for a stream with reordered frames, "
                "so frame numbers cannot be told exactly",
                hint="convert it first: ffmpeg -i INPUT -c:v libx264 -crf 10 OUTPUT.mp4",
            )
        if len(table.pts_ticks) != self.metadata.num_frames and self._mappings is None:
            return None  # ffprobe belongs to another FFmpeg than the one torchcodec loaded and reads the file otherwise
        if self._decodes_in_order_of_time(packets):
            return table
        logger.warning(
            "%s: its clock stands still or jumps back, so the file is decoded once to learn the order of its frames",
            self._path,
        )
        ticks, is_key = read_decoded_pts(self._url, self.stream_index)
        return PacketTable(ticks, is_key, packets.time_base) if len(ticks) else table

    def _decodes_in_order_of_time(self, packets: Packets) -> bool:
        if packets.jumps_back or (packets.reordered and not packets.table.is_rising):
            return False
        if not packets.reordered or not packets.is_in_order:
            return True
        # No frame is stored out of order although the decoder expects it: either the stream has no B-frames, or the
        # times are those of decoding. A few frames tell.
        ticks, _ = read_decoded_pts(self._url, self.stream_index, limit=_FIRST_PACKETS)
        return bool(np.all(np.diff(ticks) >= 0))

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


def _check_format(path: str, found: Probe | None) -> None:
    """Raise VideoError if FFmpeg would take the file for one that names other files, which it then opens."""
    refused = None if found is None else found.refused_format
    try:
        with Path(path).open("rb") as file:
            several = several_pictures(file)
            file.seek(0)
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise VideoError(f"{path}: cannot be read: {error.strerror}", hint="check its permissions") from error
    if is_heic(head) or (several and several != "animated PNG"):  # FFmpeg reads all frames of that one
        raise VideoError(
            f"{path}: {several or 'a HEIC picture'}, which FFmpeg does not read in full",
            hint="save its pictures as PNG files in a folder, or as a video",
        )
    if refused is None and (found is None or not found.format_name):
        refused = "playlist" if has_playlist_mark(head) else None
    if refused is not None:
        raise VideoError(
            f"{path}: there is no video in this file: FFmpeg takes it for {refused!r}",
            hint="give a video file; playlists, scripts, sound and text are not read",
        )


def _best_stream(url: str) -> int | None:
    decoder = _operators().create_from_file(url, "approximate")
    index = json.loads(_operators().get_container_json_metadata(decoder)).get("bestVideoStreamIndex")
    return None if index is None else int(index)


def _mappings(table: PacketTable) -> str:
    """Return the times of frames as torchcodec takes them."""
    ticks = table.pts_ticks.tolist()
    is_key = np.zeros(len(ticks), np.int64)
    is_key[table.seek_points] = 1
    rows = zip(ticks, is_key.tolist(), strict=True)
    return json.dumps({"frames": [{"pts": pts, "duration": 1, "key_frame": key} for pts, key in rows]})


def _open(
    path: str, url: str, stream_index: int | None, threads: int, found: Probe | None, mappings: str | None = None
) -> Any:
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
            custom_frame_mappings=mappings,
        )
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        streams = "" if found is None else found.describe_streams()
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
