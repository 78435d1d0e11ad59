"""What the readers rely on in a storage: stored bytes of some rows and representations."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vrekit.catalog.manifest import Manifest
from vrekit.core.errors import DatasetError
from vrekit.readers.index import FrameIndex


class PayloadReader(Protocol):
    """Reads payloads; threads may call it at once, and it works after pickling and in forked processes."""

    def read(self, rows: NDArray[np.int64], names: Sequence[str]) -> dict[str, list[memoryview | None]]:
        """Return the payloads of `rows` by representation name; None where a row has none.

        Raises:
            DatasetError: If a shard is gone or ends too early.
        """
        ...


def open_payloads(folder: Path, manifest: Manifest, index: FrameIndex) -> PayloadReader:
    """Return the payload reader for what wrote the dataset."""
    if manifest.writer == "webdataset":
        from vrekit.readers.tar_payloads import TarPayloads

        return TarPayloads(folder, index)
    if manifest.writer == "lance":
        from vrekit.readers.lance_payloads import LancePayloads

        return LancePayloads(folder, index)
    raise DatasetError(f"{folder} was written as {manifest.writer!r}, which this vrekit cannot read")


def whole_bytes(payload: memoryview) -> bytes:
    """Return a payload as bytes, without a copy where it was read by itself."""
    owner = payload.obj
    return owner if isinstance(owner, bytes) and len(owner) == payload.nbytes else bytes(payload)
