"""An output folder of VRE, made with numpy as VRE 1.18 writes it, becomes a dataset without the loss of a bit."""

import json
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.storages import read_samples
from vrekit.catalog.manifest import read_manifest
from vrekit.catalog.runs import read_runs
from vrekit.codecs.registry import codec_from_config
from vrekit.core.errors import ConflictError, DatasetError, UsageError
from vrekit.core.spec import Kind
from vrekit.engine.export import recorded_requests
from vrekit.jobs.merge.run import merge
from vrekit.jobs.validate import validate
from vrekit.jobs.vre.run import VreRequest, import_vre
from vrekit.readers.dataset import FrameDataset
from vrekit.writers.webdataset.sidecars import find_sidecars

FRAMES = 20  # of the video; VRE computed some of them
RUN = "bmZpmtRcd2"

Arrays = Mapping[int, NDArray[Any]]


def write_vre(
    folder: Path,
    arrays: Mapping[str, Arrays],
    *,
    formats: Mapping[str, str] | None = None,
    video: Mapping[str, str] | None = None,
) -> Path:
    """Write representations as VRE's DataWriter does, with both sorts of metadata."""
    for name, frames in arrays.items():
        kind = (formats or {}).get(name, "npz")
        (folder / name / kind).mkdir(parents=True, exist_ok=True)
        for frame, array in frames.items():
            path = folder / name / kind / f"{frame}.{kind}"
            if kind == "npz":
                np.savez_compressed(path, array)
            else:
                np.save(path, array)
        write_metadata(folder, name, dict.fromkeys(frames, 0.25), kind)
    (folder / ".logs").mkdir(exist_ok=True)
    arguments = {"video_path": "/videos/My clip.mp4", "video_shape": f"({FRAMES}, 6, 8, 3)", "video_fps": "25.00"}
    record = {
        "id": RUN,
        "runtime_args": arguments if video is None else video,
        "run_stats": {
            name: {"n_computed": len(f), "n_failed": 0, "average_duration": 0.25} for name, f in arrays.items()
        },
        "total": {"n_computed": 1, "n_failed": 0, "duration": 12.5},
    }
    stamp = f"{RUN}-2026-11-21T01:05:46.255"
    (folder / ".logs" / f"run_metadata-{stamp}.json").write_text(json.dumps(record))
    (folder / ".logs" / f"logs-{stamp}.txt").write_text("what VRE said\n")
    return folder


def write_metadata(folder: Path, name: str, seconds: Mapping[int, float | None], kind: str = "npz") -> None:
    stats: dict[str, Any] = dict.fromkeys(map(str, range(FRAMES)))
    for frame, duration in seconds.items():
        stats[str(frame)] = {"duration": duration, "run_id": RUN, "formats": [kind] if duration is not None else []}
    (folder / name / ".repr_metadata.json").write_text(json.dumps({"name": name, "run_stats": stats}, indent=4))


@pytest.fixture
def arrays() -> dict[str, dict[int, NDArray[Any]]]:
    generator = np.random.default_rng(0)
    frames = [0, 1, 2, 7, 8]
    depth = {frame: generator.random((6, 8, 1), np.float32) for frame in frames}
    depth[2][0, 0] = np.array([0x7FC12345], np.uint32).view(np.float32)  # a NaN with a payload of its own
    depth[2][0, 1], depth[2][0, 2] = -0.0, np.inf
    return {
        "rgb": {frame: generator.integers(0, 256, (6, 8, 3), np.uint8) for frame in frames},
        "depth": depth,
        "normals_svd(depth)": {frame: generator.random((6, 8, 3)).astype(np.float16) for frame in frames},
        "sky-and-water": {frame: generator.random((6, 8)) > 0.5 for frame in frames},
        "semantic": {frame: generator.integers(0, 133, (6, 8), np.uint8) for frame in frames},
        "flow": {frame: np.asfortranarray(generator.random((3, 4, 2), np.float32)) for frame in frames},
        "old": {frame: generator.random((2, 2)).astype(">f8") for frame in frames},
        "points": {frame: generator.random((frame, 2), np.float32) for frame in frames},
    }


CONFIG = """
default_io_parameters: {binary_format: npz}
representations:
  rgb: {type: color/rgb, dependencies: [], parameters: {}}
  depth: {type: depth/marigold, dependencies: [rgb], parameters: {variant: "${oc.env:NO_SUCH,lcm}"}}
  normals_svd(depth): {type: normals/depth-svd, dependencies: [depth], parameters: {window_size: 11}}
  sky-and-water: {type: BinaryMapper, dependencies: [semantic], parameters: {}}
  semantic: {type: semantic-segmentation/mask2former, dependencies: [rgb], parameters: {disk_data_argmax: true}}
  flow: {type: optical-flow/rife, dependencies: [rgb], parameters: {}}
"""


def decoded(folder: Path) -> dict[tuple[str, int], NDArray[Any]]:
    """Every stored array, by representation and frame."""
    records = read_manifest(folder).representations
    codecs = {name: codec_from_config(record.codec) for name, record in records.items() if record.codec is not None}
    found = {}
    for row in read_samples(folder).to_pylist():
        if row["status"] == "ok":
            data = (folder / row["shard"]).read_bytes()[row["byte_offset"] : row["byte_offset"] + row["byte_size"]]
            found[row["representation"], row["frame_index"]] = codecs[row["representation"]].decode(
                data, dtype=np.dtype(row["dtype"]), shape=tuple(row["shape"])
            )
    return found


@pytest.mark.parametrize("codec", ["npy.zst", "npy"])
def test_arrays_keep_every_bit(tmp_path: Path, arrays: dict[str, dict[int, NDArray[Any]]], codec: str) -> None:
    source = write_vre(tmp_path / "vre", arrays, formats={"semantic": "npy", "flow": "npy"})
    report = import_vre(VreRequest(source=source, output=tmp_path / "out", codec=codec))
    assert (report.video_id, report.failures, report.skipped) == ("My_clip", [], [])
    found = decoded(tmp_path / "out")
    assert len(found) == sum(map(len, arrays.values()))
    for name, frames in arrays.items():
        for frame, array in frames.items():
            got = found[name, frame]
            assert (got.shape, got.dtype) == (array.shape, array.dtype.newbyteorder("="))
            assert got.tobytes() == np.ascontiguousarray(array, array.dtype.newbyteorder("=")).tobytes()
    validated = validate(tmp_path / "out")
    assert not validated.problems


def test_durations_runs_and_times(tmp_path: Path, arrays: dict[str, dict[int, NDArray[Any]]]) -> None:
    source = write_vre(tmp_path / "vre", arrays)
    import_vre(VreRequest(source=source, output=tmp_path / "out", shard_frames=4))
    rows = read_samples(tmp_path / "out").to_pylist()
    assert {(row["run_id"], row["compute_seconds"]) for row in rows} == {(RUN, 0.25)}
    assert {(row["frame_index"], row["pts_seconds"]) for row in rows} == {
        (frame, frame / 25) for frame in (0, 1, 2, 7, 8)
    }
    assert sorted(path.stem for path in tmp_path.glob("out/shards/My_clip/*.tar")) == [
        "all-00000000-00000002",
        "all-00000007-00000007",
        "all-00000008-00000008",
    ]
    own, vre = read_runs(tmp_path / "out")
    assert (vre.run_id, vre.status, vre.elapsed_seconds, vre.started_at) == (
        RUN,
        "done",
        12.5,
        "2026-11-21T01:05:46.255",
    )
    assert vre.totals["rgb"].computed == 5
    assert own.request["convert"] == "vre"
    assert (tmp_path / "out" / "runs" / f"{RUN}.log").read_text() == "what VRE said\n"
    info = read_manifest(tmp_path / "out").videos["My_clip"]
    assert (info.uri, info.fps, info.height, info.width) == ("/videos/My clip.mp4", 25, 6, 8)
    with pytest.raises(DatasetError, match="no runs to resume"):
        recorded_requests(tmp_path / "out")


def test_kinds_come_from_the_config_or_the_shape(tmp_path: Path, arrays: dict[str, dict[int, NDArray[Any]]]) -> None:
    source = write_vre(tmp_path / "vre", arrays)
    (tmp_path / "vre.yaml").write_text(CONFIG)
    import_vre(VreRequest(source=source, output=tmp_path / "guessed"))
    records = read_manifest(tmp_path / "guessed").representations
    kinds = {name: record.stored.kind for name, record in records.items()}
    assert kinds == {
        "rgb": Kind.COLOR,
        "depth": Kind.EMBEDDING,
        "normals_svd(depth)": Kind.EMBEDDING,
        "sky-and-water": Kind.MASK,
        "semantic": Kind.INDICES,
        "flow": Kind.EMBEDDING,
        "old": Kind.EMBEDDING,
        "points": Kind.EMBEDDING,
    }
    assert records["points"].stored.shape == (None, 2)
    request = VreRequest(
        source=source, output=tmp_path / "out", config=tmp_path / "vre.yaml", kinds={"points": "points"}
    )
    import_vre(request)
    records = read_manifest(tmp_path / "out").representations
    kinds = {name: record.stored.kind for name, record in records.items()}
    assert kinds == {
        "rgb": Kind.COLOR,
        "depth": Kind.DEPTH,
        "normals_svd(depth)": Kind.NORMALS,
        "sky-and-water": Kind.MASK,
        "semantic": Kind.INDICES,
        "flow": Kind.FLOW,
        "old": Kind.EMBEDDING,
        "points": Kind.POINTS,
    }
    assert records["depth"].spec.params == {
        "type": "depth/marigold",
        "parameters": {"variant": "lcm"},
        "dependencies": ["rgb"],
    }
    assert records["normals_svd(depth)"].spec.dependencies == ("depth",)
    assert "(n + 1) / 2" in records["normals_svd(depth)"].stored.description
    with pytest.raises(UsageError, match=r"no kind 'dept' \(did you mean 'depth'\?\)"):
        import_vre(VreRequest(source=source, output=tmp_path / "x", kinds={"depth": "dept"}))
    with pytest.raises(UsageError, match=r"no representation 'dpth' \(did you mean 'depth'\?\)"):
        import_vre(VreRequest(source=source, output=tmp_path / "x", kinds={"dpth": "depth"}))


def test_damaged_files_are_failed_frames(tmp_path: Path, arrays: dict[str, dict[int, NDArray[Any]]]) -> None:
    source = write_vre(tmp_path / "vre", {"depth": arrays["depth"]})
    npz = source / "depth" / "npz"
    good = (npz / "1.npz").read_bytes()
    (npz / "1.npz").write_bytes(good[:-100])  # truncated
    (npz / "2.npz").write_bytes(b"")
    np.savez(npz / "3.npz", np.zeros((6, 8, 1), np.float64))  # not what the others are
    np.savez(npz / "4.npz", other=np.zeros((6, 8, 1), np.float32))
    np.savez(npz / "5.npz", np.array([{"a": 1}], dtype=object))
    flipped = bytearray(good)
    flipped[len(flipped) // 2] ^= 1
    (npz / "7.npz").write_bytes(flipped)
    (npz / "notes.npz").write_bytes(b"no frame")
    write_metadata(source, "depth", {**dict.fromkeys((0, 1, 2, 7, 8), 0.25), 10: 0.25, 11: None})
    report = import_vre(VreRequest(source=source, output=tmp_path / "out"))
    errors = {failure["frame_index"]: failure["error"] for failure in report.failures}
    assert sorted(errors) == [1, 2, 3, 4, 5, 7, 10, 11]
    assert errors[1].startswith("1.npz: damaged: ")
    assert errors[3] == "3.npz: float64 (6, 8, 1), but most are float32 (6, 8, 1)"
    assert errors[5] == "5.npz: it holds pickled Python objects, which are never loaded"
    assert errors[10] == "VRE noted it as done, but its file is gone"
    assert errors[11] == "VRE failed on it"
    assert sorted(frame for _, frame in decoded(tmp_path / "out")) == [0, 8]
    rows = {row["frame_index"]: row for row in read_samples(tmp_path / "out").to_pylist()}
    assert (rows[1]["status"], rows[1]["error"], rows[1]["run_id"]) == ("failed", errors[1], RUN)
    assert not validate(tmp_path / "out").problems

    again = import_vre(VreRequest(source=source, output=tmp_path / "out"))
    assert (sum(again.stored.values()), len(again.failures)) == (0, 8)
    assert read_samples(tmp_path / "out").num_rows == len(rows)  # no second row for a failure that is on record
    (npz / "1.npz").write_bytes(good)
    mended = import_vre(VreRequest(source=source, output=tmp_path / "out"))
    assert mended.stored == {"depth": 1}
    np.testing.assert_array_equal(decoded(tmp_path / "out")["depth", 1], arrays["depth"][1])


def test_pictures_are_taken_over_as_files(tmp_path: Path, arrays: dict[str, dict[int, NDArray[Any]]]) -> None:
    source = write_vre(tmp_path / "vre", {"rgb": arrays["rgb"]})
    files: dict[tuple[str, int], bytes] = {}
    for name, suffix, image_format in (("rgb", "png", "PNG"), ("rgb", "jpg", "JPEG"), ("collage", "jpg", "JPEG")):
        (source / name / suffix).mkdir(parents=True)
        for frame in (0, 1, 8):
            buffer = BytesIO()
            Image.fromarray(arrays["rgb"][frame]).save(buffer, image_format)
            (source / name / suffix / f"{frame}.{suffix}").write_bytes(buffer.getvalue())
            files[f"{name}.{suffix}", frame] = buffer.getvalue()
    (source / "rgb" / "png" / "7.png").write_bytes(files["rgb.png", 0][:60])
    Image.new("P", (8, 6)).save(source / "rgb" / "png" / "2.png")
    report = import_vre(VreRequest(source=source, output=tmp_path / "out"))
    assert report.stored == {"rgb": 5, "rgb.image": 3, "rgb_jpg.image": 3, "collage": 3}
    errors = {failure["frame_index"]: failure["error"] for failure in report.failures}
    assert "mode P" in errors[2]
    assert sorted(errors) == [2, 7]
    rows = [row for row in read_samples(tmp_path / "out").to_pylist() if row["status"] == "ok"]
    names = {"rgb.image": "rgb.png", "rgb_jpg.image": "rgb.jpg", "collage": "collage.jpg"}
    for row in rows:
        if row["representation"] in names:
            data = (tmp_path / "out" / row["shard"]).read_bytes()
            payload = data[row["byte_offset"] : row["byte_offset"] + row["byte_size"]]
            assert payload == files[names[row["representation"]], row["frame_index"]]
    np.testing.assert_array_equal(decoded(tmp_path / "out")["rgb.image", 8], arrays["rgb"][8])
    assert not validate(tmp_path / "out").problems


def test_extras(tmp_path: Path, arrays: dict[str, dict[int, NDArray[Any]]]) -> None:
    source = write_vre(tmp_path / "vre", {"fastsam": arrays["depth"], "sift": arrays["depth"]})
    for frame in (0, 1):
        plain: dict[str, Any] = {"boxes": np.full((frame, 4), 2.5), "a b": np.arange(3)}
        np.savez(source / "fastsam" / "npz" / f"{frame}_extra.npz", **plain)
        np.savez(source / "sift" / "npz" / f"{frame}_extra.npz", np.array({"keypoints": [1, 2]}, dtype=object))
    report = import_vre(VreRequest(source=source, output=tmp_path / "out"))
    assert report.skipped == ["sift: 2 _extra.npz files hold pickled Python objects or are damaged"]
    assert report.stored == {"fastsam": 5, "fastsam_extra_boxes": 2, "fastsam_extra_a_b": 2, "sift": 5}
    assert decoded(tmp_path / "out")["fastsam_extra_boxes", 1].tolist() == [[2.5] * 4]
    assert not report.failures


def test_broken_metadata_is_no_obstacle(tmp_path: Path, arrays: dict[str, dict[int, NDArray[Any]]]) -> None:
    source = write_vre(tmp_path / "vre", {"depth": arrays["depth"]}, video={})
    (source / "depth" / ".repr_metadata.json").write_text('{"name": "depth", "run_st')
    report = import_vre(VreRequest(source=source, output=tmp_path / "out"))
    assert len(report.skipped) == 1
    assert "cannot be read" in report.skipped[0]
    assert report.stored == {"depth": 5}
    rows = read_samples(tmp_path / "out").to_pylist()
    own = next(run.run_id for run in read_runs(tmp_path / "out") if run.run_id != RUN)
    assert {(row["run_id"], row["compute_seconds"], row["pts_seconds"]) for row in rows} == {(own, None, None)}
    info = read_manifest(tmp_path / "out").videos["vre"]
    assert (info.source, info.fps, info.height, info.width, info.frame_count) == ("arrays", None, 6, 8, 9)


def test_the_video_gives_times_and_ties_the_dataset_to_it(
    tmp_path: Path, arrays: dict[str, dict[int, NDArray[Any]]], clip_mp4: Path
) -> None:
    source = write_vre(tmp_path / "vre", {"rgb": arrays["rgb"]})
    import_vre(VreRequest(source=source, output=tmp_path / "out", video=str(clip_mp4), video_id="it"))
    rows = {row["frame_index"]: row["pts_seconds"] for row in read_samples(tmp_path / "out").to_pylist()}
    assert rows == pytest.approx({frame: frame / 10 for frame in (0, 1, 2, 7, 8)})
    assert read_manifest(tmp_path / "out").videos["it"].codec == "h264"
    with pytest.raises(ConflictError, match="another video named 'it'"):
        import_vre(VreRequest(source=source, output=tmp_path / "out", video_id="it"))
    np.savez(source / "rgb" / "npz" / "40.npz", arrays["rgb"][0])
    with pytest.raises(UsageError, match=r"VRE has frame 40, but .* has no such frame \(40 frames\)"):
        import_vre(VreRequest(source=source, output=tmp_path / "out", video=str(clip_mp4), video_id="it"))


def test_what_vre_computes_later_is_added(tmp_path: Path, arrays: dict[str, dict[int, NDArray[Any]]]) -> None:
    first = {"depth": {frame: arrays["depth"][frame] for frame in (0, 1)}}
    source = write_vre(tmp_path / "vre", first)
    import_vre(VreRequest(source=source, output=tmp_path / "out"))
    write_vre(source, {"depth": arrays["depth"], "semantic": arrays["semantic"]})
    report = import_vre(VreRequest(source=source, output=tmp_path / "out"))
    assert (report.stored, report.already) == ({"depth": 3, "semantic": 5}, {"depth": 2, "semantic": 0})
    assert len(decoded(tmp_path / "out")) == 10
    assert not validate(tmp_path / "out").problems


def test_readers_and_lance_and_merge(tmp_path: Path, arrays: dict[str, dict[int, NDArray[Any]]]) -> None:
    del arrays["points"]
    source = write_vre(tmp_path / "vre", arrays)
    for writer in ("webdataset", "lance"):
        import_vre(VreRequest(source=source, output=tmp_path / writer, writer=writer))
        dataset = FrameDataset(tmp_path / writer, representations=["depth", "semantic"])
        np.testing.assert_array_equal(np.asarray(dataset[2]["depth"]), arrays["depth"][2])
        np.testing.assert_array_equal(np.asarray(dataset[4]["semantic"]), arrays["semantic"][8])
        assert not validate(tmp_path / writer).problems
    report = merge([tmp_path / "webdataset", tmp_path / "lance"], tmp_path / "out")
    assert report.duplicates == report.rows == 35


def test_what_is_refused(tmp_path: Path, arrays: dict[str, dict[int, NDArray[Any]]]) -> None:
    with pytest.raises(UsageError, match="is no folder"):
        import_vre(VreRequest(source=tmp_path / "none", output=tmp_path / "out"))
    (tmp_path / "empty" / "sub").mkdir(parents=True)
    with pytest.raises(UsageError, match="holds no output of VRE"):
        import_vre(VreRequest(source=tmp_path / "empty", output=tmp_path / "out"))
    source = write_vre(tmp_path / "vre", {"a b": arrays["depth"], "a.b": arrays["depth"]})
    with pytest.raises(UsageError, match=r"'a b' and 'a\.b' would both be named 'a_b'"):
        import_vre(VreRequest(source=source, output=tmp_path / "out"))
    source = write_vre(tmp_path / "vre2", {"a b": arrays["depth"]})
    with pytest.raises(UsageError, match=r"--codec 'jxl' is not one of npy, npy.zst"):
        import_vre(VreRequest(source=source, output=tmp_path / "out", codec="jxl"))
    with pytest.raises(UsageError, match="is not empty"):
        import_vre(VreRequest(source=source, output=source))
    report = import_vre(VreRequest(source=source, output=tmp_path / "out"))
    assert report.renamed == {"a b": "a_b"}
    with zipfile.ZipFile(source / "a b" / "npz" / "0.npz", "w"):
        pass
    for frame in (1, 2, 7, 8):
        (source / "a b" / "npz" / f"{frame}.npz").unlink()
    with pytest.raises(UsageError, match="holds nothing that can be imported"):
        import_vre(VreRequest(source=source, output=tmp_path / "other"))


def test_an_import_records_its_shards(tmp_path: Path, arrays: dict[str, dict[int, NDArray[Any]]]) -> None:
    source = write_vre(tmp_path / "vre", arrays)
    import_vre(VreRequest(source=source, output=tmp_path / "out", shard_frames=4))
    sidecars = find_sidecars(tmp_path / "out")
    (run,) = (run for run in read_runs(tmp_path / "out") if run.shards)
    assert len(run.shards) == len(sidecars) > 1
    assert validate(tmp_path / "out").problems == []
    sidecars[0].with_suffix(".tar").unlink()
    sidecars[0].unlink()
    assert [problem.code for problem in validate(tmp_path / "out").problems] == ["lost-shard"]
