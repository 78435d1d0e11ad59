"""What `dataset.json` says of one representation, and in what two such identities differ."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from vrekit.core.documents import Fields
from vrekit.core.names import check_group
from vrekit.core.spec import OutputSpec, RepresentationSpec, digest

_SUFFIX = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class RepresentationRecord:
    """One representation of a dataset.

    Attributes:
        spec: What the config asked for.
        identity: Everything that decides its stored values, dependencies' hashes included.
        config_hash: Digest of `identity`; another hash under the same name is a conflict.
        memory: What `compute` gives, for the first video's frame size.
        stored: What decoding gives; differs from `memory` when `store_as` keeps less.
        codec: Config of its codec; None for a virtual representation.
        suffix: File name ending of its payloads, None for a virtual one.
        group: Name of the shards it lies in, None for a virtual one.
        clips: Whether frames share payloads (video clips), each in a shard of its own.
    """

    spec: RepresentationSpec
    identity: Mapping[str, Any]
    memory: OutputSpec
    stored: OutputSpec
    codec: Mapping[str, Any] | None
    suffix: str | None
    group: str | None = None
    clips: bool = False

    @property
    def config_hash(self) -> str:
        """Digest of `identity`, 16 hex digits."""
        return digest(self.identity)

    @property
    def is_virtual(self) -> bool:
        """Whether it is computed on read and never written."""
        return self.codec is None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        return {
            "config_hash": self.config_hash,
            "group": self.group,
            "suffix": self.suffix,
            "clips": self.clips,
            "codec": None if self.codec is None else dict(self.codec),
            "spec": self.spec.to_json(),
            "identity": dict(self.identity),
            "memory": self.memory.to_json(),
            "stored": self.stored.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | Fields) -> Self:
        """Return the record `to_json` described.

        Raises:
            DatasetError: If it is none.
        """
        fields = Fields.of(data, "a representation")
        codec = fields.fields("codec", None)
        if codec is not None:
            codec.text("id", None, max_length=1000)
        record = cls(
            spec=RepresentationSpec.from_json(fields.fields("spec")),
            identity=fields.free("identity"),
            memory=OutputSpec.from_json(fields.fields("memory")),
            stored=OutputSpec.from_json(fields.fields("stored")),
            codec=None if codec is None else codec.raw(),
            suffix=fields.text("suffix", None, pattern=_SUFFIX, max_length=50),
            group=fields.name("group", check_group, None),
            clips=fields.flag("clips", False),
        )
        if not record.is_virtual and (record.suffix is None or record.group is None):
            raise fields.error("it has a codec, but no suffix or no group")
        if record.is_virtual and (record.suffix is not None or record.group is not None or record.clips):
            raise fields.error("it has no codec, but a suffix, a group or clips")
        said = fields.text("config_hash", max_length=100)
        if said != record.config_hash:
            raise fields.error(f"'config_hash' is {said!r}, but its identity gives {record.config_hash!r}")
        return record


def differences_between(
    name: str, old: Mapping[str, Any], new: Mapping[str, Any], *, has: str = "dataset has", asked: str = "asked for"
) -> list[str]:
    """Return one line for each value in which two identities differ: `canny.params.low: dataset has 50, asked for 60`.

    Args:
        name: What they are the identity of.
        old: One of them.
        new: The other.
        has: What is said before a value of `old`.
        asked: What is said before a value of `new`.
    """
    lines = []
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences_between(f"{name}.{key}", before, after, has=has, asked=asked)
        else:
            lines.append(f"{name}.{key}: {has} {json.dumps(before)}, {asked} {json.dumps(after)}")
    return lines
