"""external/files: arrays or images computed elsewhere, one file per frame."""

import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from vrekit.core.errors import ComputeError, UsageError
from vrekit.core.unfolding import check_npz_member, check_picture
from vrekit.representations.base import FrameBatch, Kind, Output, OutputSpec, Representation
from vrekit.representations.external.lazy import Lazy

_FIELD = re.compile(r"\{frame(?::0?\d*d)?\}")
_RAGGED = (Kind.BOXES, Kind.POINTS)
_IDS = (Kind.INDICES, Kind.MASK)
_AXES = {0: "", 1: "D", 2: "HW", 3: "HWC"}
_SUFFIXES = (".npy", ".npz", ".png", ".jpg", ".jpeg")


@dataclass
class Files(Representation):
    """What stands in the file of each frame, as it stands there.

    The dtype and shape are those of the file of the lowest frame number, and all files must agree with it. `.npy`,
    `.npz`, `.png`, `.jpg` and `.jpeg` are read; Python objects (pickles) never are.

    Args:
        path: A folder whose file names end in the frame number (`12.npz`, `depth_000012.png`), or a pattern such as
            `depth/{frame:06d}.npy`.
        kind: What the numbers mean: `depth`, `indices`, `boxes`, ...; not `text` or `table` (see external/table).
        unit: Unit of the values, such as `m`.
        classes: Class names of logits, probabilities or indices.
        columns: Names of the last axis of boxes and points.
        axes: Letters of the axes, such as `CHW`; by default HW, HWC, or KC for boxes and points. What fits the frame
            only in the other order is refused.
        key: Name of the array inside `.npz` files.
        scale: Multiply by this, into float32: 0.001 makes metres of a 16-bit image in millimetres.
        missing: What a frame without a file gives: `error` fails it, `invalid` stores a placeholder (NaN, or 0 for
            integers) that is marked invalid.
    """

    uses_frames: ClassVar[bool] = False
    path_parameters: ClassVar[tuple[str, ...]] = ("path",)

    path: str
    kind: Kind
    unit: str | None = None
    classes: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    axes: str | None = None
    key: str = "arr_0"
    scale: Annotated[float, Field(ge=-1e30, le=1e30)] | None = None
    missing: Literal["error", "invalid"] = "error"
    _files: Lazy[dict[int, Path]] = field(init=False, repr=False, compare=False)
    _spec: Lazy[OutputSpec] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.kind = Kind(self.kind)
        if self.kind in (Kind.TEXT, Kind.TABLE):
            raise UsageError(f"external/files has no kind {self.kind}", hint="external/table reads text and tables")
        if self.missing not in ("error", "invalid"):
            raise UsageError(f"missing must be 'error' or 'invalid', got {self.missing!r}")
        if self.path.count("{") > 1 or len(_FIELD.findall(Path(self.path).name)) != self.path.count("{"):
            raise UsageError(
                f"path {self.path!r}: only {{frame}} may stand in braces, once, in the file name",
                hint="such as depth/{frame:06d}.npy",
            )
        self._files = Lazy(self._find_files)
        self._spec = Lazy(self._peek)

    def output_spec(self, height: int, width: int, dependencies: Mapping[str, OutputSpec]) -> OutputSpec:
        """Return the layout of the first file.

        Raises:
            UsageError: If there is no file, or its array does not suit `kind`, `axes`, `columns` or the frame.
        """
        spec = self._spec()
        if other := _likelier_axes(spec, self.axes, (height, width)):
            files = self._files()
            raise UsageError(
                f"{files[min(files)]}: shape {spec.shape} read as {spec.axes} is no map of a {height}x{width} frame, "
                f"but it is one as {other}",
                hint=f"give params.axes: {other}" + ("" if self.axes else f", or {spec.axes} if that is what it is"),
            )
        return spec

    def compute(self, batch: FrameBatch, dependencies: Mapping[str, Output]) -> Output:
        """Read the file of each frame.

        Raises:
            ComputeError: If a frame has no file (unless `missing` is `invalid`), or its file is damaged or has another
                dtype or shape than the first one.
        """
        spec = self._spec()
        arrays: list[NDArray[Any]] = []
        valid = np.ones(len(batch), np.bool_)
        for position, frame in enumerate(batch.indices.tolist()):
            file = self._files().get(frame)
            if file is not None:
                arrays.append(self._read(file, spec))
            elif self.missing == "invalid":
                arrays.append(_placeholder(spec))
                valid[position] = False
            else:
                raise ComputeError(
                    f"frame {frame} has no file in {self.path}",
                    hint="missing: invalid stores a placeholder for such frames",
                )
        return Output(data=arrays if spec.is_ragged else np.stack(arrays), valid=valid)

    def _find_files(self) -> dict[int, Path]:
        """Return the file of each frame number, from one look at the folder."""
        path = Path(self.path)
        by_pattern = "{" in path.name
        folder = path.parent if by_pattern else path
        try:
            found = sorted(folder.iterdir())
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise UsageError(
                f"{folder} is no folder that can be read: {getattr(error, 'strerror', None) or error}",
                hint="path is a folder, or a pattern such as depth/{frame:06d}.npy",
            ) from error
        before, _, after = (re.escape(part) for part in _FIELD.sub("\0", path.name).partition("\0"))
        name = re.compile(f"{before}(\\d+){after}" if by_pattern else r"(?:.*\D)?(\d+)\.[^.]+")
        files: dict[int, Path] = {}
        for file in found:
            match = name.fullmatch(file.name)
            if match is None or file.suffix.lower() not in _SUFFIXES:
                continue
            frame = int(match[1])
            if frame in files:
                raise UsageError(
                    f"frame {frame} has two files in {folder}: {files[frame].name} and {file.name}",
                    hint="name the ones you mean by a pattern such as depth/{frame:06d}.npy",
                )
            files[frame] = file
        if not files:
            raise UsageError(f"no file matches {self.path!r}", hint="file names end in the frame number: 000012.npy")
        return files

    def _peek(self) -> OutputSpec:
        """Return the spec of the file with the lowest number."""
        files = self._files()
        first = files[min(files)]
        try:
            array = self._load(first)
        except ComputeError as error:
            raise UsageError(error.message) from error
        axes = self.axes if self.axes is not None else "KC" if self.kind in _RAGGED else _AXES.get(array.ndim, "?")
        if len(axes) != array.ndim:
            raise UsageError(
                f"{first}: shape {array.shape} does not fit the axes {axes!r} of kind {self.kind}",
                hint="give params.axes one letter per axis, such as CHW",
            )
        shape = tuple(None if letter == "K" else size for letter, size in zip(axes, array.shape, strict=True))
        if self.columns is not None and (not axes.endswith("C") or shape[-1] != len(self.columns)):
            raise UsageError(f"{first}: shape {array.shape} does not fit {len(self.columns)} columns {self.columns}")
        return OutputSpec(
            kind=self.kind,
            dtype=array.dtype.name,
            shape=shape,
            axes=axes,
            unit=self.unit,
            classes=self.classes,
            columns=self.columns,
            invalid_value="nan" if array.dtype.kind == "f" else None,
            description="read from files",
        )

    def _read(self, file: Path, spec: OutputSpec) -> NDArray[Any]:
        array = self._load(file)
        fits = len(array.shape) == len(spec.shape) and all(
            want in (None, got) for want, got in zip(spec.shape, array.shape, strict=True)
        )
        if array.dtype.name != spec.dtype or not fits:
            raise ComputeError(f"{file}: {array.dtype} {array.shape}, but the first file has {spec.dtype} {spec.shape}")
        return array

    def _load(self, file: Path) -> NDArray[Any]:
        try:
            if file.suffix.lower() == ".npy":
                array = np.load(file, allow_pickle=False)
            elif file.suffix.lower() == ".npz":
                with np.load(file, allow_pickle=False) as archive:
                    if self.key not in archive:
                        raise ComputeError(f"{file} has no array {self.key!r}, only {', '.join(archive)}")
                    check_npz_member(archive.zip, self.key)
                    array = archive[self.key]
            else:
                array = _load_image(file, keep_palette=self.kind in _IDS)
        except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
            raise ComputeError(f"{file} cannot be read: {error}") from error
        if array.dtype.kind not in "biuf":
            raise ComputeError(f"{file}: dtype {array.dtype} is not numeric")
        if self.scale is not None:
            array = array.astype(np.float32) * np.float32(self.scale)
        return np.asarray(array)


def _likelier_axes(spec: OutputSpec, given: str | None, frame: tuple[int, int]) -> str | None:
    """Return CHW (or HWC) where an array that is read as HWC (CHW) is a map of the frame in that order only."""
    if spec.axes not in ("HWC", "CHW") or given == "HWC" or None in spec.shape:
        return None
    first, second, last = (size or 0 for size in spec.shape)
    as_hwc, as_chw = (first, second), (second, last)
    if spec.axes == "HWC":
        return "CHW" if _is_map(as_chw, frame, 0.03) and not _may_be_map(as_hwc, frame) else None
    is_clear = last < min(as_hwc)  # nobody can insist on what is given already, so doubt counts for it
    return "HWC" if is_clear and _is_map(as_hwc, frame, 0.03) and not _may_be_map(as_chw, frame) else None


def _is_map(size: tuple[int, int], frame: tuple[int, int], tolerance: float) -> bool:
    """Return whether the aspect ratio is that of the frame, but for a pixel or a share of the side."""
    across, along = size[0] * frame[1], size[1] * frame[0]
    return abs(across - along) <= max(*frame, tolerance * max(across, along))


def _may_be_map(size: tuple[int, int], frame: tuple[int, int]) -> bool:
    """Return whether it is a map of the frame, its sides rounded far, or squeezed into a square as networks want it."""
    return size[0] == size[1] or _is_map(size, frame, 0.1)


def _load_image(file: Path, *, keep_palette: bool) -> NDArray[Any]:
    content = file.read_bytes()
    check_picture(content)
    with Image.open(BytesIO(content)) as image:
        if image.mode == "P":  # OpenCV would turn class ids into their palette's colours
            return np.asarray(image if keep_palette else image.convert("RGB"))
        if image.mode == "1":
            return np.asarray(image)
    coded = np.frombuffer(content, np.uint8)
    pixels: NDArray[Any] | None = cv2.imdecode(coded, cv2.IMREAD_UNCHANGED)  # Pillow has no 16-bit RGB
    if pixels is None:
        raise ComputeError(f"{file} cannot be read: damaged image")
    if pixels.ndim == 2:
        return pixels
    code = cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(pixels, code))


def _placeholder(spec: OutputSpec) -> NDArray[Any]:
    shape = tuple(size or 0 for size in spec.shape)
    return np.full(shape, np.nan if spec.dtype.startswith("float") else 0, spec.dtype)
