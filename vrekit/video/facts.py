"""What a video file says about its pixels, and what of it frames do not keep."""

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrekit.video.base import VideoInfo

_HDR = ("smpte2084", "arib-std-b67")
_FIELD_ORDERS = ("tt", "bb", "tb", "bt")
_ALPHA = re.compile(r"yuva|gbrap|rgba|bgra|argb|abgr|^ya\d|ayuv|vuya|pal8")
_NOT_KNOWN = ("", "unknown", "N/A", "reserved", "unspecified")


def pixel_facts(stream: Mapping[str, str], *, rotation_degrees: float) -> dict[str, Any]:
    """Return those facts of `VideoInfo` that tell about pixels, from ffprobe's fields of a stream.

    Args:
        stream: The fields, by ffprobe's names.
        rotation_degrees: How frames are turned: a quarter turn swaps the sides of a pixel.
    """
    facts: dict[str, Any] = {
        ours: value if (value := stream.get(theirs, "")) not in _NOT_KNOWN else None
        for ours, theirs in (
            ("pixel_format", "pix_fmt"),
            ("field_order", "field_order"),
            ("color_range", "color_range"),
            ("color_space", "color_space"),
            ("color_transfer", "color_transfer"),
            ("color_primaries", "color_primaries"),
        )
    }
    ratio = re.fullmatch(r"([1-9]\d*):([1-9]\d*)", stream.get("sample_aspect_ratio", ""))
    if ratio is not None:
        width, height = ratio.groups() if rotation_degrees % 180 == 0 else ratio.groups()[::-1]
        facts["sample_aspect_ratio"] = f"{width}:{height}"
    if facts["pixel_format"] is not None:
        facts["bit_depth"] = bit_depth(facts["pixel_format"])
        facts["has_alpha"] = bool(_ALPHA.search(facts["pixel_format"])) or stream.get("tag:alpha_mode") == "1"
    return facts


def bit_depth(pixel_format: str) -> int:
    """Return the bits per sample of a pixel format by FFmpeg's name.

    Example:
        >>> bit_depth("yuv420p10le"), bit_depth("rgb48be"), bit_depth("nv12")
        (10, 16, 8)
    """
    found = re.search(r"(\d+)(f?)(?:le|be)$", pixel_format)
    if found is None:
        return 8
    name = pixel_format[: found.start()]
    bits = int(found[1])
    if name in ("rgb", "bgr", "rgba", "bgra", "ayuv", "rgbaf", "rgbf", "bayer_rggb", "bayer_bggr"):
        per_pixel = {48: 16, 64: 16, 96: 32, 128: 32}
        return per_pixel.get(bits, bits if bits == 16 else 8)
    special = {"nv": {20: 10}, "p": {10: 10, 12: 12, 16: 16, 210: 10, 212: 12, 216: 16, 410: 10, 412: 12, 416: 16}}
    return special.get(name, {}).get(bits, bits)


def other_streams(operators: Any, decoder: Any, stream_index: int) -> tuple[str, ...]:
    """Return type and codec of the streams that are not read, such as `audio aac`.

    Args:
        operators: torchcodec's operators.
        decoder: torchcodec's decoder, below `VideoDecoder`.
        stream_index: The stream that is read.
    """
    count = int(json.loads(operators.get_container_json_metadata(decoder))["numStreams"])
    streams = [json.loads(operators.get_stream_json_metadata(decoder, index)) for index in range(count)]
    return tuple(
        f"{stream['mediaType']} {stream.get('codec', 'unknown')}"
        for index, stream in enumerate(streams)
        if index != stream_index
    )


def ranges(numbers: NDArray[np.int64]) -> str:
    """Return rising numbers as `--frames` takes them: `5,8..12`, 12 excluded."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1) if len(numbers) else []
    return ",".join(f"{run[0]}..{run[-1] + 1}" if len(run) > 1 else f"{run[0]}" for run in runs)


def losses(info: VideoInfo) -> str:
    """Return in one line what frames do not keep of a video or cannot have; empty when there is nothing to say."""
    found = []
    if info.is_truncated:
        found.append("the file is cut off: it is shorter than its container says")
    if info.damaged_frames:
        found.append(f"the data of frames {info.damaged_frames} is damaged")
    if (info.bit_depth or 8) > 8:
        found.append(f"{info.bit_depth}-bit pixels are stored as 8-bit")
    if info.color_transfer in _HDR:
        found.append(f"HDR ({info.color_transfer}) is stored without tone mapping")
    if info.has_alpha:
        found.append("transparency is dropped")
    if info.sample_aspect_ratio not in (None, "1:1"):
        found.append(f"pixels are not square ({info.sample_aspect_ratio}) and frames are not scaled")
    if info.field_order in _FIELD_ORDERS:
        found.append("interlaced fields are not separated")
    return "; ".join(found)
