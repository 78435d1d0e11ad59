"""Named codecs: a name is shorthand for stages and their options. Plain data, so listing them imports nothing.

Changing what a name stands for never touches stored data: datasets keep the full list of stages.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Preset:
    """What a codec name stands for.

    Attributes:
        stages: Stage configs in order; options that are left out come from the spec or the stage's default.
        error: Largest error in words; `"exact"` for lossless codecs.
        summary: What it is for, one line.
    """

    stages: tuple[Mapping[str, Any], ...]
    error: str
    summary: str


def _stages(*ids_and_configs: str | Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    return tuple({"id": stage} if isinstance(stage, str) else stage for stage in ids_and_configs)


_PACKED = ("delta", "byteplanes", "npy", "zstd")

PRESETS: Mapping[str, Preset] = {
    "arrow": Preset(_stages("arrow"), "exact", "boxes and points as an Arrow table, a row a box; opens everywhere"),
    "bits.npy.zst": Preset(_stages("packbits", "npy", "zstd"), "exact", "8 booleans a byte, any shape"),
    "coco-rle": Preset(_stages("coco-rle", "zstd"), "exact", "masks as pycocotools reads them, zstd"),
    "f16.npy": Preset(_stages("float16", "npy"), "2**-11 of the value", "embeddings as float16"),
    "flow-delta": Preset(
        _stages("channels-first", {"id": "step", "step": 1 / 64, "zero": 32768}, *_PACKED),
        "1/128 px a component",
        "optical flow up to 511 px",
    ),
    "flow-jxl": Preset(
        _stages("channels-first", {"id": "step", "step": 1 / 64, "zero": 32768}, "planes", "jxl"),
        "1/128 px a component",
        "optical flow up to 511 px",
    ),
    "flow-kitti": Preset(_stages("kitti-flow", "png"), "1/128 px a component", "optical flow as KITTI's 16-bit PNG"),
    "gaplog-delta": Preset(_stages("gaplog", *_PACKED), "as gaplog-jls", "the same, twice as fast to read"),
    "gaplog-jls": Preset(
        _stages("gaplog", "planes", "jls"),
        "gap: 1.43% + 0.0143 nats; near ties 0.0288 nats",
        "logits or probabilities, small",
    ),
    "gaplog-jxl": Preset(_stages("gaplog", "planes", "jxl"), "as gaplog-jls", "the same, twice as fast to write"),
    "jls": Preset(
        _stages("channels-first", "planes", "jls"), "exact", "JPEG-LS; class ids and other uint8 or uint16 maps"
    ),
    "jpg": Preset(_stages("jpg"), "unbounded; 46 dB PSNR", "JPEG, quality 95, full chroma; RGB or grey uint8"),
    "json": Preset(_stages("json"), "exact unless rounded", "small tables as JSON; `decimals` rounds"),
    "json.zst": Preset(_stages("json", "zstd"), "exact unless rounded", "the same in a zstd frame"),
    "jxl": Preset(_stages("jxl"), "exact", "JPEG XL; RGB or grey, 8 or 16 bit; `effort: 7` is smallest"),
    "log-delta": Preset(_stages("log", *_PACKED), "0.04% of the value", "metric depth of any range"),
    "log-jxl": Preset(_stages("log", "planes", "jxl"), "0.04% of the value", "metric depth of any range"),
    "mm-delta": Preset(
        _stages({"id": "step", "step": 0.001}, *_PACKED), "0.5 mm", "metric depth up to 65.5 m; `step` in metres"
    ),
    "mm-jxl": Preset(
        _stages({"id": "step", "step": 0.001}, "planes", "jxl"), "0.5 mm", "metric depth up to 65.5 m; `step` in metres"
    ),
    "normals-delta": Preset(
        _stages({"id": "uniform", "minimum": -1.0, "maximum": 1.0, "bits": 8}, "channels-first", *_PACKED),
        "1/254 a component: 0.4 degrees, mean 0.17",
        "normals as 8-bit components, fast to read",
    ),
    "npy": Preset(_stages("npy"), "exact", "NumPy file; any numbers"),
    "npy.zst": Preset(_stages("npy", "zstd"), "exact", "NumPy file in a zstd frame; any numbers"),
    "oct-delta": Preset(_stages("octahedral", *_PACKED), "0.25 degrees, mean 0.09", "normals, octahedral with 10 bits"),
    "oct-jxl": Preset(
        _stages("octahedral", "planes", "jxl"), "0.25 degrees, mean 0.09", "normals, octahedral with 10 bits"
    ),
    "pco": Preset(_stages("channels-first", "pco"), "exact", "pcodec; floats and wide integers"),
    "png": Preset(_stages("png"), "exact", "PNG of 8 or 16 bit; opens everywhere"),
    "rgb-delta": Preset(_stages("green", *_PACKED), "exact", "RGB; reads three times as fast as jxl"),
    "u16-delta": Preset(
        _stages({"id": "uniform", "bits": 16}, *_PACKED), "range / 131068", "floats of a known range; NaN kept"
    ),
    "u16-jxl": Preset(
        _stages({"id": "uniform", "bits": 16}, "planes", "jxl"), "range / 131068", "floats of a known range; NaN kept"
    ),
    "u8-delta": Preset(
        _stages({"id": "uniform", "bits": 8, "nan": False}, *_PACKED), "range / 510", "edge strength, fast to read"
    ),
    "u8-jls": Preset(
        _stages({"id": "uniform", "bits": 8, "nan": False}, "planes", "jls"), "range / 510", "edge strength"
    ),
    "webp": Preset(_stages("webp"), "exact", "lossless WebP of RGB; every browser shows it"),
}


def error_of(option: str | Mapping[str, Any]) -> str:
    """Return the largest error of a codec in words, as far as its name and options tell.

    Args:
        option: Name, or name and options.
    """
    name = option if isinstance(option, str) else str(option.get("id"))
    options = {} if isinstance(option, str) else {key: value for key, value in option.items() if key != "id"}
    if "decimals" in options:
        return f"{0.5 * 10.0 ** -options['decimals']:g}"
    if name == "txt" or name.startswith("json"):
        return "exact"
    if name not in PRESETS:
        return "not known"
    error = PRESETS[name].error
    same = error.removeprefix("as ")
    return error.partition(";")[0] if options else PRESETS[same].error if same in PRESETS else error
