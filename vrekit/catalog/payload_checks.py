"""What `validate` checks of a row and its payload, wherever the payload lies."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vrekit.catalog.manifest import MANIFEST_NAME, Manifest
from vrekit.catalog.row_checks import Mistake
from vrekit.catalog.value_checks import ValueChecks
from vrekit.codecs.base import ClipCodec, Codec, check_payload_size
from vrekit.codecs.registry import stored_codec
from vrekit.core.checksum import crc32
from vrekit.core.errors import CodecError, DatasetError, MissingDependencyError
from vrekit.core.memory import machine_memory
from vrekit.core.reports import Report

_FRAMES_AT_ONCE = 16  # decoded from a clip
_MUCH_MEMORY = 256 << 20  # below that, nobody asks how much there is


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        code: Short name. Problems: `checksum`, `decode`, `dependencies`, `duplicate`, `layout`, `link`, `lost-shard`,
            `missing-shard`, `orphan`, `place`, `replaced-shard`, `row`, `run`, `sidecar`, `storage`, `unfinished`,
            `unknown`, `unreadable`; `codec` of the manifest; `derived` of index, statistics and items; of Lance tables
            `fragment`, `index`, `lost-table`, `table`, `tag`, `version`. Warnings: `code`, `empty`, `frames`,
            `memory`, `pts`, `unprotected`, `values`.
        path: File it is about, relative to the dataset.
        message: What is wrong, for people.
        video_id: Video of the row, if it is about one.
        frame_index: Frame of the row, if it is about one.
        representation: Representation of the row, if it is about one.
    """

    code: str
    path: str
    message: str
    video_id: str | None = None
    frame_index: int | None = None
    representation: str | None = None

    def __str__(self) -> str:
        frame = f"frame {self.frame_index}" if self.frame_index is not None else None
        about = " ".join(part for part in (self.video_id, frame, self.representation) if part)
        return f"{self.code}: {self.path}:{f' {about}:' if about else ''} {self.message}"


@dataclass(slots=True, kw_only=True)
class ValidationReport(Report):
    """What was checked, what is wrong, and what is odd but may be meant (`warnings`)."""

    payloads: int = 0
    payload_bytes: int = 0
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        return Report.to_json(self) | {"ok": not self.problems}


class StoredPayload(Protocol):
    """Bytes that a row says are stored, of any size."""

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    def checksum(self) -> int:
        """Return their CRC-32; large ones are read in pieces."""
        ...

    def read(self) -> bytes:
        """Return all of them."""
        ...


class PayloadInMemory:
    """A payload that was read already; it is let go by `read`."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = [data]

    def checksum(self) -> int:
        """See StoredPayload."""
        return crc32(self._data[0])

    def read(self) -> bytes:
        """Return the payload; once."""
        return self._data.pop()


class PayloadChecker:
    """Checks rows one by one and remembers them, so that a frame stored twice shows."""

    def __init__(self, manifest: Manifest, report: ValidationReport, *, decode: bool) -> None:
        self.manifest = manifest
        self.report = report
        self._decode = decode
        self._codecs: dict[str, Codec | ClipCodec] = {}
        for name, record in manifest.representations.items():
            if record.codec is not None:
                try:
                    self._codecs[name] = stored_codec(name, record.codec)
                except (DatasetError, MissingDependencyError) as error:
                    problem = Problem(code="codec", path=MANIFEST_NAME, message=error.message, representation=name)
                    report.problems.append(problem)
        self._seen: Counter[tuple[str, int, str]] = Counter()
        self._values = ValueChecks(manifest)

    def problem(self, row: Mapping[str, Any], code: str, message: str) -> None:
        """Report something that is wrong with a row."""
        place = {key: row[key] for key in ("video_id", "frame_index", "representation")}
        self.report.problems.append(Problem(code=code, path=row["shard"], message=message, **place))

    def has_payload(self, row: Mapping[str, Any]) -> bool:
        """Check a row against the manifest, and return whether it promises a payload that can be checked."""
        record = self.manifest.representations.get(row["representation"])
        if record is None or row["video_id"] not in self.manifest.videos:
            self.problem(row, "unknown", "dataset.json does not know this video or representation")
            return False
        if row["config_hash"] != record.config_hash:
            self.problem(row, "unknown", f"config hash {row['config_hash']}, but dataset.json has {record.config_hash}")
        if row["kind"] != record.stored.kind:
            self.problem(row, "row", f"kind is {row['kind']!r}, but dataset.json says {record.stored.kind.value!r}")
        if row["status"] != "ok":
            return False
        if record.is_virtual:
            self.problem(row, "row", "it is stored, but dataset.json says that readers compute it")
            return False
        self._seen[row["video_id"], row["frame_index"], row["representation"]] += 1
        codec = self._codecs.get(row["representation"])
        if codec is not None and row["codec"] != codec.id:
            self.problem(row, "row", f"codec is {row['codec']!r}, but dataset.json says {codec.id!r}")
        self._values.see(row)
        return True

    def check(self, row: Mapping[str, Any], payload: StoredPayload) -> None:
        """Check the payload of a row; it is read as a whole only to decode it."""
        codec = self._codecs.get(row["representation"]) if self._decode else None
        dtype, shape = np.dtype(row["dtype"]), tuple(row["shape"])
        try:
            if isinstance(codec, Codec):
                check_payload_size(codec, row["byte_size"], dtype, shape)  # before any of it is read
            if not self._is_intact([row], payload) or codec is None:
                return
            if isinstance(codec, ClipCodec):
                message = "the row has no payload_index, but the codec keeps many frames in one payload"
                self.problem(row, "decode", message)
            elif self._has_memory_for(row):
                self._check_values(row, codec.decode(payload.read(), dtype=dtype, shape=shape))
        except (CodecError, MissingDependencyError) as error:
            self.problem(row, "decode", error.message)

    def _is_intact(self, rows: Sequence[Mapping[str, Any]], payload: StoredPayload) -> bool:
        """Return whether a payload has the size and checksum of its rows."""
        found = payload.checksum()
        self.report.payloads += 1
        self.report.payload_bytes += payload.size
        if all(payload.size == row["byte_size"] and found == row["checksum"] for row in rows):
            return True
        said = "the row says" if len(rows) == 1 else f"the rows of {len(rows)} frames say"
        self.problem(rows[0], "checksum", f"CRC-32 {found:08x}, {said} {rows[0]['checksum']:08x}")
        return False

    def _has_memory_for(self, row: Mapping[str, Any]) -> bool:
        """Return whether a payload and its array fit in half of the memory; say so if not."""
        needed: int = row["byte_size"] + row["raw_bytes"]
        fits = needed < _MUCH_MEMORY or needed <= machine_memory() // 2
        if not fits:
            message = f"not decoded: that takes {needed / 1e9:.1f} GB, more than half of this machine's memory"
            place = {key: row[key] for key in ("video_id", "frame_index", "representation")}
            self.report.warnings.append(Problem(code="memory", path=row["shard"], message=message, **place))
        return fits

    def check_clip(self, rows: Sequence[Mapping[str, Any]], payload: StoredPayload) -> None:
        """Check a payload that frames share; what is wrong with all of it is reported with its first row.

        Args:
            rows: The frames' rows, by rising `payload_index`.
            payload: The payload.
        """
        if not self._is_intact(rows, payload):
            return
        frames = [row["frame_index"] for row in rows]
        if any(later <= earlier for earlier, later in pairwise(frames)):
            self.problem(rows[0], "layout", f"payload_index does not rise with the frames of the clip: {_some(frames)}")
        codec = self._codecs.get(rows[0]["representation"]) if self._decode else None
        if isinstance(codec, Codec):
            self.problem(rows[0], "decode", "the row has a payload_index, but the codec keeps one frame in a payload")
        if not isinstance(codec, ClipCodec) or not self._has_memory_for(rows[0]):
            return
        part = rows[:1]
        try:
            decoder = codec.open_decoder(payload.read())
            decoder.check_frame_pixels(math.prod((rows[0]["shape"] or ())[:2]))
            for start in range(0, len(rows), _FRAMES_AT_ONCE):
                part = rows[start : start + _FRAMES_AT_ONCE]
                arrays = decoder.read(np.array([row["payload_index"] for row in part], np.int64))
                for row, frame in zip(part, arrays, strict=True):
                    self._check_values(row, frame)
        except (CodecError, MissingDependencyError) as error:
            self.problem(part[0], "decode", error.message)

    def _check_values(self, row: Mapping[str, Any], array: NDArray[Any]) -> None:
        mismatch = self._values.add(row, array)
        if mismatch:
            self.problem(row, "layout", mismatch)

    def report_values(self) -> None:
        """Report what only all rows together tell, one line for each representation.

        Problems are frames of one video that have different shapes; warnings are values that do not fit the manifest.
        """
        known = {(one.video_id, one.frame_index, one.representation) for one in self.report.problems}
        for row, message in self._values.shape_problems():
            if (row["video_id"], row["frame_index"], row["representation"]) not in known:
                self.problem(row, "layout", message)
        for name, message in self._values.shape_warnings():
            self.report.warnings.append(_of_manifest("values", (None, name), None, message))
        self.report.warnings += [
            _of_manifest("values", place, frame, message) for place, frame, message in self._values.findings()
        ]

    def report_duplicates(self, path: str) -> None:
        """Report the frames that were checked more than once."""
        self.report.problems += [
            Problem(
                code="duplicate",
                path=path,
                message=f"is stored {count} times",
                video_id=video_id,
                frame_index=frame,
                representation=name,
            )
            for (video_id, frame, name), count in self._seen.items()
            if count > 1
        ]


def _of_manifest(code: str, place: tuple[str | None, str], frame: int | None, message: str) -> Problem:
    video_id, name = place
    return Problem(
        code=code, path=MANIFEST_NAME, message=message, video_id=video_id, frame_index=frame, representation=name
    )


def _some(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:5])) + (", …" if len(values) > 5 else "")


def good_rows(table: pa.Table, mistakes: Sequence[Mistake], path: str, report: ValidationReport) -> pa.Table:
    """Return the rows without mistakes; the others are reported, each once.

    Args:
        table: Rows with SAMPLES_SCHEMA.
        mistakes: What is wrong with them.
        path: Of the tar or table.
        report: Gets the problems.
    """
    bad = np.zeros(len(table), np.bool_)
    for rows, message in mistakes:
        for number in np.flatnonzero(rows & ~bad).tolist():
            place = {name: _value(table[name][number]) for name in ("video_id", "frame_index", "representation")}
            report.problems.append(Problem(code="row", path=path, message=f"row {number}: {message}", **place))
        bad |= rows
    return table.filter(pa.array(~bad)) if bad.any() else table


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return None


def by_clip(rows: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return rows of frames that share payloads, those of one payload together and by rising `payload_index`."""
    clips: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        clips.setdefault((row["representation"], row["byte_offset"]), []).append(row)
    return [sorted(clip, key=lambda row: int(row["payload_index"])) for clip in clips.values()]
