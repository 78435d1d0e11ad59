"""Clips of frames that are encoded: exact where that is promised, near where not, and honest about what went wrong."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.video.video_clips import clip, need_encoder, run_ffmpeg
from vrekit.codecs.base import ClipCodec
from vrekit.codecs.registry import clip_codec, codec_from_config
from vrekit.codecs.video import Video
from vrekit.core.errors import CodecError, MissingDependencyError, UsageError
from vrekit.core.spec import Kind, OutputSpec
from vrekit.video.packets import read_packets

ENCODERS = {"ffv1": "ffv1", "h264": "libx264", "hevc": "libx265", "av1": "libaom-av1"}


def moving_frames(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """A smooth picture with a bright square that moves, uint8 (N, H, W, 3)."""
    y, x = np.mgrid[:height, :width]
    background = np.stack([80 + 60 * np.sin(x / 9), 90 + 50 * np.cos(y / 7), 60 + (x + y) / 4], axis=-1)
    frames = np.repeat(background[None], count, 0)
    for number, frame in enumerate(frames):
        frame[8:24, 2 * number % width : 2 * number % width + 12] = (230, 180 - 3 * (number % 40), 40)
    return frames.astype(np.uint8)


def intra_refresh(path: Path) -> Path:
    """Make a video whose key frames, but for the first, hold a part of the picture only, and return its path."""
    need_encoder("libx264")
    command = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=2 -c:v libx264 -pix_fmt yuv420p"
    run_ffmpeg(*command.split(), "-x264-params", "intra-refresh=1:keyint=12", str(path))
    return path


def encoded(codec: ClipCodec, frames: NDArray[np.uint8]) -> bytes:
    encoder = codec.open_encoder(height=frames.shape[1], width=frames.shape[2], fps=25.0)
    try:
        for frame in frames:
            encoder.add(frame)
        return encoder.finish()
    finally:
        encoder.abort()


def everything(codec: ClipCodec, data: bytes) -> NDArray[np.uint8]:
    decoder = codec.open_decoder(data)
    return decoder.read(np.arange(decoder.frame_count))


@pytest.mark.parametrize(("height", "width"), [(64, 96), (61, 107), (16, 16), (17, 640)])
def test_ffv1_is_exact(height: int, width: int) -> None:
    need_encoder("ffv1")
    codec = Video(encode="ffv1")
    assert codec.is_exact
    frames = np.random.default_rng(0).integers(0, 256, (5, height, width, 3), np.uint8)
    np.testing.assert_array_equal(everything(codec, encoded(codec, frames)), frames)


@pytest.mark.parametrize("encode", ["h264", "hevc", "av1"])
@pytest.mark.parametrize(("height", "width"), [(96, 128), (97, 129), (40, 56)])
def test_encoded_frames_are_near_and_in_order(encode: str, height: int, width: int) -> None:
    need_encoder(ENCODERS[encode])
    codec = Video(encode=encode)
    assert not codec.is_exact
    frames = moving_frames(20, height, width)
    found = everything(codec, encoded(codec, frames))
    assert found.shape == frames.shape
    errors = np.abs(found[:, None].astype(np.int16) - frames[None]).mean((2, 3, 4))
    assert errors.argmin(axis=1).tolist() == list(range(20))  # each is nearest to its own frame
    assert errors.diagonal().max() < 3


@pytest.mark.parametrize("encode", ["h264", "hevc"])
def test_gop_bounds_the_way_to_a_frame(encode: str, tmp_path: Path) -> None:
    need_encoder(ENCODERS[encode])
    path = tmp_path / "clip.mp4"
    path.write_bytes(encoded(Video(encode=encode, gop=6), moving_frames(20, 96, 128)))
    packets = read_packets(f"file:{path}", 0)
    assert packets is not None
    keys = np.flatnonzero(packets.is_key).tolist()
    assert keys[0] == 0
    assert np.diff([*keys, len(packets.is_key)]).max() <= 6
    for key, end in zip(keys, [*keys[1:], 20], strict=True):  # closed groups: nothing behind a key is shown before it
        assert packets.pts_ticks[key:end].min() == packets.pts_ticks[key]


def test_a_lower_crf_is_larger_and_nearer() -> None:
    need_encoder("libx264")
    frames = moving_frames(12, 96, 128)
    sizes, errors = [], []
    for crf in (10, 40):
        codec = Video(encode="h264", crf=crf)
        data = encoded(codec, frames)
        sizes.append(len(data))
        errors.append(np.abs(everything(codec, data).astype(np.int16) - frames).mean())
    assert sizes[0] > 1.5 * sizes[1]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("options", [{}, {"container": "mkv"}, {"encode": "ffv1"}, {"encode": "h264", "crf": 20}])
def test_the_stored_config_says_all(options: dict[str, Any]) -> None:
    codec = Video(**options)
    stored = json.loads(json.dumps(codec.config()))
    again = clip_codec(stored)
    assert again is not None
    assert again == codec
    assert again.config() == stored
    assert clip_codec({"id": "video", **options}) == codec
    assert (
        stored["container"]
        == codec.suffix
        == ("mkv" if set(options) & {"container"} or "ffv1" in options.values() else "mp4")
    )
    assert codec.copies_source == ("encode" not in options)
    if options.get("encode") == "h264":
        assert (stored["gop"], stored["crf"]) == (16, 20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encode": "h265"}, r"encode is 'h265' \(did you mean"),
        ({"encode": "ffv1", "container": "mp4"}, "mp4 holds no ffv1"),
        ({"container": "avi"}, "container is 'avi', expected mp4 or mkv"),
        ({"gop": 8}, "gop does not go with the source's own packets"),
        ({"encode": "ffv1", "crf": 8}, "crf does not go with ffv1"),
        ({"encode": "h264", "crf": 52}, "crf is 52, expected a whole number, 0 to 51"),
        ({"encode": "h264", "gop": 0}, "gop is 0, expected a whole number, 1 to 1000"),
        ({"encode": "h264", "gop": True}, "gop is True"),
        ({"quality": 3}, "does not take the options"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        clip_codec({"id": "video", **options})


def test_only_pictures_are_taken() -> None:
    picture = OutputSpec(kind=Kind.COLOR, dtype="uint8", shape=(4, 6, 3), axes="HWC")
    Video().check_takes(picture)
    for spec in (
        OutputSpec(kind=Kind.COLOR, dtype="float32", shape=(4, 6, 3), axes="HWC"),
        OutputSpec(kind=Kind.COLOR, dtype="uint8", shape=(3, 4, 6), axes="CHW"),
        OutputSpec(kind=Kind.MASK, dtype="uint8", shape=(4, 6, 1), axes="HWC"),
        OutputSpec(kind=Kind.COLOR, dtype="uint8", shape=(None, 6, 3), axes="HWC"),
    ):
        with pytest.raises(CodecError, match=r"uint8 RGB pictures \(H, W, 3\)"):
            Video().check_takes(spec)
    with pytest.raises(CodecError, match="16x16 or more, got 6x4"):
        Video(encode="ffv1").check_takes(picture)


def test_it_is_no_codec_of_single_frames() -> None:
    assert clip_codec("png") is clip_codec(None) is clip_codec({"stages": ["npy"]}) is None
    with pytest.raises(UsageError, match="keeps many frames in one payload"):
        codec_from_config("video")


def test_frames_that_are_not_there_and_bytes_that_are_no_video() -> None:
    data = clip("h264_bframes.mp4").read_bytes()
    decoder = Video().open_decoder(data)
    assert decoder.frame_count == 50
    assert decoder.read(np.array([3, 3, 9])).shape == (3, 120, 160, 3)
    for positions in ([50], [-1], [3, 60]):
        with pytest.raises(CodecError, match="in a clip of 50"):
            decoder.read(np.array(positions))
    for wrong in (b"", b"no video", data[: len(data) // 3], os.urandom(5000)):
        with pytest.raises(CodecError):
            everything(Video(), wrong)


def test_a_clip_that_was_cut_off_is_no_clip() -> None:
    need_encoder("ffv1")
    data = bytearray(encoded(Video(encode="ffv1"), moving_frames(6, 64, 96)))
    del data[len(data) // 2 :]
    with pytest.raises(CodecError, match=r"does not decode|in a clip of|no video"):
        Video(encode="ffv1").open_decoder(bytes(data)).read(np.arange(6))


def test_the_end_of_an_open_group_is_found_from_the_front() -> None:
    # FFmpeg, started at the last key frame of this clip (48), gives frame 48 and no other
    data = clip("h264_open_gop.mkv").read_bytes()
    in_order = everything(Video(container="mkv"), data)
    last = Video(container="mkv").open_decoder(data).read(np.array([49]))
    np.testing.assert_array_equal(last[0], in_order[49])


def test_frames_are_never_others_than_those_asked_for(tmp_path: Path) -> None:
    # Key frames of an intra refresh: FFmpeg cannot start there, and goes on to the first frame that it can show.
    data = intra_refresh(tmp_path / "refresh.mp4").read_bytes()
    decoder = Video().open_decoder(data)
    in_order = np.concatenate([decoder.read(np.arange(at, at + 10)) for at in range(0, 50, 10)])
    assert decoder.rewinds == 0
    rewinds = 0
    for frame in range(50):
        decoder = Video().open_decoder(data)
        np.testing.assert_array_equal(decoder.read(np.array([frame]))[0], in_order[frame])
        rewinds += decoder.rewinds
    assert rewinds > 10


@pytest.mark.parametrize("container", ["mp4", "mkv"])
@pytest.mark.parametrize(("height", "width"), [(64, 96), (61, 107), (2, 3), (17, 640)])
def test_what_cannot_be_cut_is_encoded_exactly(height: int, width: int, container: str) -> None:
    need_encoder("libx264rgb")
    frames = np.random.default_rng(0).integers(0, 256, (20, height, width, 3), np.uint8)
    codec = Video(container=container)
    data = encoded(codec, frames)
    assert data[4:8] == b"ftyp" if container == "mp4" else data[:4] == b"\x1aE\xdf\xa3"
    np.testing.assert_array_equal(everything(codec, data), frames)


def test_a_frame_of_another_size_is_refused() -> None:
    need_encoder("ffv1")
    encoder = Video(encode="ffv1").open_encoder(height=4, width=6, fps=25)
    with pytest.raises(CodecError, match=r"got uint8 \(5, 6, 3\), expected uint8 \(4, 6, 3\)"):
        encoder.add(np.zeros((5, 6, 3), np.uint8))
    encoder.abort()


def test_what_the_encoder_says_is_in_the_message() -> None:
    need_encoder("libx264")
    encoder = Video(encode="h264").open_encoder(height=16, width=16, fps=-1.0)  # FFmpeg refuses that rate

    def encode() -> bytes:
        for _ in range(2000):
            encoder.add(np.zeros((16, 16, 3), np.uint8))
        return encoder.finish()

    with pytest.raises(CodecError, match=r"FFmpeg could not encode: .*(rate|Invalid)"):
        encode()
    encoder.abort()


def test_without_ffmpeg_the_hint_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingDependencyError, match="no program `ffmpeg`") as caught:
        Video(encode="ffv1").open_encoder(height=4, width=4, fps=25)
    assert "apt install ffmpeg" in str(caught.value.hint)
