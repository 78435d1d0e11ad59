"""More of what strangers' files may try: subsets, statistics, folders of VRE, and what lies in the current folder."""

import json
import os
import resource
import shutil
import tarfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.trust.arena import CONFIG, edit_manifest, edit_rows, run
from vrekit.catalog.parquet_files import parquet_writer, seal, table_bytes
from vrekit.catalog.statistics import STATISTICS_SCHEMA
from vrekit.catalog.subset import SUBSET_SCHEMA, Subset, combine, read_subset
from vrekit.codecs.registry import codec_from_config
from vrekit.codecs.video import Video
from vrekit.config.loader import parse_config
from vrekit.core.errors import ConfigError, VrekitError
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest
from vrekit.readers import FrameDataset
from vrekit.writers.lance.probe import _survives

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    np.save(folder / "clip.npy", np.random.default_rng(0).integers(0, 255, (8, 24, 32, 3), np.uint8))
    representations = parse_config(CONFIG).representations
    video, dataset = str(folder / "clip.npy"), folder / "dataset"
    export(ExportRequest(video=video, dataset=dataset, representations=representations, shard_frames=4, threads=1))
    shutil.rmtree(dataset / "index", ignore_errors=True)
    return dataset


@pytest.fixture
def dataset(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "evil")
    return tmp_path / "evil"


# -- the current folder ------------------------------------------------------------------------------------------


def test_what_lies_in_the_current_folder_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cd evil; vrekit validate .` tries damaged fragments in another Python, which must not import from there."""
    for name in ("lance", "vrekit", "resource", "contextlib"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'PWNED')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    _survives(tmp_path / "none.lance", 1, 0, 60)
    assert not (tmp_path / "PWNED").exists()


# -- subsets -----------------------------------------------------------------------------------------------------

_LISTS = pa.list_(pa.string())


def subset_table(**columns: pa.Array) -> pa.Table:
    plain = {"key": ["clip/00000000"], "video_id": ["clip"], "frame_index": [0], "representations": [None]}
    arrays = {name: columns.get(name, pa.array(value, SUBSET_SCHEMA.field(name).type)) for name, value in plain.items()}
    return pa.table(arrays)


def document(**changes: Any) -> bytes:
    return json.dumps({"format": 1, "digest": Subset({("clip", 0): None}).digest, **changes}).encode()


SUBSETS: dict[str, tuple[pa.Table, bytes]] = {
    "deep": (subset_table(), b'{"format":1,"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "a list": (subset_table(), b"[1]"),
    "half a character": (subset_table(), document().replace(b'"format"', b'"a":"\\ud800","format"')),
    "no frame": (subset_table(frame_index=pa.array([None], pa.int64())), document()),
    "no video": (subset_table(video_id=pa.array([None], pa.string())), document()),
    "half a frame": (subset_table(frame_index=pa.array([1.5])), document()),
    "a frame of text": (subset_table(frame_index=pa.array(["x"])), document()),
    "no name": (subset_table(representations=pa.array([[None]], _LISTS)), document()),
    "no name beside one": (subset_table(representations=pa.array([[None, "rgb"]], _LISTS)), document()),
    "numbered names": (subset_table(representations=pa.array([[1]])), document()),
    "a name that is no list": (subset_table(representations=pa.array([1])), document()),
    "a dataset without a name": (subset_table(), document(dataset={"a": 1})),
    "a dataset of text": (subset_table(), document(dataset="x")),
    "stages of text": (subset_table(), document(stages="x")),
    "a stage of text": (subset_table(), document(stages=["x"])),
    "a stage without parameters": (subset_table(), document(stages=[{"op": "x"}])),
    "a stage of sources that are none": (subset_table(), document(stages=[{"op": "x", "params": {}, "sources": [1]}])),
    "a source without a digest": (subset_table(), document(stages=[{"op": "x", "params": {}, "sources": [{}]}])),
}


@pytest.mark.parametrize("what", SUBSETS)
def test_subsets_that_cannot_be(what: str, dataset: Path, tmp_path: Path) -> None:
    table, text = SUBSETS[what]
    path = tmp_path / "subset.parquet"
    pq.write_table(table.replace_schema_metadata({b"vrekit.subset": text}), path)
    for arguments in (
        ("subset", "info", path),
        ("subset", "info", path, "--json"),
        ("subset", "verify", path, dataset),
        ("subset", "union", path, path, "-o", tmp_path / "union.parquet"),
        ("subset", "materialize", path, dataset, "-o", tmp_path / "copy"),
    ):
        assert run(*arguments).startswith(("1: error", "2: error")), arguments


def test_a_column_that_is_there_twice(dataset: Path, tmp_path: Path) -> None:
    names = ["video_id", "video_id", "frame_index"]
    table = pa.Table.from_arrays([pa.array(["clip"]), pa.array(["clip"]), pa.array([1])], names=names)
    pq.write_table(table, tmp_path / "subset.parquet")
    with pytest.raises(VrekitError, match="two columns 'video_id'"):
        FrameDataset(dataset, ["rgb"], subset=tmp_path / "subset.parquet")


def test_subsets_of_subsets_of_subsets_stay_readable(tmp_path: Path) -> None:
    subset = Subset({("clip", 0): None}, {"stages": []})
    for _ in range(50):
        subset = combine("union", subset, Subset({("clip", 0): None}))
    subset.write(tmp_path / "subset.parquet")
    assert read_subset(tmp_path / "subset.parquet").frames == subset.frames
    assert run("subset", "info", tmp_path / "subset.parquet", "--json").startswith("0: ")


# -- statistics --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [b"[1]", b"[" * 100_000 + b"]" * 100_000, b'{"sources": [1]}', b'{"sources": {"color": 5}}', b"\xff"],
    ids=["a list", "deep", "a list of sources", "a numbered source", "no text"],
)
def test_statistics_that_cannot_be(text: bytes, dataset: Path, tmp_path: Path) -> None:
    columns = {name: [None] for name in STATISTICS_SCHEMA.names} | {"video_id": ["clip"], "frame_index": [0]}
    table = pa.table(columns, schema=STATISTICS_SCHEMA).replace_schema_metadata({b"vrekit.statistics": text})
    (dataset / "stats").mkdir()
    (dataset / "stats" / "clip.parquet").write_bytes(table_bytes(table))
    for arguments in (
        ("query", dataset, "frame_index < 3"),
        ("validate", dataset),
        ("stats", dataset),
        ("merge", dataset, "-o", tmp_path / "merged"),
    ):
        said = run(*arguments)
        assert said.startswith("1: "), (arguments, said)
        assert "is damaged" in said


# -- folders of VRE ----------------------------------------------------------------------------------------------


def vre_folder(folder: Path, record: dict[str, Any]) -> Path:
    (folder / "depth" / "npz").mkdir(parents=True)
    np.savez(folder / "depth" / "npz" / "0.npz", np.ones((6, 8), np.float32))
    (folder / ".logs").mkdir()
    (folder / ".logs" / "run_metadata-abc-2025-01-02T03:04:05.000000.json").write_text(json.dumps(record))
    (folder / ".logs" / "logs-abc-1.txt").write_text("log")
    return folder


RECORD = {"id": "abc", "runtime_args": {"video_path": "clip.mp4", "video_fps": "25"}, "total": {"duration": 1}}


def replace(path: str, put: Callable[[Path], object]) -> Callable[[Path], None]:
    def attack(folder: Path) -> None:
        (folder / path).unlink(missing_ok=True)
        put(folder / path)

    return attack


def link_to_bait(path: Path) -> None:
    path.symlink_to(path.parents[2] / "bait.txt")


DEEP = '{"run_stats":' + "[" * 100_000 + "]" * 100_000 + "}"
VRE: dict[str, tuple[dict[str, Any], Callable[[Path], None]]] = {
    "a log that is a link": ({}, replace(".logs/logs-abc-1.txt", link_to_bait)),
    "a log that is a pipe": ({}, replace(".logs/logs-abc-1.txt", os.mkfifo)),
    "an array that is a pipe": ({}, replace("depth/npz/1.npz", os.mkfifo)),
    "metadata that is a pipe": ({}, replace("depth/.repr_metadata.json", os.mkfifo)),
    "metadata that is a link": ({}, replace("depth/.repr_metadata.json", link_to_bait)),
    "deep metadata": ({}, replace("depth/.repr_metadata.json", lambda path: path.write_text(DEEP))),
    "a frame of many digits": ({}, replace(f"depth/npz/{'9' * 200}.npz", lambda path: path.write_bytes(b"x"))),
    "a record of many digits": (
        {},
        replace("depth/.repr_metadata.json", lambda path: path.write_text(json.dumps({"run_stats": {"9" * 5000: {}}}))),
    ),
    "endless seconds": (
        {},
        replace(
            "depth/.repr_metadata.json",
            lambda path: path.write_text(json.dumps({"run_stats": {"0": {"duration": 10**400}}})),
        ),
    ),
    "a large video": ({"runtime_args": {"video_shape": f"(1, {10**30}, {10**30}, 3)"}}, lambda folder: None),
    "a very large video": ({"runtime_args": {"video_shape": "9" * 5000 + " 1 1 1"}}, lambda folder: None),
    "a deep run": ({"runtime_args": {"video_path": [[[]]] * 3, "a": json.loads("[" * 80 + "]" * 80)}}, lambda f: None),
    "arguments of another type": ({"runtime_args": {"video_path": {"a": 1}, "video_fps": [1]}}, lambda folder: None),
}


@pytest.mark.parametrize("what", VRE)
def test_folders_of_vre_that_cannot_be(what: str, tmp_path: Path) -> None:
    changes, attack = VRE[what]
    folder = vre_folder(tmp_path / "vre", RECORD | changes)
    (tmp_path / "bait.txt").write_text('{"private": "SECRET"}')
    attack(folder)
    said = run("convert", folder, "-o", tmp_path / "out", "--from", "vre", "--kind", "depth=depth")
    assert not any("SECRET" in path.read_text(errors="replace") for path in tmp_path.glob("out/**/*.log"))
    if said.startswith("0: "):
        assert run("validate", tmp_path / "out").startswith("0: ")


# -- small files that unfold to very much ------------------------------------------------------------------------


def rewrite_sidecar(dataset: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    path = sorted(dataset.glob("shards/*/*.parquet"))[0]
    sink = pa.BufferOutputStream()
    table = change(pq.ParquetFile(path).read())
    with parquet_writer(sink, table.schema, use_dictionary=True) as writer:
        writer.write_table(table)
    path.write_bytes(seal(sink.getvalue()))


def long_text(column: str) -> Callable[[pa.Table], pa.Table]:
    """Give 20,000 rows one text of 100 kB: 2 GB when it is written out, 24 kB in the file."""

    def change(table: pa.Table) -> pa.Table:
        table = table.take(pa.array(np.zeros(20_000, np.int64)))
        text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(table), np.int32)), pa.array(["x" * 100_000]))
        return table.set_column(table.schema.get_field_index(column), column, text)

    return change


def many_rows(table: pa.Table) -> pa.Table:
    """Have two million empty rows in 7 kB."""
    return pa.table({field.name: pa.nulls(2_000_000, field.type) for field in table.schema})


def long_shape(table: pa.Table) -> pa.Table:
    shapes = pa.array([np.zeros(4_000_000, np.int32)] + [None] * (len(table) - 1), pa.list_(pa.int32()))
    return table.set_column(table.schema.get_field_index("shape"), "shape", shapes)


UNFOLDING = {
    "a long error": long_text("error"),
    "a long status": long_text("status"),
    "many rows": many_rows,
    "a long shape": long_shape,
}


@pytest.mark.parametrize("what", UNFOLDING)
def test_small_sidecars_that_unfold_to_very_much(what: str, dataset: Path, tmp_path: Path) -> None:
    rewrite_sidecar(dataset, UNFOLDING[what])
    for arguments in (
        ("info", dataset),
        ("query", dataset, "frame_index < 3"),
        ("merge", dataset, "-o", tmp_path / "merged"),
    ):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        said = run(*arguments)
        assert said.startswith("1: "), (arguments, said)
        assert "is damaged" in said
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB
    assert run("validate", dataset).startswith("1: ")


def test_codecs_of_many_stages_are_refused(dataset: Path) -> None:
    codec = {"id": "npy.zst", "stages": ["npy", *["zstd"] * 100_000]}
    edit_manifest(dataset, lambda data: data["representations"]["canny"].update(codec=codec))
    with pytest.raises(VrekitError, match="100001 stages, expected at most 64"):
        FrameDataset(dataset, ["canny"])
    assert run("validate", dataset).startswith("1: ")


# -- clips and configs -------------------------------------------------------------------------------------------


def test_a_small_clip_of_huge_frames_is_not_decoded(tmp_path: Path) -> None:
    np.save(tmp_path / "clip.npy", np.zeros((16, 64, 64, 3), np.uint8))
    config = "representations: {rgb: {type: color/rgb, codec: {id: video, encode: h264}}}"
    dataset = tmp_path / "evil"
    representations = parse_config(config).representations
    export(ExportRequest(video=str(tmp_path / "clip.npy"), dataset=dataset, representations=representations, threads=1))
    encoder = Video(encode="h264").open_encoder(height=2048, width=2048, fps=25.0)
    for _ in range(16):
        encoder.add(np.zeros((2048, 2048, 3), np.uint8))
    clip = encoder.finish()
    assert len(clip) < 100_000
    tar = next(dataset.glob("shards/*/*.tar"))
    with tarfile.open(tar) as archive:
        name = archive.getnames()[0]
    with tarfile.open(tar, "w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo(name)
        member.size = len(clip)
        archive.addfile(member, BytesIO(clip))
    edit_rows(dataset, byte_size=len(clip), checksum=zlib.crc32(clip))
    with pytest.raises(VrekitError, match="frames of 4194304 pixels, expected 4096"):
        FrameDataset(dataset)[0]
    assert "frames of 4194304 pixels, expected 4096" in run("validate", dataset)
    assert "frames of 4194304 pixels, expected 4096" in run("stats", dataset)


@pytest.mark.parametrize("text", ["${" * 100_000, "${oc.env:A," * 50_000 + "}" * 50_000], ids=["open", "nested"])
def test_expressions_in_configs_take_no_time(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_config(f'representations: {{rgb: {{type: "{text}"}}}}')


@pytest.mark.parametrize(
    ("text", "dtype"), [(b"[1.5]", "int32"), (b"[true]", "float32"), (b"[true]", "uint8"), (b"[1]", "bool")], ids=str
)
def test_json_numbers_of_another_type_are_not_rounded(text: bytes, dtype: str) -> None:
    with pytest.raises(VrekitError, match="json file holds"):
        codec_from_config({"stages": ["json"]}).decode(text, dtype=np.dtype(dtype), shape=(1,))
