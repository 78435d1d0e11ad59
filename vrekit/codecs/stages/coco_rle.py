"""COCO run-length masks (https://github.com/cocodataset/cocoapi), as pycocotools writes and reads them."""

import json
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.base import Bytes
from vrekit.codecs.stage import ArrayToBytesStage, Shape, fits
from vrekit.core.errors import CodecError

_CHARACTER_BITS = 5
_MORE = 0x20
_SIGN = 0x10
_FIRST_CHARACTER = 48
_MAX_CHARACTERS = 13  # of one 64-bit number


@dataclass(frozen=True, slots=True)
class CocoRle(ArrayToBytesStage):
    """A JSON file: `{"size": [H, W], "counts": "…"}` for a mask (H, W), a list of K of them for (K, H, W). Exact.

    `pycocotools.mask.decode` takes what `json.loads` gives.
    """

    id: ClassVar[str] = "coco-rle"
    suffix: ClassVar[str] = "rle.json"

    def check(self, dtype: np.dtype[Any], shape: Shape) -> None:
        """Accept boolean (H, W) and (K, H, W)."""
        fits(
            dtype == np.bool_ and len(shape) in (2, 3),
            self,
            dtype,
            shape,
            "booleans of shape (H, W) or (K, H, W)",
            "bits.npy.zst takes booleans of any shape, npy.zst any numbers",
        )

    def encode(self, array: NDArray[Any]) -> bytes:
        """Return the JSON file."""
        masks = array if array.ndim == 3 else array[None]
        objects = [{"size": list(mask.shape), "counts": _to_string(run_lengths(mask))} for mask in masks]
        return json.dumps(objects if array.ndim == 3 else objects[0], separators=(",", ":")).encode()

    def decode(self, data: Bytes, out: NDArray[Any]) -> None:
        """Draw the runs."""
        try:
            objects = json.loads(bytes(data))
            if out.ndim == 2:
                objects = [objects]
            masks = out if out.ndim == 3 else out[None]
            if len(objects) != len(masks):
                raise CodecError(f"coco-rle file holds {len(objects)} masks, expected {len(masks)}")
            for item, mask in zip(objects, masks, strict=True):
                if item["size"] != list(mask.shape):
                    raise CodecError(f"coco-rle mask has size {item['size']!r}, expected {list(mask.shape)}")
                _draw(_from_string(item["counts"].encode("ascii")), mask)
        # ValueError: no JSON, no text, or a number of thousands of digits
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, CodecError):
                raise
            raise CodecError(f"coco-rle file is damaged: {error}") from error

    def max_encoded_size(self, dtype: np.dtype[Any], shape: Shape) -> int:
        """Return room for a run in every pixel."""
        return 64 * (1 << 10) * (1 + (shape[0] if len(shape) == 3 else 0)) + 8 * int(np.prod(shape, dtype=np.int64))


def run_lengths(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return lengths of runs down the columns of (H, W), unset first (its run may have length 0)."""
    flat = mask.T.reshape(-1)
    if flat.size == 0:
        return np.zeros(1, np.int64)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate([[0, 0] if flat[0] else [0], edges, [flat.size]])
    return np.diff(starts)


def _to_string(counts: NDArray[np.int64]) -> str:
    """Return counts as characters of 5 bits, low bits first; from the fourth on, as difference to the last but one."""
    values = counts.copy()
    values[3:] -= counts[1:-2]
    columns, used = [], []
    open_values = np.ones(values.shape, np.bool_)
    while open_values.any():
        digit = values & 0x1F
        values = values >> _CHARACTER_BITS
        more = np.where(digit & _SIGN, values != -1, values != 0)
        columns.append((digit | np.where(more, _MORE, 0)) + _FIRST_CHARACTER)
        used.append(open_values)
        open_values = open_values & more
    characters = np.stack(columns, axis=1)[np.stack(used, axis=1)]
    return characters.astype(np.uint8).tobytes().decode("ascii")


def _from_string(text: bytes) -> NDArray[np.int64]:
    digits = np.frombuffer(text, np.uint8).astype(np.int64) - _FIRST_CHARACTER
    if digits.size == 0 or digits.min() < 0 or digits.max() > 0x3F or digits[-1] & _MORE:
        raise CodecError("coco-rle counts have a wrong character or end in the middle of a number")
    last = np.flatnonzero((digits & _MORE) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > _MAX_CHARACTERS:
        raise CodecError("coco-rle counts have a number of more than 64 bits")
    place = np.arange(digits.size) - np.repeat(first, lengths)
    values = np.add.reduceat((digits & 0x1F) << (_CHARACTER_BITS * place), first)
    negative = (digits[last] & _SIGN) != 0
    shift = np.minimum(_CHARACTER_BITS * lengths, 62)
    values = np.where(negative, values - (np.int64(1) << shift), values)
    values[1::2] = np.cumsum(values[1::2])  # undo the differences to the last but one, which begin at the fourth
    values[2::2] = np.cumsum(values[2::2])
    return values


def _draw(counts: NDArray[np.int64], mask: NDArray[np.bool_]) -> None:
    if counts.min() < 0 or counts.max() > mask.size or int(counts.sum()) != mask.size:
        raise CodecError(f"coco-rle runs cover {int(counts.sum())} pixels, expected {mask.size}")
    values = (np.arange(counts.size) & 1).astype(np.bool_)
    height, width = mask.shape
    np.copyto(mask, np.repeat(values, counts).reshape(width, height).T)
