"""The stored frames of one cell, in order: payloads, or pixels where these come out of a clip."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vrekit.catalog.rows import payload_numbers
from vrekit.codecs.base import ClipCodec
from vrekit.core.errors import CodecError
from vrekit.core.names import sample_key
from vrekit.engine.clip_checks import frames_at_once
from vrekit.jobs.copying import frame_chunks
from vrekit.readers.clips import ClipReader
from vrekit.readers.payloads import StoredPayloads

Key = tuple[int, str]
# rows of one frame, and what they have
StoredFrame = tuple[list[dict[str, Any]], dict[Key, bytes | NDArray[Any]]]


def stored_frames(table: pa.Table, payloads: StoredPayloads) -> Iterator[StoredFrame]:
    """Yield the rows of each frame, and their payloads.

    Args:
        table: Rows of one cell.
        payloads: Reads them.
    """
    for chunk in frame_chunks(table):
        data = payloads.read_checked([row for row in chunk if row["status"] == "ok"])
        for frame, of_frame in groupby(chunk, key=lambda row: row["frame_index"]):
            mine = list(of_frame)
            keys = [(frame, row["representation"]) for row in mine]
            yield mine, {key: data.pop(key) for key in keys if key in data}  # not held here, too


def frames_of_clips(
    table: pa.Table, payloads: StoredPayloads, folder: Path, *, codec: ClipCodec, memory_bytes: int
) -> Iterator[StoredFrame]:
    """Yield the row of each frame, and its pixels; a clip counts with its first frame.

    Args:
        table: Rows of one cell and one representation.
        payloads: Reads the clips.
        folder: The dataset, for messages.
        codec: Of the clips.
        memory_bytes: Bound on the pixels, and on clips and decoders that are kept open, for frames of several clips
            may take turns.

    Raises:
        CodecError: If a clip does not decode.
    """
    numbers = payload_numbers(table).tolist()
    reader = ClipReader(memory_bytes)
    for number, some in groupby(enumerate(table.to_pylist()), key=lambda item: numbers[item[0]]):
        of_clip = list(some)
        first = of_clip[0][1]
        if number < 0:
            yield from (([row], {}) for _, row in of_clip)
            continue
        at_once = max(1, min(frames_at_once(first["raw_bytes"]), memory_bytes // max(1, first["raw_bytes"])))
        for start in range(0, len(of_clip), at_once):
            batch = of_clip[start : start + at_once]
            positions = np.array([row["payload_index"] for _, row in batch], np.int64)
            with _undecodable(batch[0][1], folder):
                clip = partial(_clip, payloads, first)
                decoded = reader.read(codec, number, clip, positions, shape=first["shape"])
            for (at, row), pixels in zip(batch, decoded, strict=True):
                still = {**row, "payload_index": None, "byte_size": row["byte_size"] if at == number else 0}
                yield [still], {(row["frame_index"], row["representation"]): pixels}


def _clip(payloads: StoredPayloads, row: dict[str, Any]) -> bytes:
    (data,) = payloads.read_checked([row]).values()
    return data


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
