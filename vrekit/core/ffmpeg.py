"""FFmpeg's command line: where it is, what it calls containers, and what it may open for an untrusted file."""

import shutil
from collections.abc import Mapping

from vrekit.core.errors import MissingDependencyError

MUXERS: Mapping[str, str] = {"mkv": "matroska", "mp4": "mp4"}  # file name ending → FFmpeg's name

# Demuxers that read nothing but the file itself. Playlists (hls, concat, dash, imf, sdp) open other files or the
# network; scripts (avisynth, vapoursynth) run code; image2 opens all files that match a name.
DEMUXERS = (
    "3gp,apng,asf,asf_o,av1,avi,avif,avs,avs2,avs3,bink,bmp_pipe,cavsvideo,cine,dhav,dirac,dnxhd,dv,evc,"
    "film_cpk,flic,flv,gif,gxf,h261,h263,h264,hevc,ico,ifv,ipu,ivf,jpeg_pipe,jpegls_pipe,live_flv,lxf,m4v,"
    "matroska,mjpeg,mjpeg_2000,mlv,mov,mp4,mpeg,mpegts,mpegvideo,mtv,mxf,nsv,nut,nuv,obu,ogg,png_pipe,pva,"
    "qoi_pipe,r3d,rm,roq,smk,swf,tiff_pipe,vc1,vc1test,vvc,webm,webp_pipe,wtv,xmv,yuv4mpegpipe"
)
# Options before `-i`, for every process that reads a file or a payload that came from elsewhere.
SAFE_INPUT = ("-protocol_whitelist", "file", "-format_whitelist", DEMUXERS)
_PLAYLIST_MARKS = (b"#extm3u", b"ffconcat", b"<mpd", b"<compositionplaylist", b"c=in ip", b"m=audio", b"m=video")
HEAD_BYTES = 4096


def ffmpeg_program() -> str:
    """Return the path of FFmpeg's command line.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise MissingDependencyError(
            "the video codec needs FFmpeg's command line, and there is no program `ffmpeg`",
            hint="`apt install ffmpeg`, `brew install ffmpeg` or `conda install -c conda-forge ffmpeg`",
        )
    return program


def is_clip_head(head: bytes) -> bool:
    """Return whether bytes begin an MP4 or Matroska file, the containers of clips, and can be nothing else.

    FFmpeg decides by content which demuxer reads a file, and torchcodec cannot restrict it: a playlist must not get
    there. Playlists are text up to the first zero byte.

    Args:
        head: The first `HEAD_BYTES` bytes.
    """
    is_mp4 = head[:1] == b"\0" and head[4:8] == b"ftyp"
    is_matroska = head[:4] == b"\x1aE\xdf\xa3"
    return (is_mp4 or is_matroska) and not has_playlist_mark(head)


def has_playlist_mark(head: bytes) -> bool:
    """Return whether the text that bytes begin with looks like a playlist to FFmpeg.

    Args:
        head: The first `HEAD_BYTES` bytes.
    """
    text = head.partition(b"\0")[0].lower()
    return any(mark in text for mark in _PLAYLIST_MARKS)
