"""Which codec each profile uses for each kind of data, chosen from the measurements in docs/codecs.md.

`training` looks at decode time first, `archive` at bytes first. `balanced` takes small codecs; most decode faster than
`np.load` reads compressed npz, but not `jxl` for colour, which other programs open, and not always `u8-jls` for edges.
`plain` writes files that other programs decode to the values themselves: PNG, JPEG, NumPy files, JSON, text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vrekit.core.errors import UsageError
from vrekit.core.names import did_you_mean
from vrekit.core.spec import Kind, OutputSpec

PROFILES = ("archive", "balanced", "plain", "training")
MAX_MILLIMETRES = 65534

Option = str | Mapping[str, Any]

AUTO = "auto"
# What a codec must decode to be chosen by `codec: auto`, MB of raw arrays per CPU second: `training` about as fast as
# JPEG, `balanced` a little less than compressed npz, which data loaders can do with.
MIN_DECODE_MBPS: Mapping[str, float] = {"training": 500.0, "balanced": 150.0, "plain": 0.0, "archive": 0.0}


@dataclass(frozen=True, slots=True)
class Choice:
    """The codecs of one sort of data in one profile.

    Attributes:
        lossless: The exact one.
        lossy: The smaller one, None where loss gains nothing.
        lossy_by_default: Whether `lossy` is taken when nobody asks for either.
    """

    lossless: Option
    lossy: Option | None = None
    lossy_by_default: bool = True


def _all(choice: Choice) -> dict[str, Choice]:
    return dict.fromkeys(PROFILES, choice)


# Training pays a slow write once and reads often; the CRC-32 of the metadata is checked before anything is decoded.
_FAST = {"level": 9, "checksum": False}
_PACKED_IDS = {"id": "npy.zst", "level": 9}


_PLAIN_FLOATS = {"plain": Choice("npy")}


def _scaled(quantiser: str, **training: Any) -> dict[str, Choice]:
    fast = f"{quantiser}-delta"
    return _PLAIN_FLOATS | {
        "training": Choice("pco", {"id": fast, **training, **_FAST}),
        "balanced": Choice("pco", f"{quantiser}-delta"),
        "archive": Choice("pco", {"id": f"{quantiser}-jxl", "effort": 7}),
    }


_SCORES = _PLAIN_FLOATS | {
    "training": Choice("pco", "gaplog-delta"),
    "balanced": Choice("pco", "gaplog-jls"),
    "archive": Choice({"id": "pco", "level": 12}, "gaplog-jls"),
}

TABLE: Mapping[str, Mapping[str, Choice]] = {
    "color uint8": {
        "training": Choice("rgb-delta", {"id": "jpg", "quality": 90, "subsampling": "420", "fast_upsampling": True}),
        "balanced": Choice("jxl", "jpg", lossy_by_default=False),
        "archive": Choice({"id": "jxl", "effort": 7}, "jpg", lossy_by_default=False),
        "plain": Choice({"id": "png", "level": 4}, "jpg", lossy_by_default=False),
    },
    "edges float": _PLAIN_FLOATS
    | {
        "training": Choice("pco", "u8-delta"),
        "balanced": Choice("pco", "u8-jls"),
        "archive": Choice("pco", "u8-jls"),
    },
    "flow": _scaled("flow"),
    "depth in metres, range within 65 m": _scaled("mm", down=False),
    "depth in metres, any range": _scaled("log", down=False),
    "depth of a known range": _scaled("u16", down=False),
    "normals": _scaled("oct")
    | {"training": Choice("pco", {"id": "normals-delta", "axis": 0, "across": False, **_FAST})},
    "logits": _SCORES,
    "probabilities": _SCORES,
    "integer maps": {
        "training": Choice(_PACKED_IDS | _FAST),
        "balanced": Choice(_PACKED_IDS),
        "archive": Choice({"id": "jxl", "effort": 7}),
        "plain": Choice("png"),
    },
    "booleans": {
        "training": Choice("bits.npy.zst"),
        "balanced": Choice("coco-rle"),
        "archive": Choice("coco-rle"),
        "plain": Choice("npy"),
    },
    "boxes, points and tables": _all(Choice("pco")) | {"plain": Choice("json")},
    "embeddings": _all(Choice("npy", "f16.npy", lossy_by_default=False)),
    "text": _all(Choice("txt")),
    "other floats": _all(Choice("pco")) | _PLAIN_FLOATS,
}
_LAST_RESORT = "npy.zst"


def row_of(spec: OutputSpec) -> str:
    """Return the row of `TABLE` for such data."""
    number = spec.dtype.rstrip("0123456789")
    if spec.kind is Kind.TEXT:
        return "text"
    if spec.kind in (Kind.BOXES, Kind.POINTS, Kind.TABLE):
        return "boxes, points and tables"
    if spec.kind is Kind.EMBEDDING:
        return "embeddings"
    if number == "bool":
        return "booleans"
    if number in ("int", "uint"):
        return "color uint8" if spec.kind is Kind.COLOR and spec.dtype == "uint8" else "integer maps"
    if spec.kind is Kind.DEPTH:
        return _depth_row(spec)
    if spec.kind in (Kind.FLOW, Kind.NORMALS, Kind.LOGITS, Kind.PROBABILITIES):
        return str(spec.kind)
    return "edges float" if spec.kind is Kind.EDGES else "other floats"


def _depth_row(spec: OutputSpec) -> str:
    if spec.unit == "m":
        fits = spec.value_range is not None and 0 <= spec.value_range[0] < spec.value_range[1] <= MAX_MILLIMETRES / 1000
        return "depth in metres, range within 65 m" if fits else "depth in metres, any range"
    return "depth of a known range" if spec.value_range is not None else "other floats"


def choose(spec: OutputSpec, *, profile: str, lossy: bool | None) -> tuple[Option, ...]:
    """Return codecs to try, best first; the first one that takes the data is meant.

    Args:
        spec: What is stored.
        profile: One of `PROFILES`.
        lossy: True or False to have it so, None for the table's default.

    Raises:
        UsageError: If there is no such profile.
    """
    if profile not in PROFILES:
        raise UsageError(
            f"unknown codec profile {profile!r}{did_you_mean(profile, PROFILES)}", hint=f"one of {', '.join(PROFILES)}"
        )
    row = row_of(spec)
    choice = TABLE[row][profile]
    # what a picture codec drops in a camera's pixels nobody misses; in a halftone or a rendered map it is the content
    by_default = choice.lossy_by_default and (row != "color uint8" or spec.natural is True)
    take_lossy = by_default if lossy is None else lossy
    first = (choice.lossy,) if take_lossy and choice.lossy is not None else ()
    if profile != "plain":
        return (*first, choice.lossless, _LAST_RESORT)
    if row == "integer maps" and len(spec.shape) != 2:  # Pillow reads 16-bit PNGs of several channels as 8 bit
        return ("npy",)
    return (*first, choice.lossless, "npy")


def plain_codecs() -> frozenset[str]:
    """Return the names of the codecs that the profile `plain` takes."""
    options = (option for choices in TABLE.values() for option in (choices["plain"].lossless, choices["plain"].lossy))
    return frozenset(option if isinstance(option, str) else str(option["id"]) for option in options if option)


def is_auto(option: object) -> bool:
    """Return whether a value of the config key `codec:` asks for a choice by measuring (`vrekit.codecs.auto`)."""
    return option == AUTO or (isinstance(option, Mapping) and option.get("id") == AUTO)


def min_decode_mbps(option: Option, profile: str) -> float:
    """Return the decoding speed that `codec: auto` asks for, MB of raw arrays per CPU second.

    Args:
        option: `"auto"` or `{"id": "auto", "min_decode_mbps": 200}`.
        profile: Where the option does not say it.

    Raises:
        UsageError: If there is another option, or the speed is no number of at least 0.
    """
    options = {} if isinstance(option, str) else {name: value for name, value in option.items() if name != "id"}
    for name in options:
        if name != "min_decode_mbps":
            raise UsageError(
                f"codec 'auto' has no option {name!r}{did_you_mean(name, ['min_decode_mbps'])}",
                hint="its options: min_decode_mbps",
            )
    value = options.get("min_decode_mbps", MIN_DECODE_MBPS.get(profile, 0.0))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise UsageError(f"codec 'auto': min_decode_mbps is {value!r}, expected a number of 0 or more")
    return float(value)
