"""external/files: every file format, numbering, and what goes wrong."""

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vrekit.core.errors import ComputeError, UsageError
from vrekit.core.frames import FrameBatch
from vrekit.core.spec import Kind
from vrekit.representations.external.files import Files


def batch_of(*frames: int) -> FrameBatch:
    """Return a batch without pixels, as nothing asked for them."""
    return FrameBatch(
        frames=np.zeros((len(frames), 0, 0, 3), np.uint8),
        indices=np.array(frames, np.int64),
        pts_seconds=np.full(len(frames), np.nan),
    )


def read(instance: Files, *frames: int) -> NDArray[Any]:
    return np.asarray(instance.compute(batch_of(*frames), {}).data)


def test_npz_folder_of_upstream(tmp_path: Path) -> None:
    maps = np.random.default_rng(0).random((3, 4, 5, 2)).astype(np.float16)
    for frame, array in zip((5, 8, 22), maps, strict=True):
        np.savez_compressed(tmp_path / f"{frame}.npz", arr_0=array)
    (tmp_path / ".repr_metadata.json").write_text("{}")
    instance = Files(str(tmp_path), Kind.FLOW, unit="px")
    spec = instance.output_spec(540, 960, {})
    assert (spec.kind, spec.dtype, spec.shape, spec.axes, spec.unit) == ("flow", "float16", (4, 5, 2), "HWC", "px")
    np.testing.assert_array_equal(read(instance, 22, 5), maps[[2, 0]])


@pytest.mark.parametrize(
    ("dtype", "channels"), [("uint8", 1), ("uint8", 3), ("uint8", 4), ("uint16", 1), ("uint16", 3)]
)
def test_png_keeps_every_value(tmp_path: Path, dtype: str, channels: int) -> None:
    top = np.iinfo(dtype).max
    image = np.random.default_rng(0).integers(0, top + 1, (6, 7, channels), dtype=dtype)
    image = image[..., 0] if channels == 1 else image
    order = {1: None, 3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}[channels]
    cv2.imwrite(str(tmp_path / "rgb_000003.png"), image if order is None else cv2.cvtColor(image, order))
    np.testing.assert_array_equal(read(Files(str(tmp_path), Kind.COLOR), 3)[0], image)


def test_palette_png_is_ids_for_indices_and_colours_otherwise(tmp_path: Path) -> None:
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
    image = Image.fromarray(ids, mode=None)
    image.putpalette([value for at in range(256) for value in (at, 2 * at % 256, 255 - at)])
    image.save(tmp_path / "0.png")
    np.testing.assert_array_equal(read(Files(str(tmp_path), Kind.INDICES, classes=("a", "b")), 0)[0], ids)
    colors = read(Files(str(tmp_path), Kind.COLOR), 0)[0]
    np.testing.assert_array_equal(colors, np.stack([ids, 2 * ids, 255 - ids], axis=-1))


def test_black_and_white_png_is_a_mask_and_jpg_is_read(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((9, 11)) > 0.5
    Image.fromarray(mask).save(tmp_path / "0.png")
    np.testing.assert_array_equal(read(Files(str(tmp_path), Kind.MASK), 0)[0], mask)
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    Image.fromarray(red).save(tmp_path / "1.jpg", quality=95)
    picture = read(Files(str(tmp_path / "{frame}.jpg"), Kind.COLOR), 1)[0]
    assert np.abs(picture.astype(int) - red).max() < 4


def test_scale_makes_metres_of_millimetres(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), np.array([[1500, 0], [65535, 1]], np.uint16))
    instance = Files(str(tmp_path), Kind.DEPTH, unit="m", scale=0.001)
    assert instance.output_spec(1, 1, {}).dtype == "float32"
    np.testing.assert_allclose(read(instance, 0)[0], [[1.5, 0], [65.535, 0.001]], rtol=1e-6)


def test_ragged_boxes(tmp_path: Path) -> None:
    boxes = {0: np.ones((2, 5), np.float32), 1: np.zeros((0, 5), np.float32), 7: np.full((4, 5), 7, np.float32)}
    for frame, rows in boxes.items():
        np.save(tmp_path / f"{frame}.npy", rows)
    instance = Files(str(tmp_path), Kind.BOXES, columns=("x1", "y1", "x2", "y2", "score"), missing="invalid")
    assert instance.output_spec(9, 9, {}).shape == (None, 5)
    output = instance.compute(batch_of(7, 1, 3, 0), {})
    assert [len(output.frame(at)) for at in range(4)] == [4, 0, 0, 2]
    assert [output.is_valid(at) for at in range(4)] == [True, True, False, True]
    with pytest.raises(UsageError, match="does not fit 4 columns"):
        Files(str(tmp_path), Kind.BOXES, columns=("x1", "y1", "x2", "y2")).output_spec(9, 9, {})


def test_axes_of_planar_logits(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", np.zeros((19, 4, 6), np.float32))
    spec = Files(str(tmp_path), Kind.LOGITS, axes="CHW").output_spec(1, 1, {})
    assert (spec.size_of("C"), spec.size_of("H"), spec.size_of("W")) == (19, 4, 6)
    with pytest.raises(UsageError, match="does not fit the axes 'HW'"):
        Files(str(tmp_path), Kind.LOGITS, axes="HW").output_spec(1, 1, {})


@pytest.mark.parametrize(
    ("shape", "frame"),
    [
        ((150, 540, 960), (540, 960)),  # the frame's own size
        ((150, 72, 128), (540, 960)),  # a smaller one, with fewer rows than classes
        ((19, 384, 672), (540, 960)),  # rounded to what a network takes
        ((19, 38, 68), (540, 960)),  # patches of 14 pixels
        ((2, 271, 480), (541, 960)),
        ((3, 64, 64), (512, 512)),
        ((150, 960, 540), (960, 540)),  # upright
    ],
)
@pytest.mark.parametrize("kind", [Kind.LOGITS, Kind.PROBABILITIES, Kind.FLOW, Kind.NORMALS, Kind.COLOR])
def test_an_order_that_does_not_fit_the_frame_is_noticed(
    tmp_path: Path, shape: tuple[int, int, int], frame: tuple[int, int], kind: Kind
) -> None:
    np.save(tmp_path / "12.npy", np.zeros(shape, np.uint8))
    message = rf"12\.npy: shape {re.escape(str(shape))} read as HWC is no map of a {frame[0]}x{frame[1]} frame"
    with pytest.raises(UsageError, match=message) as error:
        Files(str(tmp_path), kind).output_spec(*frame, {})
    assert error.value.hint == "give params.axes: CHW, or HWC if that is what it is"
    for axes in ("HWC", "CHW"):  # what the hint says is taken
        assert Files(str(tmp_path), kind, axes=axes).output_spec(*frame, {}).axes == axes
    np.save(tmp_path / "12.npy", np.zeros((*shape[1:], shape[0]), np.uint8))
    for given in (None, "HWC"):
        assert Files(str(tmp_path), kind, axes=given).output_spec(*frame, {}).axes == "HWC"
    if shape[0] < min(shape[1:]):
        with pytest.raises(UsageError, match="read as CHW is no map") as error:
            Files(str(tmp_path), kind, axes="CHW").output_spec(*frame, {})
        assert error.value.hint == "give params.axes: HWC"


@pytest.mark.parametrize(
    ("shape", "frame"),
    [
        ((64, 64, 64), (512, 512)),  # could be either
        ((48, 48, 64), (480, 640)),  # squeezed into a square, with channels that make up the frame's ratio
        ((37, 37, 768), (540, 960)),
        ((100, 200, 113), (540, 960)),  # of another ratio in both orders
        ((1, 1, 2), (540, 960)),
        ((0, 0, 3), (540, 960)),
        ((9, 16, 9), (540, 960)),
    ],
)
def test_an_order_that_may_be_right_is_taken(
    tmp_path: Path, shape: tuple[int, int, int], frame: tuple[int, int]
) -> None:
    np.save(tmp_path / "0.npy", np.zeros(shape, np.float32))
    for given in (None, "HWC", "CHW"):
        spec = Files(str(tmp_path), Kind.LOGITS, axes=given).output_spec(*frame, {})
        assert (spec.axes, spec.shape) == (given or "HWC", shape)


def test_missing_frame_fails_or_is_invalid(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", np.ones((2, 3), np.float32))
    np.save(tmp_path / "ids_0.npy", np.ones((2, 3), np.uint8))
    with pytest.raises(ComputeError, match=r"frame 4 has no file in .*\{frame\}\.npy"):
        read(Files(str(tmp_path / "{frame}.npy"), Kind.DEPTH), 4)
    output = Files(str(tmp_path / "{frame}.npy"), Kind.DEPTH, missing="invalid").compute(batch_of(0, 4), {})
    assert [output.is_valid(0), output.is_valid(1)] == [True, False]
    assert np.isnan(output.frame(1)).all()
    ids = Files(str(tmp_path / "ids_{frame}.npy"), Kind.INDICES, missing="invalid").compute(batch_of(4), {})
    assert not ids.is_valid(0)
    np.testing.assert_array_equal(ids.frame(0), np.zeros((2, 3), np.uint8))


def test_numbers_in_names(tmp_path: Path) -> None:
    for name in ("v2_depth_0007.npy", "v2_depth_12.npy", "notes.txt", "mean.npy"):
        (tmp_path / name).write_bytes(b"")
        if name.endswith(".npy"):
            np.save(tmp_path / name, np.array([len(name)], np.float32))
    instance = Files(str(tmp_path), Kind.EMBEDDING)
    assert read(instance, 7, 12).tolist() == [[17.0], [15.0]]
    pattern = Files(str(tmp_path / "v2_depth_{frame:04d}.npy"), Kind.EMBEDDING)
    assert read(pattern, 7).tolist() == [[17.0]]


def test_two_files_of_one_frame(tmp_path: Path) -> None:
    np.save(tmp_path / "7.npy", np.zeros((2, 2)))
    Image.new("L", (2, 2)).save(tmp_path / "007.png")
    with pytest.raises(UsageError, match=r"frame 7 has two files in .*: 007.png and 7.npy"):
        Files(str(tmp_path), Kind.DEPTH).output_spec(1, 1, {})


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UsageError, match=r"0.npy cannot be read: Object arrays cannot be loaded"):
        Files(str(tmp_path), Kind.EMBEDDING).output_spec(1, 1, {})


@pytest.mark.parametrize("name", ["1.npy", "1.npz", "1.png", "1.jpg"])
def test_damaged_file_fails_its_frame_only(tmp_path: Path, name: str) -> None:
    np.save(tmp_path / "0.npy", np.zeros((2, 2), np.uint8))
    (tmp_path / name).write_bytes(b"\x93NUMPYPK\x03\x04 nothing that could be read")
    instance = Files(str(tmp_path), Kind.DEPTH)
    assert read(instance, 0).shape == (1, 2, 2)
    with pytest.raises(ComputeError, match=f"{name} cannot be read"):
        read(instance, 1)


def test_other_shape_dtype_or_key(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", np.zeros((2, 2), np.uint8))
    np.save(tmp_path / "1.npy", np.zeros((2, 3), np.uint8))
    np.save(tmp_path / "2.npy", np.zeros((2, 2), np.int32))
    np.savez(tmp_path / "3.npz", depth=np.zeros((2, 2), np.uint8))
    np.save(tmp_path / "4.npy", np.array("text"))
    instance = Files(str(tmp_path), Kind.DEPTH)
    with pytest.raises(ComputeError, match=r"1.npy: uint8 \(2, 3\), but the first file has uint8 \(2, 2\)"):
        read(instance, 1)
    with pytest.raises(ComputeError, match=r"2\.npy: int32"):
        read(instance, 2)
    with pytest.raises(ComputeError, match=r"3\.npz has no array 'arr_0', only depth"):
        read(instance, 3)
    with pytest.raises(ComputeError, match=r"4\.npy: dtype <U4 is not numeric"):
        read(instance, 4)
    assert read(Files(str(tmp_path / "{frame}.npz"), Kind.DEPTH, key="depth"), 3).shape == (1, 2, 2)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "nowhere is no folder"),
        ("nowhere/{frame}.npy", "nowhere is no folder"),
        ("{frame}_{frame}.npy", "only {frame} may stand in braces"),
        ("{number}.npy", "only {frame} may stand in braces"),
        ("{frame}/depth.npy", "only {frame} may stand in braces"),
        (".", "no file matches"),
    ],
)
def test_wrong_paths(path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        Files(path, Kind.DEPTH).output_spec(1, 1, {})


def test_kinds_that_belong_to_tables() -> None:
    with pytest.raises(UsageError, match="no kind text"):
        Files("x", Kind.TEXT)
