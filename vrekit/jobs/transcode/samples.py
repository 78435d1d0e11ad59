"""Samples of the result: payloads read from the source, encoded anew in threads, appended in frame order."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vrekit.catalog.cells import CellWriter, DatasetWriter, Payload, Sample
from vrekit.catalog.rows import GroupedRows
from vrekit.catalog.storage import Storage
from vrekit.codecs.registry import clip_codec
from vrekit.core.errors import CodecError
from vrekit.core.names import sample_key
from vrekit.core.threads import in_order
from vrekit.engine.clip_checks import ClipFrame, pixels_checksum
from vrekit.engine.clips import ClipMaker
from vrekit.jobs.cells import write_cells
from vrekit.jobs.copying import clips_of_cell, sample_row
from vrekit.jobs.merge.manifests import Combined
from vrekit.jobs.transcode.changes import Change
from vrekit.jobs.transcode.clips import clips_of_frames
from vrekit.jobs.transcode.frames import Key, StoredFrame, frames_of_clips, stored_frames
from vrekit.jobs.transcode.recode import Recoded, Recoder
from vrekit.readers.payloads import StoredPayloads

# What a frame in flight takes for each of its raw bytes: the values, what comes back, and room for the codecs' own.
_MEMORY_FACTOR = 4

Done = TypeVar("Done")


@dataclass(slots=True)
class Tally:
    """What was appended so far.

    Attributes:
        encoded: Stored frames in a new form.
        copied: Stored frames of which the payload is what it was.
        errors: By representation, those of each frame that was encoded with loss; of clips, of some of their frames.
    """

    encoded: int = 0
    copied: int = 0
    errors: dict[str, list[Mapping[str, float]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Finished:
    """One frame in its new form, with the errors of what was encoded with loss."""

    sample: Sample
    encoded: int
    errors: Mapping[str, Mapping[str, float]]


class SampleWriter:
    """Appends the samples of a dataset in their new form; what the result has already is left alone."""

    def __init__(
        self,
        combined: Combined,
        changes: Mapping[str, Change],
        writer: DatasetWriter,
        storage: Storage,
        pool: ThreadPoolExecutor,
        *,
        threads: int,
        memory_bytes: int,
    ) -> None:
        """Write into a dataset.

        Args:
            combined: The source, as a merge sees it.
            changes: What happens to each stored representation.
            writer: Of the result.
            storage: The result.
            pool: The threads that encode.
            threads: Number of them.
            memory_bytes: Bound on the frames in flight.
        """
        self.tally = Tally()
        self._combined = combined
        self._changes = changes
        self._writer = writer
        self._storage = storage
        self._threads = threads
        self._memory_bytes = memory_bytes
        self._pool = pool
        self._source = combined.order[0].storage
        stored = self._source.manifest.representations
        self._clip_codecs = {name: codec for name in changes if (codec := clip_codec(stored[name].codec)) is not None}

    def write(self, rows: GroupedRows, video_id: str, advance: Callable[[int], None]) -> None:
        """Append one video.

        Args:
            rows: All columns of its rows.
            video_id: Which video.
            advance: Called in this thread with the source's payload bytes that are done since the last call.
        """
        names = self._combined.manifest.stored_names
        payloads = StoredPayloads.of_rows(self._source, rows.table, names)

        def fill(cell: CellWriter, table: pa.Table) -> None:
            self._write_cell(table, cell, payloads, advance)

        write_cells(rows, video_id, self._storage, self._writer, fill, advance)

    def _write_cell(
        self, table: pa.Table, cell: CellWriter, payloads: StoredPayloads, advance: Callable[[int], None]
    ) -> None:
        change = self._changes[table["representation"][0].as_py()]  # clips, old or new, have groups of their own
        is_in_clips = table["payload_index"].null_count < len(table)
        if is_in_clips and change.recoder is None:
            for clip in clips_of_cell(table, {0: payloads}, self._combined.manifest):
                cell.append_clip(clip)
                self.tally.copied += sum(row.status == "ok" for row in clip.rows)
                advance(len(clip.data or b""))
            return
        if is_in_clips:
            codec, memory = self._clip_codecs[change.name], self._memory_bytes
            frames = frames_of_clips(table, payloads, self._source.folder, codec=codec, memory_bytes=memory)
        else:
            frames = stored_frames(table, payloads)
        target = None if change.recoder is None else change.recoder.makes_clips
        if target is None:
            for one in self._in_threads(frames, self._frame, advance):
                cell.append(one.sample)
                self.tally.encoded += one.encoded
                self.tally.copied += sum(part.data is not None for part in one.sample.payloads) - one.encoded
                self._note_errors(one.errors)
            return
        manifest = self._combined.manifest
        info = manifest.videos[table["video_id"][0].as_py()]
        maker = ClipMaker(target, info, max_bytes=manifest.shard_size_bytes)
        made = clips_of_frames(self._in_threads(frames, self._clip_frame, advance), maker, change)
        with closing(made):
            for new in made:
                cell.append_clip(new.clip)
                self.tally.encoded += sum(row.status == "ok" for row in new.clip.rows)
                for errors in new.errors:
                    self._note_errors({change.name: errors})

    def _note_errors(self, errors: Mapping[str, Mapping[str, float]]) -> None:
        for name, of_frame in errors.items():
            self.tally.errors.setdefault(name, []).append(of_frame)

    def _in_threads(
        self, frames: Iterable[StoredFrame], work: Callable[..., Done], advance: Callable[[int], None]
    ) -> Iterator[Done]:
        """Yield what `work` makes of the frames, in order, while the threads are at work on those behind them."""

        def run(frame: StoredFrame) -> tuple[Done, int]:
            return work(*frame), sum(row["byte_size"] or 0 for row in frame[0])

        def at_most(frame: StoredFrame) -> int:
            size = 1 + _MEMORY_FACTOR * sum(row["raw_bytes"] or 0 for row in frame[0] if self._recodes(row))
            return min(2 * self._threads, self._memory_bytes // size)

        with closing(in_order(self._pool, run, frames, at_most=at_most)) as results:
            for result, source_bytes in results:
                yield result
                del result
                advance(source_bytes)

    def _recodes(self, row: Mapping[str, Any]) -> bool:
        return self._changes[row["representation"]].recoder is not None

    # -- worker threads ----------------------------------------------------------------------------------------

    def _frame(self, rows: Sequence[dict[str, Any]], data: dict[Key, bytes | NDArray[Any]]) -> _Finished:
        """Return a frame in its new form; takes payloads out of `data`, so that each is let go once decoded."""
        parts = []
        errors: dict[str, Mapping[str, float]] = {}
        for row in rows:
            change = self._changes[row["representation"]]
            key = (row["frame_index"], row["representation"])
            kept = replace(sample_row(row), config_hash=change.record.config_hash)
            payload: bytes | NDArray[Any] | None = None
            if row["status"] == "ok" and change.recoder is None:
                payload = data.pop(key)
            elif row["status"] == "ok" and change.recoder is not None:
                with _unfit(row, change):
                    recoded = _recoded(change.recoder, row, data, key)
                payload = recoded.data
                kept = replace(kept, codec=change.after, encode_seconds=recoded.encode_seconds)
                if change.recoder.target_loses:
                    errors[change.name] = recoded.errors
            if payload is not None and not isinstance(payload, bytes):
                raise TypeError("pixels of a clip are always encoded")
            parts.append(Payload(kept, change.record.suffix or "", payload))
        if self._storage.holds_runs_apart:
            parts.sort(key=lambda part: part.row.run_id)
        return _Finished(
            Sample(rows[0]["video_id"], rows[0]["frame_index"], tuple(parts)),
            sum(self._recodes(row) for row in rows if row["status"] == "ok"),
            errors,
        )

    def _clip_frame(self, rows: Sequence[dict[str, Any]], data: Mapping[Key, bytes | NDArray[Any]]) -> ClipFrame:
        (row,) = rows
        change = self._changes[row["representation"]]
        payload = data.get((row["frame_index"], row["representation"]))
        kept = replace(sample_row(row), config_hash=change.record.config_hash)
        if payload is None or change.recoder is None:
            return ClipFrame(kept)
        if isinstance(payload, bytes):
            with _unfit(row, change):
                pixels = change.recoder.decode(payload, np.dtype(row["dtype"]), tuple(row["shape"]))
        else:
            pixels = payload
        return ClipFrame(replace(kept, codec=change.after), pixels_checksum(pixels), pixels)


def _recoded(recoder: Recoder, row: Mapping[str, Any], data: dict[Key, bytes | NDArray[Any]], key: Key) -> Recoded:
    if isinstance(data[key], bytes):
        # `pop` inside of the call: nothing but `recode` then holds the payload.
        return recoder.recode(data.pop(key), np.dtype(row["dtype"]), tuple(row["shape"]))  # type: ignore[arg-type]  # bytes
    return recoder.encode(data.pop(key))  # type: ignore[arg-type]  # pixels


@contextmanager
def _unfit(row: Mapping[str, Any], change: Change) -> Iterator[None]:
    """Say which frame cannot be had in its new form: that of this row."""
    try:
        yield
    except CodecError as error:
        raise change.refused(sample_key(row["video_id"], row["frame_index"]), error.message, error.hint) from error
