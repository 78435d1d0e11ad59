"""Folders of frames: one image file or one array file a frame; the number in a file's name is the frame's number."""

import io
import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from vrekit.core.errors import VideoError
from vrekit.core.unfolding import check_picture
from vrekit.video.arrays import check_fps, load_array, times_of, to_uint8
from vrekit.video.base import DecodedFrames, VideoInfo, VideoSource, positions_of
from vrekit.video.fingerprint import fingerprint
from vrekit.video.listing import ARRAY_SUFFIXES, IMAGE_SUFFIXES, list_frame_files, number_frame_files
from vrekit.video.pictures import several_pictures


class _FolderSource(VideoSource):
    """What both kinds of folder share; the first file that can be read sets the size of the video."""

    _suffixes: ClassVar[frozenset[str]]
    _kind: ClassVar[str]

    def __init__(self, folder: str | os.PathLike[str], *, fps: float | None = None) -> None:
        path = Path(folder)
        uri = os.fspath(folder)
        if not path.is_dir():
            raise VideoError(f"{uri}: no such folder", hint="check the path")
        files = [file for file in list_frame_files(path) if file.suffix.lower() in self._suffixes]
        if not files:
            raise VideoError(f"{uri}: no {' '.join(sorted(self._suffixes))} files in this folder")
        self._files = number_frame_files(path, files)
        self._frame_indices = np.fromiter(self._files, np.int64, len(self._files))
        self._fps = check_fps(fps)
        height, width = self._size(uri)
        self.info = VideoInfo(
            uri=uri,
            fingerprint=fingerprint(path),
            source=self._kind,
            frame_count=len(self._files),
            height=height,
            width=width,
            fps=self._fps,
            duration_seconds=None if self._fps is None else (int(self._frame_indices[-1]) + 1) / self._fps,
        )

    @staticmethod
    @abstractmethod
    def _load(path: Path) -> NDArray[np.uint8]:
        """Return uint8 RGB (H, W, 3), or raise OSError or ValueError with the reason."""

    @property
    def frame_indices(self) -> NDArray[np.int64]:
        """Return the files' numbers in rising order."""
        return self._frame_indices

    def pts_seconds(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return frame number / fps, NaN without an fps."""
        return times_of(indices, self._fps)

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> DecodedFrames:
        """Return frames, uint8 RGB (M, H, W, 3); damaged files and files of another size are in `failures`."""
        numbers = self._frame_indices[positions_of(indices, self._frame_indices, self.info.uri)]
        pixels = np.empty((len(numbers), self.info.height, self.info.width, 3), np.uint8)
        good: list[int] = []
        failures: dict[int, str] = {}
        for number in numbers.tolist():
            path = self._files[number]
            try:
                frame = self._load(path)
            except (OSError, ValueError) as error:
                failures[number] = str(error)
                continue
            if frame.shape != pixels.shape[1:]:
                failures[number] = (
                    f"{path}: {frame.shape[1]}x{frame.shape[0]}, the others are {self.info.width}x{self.info.height}"
                )
                continue
            pixels[len(good)] = frame
            good.append(number)
        return DecodedFrames(pixels[: len(good)], np.asarray(good, np.int64), failures)

    def close(self) -> None:
        """Do nothing: files are opened one at a time."""

    def _size(self, uri: str) -> tuple[int, int]:
        reason = ""
        for path in self._files.values():
            try:
                height, width, _ = self._load(path).shape
            except (OSError, ValueError) as error:
                reason = reason or str(error)
            else:
                return height, width
        raise VideoError(f"{uri}: none of its {len(self._files)} files can be read, the first because: {reason}")


class ImageFolderSource(_FolderSource):
    """A folder of png, jpg, webp, bmp or tif files, one a frame, numbered by the last integer in their names.

    Gray images become RGB, alpha is dropped, 16-bit samples are rounded to 8 bits, EXIF orientation is applied.
    A file with several pictures (animated, or with several pages) is a failure, not its first picture.

    Args:
        folder: The folder; other files in it are ignored. Numbers may have gaps.
        fps: Frames per second; frame number k is then shown at k / fps. None: no clock, times are NaN.

    Raises:
        VideoError: If there is no such folder, no image in it, two with one number, or none can be read.
        UsageError: If `fps` is not positive.
    """

    _suffixes = IMAGE_SUFFIXES
    _kind = "images"

    @staticmethod
    def _load(path: Path) -> NDArray[np.uint8]:
        import cv2

        content = path.read_bytes()
        if kind := several_pictures(io.BytesIO(content)):
            raise ValueError(f"{path}: {kind}: a frame is one picture")
        try:
            check_picture(content)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        data = np.frombuffer(content, np.uint8)
        try:
            image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if data.size else None
        except cv2.error as error:
            raise ValueError(f"{path}: not readable as an image: {error.err}") from error
        if image is None:
            raise ValueError(f"{path}: not readable as an image: damaged, or of another format than its name says")
        if image.dtype == np.uint16:
            image = np.rint(image / 257.0).astype(np.uint8)  # 65535 = 257 * 255
        return np.asarray(cv2.cvtColor(to_uint8(image), cv2.COLOR_BGR2RGB), np.uint8)


class ArrayFolderSource(_FolderSource):
    """A folder of npy or npz files, one frame (H, W, 3) each, numbered by the last integer in their names.

    Frames are uint8 RGB, or floats in 0..1 that are rounded to 8 bits. Of a npz file the only array or `arr_0` counts
    (what VRE's `npz/12.npz` holds). Nothing is unpickled.

    Args:
        folder: The folder; other files in it are ignored. Numbers may have gaps.
        fps: Frames per second; frame number k is then shown at k / fps. None: no clock, times are NaN.

    Raises:
        VideoError: If there is no such folder, no array in it, two with one number, or none can be read.
        UsageError: If `fps` is not positive.
    """

    _suffixes = ARRAY_SUFFIXES
    _kind = "arrays"

    @staticmethod
    def _load(path: Path) -> NDArray[np.uint8]:
        array = load_array(path)
        if array.ndim != 3 or array.shape[-1] != 3 or 0 in array.shape:
            raise ValueError(f"{path}: a frame has shape (height, width, 3), got {array.shape}")
        if array.dtype != np.uint8 and array.dtype.kind != "f":
            raise ValueError(f"{path}: a frame is uint8 (0..255) or float (0..1), got {array.dtype}")
        try:
            return to_uint8(array)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
