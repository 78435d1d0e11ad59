"""Samples of the result: payloads read from the source, encoded anew in threads, appended in frame order."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vrekit.catalog.samples import read_samples
from vrekit.codecs.base import ClipDecoder
from vrekit.codecs.registry import clip_codec
from vrekit.core.errors import CodecError
from vrekit.core.names import sample_key
from vrekit.engine.merge.manifests import Combined
from vrekit.engine.merge.packing import stretches
from vrekit.engine.merge.rows import VideoRows, payload_bytes, payload_numbers
from vrekit.engine.merge.samples import SourcePayloads, clips_of_cell, frame_chunks, sample_row
from vrekit.engine.transcode.changes import Change
from vrekit.writers.base import Cell, CellWriter, DatasetWriter, Payload, Sample

# What a frame in flight takes for each of its raw bytes: the values, what comes back, and room for the codecs' own.
_MEMORY_FACTOR = 4

_DECODED_AT_ONCE = 16

Key = tuple[int, str]
# rows of one frame, and what they have: payloads, or pixels where these come out of a clip
_Frame = tuple[list[dict[str, Any]], Mapping[Key, bytes | NDArray[Any]]]


@dataclass(frozen=True, slots=True)
class Finished:
    """One frame in its new form, with the errors of what was encoded with loss."""

    sample: Sample
    source_bytes: int
    encoded: int
    errors: Mapping[str, Mapping[str, float]]


class SampleWriter:
    """Appends the samples of a dataset in their new form; what the result has already is left alone."""

    def __init__(
        self,
        combined: Combined,
        changes: Mapping[str, Change],
        writer: DatasetWriter,
        output: Path,
        *,
        threads: int,
        memory_bytes: int,
    ) -> None:
        """Write into a dataset.

        Args:
            combined: The source, as a merge sees it.
            changes: What happens to each stored representation.
            writer: Of the result.
            output: Folder of the result.
            threads: Threads that encode.
            memory_bytes: Bound on the frames in flight.
        """
        self._combined = combined
        self._changes = changes
        self._writer = writer
        self._output = output
        self._threads = threads
        self._memory_bytes = memory_bytes
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="vrekit-transcode")
        stored = combined.order[0].manifest.representations
        self._clip_codecs = {name: codec for name in changes if (codec := clip_codec(stored[name].codec)) is not None}

    def close(self) -> None:
        """End the threads; what they have not begun is dropped."""
        self._pool.shutdown(cancel_futures=True)

    def write(
        self,
        rows: VideoRows,
        video_id: str,
        finished: Callable[[Finished], None],
        copied: Callable[[int], None],
        advance: Callable[[int], None],
    ) -> None:
        """Append one video.

        Args:
            rows: All columns of its rows.
            video_id: Which video.
            finished: Called in this thread for every frame that was appended.
            copied: Called with the number of frames of a clip of video, which is always copied.
            advance: Called with the source's payload bytes that are done since the last call.
        """
        manifest = self._combined.manifest
        done = _keys(read_samples(self._output, columns=("frame_index", "representation"), video_ids=[video_id]))
        left = np.array([key not in done for key in _ordered_keys(rows.table)], np.bool_)
        if not left.all():
            advance(payload_bytes(rows.table.filter(pa.array(~left))))
        table, group = rows.table.filter(pa.array(left)), rows.group[left]
        payloads = SourcePayloads(self._combined.order[0], table, manifest.stored_names)
        cell: NDArray[np.int64] = table["frame_index"].to_numpy() // manifest.shard_frames
        for start, stop in stretches(cell, group):
            first = int(cell[start]) * manifest.shard_frames
            place = Cell(video_id, rows.groups[int(group[start])], first, first + manifest.shard_frames - 1)
            inside = table.slice(start, stop - start)
            with self._writer.open_cell(place) as open_cell:
                is_in_clips = inside["payload_index"].null_count < len(inside)
                # clips have groups of their own
                if is_in_clips and not self._recodes({"representation": inside["representation"][0].as_py()}):
                    for clip in clips_of_cell(inside, open_cell.recovered, {0: payloads}, self._combined):
                        open_cell.append_clip(clip)
                        copied(sum(row.status == "ok" for row in clip.rows))
                        advance(len(clip.data or b""))
                    continue
                read = self._frames_of_clips if is_in_clips else self._frames
                frames = read(inside, open_cell, payloads, video_id, advance)
                for one in self._in_new_form(frames, video_id):
                    open_cell.append(one.sample)
                    finished(one)
                    advance(one.source_bytes)

    def _frames(
        self,
        table: pa.Table,
        cell: CellWriter,
        payloads: SourcePayloads,
        video_id: str,
        advance: Callable[[int], None],
    ) -> Iterator[_Frame]:
        """Yield the rows of each frame that are not recovered, and their payloads."""
        recovered = cell.recovered
        for chunk in frame_chunks(table):
            new = [row for row in chunk if row["representation"] not in recovered.get(row["frame_index"], {})]
            if len(new) < len(chunk):
                advance(sum(row["byte_size"] or 0 for row in chunk) - sum(row["byte_size"] or 0 for row in new))
            data = payloads.read(video_id, [row for row in new if row["status"] == "ok"])
            for frame, of_frame in groupby(new, key=lambda row: row["frame_index"]):
                mine = list(of_frame)
                keys = [(frame, row["representation"]) for row in mine]
                yield mine, {key: data.pop(key) for key in keys if key in data}

    def _frames_of_clips(
        self,
        table: pa.Table,
        cell: CellWriter,
        payloads: SourcePayloads,
        video_id: str,
        advance: Callable[[int], None],
    ) -> Iterator[_Frame]:
        """Yield the rows of each frame that are not recovered, and their pixels; a clip counts with its first frame."""
        recovered = cell.recovered
        known = zip(table["frame_index"].to_pylist(), table["representation"].to_pylist(), strict=True)
        left = table.filter(pa.array([name not in recovered.get(frame, {}) for frame, name in known], pa.bool_()))
        advance(payload_bytes(table) - payload_bytes(left))
        numbers = payload_numbers(left).tolist()
        decoder: tuple[int, ClipDecoder] | None = None
        for number, some in groupby(enumerate(left.to_pylist()), key=lambda item: numbers[item[0]]):
            of_clip = list(some)
            name = of_clip[0][1]["representation"]
            if number < 0:
                yield from (([row], {}) for _, row in of_clip)
                continue
            if decoder is None or decoder[0] != number:
                (data,) = payloads.read(video_id, [of_clip[0][1]]).values()
                with _undecodable(of_clip[0][1], payloads.source.folder):
                    decoder = number, self._clip_codecs[name].open_decoder(data)
            for start in range(0, len(of_clip), _DECODED_AT_ONCE):
                batch = of_clip[start : start + _DECODED_AT_ONCE]
                positions = np.array([row["payload_index"] for _, row in batch], np.int64)
                with _undecodable(batch[0][1], payloads.source.folder):
                    decoded = decoder[1].read(positions)
                for (at, row), pixels in zip(batch, decoded, strict=True):
                    still = {**row, "payload_index": None, "byte_size": row["byte_size"] if at == number else 0}
                    yield [still], {(row["frame_index"], name): pixels}

    def _in_new_form(self, frames: Iterator[_Frame], video_id: str) -> Iterator[Finished]:
        """Yield the frames in order, while the threads are at work on those behind them."""
        pending: deque[Future[Finished]] = deque()
        try:
            for rows, data in frames:
                size = 1 + _MEMORY_FACTOR * sum(row["raw_bytes"] or 0 for row in rows if self._recodes(row))
                while len(pending) >= max(1, min(2 * self._threads, self._memory_bytes // size)):
                    yield pending.popleft().result()
                pending.append(self._pool.submit(self._frame, video_id, rows, data))
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

    def _recodes(self, row: Mapping[str, Any]) -> bool:
        return self._changes[row["representation"]].recoder is not None

    # -- worker threads ----------------------------------------------------------------------------------------

    def _frame(
        self, video_id: str, rows: Sequence[dict[str, Any]], data: Mapping[Key, bytes | NDArray[Any]]
    ) -> Finished:
        parts = []
        errors: dict[str, Mapping[str, float]] = {}
        for row in rows:
            change = self._changes[row["representation"]]
            payload = data.get((row["frame_index"], row["representation"]))
            kept = replace(sample_row(row), config_hash=change.record.config_hash)
            if payload is not None and change.recoder is not None:
                try:
                    if isinstance(payload, bytes):
                        recoded = change.recoder.recode(payload, np.dtype(row["dtype"]), tuple(row["shape"]))
                    else:
                        recoded = change.recoder.encode(payload)
                except CodecError as error:
                    key = sample_key(video_id, row["frame_index"])
                    raise CodecError(
                        f"{key}.{change.name} from {change.before} to {change.after}: {error.message}",
                        hint=f"nothing is lost; choose another codec, such as --codec {change.name}=lossless, and "
                        f"another output ({error.hint})",
                    ) from error
                payload = recoded.data
                kept = replace(kept, codec=change.after, encode_seconds=recoded.encode_seconds)
                if change.recoder.target_loses:
                    errors[change.name] = recoded.errors
            if payload is not None and not isinstance(payload, bytes):
                raise TypeError("pixels of a clip are always encoded")
            parts.append(Payload(kept, change.record.suffix or "", payload))
        if self._combined.manifest.writer == "lance":  # a row holds one run's representations: keep a run's together
            parts.sort(key=lambda part: part.row.run_id)
        return Finished(
            Sample(video_id, rows[0]["frame_index"], tuple(parts)),
            sum(row["byte_size"] or 0 for row in rows),
            sum(self._recodes(row) for row in rows if row["status"] == "ok"),
            errors,
        )


@contextmanager
def _undecodable(row: Mapping[str, Any], folder: Path) -> Iterator[None]:
    """Say which clip does not decode: that of this row."""
    try:
        yield
    except CodecError as error:
        raise CodecError(
            f"{sample_key(row['video_id'], row['frame_index'])}.{row['representation']}: its clip does not decode: "
            f"{error.message}",
            hint=f"`vrekit validate {folder} --repair` moves damaged samples aside",
        ) from error


def _ordered_keys(table: pa.Table) -> list[Key]:
    return list(zip(table["frame_index"].to_pylist(), table["representation"].to_pylist(), strict=True))


def _keys(table: pa.Table) -> set[Key]:
    return set(_ordered_keys(table))
