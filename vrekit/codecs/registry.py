"""Find codecs by name, rebuild them from stored configs, and pick the default for a kind of data.

Outside packages add codecs by the entry point group `vrekit.codecs` (a callable that takes the config's options as
keywords and returns a `Codec`, such as a Codec dataclass), codecs that keep many frames in one payload likewise by
`vrekit.clip_codecs` (they return a `ClipCodec`), and stages by `vrekit.codec_stages` (a `Stage` class).
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vrekit.codecs.base import ClipCodec, Codec, CodecConfig
from vrekit.codecs.pipeline import PipelineCodec
from vrekit.codecs.presets import PRESETS
from vrekit.codecs.profiles import choose, is_auto, min_decode_mbps
from vrekit.codecs.stage import ArrayStage, Layout, Stage
from vrekit.codecs.store_as import conversion_stages
from vrekit.core.errors import CodecError, DatasetError, UsageError
from vrekit.core.names import did_you_mean
from vrekit.core.registry import Registry
from vrekit.core.spec import Kind, OutputSpec

logger = logging.getLogger(__name__)

_MAX_STAGES = 64  # every array stage may need memory for another array of the frame

STAGES = Registry(
    "codec stage",
    {
        "arrow": "vrekit.codecs.stages.arrow_rows:ArrowRows",
        "byteplanes": "vrekit.codecs.stages.byteplanes:BytePlanes",
        "channels-first": "vrekit.codecs.stages.channels_first:ChannelsFirst",
        "coco-rle": "vrekit.codecs.stages.coco_rle:CocoRle",
        "delta": "vrekit.codecs.stages.delta:Delta",
        "float16": "vrekit.codecs.stages.float16:Float16",
        "gaplog": "vrekit.codecs.stages.gaplog:Gaplog",
        "green": "vrekit.codecs.stages.green:Green",
        "indices": "vrekit.codecs.stages.indices:Indices",
        "jls": "vrekit.codecs.stages.jls:Jls",
        "jpg": "vrekit.codecs.stages.jpg:Jpg",
        "json": "vrekit.codecs.stages.json_rows:JsonRows",
        "jxl": "vrekit.codecs.stages.jxl:Jxl",
        "kitti-flow": "vrekit.codecs.stages.kitti_flow:KittiFlow",
        "log": "vrekit.codecs.stages.log:Log",
        "npy": "vrekit.codecs.stages.npy:Npy",
        "octahedral": "vrekit.codecs.stages.octahedral:Octahedral",
        "packbits": "vrekit.codecs.stages.packbits:PackBits",
        "pco": "vrekit.codecs.stages.pco:Pco",
        "planes": "vrekit.codecs.stages.planes:Planes",
        "png": "vrekit.codecs.stages.png:Png",
        "softmax": "vrekit.codecs.stages.softmax:Softmax",
        "step": "vrekit.codecs.stages.step:Step",
        "topk": "vrekit.codecs.stages.topk:TopK",
        "uniform": "vrekit.codecs.stages.uniform:Uniform",
        "webp": "vrekit.codecs.stages.webp:Webp",
        "zstd": "vrekit.codecs.stages.zstd:Zstd",
    },
    group="vrekit.codec_stages",
)
CODECS = Registry("codec", {"txt": "vrekit.codecs.text:Text"}, group="vrekit.codecs")  # those that are no presets
CLIP_CODECS = Registry("clip codec", {"video": "vrekit.codecs.video:Video"}, group="vrekit.clip_codecs")


def codec_names() -> tuple[str, ...]:
    """Return the names of all codecs, sorted; loads none of them."""
    return tuple(sorted({*PRESETS, *CODECS}))


def codec_from_config(config: CodecConfig | str) -> Codec:
    """Return the codec that a stored config describes.

    Args:
        config: What `Codec.config()` returned; or a name, or `{"id": name, option: value, ...}`.

    Raises:
        UsageError: If a name or option is unknown; the closest one is named.
    """
    return _build(config, None)


def clip_codec(option: CodecConfig | str | None) -> ClipCodec | None:
    """Return the codec that keeps many frames in one payload, or None when `option` names no such codec.

    Args:
        option: What `ClipCodec.config()` returned; or any value of the config key `codec:`.

    Raises:
        UsageError: If an option of it is wrong.
    """
    config: Any = {"id": option} if isinstance(option, str) else option
    if not isinstance(config, Mapping):
        return None
    name = config.get("id")
    if "stages" in config or not isinstance(name, str) or name not in CLIP_CODECS:
        return None
    codec = _with_options(CLIP_CODECS.load(name), config)
    if not isinstance(codec, ClipCodec):
        raise UsageError(f"codec {name!r} is {type(codec).__name__}, expected a ClipCodec")
    return codec


def stored_codec(name: str, config: CodecConfig) -> Codec | ClipCodec:
    """Return the codec that a dataset says a representation is stored with.

    Args:
        name: The representation, for messages.
        config: Its codec as the manifest has it.

    Raises:
        DatasetError: If there is no such codec here, or the config is damaged.
    """
    try:
        return clip_codec(config) or codec_from_config(config)
    except UsageError as error:
        raise DatasetError(
            f"the codec of {name!r} cannot be set up: {error.message}",
            hint="if another package or a later vrekit wrote it, install that package",
        ) from error


def codec_for(
    option: str | Mapping[str, Any] | None,
    spec: OutputSpec,
    *,
    store_as: str | None = None,
    profile: str = "balanced",
) -> Codec:
    """Return the codec for the config keys `codec:` and `store_as:` of one representation.

    Args:
        option: None for the default of the kind; `"lossless"` or `"lossy"` for the default of that sort; a name such
            as `"png"`; `{"id": "jpg", "quality": 90}`; or `{"stages": [...]}`. `"auto"` is the default of the kind
            here: an export measures and replaces it.
        spec: What the representation computes; fills in what options leave open (value range, class axis).
        store_as: Stored form of class scores, see `vrekit.codecs.store_as`.
        profile: `"training"`, `"balanced"`, `"archive"` or `"plain"`; only looked at for defaults.

    Raises:
        UsageError: If a name or option is unknown; the closest one is named.
        CodecError: If the codec cannot hold what `spec` describes.
    """
    if option is not None and is_auto(option):
        min_decode_mbps(option, profile)
        option = None
    if option is None or option in ("lossless", "lossy"):
        lossy = None if option is None else option == "lossy"
        return default_codec(spec, profile=profile, lossy=lossy, store_as=store_as)
    conversion = conversion_stages(store_as, spec) if store_as else ()
    codec = _build(option, _converted_spec(conversion, spec))
    if conversion:
        codec = _behind(conversion, codec, str(store_as))
    _check_takes(codec, spec)
    return codec


def option_of(codec: Codec, spec: OutputSpec, *, store_as: str | None = None) -> dict[str, Any]:
    """Return the config key `codec:` for which `codec_for` gives `codec` again: without the stages of `store_as`.

    Args:
        codec: What `codec_for` returned.
        spec: What it was asked for.
        store_as: Likewise.
    """
    skipped = len(conversion_stages(store_as, spec)) if store_as else 0
    if not isinstance(codec, PipelineCodec) or not skipped:
        return codec.config()
    return PipelineCodec.from_stages(codec.stages[skipped:], codec.name.removeprefix(f"{store_as}-")).config()


def default_codec(
    spec: OutputSpec, *, profile: str = "balanced", lossy: bool | None = None, store_as: str | None = None
) -> Codec:
    """Return the codec that `profile` has for such data (the table is in `vrekit.codecs.profiles`).

    Args:
        spec: What the representation computes.
        profile: `"training"`, `"balanced"`, `"archive"` or `"plain"`.
        lossy: False takes the exact codec, True the smaller one with loss, None the kind's safe default: exact, or
            with a bounded error where that is what the measurement is worth.
        store_as: Stored form of class scores, see `vrekit.codecs.store_as`.

    Raises:
        UsageError: If there is no such profile or stored form.
    """
    conversion = conversion_stages(store_as, spec) if store_as else ()
    stored = _converted_spec(conversion, spec)
    for candidate in choose(stored, profile=profile, lossy=lossy):
        try:
            codec = _build(candidate, stored)
            _check_takes(codec, stored)
        except (CodecError, UsageError) as error:
            # such as an unknown value range: the next candidate asks for less
            logger.debug("codec %s does not take %s %s: %s", candidate, spec.kind, spec.shape, error)
            continue
        return _behind(conversion, codec, str(store_as)) if conversion else codec
    raise CodecError(
        f"no default codec takes {spec.kind} {spec.dtype} {spec.shape}",
        hint="name one with `codec:`; see `vrekit list codecs`",
    )


def _build(option: CodecConfig | str, spec: OutputSpec | None) -> Codec:
    if not isinstance(option, (str, Mapping)):  # as a damaged manifest has it
        raise UsageError(f"a codec is {option!r}, expected its name, or a mapping with an 'id' or 'stages'")
    config: dict[str, Any] = {"id": option} if isinstance(option, str) else {str(key): option[key] for key in option}
    name = config.get("id")
    if "stages" in config:
        unknown = sorted(set(config) - {"id", "stages"})
        if unknown:
            raise UsageError(f"a codec with stages takes no option {unknown[0]!r}", hint="put it into its stage")
        if name is not None and not isinstance(name, str):
            raise UsageError(f"the id of a codec is {name!r}, expected text")
        return _pipeline(config["stages"], {}, spec, name)
    if not isinstance(name, str):
        raise UsageError(f"a codec config needs an 'id' or 'stages', got {config!r}")
    options = {key: value for key, value in config.items() if key != "id"}
    if name in PRESETS:
        return _pipeline(PRESETS[name].stages, options, spec, name)
    if name in CLIP_CODECS:
        raise UsageError(f"codec {name!r} keeps many frames in one payload, which does not work here")
    if name not in CODECS:
        raise UsageError(
            f"unknown codec {name!r}{did_you_mean(name, (*codec_names(), *CLIP_CODECS))}",
            hint=f"codecs: {', '.join((*codec_names(), *CLIP_CODECS))}; other packages add more",
        )
    codec = _with_options(CODECS.load(name), config)
    if not isinstance(codec, Codec):
        raise UsageError(f"codec {name!r} is {type(codec).__name__}, expected a Codec")
    return codec


def _with_options(make: Any, config: Mapping[str, Any]) -> Any:
    """Call a codec's class with the options of a config."""
    options = {key: value for key, value in config.items() if key != "id"}
    try:
        return make(**options)
    except TypeError as error:
        raise UsageError(f"codec {config['id']!r} does not take the options {options!r}: {error}") from error


def _pipeline(configs: Any, options: Mapping[str, Any], spec: OutputSpec | None, name: str | None) -> PipelineCodec:
    """Return the codec of stage configs; each of `options` goes to every stage that has an option of that name."""
    if isinstance(configs, str) or not isinstance(configs, Sequence):
        raise UsageError(f"'stages' of a codec is {configs!r}, expected a list")
    if len(configs) > _MAX_STAGES:
        raise UsageError(f"a codec has {len(configs)} stages, expected at most {_MAX_STAGES}")
    classes = [_stage_class(config) for config in configs]
    known = {option: None for cls in classes for option in cls.option_names()}
    for option in options:
        if option not in known:
            raise UsageError(
                f"codec {name!r} has no option {option!r}{did_you_mean(option, known)}",
                hint=f"its options: {', '.join(known) or 'none'}",
            )
    stages = []
    for cls, config in zip(classes, configs, strict=True):
        from_spec = {} if spec is None else cls.options_for(spec)
        own = {option: value for option, value in options.items() if option in cls.option_names()}
        given = {} if isinstance(config, str) else dict(config)
        stages.append(cls.from_config({**from_spec, **given, **own}))
    return PipelineCodec.from_stages(stages, name)


def _stage_class(config: Any) -> type[Stage]:
    stage_id = config if isinstance(config, str) else config.get("id") if isinstance(config, Mapping) else None
    if not isinstance(stage_id, str) or stage_id not in STAGES:
        guess = did_you_mean(stage_id, STAGES) if isinstance(stage_id, str) else ""
        raise UsageError(
            f"unknown codec stage {stage_id!r}{guess}", hint=f"stages: {', '.join(STAGES)}; other packages add more"
        )
    cls: Any = STAGES.load(stage_id)
    if not (isinstance(cls, type) and issubclass(cls, Stage)):
        raise UsageError(f"codec stage {stage_id!r} from another package is {cls!r}, expected a Stage class")
    return cls


def _check_takes(codec: Codec, spec: OutputSpec) -> None:
    """Raise CodecError unless `codec` takes arrays as `spec` describes them; a ragged axis may have any length."""
    codec.decoded_layout(*_layout(spec))


def _layout(spec: OutputSpec) -> Layout:
    dtype = np.dtype(np.str_ if spec.dtype == "str" else spec.dtype)
    return dtype, tuple(1 if length is None else length for length in spec.shape)


def _converted_spec(conversion: Sequence[ArrayStage], spec: OutputSpec) -> OutputSpec:
    """Return what is left to encode behind conversion stages: indices or probabilities, or an image of codes."""
    if all(stage.one_way for stage in conversion):
        for stage in conversion:
            spec = stage.decoded_spec(spec)
        return spec
    dtype, shape = _layout(spec)
    for stage in conversion:
        dtype, shape = stage.encoded_layout(dtype, shape)
    return OutputSpec(kind=Kind.INDICES, dtype=dtype.name, shape=shape, axes="HW")


def _behind(conversion: Sequence[ArrayStage], codec: Codec, store_as: str) -> PipelineCodec:
    if not isinstance(codec, PipelineCodec):
        raise UsageError(f"store_as {store_as!r} does not go together with the codec {codec.id!r}")
    return PipelineCodec.from_stages((*conversion, *codec.stages), f"{store_as}-{codec.id}")
