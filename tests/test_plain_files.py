"""The codec profile `plain`: programs that know nothing of vrekit read the very arrays of vrekit's reader.

And the other way round: no such program takes the files of codecs that store codes for values.
"""

import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.codecs.codec_samples import CASES
from tests.every_type import FRAMES, every_type
from vrekit.catalog.manifest import read_manifest
from vrekit.codecs.presets import PRESETS
from vrekit.codecs.registry import codec_for, codec_from_config
from vrekit.config.loader import parse_config
from vrekit.core.spec import Kind, OutputSpec
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest
from vrekit.readers import FrameDataset

pytestmark = pytest.mark.filterwarnings("ignore")  # of webdataset and datasets
IDS = """
  ids: {{type: external/files, params: {{path: "{folder}/ids/{{frame}}.npy", kind: indices}}}}
"""


def exported(folder: Path, clip_array: NDArray[np.uint8], profile: str) -> Path:
    """Export every built-in type, without codecs of its own, and 16-bit class ids."""
    config = re.sub(r",\s*(codec: [\w.-]+|store_as: top-k)", "", every_type(folder / "external", 32, 48))
    (folder / "external" / "ids").mkdir()
    for frame in range(FRAMES):
        ids = np.random.default_rng(frame).integers(0, 65536, (32, 48), np.uint16)
        np.save(folder / "external" / "ids" / f"{frame}.npy", ids)
    np.save(folder / "square.npy", clip_array[:FRAMES])
    request = ExportRequest(
        video=str(folder / "square.npy"),
        dataset=folder / "out",
        representations=parse_config(config + IDS.format(folder=folder / "external")).representations,
        profile=profile,
        threads=2,
    )
    assert not export(request).failures
    return request.dataset


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, clip_array: NDArray[np.uint8]) -> Path:
    return exported(tmp_path_factory.mktemp("plain"), clip_array, "plain")


def tars(dataset: Path) -> list[str]:
    return [str(path) for path in sorted(dataset.glob("shards/*/*.tar"))]


def expected_values(dataset: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the key of each frame, and the array or text of each file of it, as vrekit's reader gives them."""
    records = {name: one for name, one in read_manifest(dataset).representations.items() if not one.is_virtual}
    for sample in FrameDataset(dataset, list(records)):
        values = {f"{name}.{one.suffix}": sample[name] for name, one in records.items()}
        yield sample["key"], {f: v if isinstance(v, str) else v.numpy() for f, v in values.items()}


def rows_of(value: Any, like: NDArray[Any]) -> NDArray[Any]:
    """Return the numbers of a JSON file that was parsed."""
    rows = value["rows"] if isinstance(value, dict) else value
    return np.array(rows, like.dtype).reshape(like.shape)


def test_tar_pillow_opencv_numpy_and_json_read_the_same_arrays(plain: Path) -> None:
    seen: set[str] = set()
    expected = dict(expected_values(plain))
    for path in tars(plain):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, field = member.name.partition(".")
                value, data = expected[key][field], tar.extractfile(member).read()  # type: ignore[union-attr]  # a file
                ending = field.rpartition(".")[2]
                seen.add(ending + (str(value.dtype) if ending == "png" else ""))
                if ending == "png":
                    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
                    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), value, err_msg=field)
                    assert pixels is not None
                    np.testing.assert_array_equal(pixels if pixels.ndim == 2 else pixels[..., ::-1], value)
                elif ending == "npy":
                    np.testing.assert_array_equal(np.load(io.BytesIO(data)), value, err_msg=field)
                elif ending == "json":
                    np.testing.assert_array_equal(rows_of(json.loads(data), value), value, err_msg=field)
                else:
                    assert data.decode() == value
    assert seen == {"pnguint8", "pnguint16", "npy", "json", "txt"}


@pytest.mark.parametrize("pictures", ["rgb8", "l8"])
def test_webdataset_decodes_the_same_arrays(plain: Path, pictures: str) -> None:
    import webdataset

    samples = webdataset.WebDataset(tars(plain), shardshuffle=False).decode(pictures)  # pyright: ignore[reportAttributeAccessIssue]  # it names no exports
    count = 0
    for sample, (key, values) in zip(samples, expected_values(plain), strict=True):
        assert sample["__key__"] == key
        for field, value in values.items():
            found = sample[field]
            if field.endswith(".png"):  # it makes 8-bit pictures of every one, grey or RGB as asked for
                if value.dtype == np.uint8 and value.ndim == (3 if pictures == "rgb8" else 2):
                    np.testing.assert_array_equal(found, value, err_msg=field)
                    count += 1
            elif isinstance(value, str):
                assert found == value
            else:
                found = rows_of(found, value) if field.endswith(".json") else found
                np.testing.assert_array_equal(found, value, err_msg=field)
                assert found.dtype == value.dtype
    assert count


@pytest.mark.parametrize("streaming", [True, False])
def test_hugging_face_datasets_reads_the_same_arrays(
    plain: Path, tmp_path: Path, streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    rows: Any = datasets.load_dataset(str(plain), split="train", streaming=streaming, cache_dir=str(tmp_path / "cache"))
    for row, (key, values) in zip(rows, expected_values(plain), strict=True):
        assert row["__key__"] == key
        for field, value in values.items():
            if isinstance(value, str):
                assert row[field] == value
                continue
            found = rows_of(row[field], value) if field.endswith((".json", ".npy")) else np.asarray(row[field])
            np.testing.assert_array_equal(found, value, err_msg=field)


@pytest.mark.parametrize("lossy", [None, False, True])
def test_the_profile_takes_codecs_that_are_plain_files_only(lossy: bool | None) -> None:
    picture = OutputSpec(kind=Kind.COLOR, dtype="uint8", shape=(9, 8, 3), axes="HWC")
    deep = OutputSpec(kind=Kind.COLOR, dtype="uint16", shape=(9, 8, 3), axes="HWC")
    option = None if lossy is None else "lossy" if lossy else "lossless"
    assert codec_for(option, picture, profile="plain").suffix == ("jpg" if lossy else "png")
    assert codec_for(option, deep, profile="plain").suffix == "npy"  # Pillow reads 16-bit colour as 8 bit
    scores = OutputSpec(kind=Kind.LOGITS, dtype="float32", shape=(5, 9, 8), axes="CHW")
    assert codec_for(option, scores, profile="plain").suffix == "npy"
    assert codec_for(option, scores, profile="plain", store_as="indices").suffix == "png"
    assert codec_for(option, scores, profile="plain", store_as="top-k").suffix == "png.vrk"  # no other program's


CODED = {
    *("bits.npy.zst", "flow-delta", "flow-jxl", "flow-kitti", "gaplog-delta", "gaplog-jls", "gaplog-jxl", "jls"),
    *("log-delta", "log-jxl", "mm-delta", "mm-jxl", "normals-delta", "oct-delta", "oct-jxl", "rgb-delta"),
    *("u16-delta", "u16-jxl", "u8-delta", "u8-jls"),
}


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_files_of_codes_end_in_vrk(name: str) -> None:
    codec = codec_from_config({"id": name, **CASES[name].options} if name in CASES else name)
    assert codec.suffix.endswith(".vrk") == (name in CODED)


def test_pcodec_files_keep_their_name_unless_channels_move() -> None:
    flow = OutputSpec(kind=Kind.FLOW, dtype="float32", shape=(9, 8, 2), axes="HWC")
    depth = OutputSpec(kind=Kind.DEPTH, dtype="float32", shape=(9, 8), axes="HW")
    assert (codec_for("pco", depth).suffix, codec_for("pco", flow).suffix) == ("pco", "pco.vrk")


@pytest.fixture(scope="module")
def balanced(tmp_path_factory: pytest.TempPathFactory, clip_array: NDArray[np.uint8]) -> Path:
    return exported(tmp_path_factory.mktemp("balanced"), clip_array, "balanced")


def test_webdataset_leaves_codes_alone(balanced: Path) -> None:
    import webdataset

    samples = list(webdataset.WebDataset(tars(balanced), shardshuffle=False).decode("rgb8"))  # pyright: ignore[reportAttributeAccessIssue]  # it names no exports
    coded = [field for field in samples[0] if field.endswith(".vrk")]
    assert {"flow.npy.zst.vrk", "sobel.jls.vrk", "depth.npy.zst.vrk"} <= set(coded)
    assert all(isinstance(sample[field], bytes) for sample in samples for field in coded)


@pytest.mark.parametrize("builder", ["folder", "webdataset"])
def test_hugging_face_datasets_leaves_codes_alone(
    balanced: Path, tmp_path: Path, builder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    options: dict[str, Any] = {"split": "train", "streaming": True, "cache_dir": str(tmp_path / "cache")}
    files = {"path": str(balanced)} if builder == "folder" else {"path": "webdataset", "data_files": tars(balanced)}
    row: Any = next(iter(datasets.load_dataset(**files, **options)))
    coded = [field for field in row if field.endswith(".vrk")]
    assert {"flow.npy.zst.vrk", "sobel.jls.vrk", "depth.npy.zst.vrk"} <= set(coded)
    assert all(isinstance(row[field], bytes) for field in coded)
    frame = next(iter(expected_values(balanced)))[1]
    np.testing.assert_array_equal(np.array(row["canny.npy.zst"], np.uint8), frame["canny.npy.zst"])  # these are values
