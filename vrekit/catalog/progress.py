"""Which frames of a video are stored, according to the metadata of a dataset."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vrekit.catalog.arrow_numpy import codes, numbers
from vrekit.catalog.storage import PLACE_COLUMNS, Storage
from vrekit.core.errors import DatasetError

_NO_FRAMES: NDArray[np.int64] = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Progress:
    """Which frames of one video are done: frame numbers by representation name, rising, without repeats."""

    done: dict[str, NDArray[np.int64]]
    failed: dict[str, NDArray[np.int64]]

    def done_frames(self, name: str) -> NDArray[np.int64]:
        """Return the frames of representation `name` that are stored."""
        return self.done.get(name, _NO_FRAMES)

    def failed_frames(self, name: str) -> NDArray[np.int64]:
        """Return the frames of representation `name` that failed and are not stored."""
        return self.failed.get(name, _NO_FRAMES)


def read_progress(storage: Storage, video_id: str) -> Progress:
    """Return which frames of a video are stored or failed, according to the committed shards.

    Raises:
        DatasetError: If metadata is damaged, or a shard is missing or too short; the message names it.
    """
    columns = ("frame_index", "representation", "status", *PLACE_COLUMNS)
    table = storage.rows(columns, [video_id])
    short = storage.short_shards(table)
    if short:
        folder, more = storage.folder, f" (and {len(short) - 1} more)" if len(short) > 1 else ""
        raise DatasetError(
            f"{folder / short[0].path} {short[0].problem}{more}",
            hint=f"`vrekit validate --repair {folder}` takes out what is damaged; then `vrekit resume {folder}` "
            "computes it again",
        )
    return progress_of(table)


def progress_of(table: pa.Table) -> Progress:
    """Return the progress that rows of one video describe; a frame that failed and was stored later is done."""
    frames = numbers(table["frame_index"], np.int64)
    representation, names = codes(table["representation"])
    status, statuses = codes(table["status"])
    is_ok = np.isin(status, [code for code, one in enumerate(statuses) if one == "ok"])
    done, failed = {}, {}
    for code, name in enumerate(names):
        here = representation == code
        done[name] = np.unique(frames[here & is_ok])
        failed[name] = np.setdiff1d(frames[here & ~is_ok], done[name])
    return Progress(done, failed)
