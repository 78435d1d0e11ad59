"""The columns that Hugging Face `datasets` gets from a dataset's tars, as its cards spell them (`dataset_info`).

Without them, `datasets` takes its columns from the first five samples: it drops what those lack, and refuses the
dataset where they differ. With them, what a sample lacks is None.
"""

import numpy as np

from vrekit.catalog.manifest import RepresentationRecord
from vrekit.codecs.base import ClipCodec
from vrekit.codecs.pipeline import PipelineCodec
from vrekit.codecs.registry import stored_codec
from vrekit.core.errors import VrekitError

# What the `webdataset` builder of `datasets` makes of a file, by the ending that counts for it (behind `.zst`).
_TYPES = {
    "arrow": "binary",
    "jls": "binary",
    "jpg": "image",
    "json": "json",
    "jxl": "binary",
    "mkv": "video",
    "mp4": "video",
    "pco": "binary",
    "png": "image",
    "txt": "string",
    "webp": "image",
}


def column_type(name: str, record: RepresentationRecord) -> str | None:
    """Return the type of a representation's column in YAML: `dtype: image`, `list: {list: uint8}`; None if unknown.

    Args:
        name: The representation.
        record: What the manifest says about it; it is stored.
    """
    ending = (record.suffix or "").removesuffix(".zst").rpartition(".")[2]
    if ending != "npy":
        return f"dtype: {_TYPES[ending]}" if ending in _TYPES else None
    try:
        codec = stored_codec(name, record.codec or {})
        if isinstance(codec, ClipCodec) or not isinstance(codec, PipelineCodec):
            return None
        shape = tuple(1 if side is None else side for side in record.stored.shape)
        dtype, shape = codec.file_layout(np.dtype(record.stored.dtype), shape)
    except (VrekitError, TypeError):  # a codec of a package that is not installed: copying its payloads needs none
        return None
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        return None
    nested = f"dtype: {dtype.name}" if not shape else dtype.name
    for depth in range(len(shape), 0, -1):
        nested = f"list: {nested}" if depth == 1 else f"{{list: {nested}}}"
    return nested
