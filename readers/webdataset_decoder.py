"""Decode what other readers hand out: samples of `webdataset`, rows of Hugging Face `datasets`, single payloads.

The codec comes from `dataset.json`, and dtype and shape from the metadata rows: the arrays are those of `FrameDataset`.
Nothing but codecs is set up, so a dataset's own code is never run.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from vrekit.catalog.manifest import Manifest, RepresentationRecord, read_manifest
from vrekit.catalog.remote import dataset_folder
from vrekit.catalog.storage import open_storage
from vrekit.codecs.base import ClipCodec, Codec
from vrekit.codecs.pipeline import PipelineCodec
from vrekit.codecs.registry import stored_codec
from vrekit.core.checksum import check_crc32
from vrekit.core.errors import CodecError, DatasetError, UsageError
from vrekit.core.names import did_you_mean, parse_key
from vrekit.readers.index import MISSING, FrameIndex, Layout, read_index

Sample = dict[str, Any]
Decoded = NDArray[Any] | str


def decode(
    payload: bytes | bytearray | memoryview,
    dataset: str | Path | Manifest,
    name: str,
    *,
    shape: tuple[int, ...] | None = None,
) -> Decoded:
    """Return the array in one payload, as `FrameDataset` gives it; text as `str`.

    Args:
        payload: The bytes of a member of a shard.
        dataset: Folder of the dataset; or its manifest, which saves reading `dataset.json` for every payload.
        name: The representation.
        shape: Shape of the array, the column `shape` of the metadata row. None takes the one in `dataset.json`, which
            will do unless frames differ in shape (boxes, points, videos of several sizes).

    Raises:
        CodecError: If the payload is damaged, or its shape must be given.
        DatasetError: If it is no dataset, or its codec is not installed.
        UsageError: If there is no such stored representation.

    Example:
        >>> flow = decode(Path("00000012.flow.npy.zst.vrk").read_bytes(), "out", "flow")
        >>> flow.shape
        (432, 768, 2)
    """
    manifest = dataset if isinstance(dataset, Manifest) else read_manifest(dataset_folder(dataset))
    known = manifest.representations
    if name not in known:
        raise UsageError(f"the dataset has no representation {name!r}{did_you_mean(name, known)}")
    if known[name].is_virtual:
        raise UsageError(f"{name!r} is virtual: it has no payloads", hint="FrameDataset computes it")
    codec = stored_codec(name, known[name].codec or {})
    if isinstance(codec, ClipCodec):
        raise UsageError(f"{name!r} keeps many frames in one payload, a video clip", hint="FrameDataset decodes it")
    layout = _fixed_layout(manifest, name) if shape is None else Layout(_dtype(known[name]), tuple(shape))
    if layout is None:
        raise CodecError(f"{name!r} differs in shape from frame to frame", hint="give shape=, as in the metadata row")
    return _unwrapped(codec.decode(payload, dtype=layout.dtype, shape=layout.shape))


class WebdatasetDecoder:
    """Decodes samples of a dataset's shards that another program reads.

    `decoder(sample)` returns a sample whose payloads are arrays (text: `str`), under the same names (`rgb.jxl`); the
    frame's metadata row says how they are laid out, and each payload is compared with its CRC-32. What it does not know
    (`__key__`, fields of other programs, None, clips of video) stays as it is. Pickles, for workers.

    `decoder(".rgb.jxl", payload)` is what `WebDataset.decode` calls. It does not learn which frame the payload is of,
    so it knows neither checksums nor shapes that differ from frame to frame: take `map` where you can.

    Args:
        dataset: Folder or URL of the dataset, with `dataset.json` and the metadata beside the tars.

    Raises:
        DatasetError: If it is no dataset, or a codec is not installed.

    Example:
        >>> webdataset.WebDataset(tars).map(vrekit.webdataset_decoder("out"))
    """

    def __init__(self, dataset: str | Path) -> None:
        self.path = dataset_folder(dataset)
        self._manifest = read_manifest(self.path)
        self._codecs: dict[str, Codec] = {}
        self._names: dict[str, str] = {}
        for name, record in self._manifest.representations.items():
            codec = None if record.is_virtual else stored_codec(name, record.codec or {})
            if isinstance(codec, Codec):
                self._codecs[name] = codec
                field = f"{name}.{record.suffix}"
                self._names.setdefault(field.lower(), name)  # as webdataset writes it
                self._names[field] = name
        self._index: FrameIndex | None = None

    def __repr__(self) -> str:
        return f"WebdatasetDecoder({str(self.path)!r}: {', '.join(self._codecs)})"

    @overload
    def __call__(self, sample: Mapping[str, Any], payload: None = None) -> Sample: ...
    @overload
    def __call__(self, sample: str, payload: bytes) -> Decoded | None: ...
    def __call__(self, sample: Mapping[str, Any] | str, payload: bytes | None = None) -> Sample | Decoded | None:
        """Return a decoded sample; or the array of one field, None if the field is of another program.

        Raises:
            ChecksumError: If a payload of a sample differs from its checksum.
            CodecError: If a payload does not decode, or its shape is not known.
            DatasetError: If the dataset has no such frame.
            UsageError: If a sample has no `__key__`.
        """
        if isinstance(sample, str):
            return self._field(sample.removeprefix("."), payload or b"")
        known = {field: name for field in sample if (name := self._names.get(field)) and sample[field] is not None}
        if not known:
            return dict(sample)
        key = sample.get("__key__")
        if not isinstance(key, str):
            raise UsageError("the sample has no '__key__', which says what frame it is of")
        row = self._row(key)
        return {**sample, **{field: self._value(sample[field], field, key, row) for field in known}}

    def hugging_face(self, loaded: Any) -> Any:
        """Return a Hugging Face `Dataset` or `IterableDataset`, or a dict of them, whose rows come decoded.

        Rows are decoded when they are read. `datasets` has taken `.npy` and `.json` files apart into Python lists by
        then, which is slow; `FrameDataset` and `webdataset` read the files themselves.

        Args:
            loaded: What `datasets.load_dataset` returned for this dataset's folder.
        """
        if isinstance(loaded, dict):
            return type(loaded)({split: self.hugging_face(part) for split, part in loaded.items()})
        for field, feature in (loaded.features or {}).items():
            if field in self._names and type(feature).__name__ == "Image":  # we decode the file as it was stored
                loaded = loaded.cast_column(field, type(feature)(decode=False))
        return loaded.with_transform(self._batch) if hasattr(loaded, "with_transform") else loaded.map(self)

    def _batch(self, batch: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        """Return decoded columns."""
        rows = [self(dict(zip(batch, values, strict=True))) for values in zip(*batch.values(), strict=True)]
        return {field: [row[field] for row in rows] for field in batch}

    def _field(self, field: str, payload: bytes) -> Decoded | None:
        name = self._names.get(field)
        if name is None:
            return None
        layout = _fixed_layout(self._manifest, name)
        if layout is None:
            raise CodecError(
                f"{name!r} differs in shape from frame to frame, and decode() does not say which frame this is",
                hint="use WebDataset(…).map(decoder), which sees the sample's key",
            )
        return _unwrapped(self._codecs[name].decode(payload, dtype=layout.dtype, shape=layout.shape))

    def _row(self, key: str) -> int:
        """Return the row of a key in the index, which is sorted by video, then frame."""
        if self._index is None:
            self._index = read_index(open_storage(self.path, self._manifest), list(self._codecs))
        index = self._index
        try:
            video, frame = parse_key(key)
            start, stop = np.searchsorted(index.video, [(at := index.videos.index(video)), at + 1])
        except (UsageError, ValueError):
            start, stop, frame = 0, 0, 0
        row = int(start + np.searchsorted(index.frame_index[start:stop], frame))
        if row >= stop or index.frame_index[row] != frame:
            raise DatasetError(
                f"{self.path} has no frame {key!r}",
                hint="is the sample of this dataset? `vrekit info` lists its videos",
            )
        return row

    def _value(self, value: Any, field: str, key: str, row: int) -> Decoded:
        name = self._names[field]
        index = self._index
        assert index is not None
        column, codec = index.columns[name], self._codecs[name]
        if column.layout[row] == MISSING:
            raise DatasetError(f"{self.path} has no {name!r} of frame {key!r}")
        layout = index.layouts[column.layout[row]]
        if isinstance(value, Mapping) and set(value) == {"bytes", "path"}:  # an Image of `datasets`, not decoded
            value = value["bytes"]
        if isinstance(value, (bytes, bytearray, memoryview)):
            value = bytes(value)
            check_crc32(value, int(column.checksum[row]), lambda: f"{field!r} of {key}")
        try:
            if not isinstance(value, bytes):
                codec, value = _as_payload(codec, value, layout)
            return _unwrapped(codec.decode(value, dtype=layout.dtype, shape=layout.shape))
        except CodecError as error:
            raise CodecError(f"{field!r} of {key} {error.message}", hint=error.hint) from error


def webdataset_decoder(dataset: str | Path) -> WebdatasetDecoder:
    """Return what decodes samples of `webdataset` and rows of Hugging Face `datasets`; see `WebdatasetDecoder`.

    Args:
        dataset: Folder of the dataset.
    """
    return WebdatasetDecoder(dataset)


def _dtype(record: RepresentationRecord) -> np.dtype[Any]:
    return np.dtype(np.str_ if record.stored.dtype == "str" else record.stored.dtype)


def _fixed_layout(manifest: Manifest, name: str) -> Layout | None:
    """Return the layout that all frames of a representation have, None where they may differ."""
    record = manifest.representations[name]
    shape = tuple(side for side in record.stored.shape if side is not None)
    sizes = {(video.height, video.width) for video in manifest.videos.values()}
    follows_video = bool({"H", "W"} & set(record.stored.axes)) and len(sizes) > 1
    is_fixed = len(shape) == len(record.stored.shape) and not follows_video
    return Layout(_dtype(record), shape) if is_fixed else None


def _as_payload(codec: Codec, value: Any, layout: Layout) -> tuple[Codec, bytes]:
    """Return a payload, and its codec, for a file that `datasets` has unpacked and parsed.

    Raises:
        CodecError: If it cannot be that file.
    """
    if isinstance(value, str) and not isinstance(codec, PipelineCodec):
        return codec, value.encode()
    try:
        if isinstance(codec, PipelineCodec) and codec.format.suffix == "npy":
            dtype, shape = codec.file_layout(layout.dtype, layout.shape)
            array = np.asarray(value, dtype).reshape(shape)
            return replace(codec, bytes_stages=()), codec.format.encode(array)
        if isinstance(codec, PipelineCodec) and codec.format.suffix.endswith("json"):
            return replace(codec, bytes_stages=()), json.dumps(value).encode()
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise CodecError(f"is not the array that was stored: {error}") from error
    raise CodecError(
        f"is decoded already (it is a {type(value).__name__}), but the file's bytes are needed",
        hint="for Hugging Face datasets use decoder.hugging_face(loaded), or cast_column(…, Image(decode=False))",
    )


def _unwrapped(array: NDArray[Any]) -> Decoded:
    return str(array.item()) if array.dtype.kind == "U" else array
