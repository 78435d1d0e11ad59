"""Samples of other readers, decoded: the arrays are those of FrameDataset."""

import json
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import vrekit
from tests.every_type import FRAMES, every_type
from vrekit.config.loader import parse_config
from vrekit.core.errors import ChecksumError, CodecError, DatasetError, UsageError
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest
from vrekit.readers import FrameDataset
from vrekit.readers.webdataset_decoder import WebdatasetDecoder

pytestmark = pytest.mark.filterwarnings("ignore")  # of webdataset and datasets
RAGGED = {"sift", "sift_json", "sift_arrow", "boxes", "raw_boxes", "json_boxes"}


def exported(folder: Path, videos: Mapping[str, NDArray[np.uint8]], config: str) -> Path:
    for name, frames in videos.items():
        np.save(folder / f"{name}.npy", frames)
        request = ExportRequest(
            video=str(folder / f"{name}.npy"),
            dataset=folder / "out",
            representations=parse_config(config).representations,
            threads=2,
        )
        assert not export(request).failures
    return folder / "out"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, clip_array: NDArray[np.uint8]) -> Path:
    """Every built-in type."""
    folder = tmp_path_factory.mktemp("every")
    return exported(folder, {"square": clip_array[:FRAMES]}, every_type(folder / "external", 32, 48))


def tars(dataset: Path) -> list[str]:
    return [str(path) for path in sorted(dataset.glob("shards/*/*.tar"))]


def webdataset_of(dataset: Path) -> Any:
    import webdataset

    return webdataset.WebDataset(tars(dataset), shardshuffle=False)  # pyright: ignore[reportAttributeAccessIssue]  # it names no exports


def names_of(dataset: Path) -> dict[str, str]:
    """Field of a sample → representation."""
    records = FrameDataset(dataset).manifest.representations
    return {f"{name}.{record.suffix}": name for name, record in records.items() if not record.is_virtual}


def assert_same(samples: Iterable[Mapping[str, Any]], dataset: Path, without: frozenset[str] = frozenset()) -> None:
    names = names_of(dataset)
    frames = FrameDataset(dataset, list(names.values()))
    count = 0
    for sample in samples:
        expected = frames[sample["__key__"]]
        count += 1
        assert set(names) - set(sample) == set()
        for field, name in names.items():
            if name in without:
                continue
            if isinstance(expected[name], str):
                assert sample[field] == expected[name]
                continue
            assert isinstance(sample[field], np.ndarray), field
            assert str(expected[name].dtype) == f"torch.{sample[field].dtype}", field
            np.testing.assert_array_equal(sample[field], expected[name].numpy(), err_msg=field)
    assert count == len(frames)


def test_webdataset_samples_are_those_of_our_reader(dataset: Path) -> None:
    assert_same(webdataset_of(dataset).map(vrekit.webdataset_decoder(dataset)), dataset)


def test_decode_of_webdataset_gives_the_same_where_shapes_are_fixed(dataset: Path) -> None:
    fields = [field for field, name in names_of(dataset).items() if name not in RAGGED]
    samples = webdataset_of(dataset).decode(vrekit.webdataset_decoder(dataset), only=fields)
    assert_same(samples, dataset, without=frozenset(RAGGED))


def test_decode_of_webdataset_says_what_to_do_about_ragged_arrays(dataset: Path) -> None:
    decoder = vrekit.webdataset_decoder(dataset)
    with pytest.raises(CodecError, match="'sift' differs in shape from frame to frame") as caught:
        decoder(".sift.pco.vrk", b"")
    assert "map(decoder)" in str(caught.value.hint)
    assert decoder(".json", b"{}") is None  # another handler's


def test_workers_decode(dataset: Path) -> None:
    decoder = vrekit.webdataset_decoder(dataset)
    assert_same(webdataset_of(dataset).map(pickle.loads(pickle.dumps(decoder))), dataset)
    next(iter(webdataset_of(dataset).map(decoder)))
    assert_same(webdataset_of(dataset).map(pickle.loads(pickle.dumps(decoder))), dataset)


@pytest.mark.parametrize("streaming", [True, False])
def test_rows_of_hugging_face_datasets_are_those_of_our_reader(
    dataset: Path, tmp_path: Path, streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    loaded: Any = datasets.load_dataset(str(dataset), streaming=streaming, cache_dir=str(tmp_path / "cache"))
    decoder = vrekit.webdataset_decoder(dataset)
    assert_same(decoder.hugging_face(loaded["train"]), dataset)
    assert list(decoder.hugging_face(loaded)) == ["train"]


def test_a_picture_that_another_program_decoded_is_refused(dataset: Path) -> None:
    from PIL import Image

    sample = {"__key__": "square/00000000", "photo.jpg": Image.new("RGB", (48, 32))}
    with pytest.raises(CodecError, match=r"'photo.jpg' of square/00000000 is decoded already") as caught:
        vrekit.webdataset_decoder(dataset)(sample)
    assert "hugging_face" in str(caught.value.hint)


def test_missing_and_foreign_fields_are_left_alone(dataset: Path) -> None:
    sample = {"__key__": "square/00000001", "__url__": "x.tar", "rgb.jxl": None, "mine.txt": b"x"}
    assert vrekit.webdataset_decoder(dataset)(sample) == sample


def test_what_is_not_of_this_dataset_is_named(dataset: Path) -> None:
    decoder = vrekit.webdataset_decoder(dataset)
    with pytest.raises(DatasetError, match="has no frame 'square/00000099'"):
        decoder({"__key__": "square/00000099", "rgb.jxl": b""})
    with pytest.raises(DatasetError, match="has no frame 'round/00000000'"):
        decoder({"__key__": "round/00000000", "rgb.jxl": b""})
    with pytest.raises(UsageError, match="has no '__key__'"):
        decoder({"rgb.jxl": b""})
    with pytest.raises(DatasetError, match="does not exist"):
        vrekit.webdataset_decoder(dataset / "nowhere")


@pytest.mark.parametrize("value", [[[1, 2], [3]], [["x"]], 7, {"a": 1}, [[None]], [[300] * 48] * 32])
def test_values_that_are_no_payload_are_refused(dataset: Path, value: object) -> None:
    with pytest.raises(CodecError, match=r"'canny.npy.zst' of square/00000000"):
        vrekit.webdataset_decoder(dataset)({"__key__": "square/00000000", "canny.npy.zst": value})


def test_changed_bytes_are_noticed(dataset: Path) -> None:
    sample = next(iter(webdataset_of(dataset)))
    sample["rgb.jxl"] = sample["rgb.jxl"][:-1] + b"\0"
    with pytest.raises(ChecksumError, match=r"'rgb.jxl' of square/00000000: the stored bytes have CRC-32"):
        vrekit.webdataset_decoder(dataset)(sample)


def test_videos_of_several_sizes(tmp_path: Path, clip_array: NDArray[np.uint8]) -> None:
    turned = np.ascontiguousarray(clip_array[:2].transpose(0, 2, 1, 3))
    config = "representations: {hsv: {type: color/hsv, deps: [rgb]}, rgb: {type: color/rgb}}"
    dataset = exported(tmp_path, {"wide": clip_array[:2], "tall": turned}, config)
    decoder = vrekit.webdataset_decoder(dataset)
    assert_same(webdataset_of(dataset).map(decoder), dataset)
    with pytest.raises(CodecError, match="'hsv' differs in shape"):  # 32x48 pcodec numbers could be 48x32
        decoder(".hsv.pco.vrk", next(iter(webdataset_of(dataset)))["hsv.pco.vrk"])


def test_upper_case_names_and_clips(tmp_path: Path, clip_mp4: Path) -> None:
    config = "representations: {Canny: {type: edges/canny}, rgb: {type: color/rgb, codec: video}}"
    request = ExportRequest(
        video=str(clip_mp4), dataset=tmp_path / "out", representations=parse_config(config).representations, threads=2
    )
    assert not export(request).failures
    decoder = vrekit.webdataset_decoder(request.dataset)
    samples = {frozenset(sample): decoder(sample) for sample in webdataset_of(request.dataset)}
    values = {name: value for sample in samples.values() for name, value in sample.items()}
    assert values["canny.npy.zst"].shape == (64, 96)  # webdataset writes names in lower case
    assert isinstance(values["rgb.mp4"], bytes)  # a clip of many frames
    with pytest.raises(UsageError, match="keeps many frames in one payload"):
        vrekit.decode(values["rgb.mp4"], request.dataset, "rgb")


def test_one_payload(dataset: Path) -> None:
    sample = next(iter(webdataset_of(dataset)))
    expected = FrameDataset(dataset)[0]
    np.testing.assert_array_equal(vrekit.decode(sample["flow.npy.zst.vrk"], dataset, "flow"), expected["flow"])
    manifest = FrameDataset(dataset).manifest
    shape = tuple(expected["sift"].shape)
    sift = vrekit.decode(sample["sift.pco.vrk"], manifest, "sift", shape=shape)
    np.testing.assert_array_equal(sift, expected["sift"])
    assert vrekit.decode(sample["caption.txt"], dataset, "caption") == "frame 0 é"
    with pytest.raises(CodecError, match="'sift' differs in shape") as caught:
        vrekit.decode(sample["sift.pco.vrk"], dataset, "sift")
    assert "shape=" in str(caught.value.hint)
    with pytest.raises(UsageError, match=r"has no representation 'flaw' \(did you mean 'flow'\?\)"):
        vrekit.decode(b"", dataset, "flaw")
    with pytest.raises(UsageError, match="'virtual' is virtual"):
        vrekit.decode(b"", dataset, "virtual")
    with pytest.raises(CodecError):
        vrekit.decode(b"damaged", dataset, "flow")


def test_recorded_code_is_not_run(tmp_path: Path, clip_array: NDArray[np.uint8]) -> None:
    """A dataset names its types by file; decoding needs the codec only."""
    dataset = exported(tmp_path, {"square": clip_array[:2]}, "representations: {rgb: {type: color/rgb}}")
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    document = json.loads((dataset / "dataset.json").read_text())
    manifest = FrameDataset(dataset).manifest
    record = manifest.representations["rgb"]
    decoder = WebdatasetDecoder(dataset)
    assert document["representations"]["rgb"]["spec"]["type"] == record.spec.type
    object.__setattr__(record.spec, "type", f"{tmp_path / 'evil.py'}:Evil")
    payload = next(iter(webdataset_of(dataset)))["rgb.jxl"]
    assert np.asarray(vrekit.decode(payload, manifest, "rgb")).shape == (32, 48, 3)
    assert_same(webdataset_of(dataset).map(decoder), dataset)
    assert not (tmp_path / "ran").exists()
