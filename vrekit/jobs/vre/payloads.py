"""The payloads a VRE folder gives: one `Part` for each representation of the dataset, arrays and pictures alike."""

import math
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vrekit.codecs.base import Codec
from vrekit.codecs.registry import codec_for
from vrekit.core.errors import CodecError
from vrekit.core.spec import IMAGE_SUFFIX, Kind, OutputSpec
from vrekit.core.unfolding import check_npz_member, check_picture
from vrekit.jobs.vre.folder import Files, FrameRecord, VreRepresentation
from vrekit.jobs.vre.kinds import output_spec

_READ_ERRORS = (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error)
# NumPy evaluates a header as Python, and CPython 3.11 cannot do that in two threads at once (python/cpython#106905).
_HEADER_LOCK = threading.Lock()
_IMAGE_LAYOUTS = {"RGB": ("uint8", 3), "RGBA": ("uint8", 4), "L": ("uint8", 0), "I;16": ("uint16", 0)}

Layout = tuple[np.dtype[Any], tuple[int, ...]]


class BadFileError(Exception):
    """A file that cannot become a payload; the message says why."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A payload and the layout of the array it decodes to."""

    data: bytes
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


@dataclass(kw_only=True)
class Part(ABC):
    """One representation of the dataset to be.

    Attributes:
        name: In the dataset.
        vre_name: Folder in VRE's output.
        files: By frame.
        records: VRE's notes by frame.
        spec: What its arrays look like.
        codec: How they are stored.
    """

    name: str
    vre_name: str
    files: Files
    records: Mapping[int, FrameRecord]
    spec: OutputSpec
    codec: Codec

    @abstractmethod
    def encode(self, path: Path) -> Encoded:
        """Return the payload of a file.

        Raises:
            BadFileError: If it is damaged or does not fit the others.
        """


@dataclass(kw_only=True)
class ArrayPart(Part):
    """Arrays of npz or npy files; `key` is the array's name in npz files."""

    key: str = "arr_0"

    def encode(self, path: Path) -> Encoded:
        """See Part."""
        array = read_array(path, self.key)
        if array.dtype.name != self.spec.dtype or array.ndim != len(self.spec.shape):
            raise BadFileError(
                f"{path.name}: {array.dtype} {array.shape}, but most are {self.spec.dtype} {self.spec.shape}"
            )
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
        return Encoded(self.codec.encode(array), array.dtype, array.shape)


@dataclass(kw_only=True)
class ImagePart(Part):
    """Pictures; the files themselves are the payloads."""

    def encode(self, path: Path) -> Encoded:
        """See Part."""
        try:
            data = path.read_bytes()
            check_picture(data)
            dtype, shape = _image_layout(path)
            self.codec.decode(data, dtype=dtype, shape=shape)
        except (OSError, UnidentifiedImageError, CodecError, ValueError) as error:
            raise BadFileError(f"{path.name}: {error}") from error
        return Encoded(data, dtype, shape)


@dataclass(slots=True)
class Parts:
    """What a representation's folder gives, and what of it cannot be taken over."""

    found: list[Part] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def parts_of(source: VreRepresentation, name: str, *, vre_type: str | None, kind: Kind | None, codec: str) -> Parts:
    """Return the parts of one VRE representation.

    Args:
        source: Its files.
        name: What it is called in the dataset; pictures are `NAME.image`, further arrays `NAME_extra_KEY`.
        vre_type: Type in VRE's config, if known.
        kind: What the user says its arrays are.
        codec: Name of an exact codec for the arrays.
    """
    parts = Parts()
    if source.arrays or not source.images:
        layouts = {frame: _layout_or_none(path, "arr_0") for frame, path in source.arrays.items()}
        common = _common_layout(layouts.values())
        if common is None:
            reason = "no file holds a plain array" if source.arrays else "there are no files"
            parts.skipped.append(f"{source.name}: {reason}")
        else:
            spec = output_spec(*common, vre_type, kind)
            parts.found.append(
                ArrayPart(
                    name=name,
                    vre_name=source.name,
                    files=source.arrays,
                    records=source.frames,
                    spec=spec,
                    codec=codec_for(codec, spec),
                )
            )
    _add_extras(parts, source, name, codec)
    _add_images(parts, source, name)
    return parts


def _add_extras(parts: Parts, source: VreRepresentation, name: str, codec: str) -> None:
    pickled = 0
    by_key: dict[str, dict[int, Path]] = {}
    for frame, path in source.extras.items():
        keys = _plain_keys(path)
        pickled += not keys
        for key in keys:
            by_key.setdefault(key, {})[frame] = path
    if pickled:
        parts.skipped.append(f"{source.name}: {pickled} _extra.npz files hold pickled Python objects or are damaged")
    for key, files in by_key.items():
        common = _common_layout(_layout_or_none(path, key) for path in files.values())
        if common is not None:
            spec = output_spec(*common, None, None)
            parts.found.append(
                ArrayPart(
                    name=f"{name}_extra_{safe_name(key)}",
                    vre_name=source.name,
                    files=files,
                    records={frame: record for frame, record in source.frames.items() if frame in files},
                    spec=spec,
                    codec=codec_for(codec, spec),
                    key=key,
                )
            )


def _add_images(parts: Parts, source: VreRepresentation, name: str) -> None:
    for number, (image_format, files) in enumerate(source.images.items()):
        common = _common_layout(_image_layout_or_none(path) for path in files.values())
        if common is None:
            parts.skipped.append(f"{source.name}: no {image_format} file is a plain picture")
            continue
        owner = name if number == 0 else f"{name}_{image_format}"
        spec = output_spec(*common, None, Kind.COLOR)
        parts.found.append(
            ImagePart(
                name=owner if not source.arrays and number == 0 else owner + IMAGE_SUFFIX,
                vre_name=source.name,
                files=files,
                records={frame: record for frame, record in source.frames.items() if frame in files},
                spec=spec,
                codec=codec_for(image_format, spec),
            )
        )


def safe_name(name: str) -> str:
    """Return a name as a representation may have it: other characters become `_`."""
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "_()+-") else "_" for letter in name)
    return plain if plain[:1].isalnum() else f"x{plain}"


def read_array(path: Path, key: str) -> NDArray[Any]:
    """Return the array of an npy file, or the one called `key` in an npz file; never unpickles.

    Raises:
        BadFileError: If the file is damaged or holds no such plain array.
    """
    try:
        if path.suffix == ".npy":
            data = path.read_bytes()
        else:
            with zipfile.ZipFile(path) as archive:
                check_npz_member(archive, key)
                with archive.open(f"{key}.npy") as member:
                    dtype, shape, _ = _read_header(member)
                    expected = member.tell() + math.prod(shape) * dtype.itemsize
                if not dtype.hasobject and expected != archive.getinfo(f"{key}.npy").file_size:
                    raise ValueError("its size is not what its header says")
                data = archive.read(f"{key}.npy")  # checks its CRC-32
        file = BytesIO(data)
        dtype, shape, fortran_order = _read_header(file)
        if dtype.kind not in "biufc":
            what = "pickled Python objects, which are never loaded" if dtype.hasobject else f"{dtype}, no numbers"
            raise BadFileError(f"{path.name}: it holds {what}")
        flat = np.frombuffer(data, dtype, count=math.prod(shape), offset=file.tell())
        return flat.reshape(shape, order="F" if fortran_order else "C")
    except _READ_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise BadFileError(f"{path.name}: damaged: {reason}") from error


def _read_header(file: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    with _HEADER_LOCK:
        shape, fortran_order, dtype = read(file)
    return dtype, shape, fortran_order


def _layout_or_none(path: Path, key: str) -> Layout | None:
    """Return dtype and shape from the header, None if the file is damaged or holds no plain numbers."""
    try:
        if path.suffix == ".npy":
            with path.open("rb") as file:
                dtype, shape, _ = _read_header(file)
        else:
            with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as member:
                dtype, shape, _ = _read_header(member)
    except _READ_ERRORS:
        return None
    return (dtype.newbyteorder("="), shape) if dtype.kind in "biufc" else None


def _plain_keys(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
    except _READ_ERRORS:
        return []
    return [name for name in names if _layout_or_none(path, name) is not None]


def _common_layout(layouts: Iterable[Layout | None]) -> tuple[np.dtype[Any], tuple[int | None, ...]] | None:
    """Return the most frequent dtype and number of axes, and the sizes they agree on (None where they do not)."""
    counts: dict[tuple[np.dtype[Any], int], list[tuple[int, ...]]] = {}
    for layout in layouts:
        if layout is not None:
            counts.setdefault((layout[0], len(layout[1])), []).append(layout[1])
    if not counts:
        return None
    (dtype, _), shapes = max(counts.items(), key=lambda item: len(item[1]))
    return dtype, tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True))


def _image_layout(path: Path) -> Layout:
    with Image.open(path) as image:
        if image.mode not in _IMAGE_LAYOUTS:
            raise ValueError(f"a picture of mode {image.mode} (palette, CMYK, …) is not taken over")
        dtype, channels = _IMAGE_LAYOUTS[image.mode]
        side = (image.height, image.width)
        return np.dtype(dtype), (*side, channels) if channels else side


def _image_layout_or_none(path: Path) -> Layout | None:
    try:
        return _image_layout(path)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError):
        return None
