"""What transcoding does to each representation: its new codec and record, and what that loses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

from vrekit.catalog.manifest import Manifest, RepresentationRecord
from vrekit.codecs.auto import loss_of
from vrekit.codecs.base import ClipCodec, Codec
from vrekit.codecs.pipeline import PipelineCodec
from vrekit.codecs.presets import PRESETS, error_of
from vrekit.codecs.profiles import Option, is_auto
from vrekit.codecs.registry import clip_codec, codec_for, option_of, stored_codec
from vrekit.core.errors import CodecError, UsageError, VrekitError
from vrekit.core.names import did_you_mean
from vrekit.core.spec import IMAGE_TYPE, OutputSpec, image_owner
from vrekit.jobs.transcode.recode import Recoder
from vrekit.representations.resize import resized_spec

# Key of a record's identity: codecs that had lost something before the one it has now, oldest first. Without it, frames
# exported later with that codec would count as the same thing, although theirs are the computed values.
HISTORY_KEY = "transcoded_from"


class Loss(StrEnum):
    """What a representation loses by transcoding."""

    NONE = "none"
    EARLIER = "earlier"  # nothing now, but the codec before had lost something
    NEW = "new"  # values were exact so far
    AGAIN = "again"  # on top of what the codec before had lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One representation.

    Attributes:
        name: Its name.
        before: Id of its codec.
        after: Id of its new codec.
        record: Its record in the new dataset; without a group where clips are made of what shared its shards.
        recoder: Makes the new payloads; None where they are copied.
        loss: What it loses.
        note: The same for people.
    """

    name: str
    before: str
    after: str
    record: RepresentationRecord
    recoder: Recoder | None
    loss: Loss
    note: str

    def refused(self, key: str, reason: str | None, hint: str | None = None) -> CodecError:
        """Return the error that says why a frame cannot be had in its new form.

        Args:
            key: Key of its sample.
            reason: Why.
            hint: What would help.
        """
        return CodecError(
            f"{key}.{self.name} from {self.before} to {self.after}: {reason}",
            hint=f"nothing is lost; choose another codec, such as --codec {self.name}=lossless, and another output"
            + (f" ({hint})" if hint else ""),
        )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        return {
            "name": self.name,
            "before": self.before,
            "after": self.after,
            "codec": dict(self.record.codec or {}),
            "copied": self.recoder is None,
            "loss": str(self.loss),
            "note": self.note,
        }


def plan_changes(
    manifest: Manifest,
    names: Sequence[str],
    *,
    profile: str | None,
    lossy: bool | None,
    codecs: Mapping[str, Option],
) -> dict[str, Change]:
    """Return what happens to each stored representation, in the manifest's order.

    Args:
        manifest: Of the dataset.
        names: Representations to take along; empty means all. Their pictures come with them.
        profile: Codec profile; None changes what `codecs` names only.
        lossy: As in `default_codec`.
        codecs: Codecs for single representations, which count before the profile.

    Raises:
        UsageError: If a name is not there, or nothing says what to change.
        CodecError: If a codec cannot hold a representation.
    """
    stored = manifest.stored_names
    for name in (*names, *codecs):
        if name not in stored:
            raise UsageError(
                f"the dataset stores no representation {name!r}{did_you_mean(name, stored)}",
                hint=f"it stores {', '.join(stored)}",
            )
    if profile is None and not codecs:
        raise UsageError("nothing says what to change", hint="--profile training, or --codec rgb=jpg")
    wanted = {name for name in stored if not names or name in names or (image_owner(name) or name) in names}
    left_out = sorted(set(codecs) - wanted)
    if left_out:
        raise UsageError(f"{left_out[0]!r} gets a codec, but is not among the representations to take along")
    frame_size = next(((info.height, info.width) for info in manifest.videos.values()), None)
    changes = {}
    for name in stored:
        if name not in wanted:
            continue
        record = manifest.representations[name]
        option = codecs.get(name)
        in_clips = clip_codec(record.codec) is not None
        if option is None and (profile is None or in_clips or record.spec.type == IMAGE_TYPE):
            note = f"copied (`--codec {name}=jpg` makes pictures of clips)" if in_clips and profile else "copied"
            changes[name] = _unchanged(record, note)
            continue
        if option is None and lossy is not None:
            option = "lossy" if lossy else "lossless"
        try:
            changes[name] = _change(record, option, profile or "balanced", frame_size)
        except VrekitError as error:
            raise type(error)(f"{name}: {error.message}", hint=error.hint) from error
    return changes


def _unchanged(record: RepresentationRecord, note: str = "copied") -> Change:
    codec = str((record.codec or {}).get("id"))
    return Change(
        name=record.spec.name, before=codec, after=codec, record=record, recoder=None, loss=Loss.NONE, note=note
    )


def _change(
    record: RepresentationRecord, option: Option | None, profile: str, frame_size: tuple[int, int] | None
) -> Change:
    if is_auto(option):
        raise UsageError("codec 'auto' is for exports", hint="`vrekit codecs bench` measures codecs on your data")
    if record.spec.type == IMAGE_TYPE:
        raise UsageError("pictures are not transcoded", hint="`vrekit export … --images png` into the new dataset")
    source = stored_codec(record.spec.name, record.codec or {})
    target, choice, error = _target(record, source, option, profile, frame_size)
    if _stages(target) == _stages(source):
        return _unchanged(record)
    becomes_clips = isinstance(target, ClipCodec)
    if isinstance(target, ClipCodec) and target.copies_source:
        raise UsageError(
            f"codec {target.id!r} without `encode` copies packets of the source video, which a dataset has not got",
            hint=f"{{id: {target.id}, encode: ffv1}} keeps every pixel; encode: h264, hevc or av1 lose detail",
        )
    recoder = Recoder(source, target, record.stored)
    history = list(record.identity.get(HISTORY_KEY, ()))
    if recoder.source_loses:
        history.append(source.config())
    identity = {**record.identity, "codec": target.config()}
    if history:
        identity[HISTORY_KEY] = history
    lost_by = [str(config["id"]) for config in history]
    if recoder.hands_over_rounded and not recoder.target_loses:
        lost_by.append(source.id)
    loss, note = _loss(recoder, list(dict.fromkeys(lost_by)), error)
    return Change(
        name=record.spec.name,
        before=source.id,
        after=target.id,
        record=replace(
            record,
            spec=record.spec.with_options(codec=choice),
            identity=identity,
            codec=target.config(),
            suffix=target.suffix,
            clips=becomes_clips,
            group=None if becomes_clips and not isinstance(source, ClipCodec) else record.group,
        ),
        recoder=recoder,
        loss=loss,
        note=note,
    )


class _Target(NamedTuple):
    codec: Codec | ClipCodec
    choice: Mapping[str, Any]  # config key that asks for it
    error: str | None  # the largest one in words, None where its options are unusual


def _target(
    record: RepresentationRecord,
    source: Codec | ClipCodec,
    option: Option | None,
    profile: str,
    frame_size: tuple[int, int] | None,
) -> _Target:
    spec = record.spec
    one_way = [stage for stage in source.array_stages if stage.one_way] if isinstance(source, PipelineCodec) else []
    if one_way and spec.store_as is None:  # a codec of stages that keeps less than it gets: it goes on doing so
        codec = codec_for(option, record.stored, profile=profile)
        if not isinstance(codec, PipelineCodec):
            raise CodecError(f"codec {codec.id!r} does not go together with the stage {one_way[0].id!r}")
        whole = PipelineCodec.from_stages((*one_way, *codec.stages), codec.id)
        return _Target(whole, whole.config(), _usual_error(codec, codec.config(), record.stored, None))
    resized = resized_spec(record.memory, spec.output_size, spec.output_dtype, frame_size=frame_size)
    clips = clip_codec(option)
    if clips is not None:
        if spec.store_as:
            raise UsageError(f"store_as {spec.store_as!r} does not go together with the codec {clips.id!r}")
        clips.check_takes(resized)
        options = (f"{name} {value}" for name, value in clips.config().items() if name not in ("id", "container"))
        return _Target(clips, clips.config(), None if clips.is_exact else f"unbounded; {', '.join(options)}")
    codec = codec_for(option, resized, store_as=spec.store_as, profile=profile)
    choice = option_of(codec, resized, store_as=spec.store_as)
    return _Target(codec, choice, _usual_error(codec, choice, resized, spec.store_as))


def _usual_error(codec: Codec, choice: Mapping[str, Any], spec: OutputSpec, store_as: str | None) -> str | None:
    name = str(choice.get("id"))
    if name not in PRESETS:
        return None
    try:
        usual = codec_for(name, spec, store_as=store_as)
    except (CodecError, UsageError):
        return None
    if loss_of(usual) != loss_of(codec):
        return "unbounded" if error_of(name).startswith("unbounded") else None
    return error_of(name)


def _stages(codec: Codec | ClipCodec) -> object:
    config = codec.config()
    return config.get("stages", config)


def _loss(recoder: Recoder, lost_by: Sequence[str], largest_error: str | None) -> tuple[Loss, str]:
    """Return what is lost.

    Args:
        recoder: Old and new codec.
        lost_by: Ids of the codecs that had lost something before.
        largest_error: Of the new codec.
    """
    if not recoder.target_loses:
        if lost_by:
            return Loss.EARLIER, f"no further loss; what {' and '.join(lost_by)} had lost is not regained"
        return Loss.NONE, "exact"
    note = f"lossy (largest error: {largest_error})" if largest_error is not None else "lossy"
    return (Loss.AGAIN, f"{note}, on top of what {' and '.join(lost_by)} had lost") if lost_by else (Loss.NEW, note)
