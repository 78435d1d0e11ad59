"""`codec: auto`: the smallest codec for the data at hand among those that decode fast enough."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from vrekit.codecs.base import Codec
from vrekit.codecs.measure import Measurement, measure
from vrekit.codecs.pipeline import PipelineCodec
from vrekit.codecs.profiles import AUTO, PROFILES, TABLE, Option, min_decode_mbps, plain_codecs
from vrekit.codecs.registry import codec_for, codec_names, default_codec, option_of
from vrekit.codecs.store_as import conversion_stages
from vrekit.core.errors import CodecError, UsageError
from vrekit.core.spec import Kind, OutputSpec, canonical_json

logger = logging.getLogger(__name__)

# After one frame, codecs that are this much larger or slower than asked are given up.
_HOPELESS_SIZE, _HOPELESS_SPEED = 1.3, 0.5
_ROWS = (Kind.BOXES, Kind.POINTS, Kind.TABLE)


@dataclass(frozen=True, slots=True)
class AutoChoice:
    """What was chosen, and what was tried.

    Attributes:
        config: Config for the key `codec:`; `store_as` is not part of it.
        measurements: Of every codec that was tried on all frames.
    """

    config: Mapping[str, Any]
    measurements: tuple[Measurement, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A codec to try, and how it is asked for: `jxl`, `jxl (effort: 7)`."""

    label: str
    codec: Codec


def fitting_codecs(spec: OutputSpec, *, store_as: str | None = None) -> list[Candidate]:
    """Return the codecs, with the options of every profile, that suit what `spec` describes.

    These are all exact ones that take it, and those with the loss that some profile has for such data: that a flow
    codec could hold a depth map is no reason to use it.
    """
    defaults = [
        default_codec(spec, profile=profile, lossy=lossy, store_as=store_as)
        for profile in PROFILES
        for lossy in (False, True)
    ]
    losses = [loss_of(codec) for codec in defaults]
    choices = [row[profile] for row in TABLE.values() for profile in PROFILES]
    listed = [option for choice in choices for option in (choice.lossless, choice.lossy) if option is not None]
    found: dict[str, Candidate] = {}
    for option in (*codec_names(), *listed):
        try:
            codec = codec_for(option, spec, store_as=store_as)
        except (CodecError, UsageError):
            continue
        if loss_of(codec) in losses and (spec.kind in _ROWS or not _stores_rows(codec)):
            found.setdefault(canonical_json(codec.config()), Candidate(option_text(option), codec))
    return list(found.values())


def option_text(option: Option) -> str:
    """Return a codec's name and options for people; the values are as YAML wants them."""
    if isinstance(option, str):
        return option
    options = ", ".join(f"{name}: {json.dumps(value)}" for name, value in option.items() if name != "id")
    return f"{option['id']} ({options})" if options else str(option["id"])


def candidates(spec: OutputSpec, *, profile: str, store_as: str | None = None) -> list[Candidate]:
    """Return the codecs that `auto` tries: the profile's own, those with the very same loss, and the exact ones.

    Exactness is never given away: where the profile's default is exact, all of them are.

    Args:
        spec: What is stored.
        profile: `"training"`, `"balanced"`, `"archive"` or `"plain"`.
        store_as: Stored form of class scores, see `vrekit.codecs.store_as`.
    """
    default = codec_for(None, spec, store_as=store_as, profile=profile)
    conversion = conversion_stages(store_as, spec) if store_as else ()
    allowed = [loss_of(default), [stage.config() for stage in conversion if not stage.is_exact]]
    found = [one for one in fitting_codecs(spec, store_as=store_as) if loss_of(one.codec) in allowed]
    return [one for one in found if one.label.partition(" ")[0] in plain_codecs()] if profile == "plain" else found


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
        profile: `"training"`, `"balanced"`, `"archive"` or `"plain"`.
        store_as: Stored form of class scores, see `vrekit.codecs.store_as`.

    Raises:
        UsageError: If `option` is wrong.
        CodecError: If no codec takes such data.
    """
    floor = min_decode_mbps(option, profile)
    default = Candidate(AUTO, codec_for(None, spec, store_as=store_as, profile=profile))
    tried = _measured(candidates(spec, profile=profile, store_as=store_as), arrays[:1], spec, rounds=2)
    if len(tried) < 2:
        return AutoChoice(option_of(default.codec, spec, store_as=store_as), ())
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
    return AutoChoice(option_of(chosen.codec, spec, store_as=store_as), tuple(one for _, one in measured))


def _measured(
    found: Sequence[Candidate], arrays: Sequence[NDArray[Any]], spec: OutputSpec, *, rounds: int
) -> list[tuple[Candidate, Measurement]]:
    result = []
    for candidate in found if arrays else ():
        try:
            one = measure(candidate.codec, arrays, spec, rounds=rounds, for_size_and_speed=True, label=candidate.label)
        except CodecError as error:
            logger.debug("auto: %s does not take these frames: %s", candidate.label, error)
        else:
            result.append((candidate, one))
    return result


def loss_of(codec: Codec) -> list[dict[str, Any]] | None:
    """Return the stages that lose something; None for a codec that cannot be looked into and may lose anything."""
    if isinstance(codec, PipelineCodec):
        return [stage.config() for stage in codec.stages if not stage.is_exact]
    return [] if codec.is_exact else None


def _stores_rows(codec: Codec) -> bool:
    # these take any numbers, which is no use for images
    return isinstance(codec, PipelineCodec) and codec.format.id in ("arrow", "json")
