"""Files from strangers: nothing but the file itself is opened, and nothing hangs."""

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from tests.cli.conftest import run as _run_fixture
from tests.video.video_clips import clip
from vrekit.codecs.video import Video
from vrekit.core.errors import CodecError, UsageError, VideoError
from vrekit.core.ffmpeg import SAFE_INPUT, is_clip_head
from vrekit.core.names import check_local
from vrekit.jobs.merge.run import merge
from vrekit.video.opener import open_source

run = _run_fixture


@pytest.fixture
def server() -> "Callable[[], list[bytes]]":
    """Listen on a port; the function returns what was asked of it. Its attribute `url` is the address."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            asked.append(b"connected")
            connection.close()

    threading.Thread(target=serve, daemon=True).start()

    def requests() -> list[bytes]:
        return asked

    requests.url = f"http://127.0.0.1:{listener.getsockname()[1]}"  # type: ignore[attr-defined] # a test's shortcut
    return requests


def playlists(other: Path, url: str) -> dict[str, bytes]:
    """Return files that FFmpeg would take for lists of other files, by the demuxer's name."""
    hls = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:10.0,\n{}\n#EXT-X-ENDLIST\n"
    dash = (
        '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:'
        f'isoff-on-demand:2011" type="static"><Period><BaseURL>{url}/</BaseURL></Period></MPD>\n'
    )
    return {
        "hls of a file": hls.format(f"file://{other}").encode(),
        "hls of a url": hls.format(f"{url}/a.ts").encode(),
        "concat of a file": f"ffconcat version 1.0\nfile '{other.name}'\n".encode(),
        "concat of a url": f"ffconcat version 1.0\nfile '{url}/a.mp4'\n".encode(),
        "dash": dash.encode(),
        "sdp": b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 5004 RTP/AVP 96\r\n",
    }


@pytest.mark.parametrize("kind", list(playlists(Path("x"), "")))
@pytest.mark.parametrize("has_ffprobe", [True, False])
def test_playlists_are_no_videos(
    tmp_path: Path,
    server: Callable[[], list[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    has_ffprobe: bool,
) -> None:
    other = tmp_path / "other.ts"
    other.write_bytes(clip("h264.ts").read_bytes())
    content = playlists(other, server.url)[kind]  # type: ignore[attr-defined] # see the fixture
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    if not has_ffprobe:
        monkeypatch.setenv("PATH", "")
    with pytest.raises(VideoError, match="there is no video in this file: FFmpeg takes it for") as caught:
        open_source(path)
    assert "playlists" in str(caught.value.hint)
    with pytest.raises(CodecError, match="no clip"):
        Video().open_decoder(content)
    assert server() == []


def test_pattern_in_a_name_is_no_pattern(tmp_path: Path) -> None:
    # FFmpeg's image2 would read frame0.png, frame1.png, ... instead of the file itself.
    content = clip("ffv1.mkv").read_bytes()
    path = tmp_path / "frame%d.png"
    path.write_bytes(content)
    with pytest.raises(VideoError, match="FFmpeg takes it for 'image2'"):
        open_source(path)


@pytest.mark.parametrize("name", ["-rf.mp4", "http:x.mp4", "concat:a.mp4", "subfile,,start,0,,:x.mp4", "pipe:0"])
def test_names_are_not_options_or_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).write_bytes(clip("h264_bframes.mp4").read_bytes())
    monkeypatch.chdir(tmp_path)
    with open_source(name) as source:
        assert source.info.frame_count == 50


def test_every_clip_container_passes() -> None:
    for name in ("h264_bframes.mp4", "h264_fragmented.mp4", "ffv1.mkv", "vp9.webm"):
        assert is_clip_head(clip(name).read_bytes()[:4096])
    assert not is_clip_head(b"\x1aE\xdf\xa3" + b'<MPD profiles="urn:mpeg:dash:profile:isoff-on-demand:2011">')
    assert SAFE_INPUT[1] == "file"
    assert not {"hls", "concat", "dash", "sdp", "image2", "lavfi", "tty", "avisynth"} & set(SAFE_INPUT[3].split(","))


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "fifo in a folder"])
def test_pipes_and_devices_are_refused_at_once(tmp_path: Path, run: Callable[..., Result], kind: str) -> None:
    path = tmp_path / "odd.mp4"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.close()
    elif kind == "device":
        path = Path("/dev/zero")
    else:
        path = tmp_path / "frames"
        path.mkdir()
        np.save(path / "0.npy", np.zeros((4, 4, 3), np.uint8))
        os.mkfifo(path / "1.npy")
    result = run("export", path, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "a pipe, socket or device, not a file" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_link_to_a_video_is_a_video(tmp_path: Path) -> None:
    (tmp_path / "link.mp4").symlink_to(clip("h264_bframes.mp4"))
    with open_source(tmp_path / "link.mp4") as source:
        assert source.info.frame_count == 50


@pytest.mark.parametrize("url", ["http://x.org/a.mp4", "s3://b/x", "rtsp://cam/1", "file:///tmp/a.mp4", "S3:/b/x"])
def test_urls_are_refused_where_local_files_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Result], url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("clip.npy", np.zeros((2, 8, 8, 3), np.uint8))
    commands = [
        ("export", url, "-o", "out"),
        ("export", "clip.npy", url, "-o", "out"),
        ("stats", url),
        ("items", url),
        ("gc", url),
        ("graph", "quickstart", "-o", url),
        ("merge", "x", "y", "-o", url),
        ("transcode", "x", "-o", url),
        ("convert", "x", "-o", url),
    ]
    for command in commands:
        result = run(*command)
        assert result.exit_code == 2, (command, result.output)
        assert "is a URL" in result.stderr, (command, result.output)
        assert len(result.stderr.splitlines()) == 2
    for call in (lambda: open_source(url), lambda: merge([Path("x"), Path("y")], Path(url))):
        with pytest.raises(UsageError, match="is a URL"):
            call()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.npy"]


def test_standard_input_is_refused(tmp_path: Path, run: Callable[..., Result]) -> None:
    result = run("export", "-", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[0] == "error: - stands for standard input or output; a file or folder is needed"
    assert not (tmp_path / "out").exists()


def test_colons_in_local_names_are_fine() -> None:
    for name in ("a:b.mp4", "C:/videos", "/data/s3:/x", "12:30/clip.mp4", "s3:x"):
        check_local(name)
