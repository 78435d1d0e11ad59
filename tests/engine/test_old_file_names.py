"""Files of codes were named like plain files before (`flow.npy.zst`): such datasets go on with the names they have."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vrekit.catalog.manifest import read_manifest
from vrekit.codecs.pipeline import PipelineCodec
from vrekit.engine.export import export, resume
from vrekit.engine.request import ExportRequest
from vrekit.jobs.merge.run import merge
from vrekit.jobs.repair_dataset import repair_dataset
from vrekit.jobs.validate import validate
from vrekit.readers import FrameDataset
from vrekit.video.selection import parse_frames

CONFIG = """
representations:
  flow: {type: flow/dis, params: {preset: ultrafast}}
  canny: {type: edges/canny}
"""
MORE = "representations: {sobel: {type: edges/sobel}}"
MakeRequest = Callable[..., ExportRequest]


@pytest.fixture
def old(make_request: MakeRequest, tmp_path: Path) -> Path:
    """Export 6 frames as earlier versions named the files."""

    def suffix(codec: PipelineCodec) -> str:
        return ".".join([codec.format.suffix, *(stage.suffix for stage in codec.bytes_stages)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PipelineCodec, "suffix", property(suffix))
        report = export(make_request(CONFIG, dataset=tmp_path / "old", frames=parse_frames("0..6")))
    assert report.failed_frames == 0
    assert endings(tmp_path / "old") == {"flow.npy.zst", "canny.npy.zst"}
    return tmp_path / "old"


def endings(dataset: Path) -> set[str]:
    """Return the endings of all members of all tars."""
    found = set()
    for path in dataset.glob("shards/*/*.tar"):
        with tarfile.open(path) as tar:
            found |= {name.partition(".")[2] for name in tar.getnames()}
    return found


def flow_of(dataset: Path) -> NDArray[np.float32]:
    frames = FrameDataset(dataset, ["flow"])
    return np.stack([frame["flow"].numpy() for frame in frames])


def test_an_export_and_resume_keep_the_names(old: Path, make_request: MakeRequest) -> None:
    export(make_request(CONFIG, dataset=old, frames=parse_frames("0..12")))
    resume(old)
    assert endings(old) == {"flow.npy.zst", "canny.npy.zst"}
    assert validate(old).problems == []
    assert len(flow_of(old)) == 12


def test_what_is_added_gets_the_new_name(old: Path, make_request: MakeRequest) -> None:
    before = (old / "dataset.json").read_text()
    export(make_request(MORE, dataset=old, frames=parse_frames("0..6")))
    assert endings(old) == {"flow.npy.zst", "canny.npy.zst", "sobel.jls.vrk"}
    assert validate(old).problems == []
    hashes = {name: one["config_hash"] for name, one in json.loads(before)["representations"].items()}
    assert hashes.items() <= {name: one.config_hash for name, one in read_manifest(old).representations.items()}.items()


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("first", ["old", "new"])
def test_old_and_new_are_merged(old: Path, make_request: MakeRequest, tmp_path: Path, first: str, link: bool) -> None:
    """The config hash is the same; the files get the names of the source that comes first."""
    new = tmp_path / "new"
    export(make_request(CONFIG, dataset=new, frames=parse_frames("4..16")))
    assert endings(new) == {"flow.npy.zst.vrk", "canny.npy.zst"}
    merge([old, new] if first == "old" else [new, old], tmp_path / "both", link=link)
    flow = "flow.npy.zst" if first == "old" else "flow.npy.zst.vrk"
    assert endings(tmp_path / "both") == {flow, "canny.npy.zst"}
    assert validate(tmp_path / "both").problems == []
    np.testing.assert_array_equal(flow_of(tmp_path / "both"), np.concatenate([flow_of(old), flow_of(new)[2:]]))


def test_a_rebuilt_manifest_has_the_names_of_the_files(old: Path, make_request: MakeRequest) -> None:
    export(make_request(MORE, dataset=old, frames=parse_frames("0..6")))
    before = (old / "dataset.json").read_bytes()
    for name in ("dataset.json", "dataset.json.bak"):
        (old / name).unlink()
    repair_dataset(old)
    assert (old / "dataset.json").read_bytes() == before
