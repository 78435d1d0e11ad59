"""Payloads out of a Lance table: small ones in one planned read, large ones in pieces.

Lance's own read holds a payload twice, keeps much of that memory for later, and takes twice the time for large ones.
"""

from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from vrekit.core.errors import DatasetError

if TYPE_CHECKING:
    import lance

LARGE_BYTES = 4 << 20
_PIECE_BYTES = 1 << 20


def read_payloads(
    table: "lance.LanceDataset", column: str, ids: Sequence[int], sizes: Sequence[int]
) -> list[bytes | None]:
    """Return the payloads of some rows; None where a row has none.

    Args:
        table: The table.
        column: Its column of payloads.
        ids: Stable ids of the rows.
        sizes: Bytes of the payloads, as the metadata has them; of large ones never more are read.

    Raises:
        DatasetError: If a large payload has another size.
        Exception: What Lance raises, such as for a row that is gone.
    """
    payloads: list[bytes | None] = [None] * len(ids)
    small = [at for at, size in enumerate(sizes) if size < LARGE_BYTES]
    found = table.read_blobs(column, ids=[ids[at] for at in small], preserve_order=True) if small else []
    for at, (_, data) in zip(small, found, strict=True):
        payloads[at] = data
    for at, size in enumerate(sizes):
        if size >= LARGE_BYTES:
            payloads[at] = _read_large(table, column, ids[at], size)
    return payloads


def _read_large(table: "lance.LanceDataset", column: str, row_id: int, size: int) -> bytes | None:
    pieces = payload_pieces(table, column, row_id, size)
    if pieces is None:
        return None
    whole = BytesIO()
    whole.writelines(pieces)
    return whole.getvalue()  # which is no copy


def payload_pieces(
    table: "lance.LanceDataset", column: str, row_id: int, size: int | None = None
) -> Iterator[bytes] | None:
    """Return a payload in pieces of 1 MiB; None if the row has none.

    Args:
        table: The table.
        column: Its column of payloads.
        row_id: Stable id of the row.
        size: Bytes it has to have; None takes what is there.

    Raises:
        DatasetError: If it has another size.
        Exception: What Lance raises, now or for a piece.
    """
    (blob,) = table.take_blobs(column, ids=[row_id], buffer_size=0)
    if blob is None:
        return None
    found = blob.size()
    if size is not None and found != size:
        raise DatasetError(f"it has {found} bytes, but its metadata says {size}")
    return (blob.read_range(start, min(_PIECE_BYTES, found - start)) for start in range(0, found, _PIECE_BYTES))
