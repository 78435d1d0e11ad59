"""`codec: auto`: the smallest codec for the data at hand among those that decode fast enough."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from vrekit.codecs.base import Codec
from vrekit.codecs.measure import Measurement, measure
from vrekit.codecs.pipeline import PipelineCodec
from vrekit.codecs.profiles import PROFILES, TABLE, Option
from vrekit.codecs.registry import codec_for, codec_names
from vrekit.codecs.store_as import conversion_stages
from vrekit.core.errors import CodecError, UsageError
from vrekit.core.spec import OutputSpec, canonical_json

logger = logging.getLogger(__name__)

AUTO = "auto"
# What a codec must decode, MB of raw arrays per CPU second, where `min_decode_mbps` does not say: `balanced` a little
# less than the compressed npz that data loaders can do with, `training` as fast as a baseline JPEG of high quality.
MIN_DECODE_MBPS: Mapping[str, float] = {"training": 500.0, "balanced": 150.0, "archive": 0.0}
# After one frame, codecs that are this much larger or slower than asked are given up.
_HOPELESS_SIZE, _HOPELESS_SPEED = 1.3, 0.5


@dataclass(frozen=True, slots=True)
class AutoChoice:
    """What was chosen, and what was tried.

    Attributes:
        config: Config for the key `codec:`; `store_as` is not part of it.
        measurements: Of every codec that was tried on all frames.
    """

    config: Mapping[str, Any]
    measurements: tuple[Measurement, ...]


def is_auto(option: object) -> bool:
    """Return whether a value of the key `codec:` asks for a choice by measuring."""
    return option == AUTO or (isinstance(option, Mapping) and option.get("id") == AUTO)


def min_decode_mbps(option: str | Mapping[str, Any], profile: str) -> float:
    """Return the decoding speed that a codec must reach, MB of raw arrays per CPU second.

    Raises:
        UsageError: If `option` has another option than `min_decode_mbps`, or that is no number of at least 0.
    """
    options = {} if isinstance(option, str) else {name: value for name, value in option.items() if name != "id"}
    for name in options:
        if name != "min_decode_mbps":
            raise UsageError(f"codec 'auto' has no option {name!r}", hint="its options: min_decode_mbps")
    value = options.get("min_decode_mbps", MIN_DECODE_MBPS.get(profile, 0.0))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise UsageError(f"codec 'auto': min_decode_mbps is {value!r}, expected a number of 0 or more")
    return float(value)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A codec to try, and how it is asked for: `jxl`, `jxl (effort: 7)`."""

    label: str
    codec: Codec


def all_codecs(spec: OutputSpec, *, store_as: str | None = None) -> list[Candidate]:
    """Return every codec, with the options of every profile, that takes what `spec` describes."""
    choices = [row[profile] for row in TABLE.values() for profile in PROFILES]
    listed = [option for choice in choices for option in (choice.lossless, choice.lossy) if option is not None]
    found: dict[str, Candidate] = {}
    for option in (*codec_names(), *listed):
        try:
            codec = codec_for(option, spec, store_as=store_as)
        except (CodecError, UsageError):
            continue
        found.setdefault(canonical_json(codec.config()), Candidate(option_text(option), codec))
    return list(found.values())


def option_text(option: Option) -> str:
    """Return a codec's name and options for people."""
    if isinstance(option, str):
        return option
    options = ", ".join(f"{name}: {value}" for name, value in option.items() if name != "id")
    return f"{option['id']} ({options})" if options else str(option["id"])


def candidates(spec: OutputSpec, *, profile: str, store_as: str | None = None) -> list[Candidate]:
    """Return the codecs that `auto` tries: the profile's own, those with the very same loss, and the exact ones.

    Exactness is never given away: where the profile's default is exact, all of them are.

    Args:
        spec: What is stored.
        profile: `"training"`, `"balanced"` or `"archive"`.
        store_as: Stored form of class scores, see `vrekit.codecs.store_as`.
    """
    default = codec_for(None, spec, store_as=store_as, profile=profile)
    conversion = conversion_stages(store_as, spec) if store_as else ()
    allowed = [_loss(default), [stage.config() for stage in conversion if not stage.is_exact]]
    as_text = _stores_text(default)
    return [
        candidate
        for candidate in all_codecs(spec, store_as=store_as)
        if _loss(candidate.codec) in allowed and _stores_text(candidate.codec) == as_text
    ]


def choose_codec(
    option: str | Mapping[str, Any],
    spec: OutputSpec,
    arrays: Sequence[NDArray[Any]],
    *,
    profile: str = "balanced",
    store_as: str | None = None,
) -> AutoChoice:
    """Return the smallest codec for some frames among those that decode fast enough; if none does, the fastest.

    Speeds differ between machines and runs, so the choice may too: keep it with the data, and measure once.

    Args:
        option: `"auto"` or `{"id": "auto", "min_decode_mbps": 200}`.
        spec: What is stored.
        arrays: Some frames of it; none of them: the profile's default is the choice.
        profile: `"training"`, `"balanced"` or `"archive"`.
        store_as: Stored form of class scores, see `vrekit.codecs.store_as`.

    Raises:
        UsageError: If `option` is wrong.
        CodecError: If no codec takes such data.
    """
    floor = min_decode_mbps(option, profile)
    default = Candidate(AUTO, codec_for(None, spec, store_as=store_as, profile=profile))
    skipped = len(conversion_stages(store_as, spec)) if store_as else 0
    tried = _measured(candidates(spec, profile=profile, store_as=store_as), arrays[:1], spec, rounds=2)
    if len(tried) < 2:
        return AutoChoice(_own_config(default.codec, skipped, store_as), ())
    smallest = min((one.stored_bytes for _, one in tried if one.decode_mbps >= floor), default=None)
    hopeful = [
        candidate
        for candidate, one in tried
        if smallest is None
        or (one.decode_mbps >= _HOPELESS_SPEED * floor and one.stored_bytes <= _HOPELESS_SIZE * smallest)
    ]
    measured = _measured(hopeful, arrays, spec, rounds=3)
    fast = [pair for pair in measured if pair[1].decode_mbps >= floor]
    if fast:
        chosen = min(fast, key=lambda pair: (pair[1].stored_bytes, pair[1].label))[0]
    else:
        chosen = max(measured, key=lambda pair: pair[1].decode_mbps, default=(default, None))[0]
    return AutoChoice(_own_config(chosen.codec, skipped, store_as), tuple(one for _, one in measured))


def _measured(
    found: Sequence[Candidate], arrays: Sequence[NDArray[Any]], spec: OutputSpec, *, rounds: int
) -> list[tuple[Candidate, Measurement]]:
    result = []
    for candidate in found if arrays else ():
        try:
            one = measure(candidate.codec, arrays, spec, rounds=rounds, label=candidate.label)
        except CodecError as error:
            logger.debug("auto: %s does not take these frames: %s", candidate.label, error)
        else:
            result.append((candidate, one))
    return result


def _loss(codec: Codec) -> list[dict[str, Any]] | None:
    """Return the stages that lose something; None for a codec that cannot be looked into and may lose anything."""
    if isinstance(codec, PipelineCodec):
        return [stage.config() for stage in codec.stages if not stage.is_exact]
    return [] if codec.is_exact else None


def _stores_text(codec: Codec) -> bool:
    # JSON takes any numbers, which is no use for images
    return isinstance(codec, PipelineCodec) and codec.format.id == "json"


def _own_config(codec: Codec, skipped: int, store_as: str | None) -> dict[str, Any]:
    """Return the config without the first `skipped` stages, which `store_as` adds."""
    if not isinstance(codec, PipelineCodec) or not skipped:
        return codec.config()
    return PipelineCodec.from_stages(codec.stages[skipped:], codec.name.removeprefix(f"{store_as}-")).config()
