"""Fingerprints of sources: equal content has an equal fingerprint, whatever it is called and wherever it lies.

A fingerprint is `<bytes>-<16 hex>`: the size of the content and the start of a SHA-256 over it. Content of up to
64 MiB is hashed whole. Of larger content the first MiB, the last MiB and 64 blocks of 256 KiB at even distances are
hashed (18 MiB): a change that keeps the size and misses all of these is not seen. A folder's is over the sorted names,
sizes and hashes of its frame files; an array's over its dtype, shape and bytes.
"""

import hashlib
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vrekit.core.errors import VideoError
from vrekit.video.listing import list_frame_files

WHOLE_BYTES = 64 * 1024 * 1024
_EDGE_BYTES = 1024 * 1024
_BLOCK_BYTES = 256 * 1024
_BLOCK_COUNT = 64


def fingerprint(source: str | os.PathLike[str] | NDArray[np.generic]) -> str:
    """Return the fingerprint of a file, a folder of frame files, or an array.

    Raises:
        VideoError: If the file or folder cannot be read.
    """
    if isinstance(source, np.ndarray):
        return _of_array(source)
    path = Path(source)
    try:
        return _of_files(list_frame_files(path)) if path.is_dir() else _of_file(path)
    except OSError as error:
        raise VideoError(
            f"{path}: cannot be read: {error.strerror or error}", hint="check that it exists and its permissions"
        ) from error


def _of_file(path: Path) -> str:
    size, digest = _hash_file(path)
    return f"{size}-{digest[:16]}"


def _of_files(paths: Iterable[Path]) -> str:
    total, digest = 0, hashlib.sha256()
    for path in sorted(paths, key=lambda path: path.name):
        size, content = _hash_file(path)
        total += size
        digest.update(f"{path.name}\0{size}\0{content}\n".encode(errors="surrogateescape"))
    return f"{total}-{digest.hexdigest()[:16]}"


def _of_array(array: NDArray[np.generic]) -> str:
    contiguous = np.ascontiguousarray(array)
    digest = hashlib.sha256(f"{contiguous.dtype.str}{contiguous.shape}".encode())
    _update(digest, contiguous.reshape(-1).view(np.uint8).data)
    return f"{contiguous.nbytes}-{digest.hexdigest()[:16]}"


def _hash_file(path: Path) -> tuple[int, str]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size:  # an empty file cannot be mapped
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content, memoryview(content) as view:
                _update(digest, view)
    return size, digest.hexdigest()


def _update(digest: "hashlib._Hash", content: memoryview) -> None:
    size = len(content)
    if size <= WHOLE_BYTES:
        digest.update(content)
        return
    digest.update(content[:_EDGE_BYTES])
    for block in range(_BLOCK_COUNT):
        start = (size - _BLOCK_BYTES) * block // (_BLOCK_COUNT - 1)
        digest.update(content[start : start + _BLOCK_BYTES])
    digest.update(content[size - _EDGE_BYTES :])
