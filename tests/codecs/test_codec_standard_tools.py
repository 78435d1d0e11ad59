"""Files are read by programs that know nothing of vrekit; what is left to do is a few lines of numpy."""

import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.codecs.codec_samples import Array
from vrekit.codecs.registry import codec_from_config

HEIGHT, WIDTH = 36, 50
ROWS, COLUMNS = np.mgrid[0:HEIGHT, 0:WIDTH]


def ffmpeg(data: bytes, suffix: str, pixel_format: str, folder: Path) -> bytes:
    """Return the raw pixels FFmpeg's command line decodes."""
    program = shutil.which("ffmpeg")
    if program is None:
        pytest.skip("ffmpeg is not installed")
    if (
        suffix == "jxl"
        and "libjxl" not in subprocess.run([program, "-decoders"], capture_output=True, text=True).stdout
    ):
        pytest.skip("this ffmpeg was built without libjxl")
    path = folder / f"frame.{suffix}"
    path.write_bytes(data)
    command = [program, "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", pixel_format, "-"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def unzstd(data: bytes, folder: Path) -> bytes:
    """Return what `zstd -d` unpacks; the Python package stands in where the program is missing."""
    program = shutil.which("zstd")
    if program is None:
        import zstandard

        return bytes(zstandard.ZstdDecompressor().decompress(data))
    path = folder / "frame.npy.zst"
    path.write_bytes(data)
    return subprocess.run([program, "-d", "-c", str(path)], check=True, capture_output=True).stdout


def residuals(data: bytes, folder: Path) -> Array:
    """Return what the stages delta, byteplanes, npy, zstd packed."""
    planes: Array = np.load(io.BytesIO(unzstd(data, folder)))
    return planes


def undo_delta(residual: Array) -> Array:
    dtype, tall = residual.dtype, residual.reshape(-1, residual.shape[-1])
    across = np.cumsum(tall, axis=0, dtype=dtype)
    return np.cumsum(across, axis=1, dtype=dtype).reshape(residual.shape)


def join(planes: Array) -> Array:
    joined: Array = planes[0].astype(np.uint16) << 8 | planes[1]
    return joined - np.uint16(128)


@pytest.mark.parametrize("suffix", ["jls", "jxl", "png"])
@pytest.mark.parametrize(("dtype", "pixel_format"), [("uint8", "gray"), ("uint16", "gray16le")])
def test_ffmpeg_reads_grey_images(suffix: str, dtype: str, pixel_format: str, tmp_path: Path) -> None:
    image = (ROWS * 37 + COLUMNS**2).astype(dtype)
    raw = ffmpeg(codec_from_config(suffix).encode(image), suffix, pixel_format, tmp_path)
    assert np.array_equal(np.frombuffer(raw, dtype).reshape(image.shape), image)


@pytest.mark.parametrize("suffix", ["jxl", "png", "webp"])
def test_ffmpeg_reads_colour_images(suffix: str, tmp_path: Path) -> None:
    image = np.stack([ROWS * 7, COLUMNS * 5, ROWS + COLUMNS], axis=-1).astype(np.uint8)
    raw = ffmpeg(codec_from_config(suffix).encode(image), suffix, "rgb24", tmp_path)
    assert np.array_equal(np.frombuffer(raw, np.uint8).reshape(image.shape), image)


def test_jpeg_is_close_for_every_reader(tmp_path: Path) -> None:
    image = np.stack([ROWS * 5, COLUMNS * 4, ROWS * 2 + COLUMNS], axis=-1).astype(np.uint8)
    raw = ffmpeg(codec_from_config("jpg").encode(image), "jpg", "rgb24", tmp_path)
    difference = np.frombuffer(raw, np.uint8).reshape(image.shape).astype(int) - image
    assert np.abs(difference).max() <= 12


@pytest.mark.parametrize("suffix", ["jls", "jxl"])
def test_ffmpeg_and_five_lines_read_gaplog(suffix: str, tmp_path: Path) -> None:
    logits = np.stack([np.sin(ROWS / 9) * 8, np.cos(COLUMNS / 7) * 6, (ROWS - COLUMNS) / 9]).astype(np.float32)
    codec = codec_from_config(f"gaplog-{suffix}")
    data = codec.encode(logits)
    codes = np.frombuffer(ffmpeg(data, suffix, "gray", tmp_path), np.uint8).reshape(3, HEIGHT, WIDTH)
    table = -np.expm1(np.arange(256) * np.log1p(16) / 100)
    table[254:] = np.nan, -np.inf
    decoded = codec.decode(data, dtype=logits.dtype, shape=logits.shape)
    np.testing.assert_allclose(table[codes], decoded, rtol=1e-6)
    assert np.array_equal(table[codes].argmax(axis=0), logits.argmax(axis=0))


def test_ffmpeg_reads_depth_in_millimetres(tmp_path: Path) -> None:
    depth = (3 + np.sin(ROWS / 9) + COLUMNS / 30).astype(np.float32)
    depth[0, 0] = np.nan
    raw = ffmpeg(codec_from_config("mm-jxl").encode(depth), "jxl", "gray16le", tmp_path)
    millimetres = np.frombuffer(raw, np.uint16).reshape(depth.shape)
    assert millimetres[0, 0] == 65535
    assert np.nanmax(np.abs(millimetres / 1000 - depth)) <= 0.000501


def test_opencv_reads_flow_as_kitti_does() -> None:
    import cv2

    flow = np.stack([np.sin(ROWS / 9) * 40, COLUMNS / 3 - 8], axis=-1).astype(np.float32)
    flow[2, 3] = np.nan
    file = np.frombuffer(codec_from_config("flow-kitti").encode(flow), np.uint8)
    blue_green_red = cv2.imdecode(file, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR)
    assert blue_green_red is not None
    assert blue_green_red.dtype == np.uint16
    valid, rest = blue_green_red[..., 0] > 0, blue_green_red[..., :0:-1].astype(np.float32)
    assert not valid[2, 3]
    assert valid.sum() == flow[..., 0].size - 1
    assert np.abs((rest[valid] - 32768) / 64 - flow[valid]).max() <= 1 / 128


def test_zstd_and_numpy_read_arrays(tmp_path: Path) -> None:
    array = (ROWS * 1.5 + COLUMNS).astype(np.float32)
    loaded = np.load(io.BytesIO(unzstd(codec_from_config("npy.zst").encode(array), tmp_path)))
    assert np.array_equal(loaded, array)
    mask = array > 40
    packed = np.load(io.BytesIO(unzstd(codec_from_config("bits.npy.zst").encode(mask), tmp_path)))
    assert np.array_equal(np.unpackbits(packed, count=mask.size).reshape(mask.shape).astype(bool), mask)
    boxes = {"columns": ["x", "y"], "rows": [[1.5, 2.0], [3.25, -1.0]]}
    codec = codec_from_config({"id": "json.zst", "columns": ["x", "y"]})
    assert json.loads(unzstd(codec.encode(np.array(boxes["rows"])), tmp_path)) == boxes


def test_zstd_and_numpy_read_depth(tmp_path: Path) -> None:
    depth = (3 + np.sin(ROWS / 9) + COLUMNS / 30).astype(np.float32)
    codes = undo_delta(join(residuals(codec_from_config("mm-delta").encode(depth), tmp_path)))
    assert np.abs(codes / 1000 - depth).max() <= 0.000501
    codes = undo_delta(join(residuals(codec_from_config("log-delta").encode(depth), tmp_path)))
    step = 2 * 0.99 * np.log1p(4e-4)
    assert np.abs(1e-6 * np.exp((codes - 2.0) * step) / depth - 1).max() <= 4e-4


def test_zstd_and_numpy_read_colour_flow_and_normals(tmp_path: Path) -> None:
    image = np.stack([ROWS * 7, COLUMNS * 5, ROWS + COLUMNS], axis=-1).astype(np.uint8)
    planes = undo_delta(residuals(codec_from_config("rgb-delta").encode(image), tmp_path))
    red, green, blue = planes[0] + planes[1], planes[1], planes[2] + planes[1]
    assert np.array_equal(np.stack([red, green, blue], axis=-1), image)

    flow = np.stack([np.sin(ROWS / 9) * 40, COLUMNS / 3 - 8], axis=-1).astype(np.float32)
    config = {"id": "flow-delta", "axis": 2}
    codes = undo_delta(join(residuals(codec_from_config(config).encode(flow), tmp_path)))
    assert np.abs((codes.transpose(1, 2, 0) - 32768.0) / 64 - flow).max() <= 1 / 128

    normals = np.stack([np.sin(ROWS / 9), np.cos(COLUMNS / 7), np.cos(ROWS / 5)], axis=-1) + 0.01
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    codec = codec_from_config("oct-delta")
    data = codec.encode(normals)
    x, y = undo_delta(join(residuals(data, tmp_path))) / 511 - 1
    z = 1 - abs(x) - abs(y)
    x, y = x - np.copysign(np.maximum(-z, 0), x), y - np.copysign(np.maximum(-z, 0), y)
    decoded = np.stack([x, y, z], axis=-1) / np.sqrt(x * x + y * y + z * z)[..., None]
    np.testing.assert_allclose(codec.decode(data, dtype=normals.dtype, shape=normals.shape), decoded, atol=1e-12)


def test_pcodec_reads_floats() -> None:
    from pcodec import standalone  # pyright: ignore[reportAttributeAccessIssue]  (compiled, no stubs)

    values = (np.sin(ROWS / 9) * COLUMNS).astype(np.float32)
    numbers: Any = standalone.simple_decompress(codec_from_config("pco").encode(values))
    assert np.array_equal(numbers.reshape(values.shape), values)


def test_arrow_duckdb_and_datasets_read_boxes(tmp_path: Path) -> None:
    import datasets
    import duckdb
    import pyarrow as pa

    columns = ["x1", "y1", "x2", "y2", "score"]
    boxes = np.array([[1.5, 2, 30, 40, 0.75], [5, 6, 7, 8, np.nan]], np.float32)
    path = tmp_path / "frame.arrow"
    path.write_bytes(codec_from_config({"id": "arrow", "columns": columns}).encode(boxes))
    with pa.ipc.open_stream(path) as reader:
        table = reader.read_all()
    assert table.schema == pa.schema([pa.field(name, pa.float32(), nullable=False) for name in columns])
    np.testing.assert_array_equal(np.stack([column.to_numpy() for column in table.columns], axis=-1), boxes)
    with duckdb.connect() as database:
        database.register("boxes", table)
        assert database.sql("SELECT x2 - x1 FROM boxes WHERE score < 1").fetchall() == [(28.5,)]
    rows = datasets.Dataset.from_file(str(path))
    assert rows[0] == dict(zip(columns, boxes[0].tolist(), strict=True))

    skeletons = np.arange(2 * 3 * 2, dtype=np.int16).reshape(2, 3, 2)  # 2 people with 3 points each
    with pa.ipc.open_stream(codec_from_config({"id": "arrow", "columns": ["x", "y"]}).encode(skeletons)) as reader:
        assert reader.read_all().to_pylist()[1] == {"x": [6, 8, 10], "y": [7, 9, 11]}
    with pa.ipc.open_stream(codec_from_config("arrow").encode(skeletons)) as reader:
        assert reader.read_all().to_pylist()[1] == {"values": [[6, 7], [8, 9], [10, 11]]}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in pycocotools 2.0.11
def test_pycocotools_reads_and_writes_the_same_masks(tmp_path: Path) -> None:
    mask_tools = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    noise = rng.random((HEIGHT, WIDTH)) > 0.5
    masks = np.stack([ROWS > COLUMNS, noise, np.zeros_like(noise), np.ones_like(noise), (ROWS * COLUMNS) % 700 > 300])
    objects = json.loads(unzstd(codec_from_config("coco-rle").encode(masks), tmp_path))
    assert np.array_equal(mask_tools.decode(objects).transpose(2, 0, 1).astype(bool), masks)
    theirs = mask_tools.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
    assert [item["counts"] for item in objects] == [item["counts"].decode() for item in theirs]
    tall = np.zeros((3000, 1000), bool)
    tall[1500:2900, 500:] = True  # runs of more than 20 bits
    single = json.loads(codec_from_config({"stages": ["coco-rle"]}).encode(tall))
    assert mask_tools.area(single) == tall.sum()
    assert np.array_equal(mask_tools.decode(single).astype(bool), tall)
