"""What is stored of one video of an open dataset, as its catalog knows it: frames, rows, payloads."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vrekit.catalog.dataset import Dataset
from vrekit.catalog.row_checks import check_rows
from vrekit.catalog.sandbox import sql_literal
from vrekit.core.schema import SAMPLES_SCHEMA
from vrekit.readers.payloads import StoredPayloads


def stored_frames(dataset: Dataset, names: Sequence[str]) -> dict[tuple[str, str], NDArray[np.int64]]:
    """Return the stored frames by (video, representation), rising; with one query, as there may be many of both."""
    listed = ", ".join(sql_literal(name) for name in names)
    table = dataset.sandbox.fetch(
        "SELECT video_id, representation, array_agg(frame_index ORDER BY frame_index) AS frames FROM samples "
        f"WHERE status = 'ok' AND representation IN ({listed}) GROUP BY ALL ORDER BY ALL"
    )
    places = zip(table["video_id"].to_pylist(), table["representation"].to_pylist(), strict=True)
    return {
        place: np.asarray(frames.values.to_numpy(), np.int64)
        for place, frames in zip(places, table["frames"], strict=True)
    }


def stored_rows(dataset: Dataset, video_id: str, names: Sequence[str]) -> pa.Table:
    """Return the metadata rows of what is stored of some representations of a video, by frame and representation."""
    columns = ", ".join(SAMPLES_SCHEMA.names)
    listed = ", ".join(sql_literal(name) for name in names)
    where = f"video_id = {sql_literal(video_id)} AND status = 'ok' AND representation IN ({listed})"
    table: pa.Table = dataset.sandbox.fetch(
        f"SELECT {columns} FROM samples WHERE {where} ORDER BY frame_index, representation"
    ).cast(SAMPLES_SCHEMA)
    check_rows(table, lambda row: f"{dataset.folder}: row {row} of the stored rows of {video_id}")
    return table


def open_payloads(dataset: Dataset, video_id: str, names: Sequence[str]) -> StoredPayloads:
    """Return what reads the stored payloads of some representations of a video."""
    return StoredPayloads.of_rows(dataset.storage, stored_rows(dataset, video_id, names), names)
