"""Clips of video: the source's own packets, or frames encoded by FFmpeg; decoded on the fly by torchcodec."""

import contextlib
import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.base import ClipCodec, ClipDecoder, ClipEncoder
from vrekit.core.errors import CodecError, MissingDependencyError, UsageError
from vrekit.core.ffmpeg import HEAD_BYTES, MUXERS, ffmpeg_program, is_clip_head
from vrekit.core.names import did_you_mean
from vrekit.core.spec import OutputSpec

Encoding = Literal["av1", "ffv1", "h264", "hevc"]
DEFAULT_GOP = 16
MIN_SIDE = 16  # pixels; FFmpeg garbles or refuses pictures of one or two rows
_MAX_GOP = 1000
# A step below what looks perfect: the error is that of a JPEG at quality 90 to 95 (docs/codecs.md).
_DEFAULT_CRF: Mapping[str, int] = {"av1": 24, "h264": 18, "hevc": 20}
_MAX_CRF: Mapping[str, int] = {"av1": 63, "h264": 51, "hevc": 51}
# Encoders by preference, each with its options; {gop} and {crf} are filled in. No group refers to another one.
_ENCODERS: Mapping[str, Mapping[str, str]] = {
    "av1": {
        "libsvtav1": "-preset 8 -g {gop} -crf {crf}",
        "libaom-av1": "-cpu-used 6 -row-mt 1 -g {gop} -crf {crf} -b:v 0",
    },
    "ffv1": {"ffv1": "-level 3 -g 1 -slices 4 -slicecrc 1 -cluster_size_limit 1048576"},  # clusters show the size
    "h264": {"libx264": "-preset medium -g {gop} -crf {crf}"},
    "hevc": {"libx265": "-preset fast -g {gop} -crf {crf} -x265-params log-level=error:open-gop=0"},
}
# For frames that cannot be cut from the source: no loss, in either container, 0.8 to 1.7 times the bytes of FFV1.
_UNCUT: Mapping[str, str] = {"libx264rgb": "-preset veryfast -g 16 -qp 0"}
_TO_YUV = "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int+bicubic"
_YUV_TAGS = "-colorspace bt709 -color_primaries bt709 -color_trc bt709 -color_range tv"
_FRAMES_AT_ONCE = 16
_DECODER_FRAMES = 12  # pictures that a decoder keeps: references, and those waiting for their turn


@dataclass(frozen=True, slots=True)
class Video(ClipCodec):
    """The source video itself, cut into clips; or its frames encoded again.

    Args:
        encode: None copies the source's packets: nothing is lost, and it takes no more bytes than the source.
            `ffv1` is lossless too and takes any frames; `h264`, `hevc` and `av1` lose detail.
        gop: Frames from one key frame to the next: how many are decoded to reach any one. `ffv1` has key frames only.
        crf: Constant rate factor, lower is better: 0 to 51 (`h264`, `hevc`) or 63 (`av1`).
        container: `mp4` or `mkv`; None takes `mkv` for `ffv1` and `mp4` for everything else.

    Raises:
        UsageError: If an option is wrong.
    """

    encode: str | None = None
    gop: int | None = None
    crf: int | None = None
    container: str | None = None

    def __post_init__(self) -> None:
        if self.encode is not None and self.encode not in _ENCODERS:
            guess = did_you_mean(str(self.encode), _ENCODERS)
            raise UsageError(
                f"codec 'video': encode is {self.encode!r}{guess}",
                hint=f"one of {', '.join(_ENCODERS)}; leave it away to keep the source's own packets",
            )
        fills_in = object.__setattr__  # what is left open is decided here, so that the stored config says all
        if self.container is None:
            fills_in(self, "container", "mkv" if self.encode == "ffv1" else "mp4")
        if self.container not in MUXERS:
            raise UsageError(f"codec 'video': container is {self.container!r}, expected mp4 or mkv")
        if self.encode == "ffv1" and self.container == "mp4":
            raise UsageError("codec 'video': mp4 holds no ffv1", hint="leave `container` away")
        crf, worst = _DEFAULT_CRF.get(str(self.encode), 0), _MAX_CRF.get(str(self.encode), 0)
        fills_in(self, "gop", self._number("gop", 1, DEFAULT_GOP, _MAX_GOP))
        fills_in(self, "crf", self._number("crf", 0, crf, worst))

    def _number(self, name: str, smallest: int, default: int, largest: int) -> int | None:
        """Return the value of an option that only lossy encoders have."""
        value = getattr(self, name)
        if self.is_exact:
            if value is None:
                return None
            what = "ffv1" if self.encode else "the source's own packets"
            raise UsageError(
                f"codec 'video': {name} does not go with {what}", hint="it is for encode: h264, hevc or av1"
            )
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not smallest <= value <= largest:
            raise UsageError(f"codec 'video': {name} is {value!r}, expected a whole number, {smallest} to {largest}")
        return value

    @property
    def id(self) -> str:
        """`video`."""
        return "video"

    @property
    def suffix(self) -> str:
        """The container."""
        return str(self.container)

    @property
    def copies_source(self) -> bool:
        """Whether nothing is encoded."""
        return self.encode is None

    @property
    def is_exact(self) -> bool:
        """Whether decoding gives the very pixels that went in."""
        return self.encode in (None, "ffv1")

    def config(self) -> dict[str, Any]:
        """Return the id and the options that are set."""
        options = {name: getattr(self, name) for name in ("encode", "gop", "crf", "container")}
        return {"id": self.id, **{name: value for name, value in options.items() if value is not None}}

    def check_takes(self, spec: OutputSpec) -> None:
        """Raise CodecError unless `spec` is an RGB picture of a fixed size, and large enough to be encoded."""
        if spec.dtype != "uint8" or spec.axes != "HWC" or spec.is_ragged or spec.size_of("C") != 3:
            raise CodecError(
                f"codec 'video' stores uint8 RGB pictures (H, W, 3), got {spec.dtype} {spec.shape} (axes {spec.axes})"
            )
        height, width = spec.size_of("H") or 0, spec.size_of("W") or 0
        if self.encode is not None and min(height, width) < MIN_SIDE:
            raise CodecError(f"codec 'video' encodes pictures of {MIN_SIDE}x{MIN_SIDE} or more, got {width}x{height}")

    def open_encoder(self, *, height: int, width: int, fps: float) -> ClipEncoder:
        """Return an encoder of `encode`; without it one that loses nothing; see ClipCodec."""
        is_odd = bool(height % 2 or width % 2)
        encoders = _UNCUT if self.encode is None else _ENCODERS[self.encode]
        without = ("libsvtav1",) if is_odd or min(height, width) < 64 else ()
        encoder = _encoder(self.encode or "lossless h264", encoders, without=without)
        options = encoders[encoder].format(gop=self.gop, crf=self.crf).split()
        if self.is_exact:
            pixels = ["-pix_fmt", "bgr0"]
        else:
            # players want 4:2:0, which halves both sides; a frame with an odd one keeps all its colour samples
            sampling = "yuv444p" if is_odd else "yuv420p"
            pixels = ["-vf", f"{_TO_YUV},format={sampling}", *_YUV_TAGS.split()]
        output = [*pixels, "-c:v", encoder, *options, "-flags:v", "+bitexact", "-fflags", "+bitexact"]
        return _FfmpegEncoder(
            [*f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {fps:.6f} -i pipe:0".split(), *output],
            container=self.suffix,
            shape=(height, width, 3),
        )

    def open_decoder(self, data: bytes) -> ClipDecoder:
        """Return a decoder; see ClipCodec."""
        return _TorchcodecDecoder(data)


class _FfmpegEncoder(ClipEncoder):
    """Pixels into FFmpeg's standard input, a file out of it."""

    def __init__(self, options: list[str], *, container: str, shape: tuple[int, int, int]) -> None:
        self._shape = shape
        self._folder = tempfile.TemporaryDirectory(prefix="vrekit_clip_")
        self._path = Path(self._folder.name) / f"clip.{container}"
        self._log = Path(self._folder.name) / "log"
        command = [ffmpeg_program(), "-v", "error", "-nostdin", *options, "-f", MUXERS[container], str(self._path)]
        with self._log.open("wb") as log:  # a file: nobody has to read a pipe while frames are written
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log)

    def add(self, frame: NDArray[np.uint8]) -> None:
        """See ClipEncoder."""
        if frame.dtype != np.uint8 or frame.shape != self._shape:
            raise CodecError(f"codec 'video' got {frame.dtype} {frame.shape}, expected uint8 {self._shape}")
        pipe = self._process.stdin
        if pipe is None:
            raise AssertionError("the process was started with a pipe")
        try:
            pipe.write(np.ascontiguousarray(frame).data)
        except OSError as error:
            raise self._failure() from error

    @property
    def size_bytes(self) -> int:
        """See ClipEncoder."""
        return self._path.stat().st_size if self._path.exists() else 0

    def finish(self) -> bytes:
        """See ClipEncoder.

        Raises:
            CodecError: If the encoder failed.
        """
        try:
            self._wait()
            return self._path.read_bytes()
        finally:
            self.abort()

    def finish_to(self, path: Path) -> None:
        """See ClipEncoder; errors as in `finish`."""
        try:
            self._wait()
            shutil.move(self._path, path)
        finally:
            self.abort()

    def _wait(self) -> None:
        """Wait until the file is complete."""
        try:
            if self._process.stdin is not None:
                self._process.stdin.close()
        except OSError as error:
            raise self._failure() from error
        if self._process.wait():
            raise self._failure()

    def _failure(self) -> CodecError:
        self._process.wait()
        said = self._log.read_text(errors="replace").strip().splitlines() or ["no message"]
        return CodecError(f"codec 'video': FFmpeg could not encode: {said[-1]}")

    def abort(self) -> None:
        """See ClipEncoder."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(OSError):  # what was buffered goes nowhere any more
                self._process.stdin.close()
        self._folder.cleanup()


class _TorchcodecDecoder(ClipDecoder):
    """torchcodec over the bytes of a clip."""

    def __init__(self, data: bytes) -> None:
        if not is_clip_head(data[:HEAD_BYTES]):
            raise CodecError("no clip: it does not begin as MP4 and Matroska files do")
        self._data = data
        self._decoder = self._open()
        metadata = self._decoder.metadata
        self._count = int(metadata.num_frames or 0)
        self._frame_pixels = int(metadata.height or 0) * int(metadata.width or 0)
        self._rewinds = 0

    def _open(self) -> Any:
        try:
            from torchcodec.decoders import VideoDecoder  # type: ignore[attr-defined] # exported, but in no __all__
        except (ImportError, OSError, RuntimeError) as error:
            raise MissingDependencyError(
                f"reading clips needs torchcodec and FFmpeg's shared libraries: {error}",
                hint="pip install torchcodec; apt install ffmpeg",
            ) from error
        try:
            return VideoDecoder(
                self._data, dimension_order="NHWC", num_ffmpeg_threads=1, device="cpu", seek_mode="exact"
            )
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            raise CodecError(f"no video that FFmpeg reads: {_reason(error)}") from error

    @property
    def frame_count(self) -> int:
        """See ClipDecoder."""
        return self._count

    @property
    def size_bytes(self) -> int:
        """See ClipDecoder."""
        return _DECODER_FRAMES * self._frame_pixels * 3 // 2

    @property
    def frame_pixels(self) -> int | None:
        """See ClipDecoder."""
        return self._frame_pixels or None

    @property
    def rewinds(self) -> int:
        """See ClipDecoder."""
        return self._rewinds

    def read(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """See ClipDecoder."""
        if len(positions) and not 0 <= positions[0] <= positions[-1] < self._count:
            raise CodecError(f"no frames {positions[0]} to {positions[-1]} in a clip of {self._count}")
        try:
            return self._decode(positions)
        except CodecError:
            # Started at a key frame that is not whole, or at that of an open group, FFmpeg may give fewer frames than
            # on its way from the front.
            self._decoder = self._open()
            self._rewinds += 1
        found = []
        for start in range(0, int(positions[-1]) + 1, _FRAMES_AT_ONCE):
            frames = self._decode(np.arange(start, min(start + _FRAMES_AT_ONCE, int(positions[-1]) + 1)))
            wanted = positions[(positions >= start) & (positions < start + _FRAMES_AT_ONCE)] - start
            found.append(frames[wanted])
        return np.concatenate(found)

    def _decode(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        try:
            batch = self._decoder.get_frames_at(positions.tolist())
        except (RuntimeError, ValueError, IndexError) as error:
            raise CodecError(f"a frame does not decode: {_reason(error)}") from error
        # Asked for frame k behind a seek, torchcodec hands out what FFmpeg gives next: where FFmpeg leaves frames out
        # because it could not start at the key frame, that is a later one. Only the time tells.
        for position, shown_at in zip(positions.tolist(), batch.pts_seconds.tolist(), strict=True):
            if not _is_shown_at(self._decoder, position, shown_at):
                raise CodecError(f"the decoder gave another frame than {position}, the one shown at {shown_at:.6f} s")
        frames: NDArray[np.uint8] = batch.data.numpy()
        return frames


def _is_shown_at(decoder: Any, position: int, seconds: float) -> bool:
    import torch

    operator = torch.ops.torchcodec_ns._test_frame_pts_equality  # the only one that compares with the packets' times
    return bool(operator(decoder._decoder, frame_index=position, pts_seconds_to_test=seconds))


def _reason(error: BaseException) -> str:
    """Return FFmpeg's reason without torchcodec's source location."""
    return re.sub(r"^\w+, \S+:\d+, ", "", (str(error).strip().splitlines() or [type(error).__name__])[0])


@functools.cache
def _listed_encoders(program: str) -> frozenset[str]:
    text = subprocess.run(
        [program, "-hide_banner", "-encoders"], capture_output=True, check=False, stdin=subprocess.DEVNULL
    ).stdout.decode(errors="replace")
    return frozenset(line.split()[1] for line in text.splitlines() if len(line.split()) > 1)


def _encoder(encoding: str, encoders: Collection[str], *, without: Collection[str]) -> str:
    """Return the name of FFmpeg's encoder for `encoding`; those in `without` do not take such pictures."""
    there = _listed_encoders(ffmpeg_program())
    for name in encoders:
        if name in there and name not in without:
            return name
    raise MissingDependencyError(
        f"this FFmpeg has no encoder for {encoding} ({' or '.join(encoders)})",
        hint="install an FFmpeg with it, or choose another `encode`",
    )
