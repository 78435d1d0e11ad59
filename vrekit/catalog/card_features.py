"""The columns that Hugging Face `datasets` gets from a dataset's tars, as its cards spell them (`dataset_info`).

Without them, `datasets` takes its columns from the first five samples: it drops what those lack, and refuses the
dataset where they differ. With them, what a sample lacks is None.
"""

import numpy as np

from vrekit.catalog.manifest import RepresentationRecord
from vrekit.codecs.pipeline import PipelineCodec
from vrekit.codecs.registry import stored_codec
from vrekit.core.errors import VrekitError

# What the `webdataset` builder of `datasets` makes of a file, by the ending that counts for it (behind `.zst`).
# It takes `.npy` and `.json` files apart.
_TYPES = {
    "arrow": "binary",
    "jls": "binary",
    "jpg": "image",
    "jxl": "binary",
    "mkv": "video",
    "mp4": "video",
    "pco": "binary",
    "png": "image",
    "txt": "string",
    "vrk": "binary",
    "webp": "image",
}
_JSON_NUMBERS = {"b": "bool", "i": "int64", "u": "int64", "f": "float64"}
_MASK = "[{name: size, list: int64}, {name: counts, dtype: string}]"


def column_type(name: str, record: RepresentationRecord) -> str | None:
    """Return the type of a representation's column in YAML: `dtype: image`, `list: {list: uint8}`; None if unknown.

    Args:
        name: The representation.
        record: What the manifest says about it; it is stored.
    """
    ending = (record.suffix or "").removesuffix(".zst").rpartition(".")[2]
    if ending in _TYPES:
        return f"dtype: {_TYPES[ending]}"
    try:
        codec = stored_codec(name, record.codec or {})
        if not isinstance(codec, PipelineCodec):
            return None
        shape = tuple(1 if side is None else side for side in record.stored.shape)
        dtype, shape = codec.file_layout(np.dtype(record.stored.dtype), shape)
    except (VrekitError, TypeError):  # a codec of a package that is not installed: copying its payloads needs none
        return None
    if dtype.kind not in _JSON_NUMBERS or dtype.itemsize > 8:
        return None
    match codec.format.id:
        case "npy":
            return _nested(dtype.name, len(shape))
        case "json":
            rows = _nested(_JSON_NUMBERS[dtype.kind], len(shape))
            has_columns = codec.format.config().get("columns") is not None
            return f"struct: [{{name: columns, list: string}}, {{name: rows, {rows}}}]" if has_columns else rows
        case "coco-rle":
            return f"struct: {_MASK}" if len(shape) == 2 else f"list: {_MASK}"
    return None


def _nested(dtype: str, depth: int) -> str:
    """Return the type of numbers in lists of lists; `datasets` writes `list: uint8` for the innermost."""
    if not depth:
        return f"dtype: {dtype}"
    return f"list: {dtype}" if depth == 1 else f"list: {{{_nested(dtype, depth - 1)}}}"
