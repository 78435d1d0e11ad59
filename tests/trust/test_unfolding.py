"""Small Parquet files that unfold to very much, wherever a dataset or a user names one."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.trust.arena import CONFIG, run
from vrekit.catalog.index import source_digests
from vrekit.catalog.parquet_files import parquet_writer, seal
from vrekit.catalog.statistics import STATISTICS_SCHEMA
from vrekit.catalog.storage import open_storage
from vrekit.catalog.subset import SUBSET_SCHEMA, Subset
from vrekit.config.loader import parse_config
from vrekit.core.errors import DatasetError
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest
from vrekit.readers import FrameDataset

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]

PEAK = """
import sys
from vrekit.cli.app import app
try:
    app(sys.argv[1:], prog_name="vrekit")
except SystemExit as error:
    print("exit", error.code)
lines = dict(line.split(":") for line in open("/proc/self/status"))
print("MB", int(lines["VmHWM"].split()[0]) * 1024 // 10**6)
"""


def peak_mb(*arguments: object) -> tuple[str, int]:
    """Return what a `vrekit` process says, and its largest resident memory."""
    command = [sys.executable, "-c", PEAK, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    return done.stdout + done.stderr, int(done.stdout.split()[-1])


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    np.save(folder / "clip.npy", np.random.default_rng(0).integers(0, 255, (8, 24, 32, 3), np.uint8))
    representations = parse_config(CONFIG).representations
    video, dataset = str(folder / "clip.npy"), folder / "dataset"
    export(ExportRequest(video=video, dataset=dataset, representations=representations, shard_frames=4, threads=1))
    return dataset


@pytest.fixture
def dataset(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "evil")
    return tmp_path / "evil"


def sealed(table: pa.Table, **options: object) -> bytes:
    sink = pa.BufferOutputStream()
    with parquet_writer(sink, table.schema, **options) as writer:
        writer.write_table(table)
    return seal(sink.getvalue())


def with_column(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, column)


def one_page(table: pa.Table, column: str) -> tuple[pa.Table, dict[str, object]]:
    """Have one text of 300 MB, 9 kB in the file."""
    texts = pa.array(["x" * 300_000_000] + ["a"] * (len(table) - 1))
    return with_column(table, column, texts), {"use_dictionary": False, "write_statistics": False}


def one_dictionary(table: pa.Table, column: str) -> tuple[pa.Table, dict[str, object]]:
    """Have one text of 1 MB in 2,000 rows: 2 GB when it is written out."""
    table = table.take(pa.array(np.zeros(2_000, np.int64)))
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(table), np.int32)), pa.array(["x" * 1_000_000]))
    return with_column(table, column, text), {"use_dictionary": True}


def repeated(table: pa.Table, column: str) -> tuple[pa.Table, dict[str, object]]:
    """Have texts of 1 MB that repeat the one before: 500 bytes in the file."""
    table = table.take(pa.array(np.zeros(400, np.int64)))
    options = {"use_dictionary": False, "column_encoding": {column: "DELTA_BYTE_ARRAY"}, "write_statistics": False}
    return with_column(table, column, pa.array(["x" * 1_000_000] * len(table))), options


BOMBS = {"one page": one_page, "one dictionary": one_dictionary, "repeated": repeated}
NAMES = [pytest.param("one page", marks=pytest.mark.slow), "one dictionary", "repeated"]
Bomb = Callable[[pa.Table, str], tuple[pa.Table, dict[str, object]]]


def put_sidecar(dataset: Path, bomb: Bomb) -> None:
    path = sorted(dataset.glob("shards/*/*.parquet"))[0]
    table, options = bomb(pq.ParquetFile(path).read(), "error")
    path.write_bytes(sealed(table, **options))


def put_index(dataset: Path, bomb: Bomb) -> None:
    run("query", dataset, "frame_index < 3")
    for name in ("samples", "frames"):
        path = dataset / "index" / f"{name}.parquet"
        table = pq.ParquetFile(path).read()
        digest = source_digests(open_storage(dataset))
        key = next(key for key, value in table.schema.metadata.items() if value.decode() == getattr(digest, name))
        table, options = bomb(table, "video_id")
        path.write_bytes(sealed(table.replace_schema_metadata({key: getattr(digest, name)}), **options))


def put_statistics(dataset: Path, bomb: Bomb) -> None:
    columns = {name: [None] for name in STATISTICS_SCHEMA.names} | {"video_id": ["clip"], "frame_index": [0]}
    table, options = bomb(pa.table(columns, schema=STATISTICS_SCHEMA), "video_id")
    (dataset / "stats").mkdir()
    (dataset / "stats" / "clip.parquet").write_bytes(sealed(table, **options))


PLACES = {"sidecar": put_sidecar, "index": put_index, "statistics": put_statistics}


@pytest.mark.parametrize("bomb", NAMES)
@pytest.mark.parametrize("place", PLACES)
def test_commands_refuse_it(place: str, bomb: str, dataset: Path) -> None:
    PLACES[place](dataset, BOMBS[bomb])
    command = ("validate", dataset) if place == "index" else ("query", dataset, "frame_index < 3")
    said, mb = peak_mb(*command)
    assert mb < 400, (mb, said)
    assert "is damaged" in said, said


@pytest.mark.parametrize("bomb", NAMES)
def test_subsets_refuse_it(bomb: str, dataset: Path, tmp_path: Path) -> None:
    path = tmp_path / "subset.parquet"
    Subset({("clip", 0): None}).write(path)
    table, options = BOMBS[bomb](pq.ParquetFile(path).read(), "video_id")
    path.write_bytes(sealed(table.replace_schema_metadata(pq.read_schema(path).metadata), **options))
    assert SUBSET_SCHEMA.names == table.schema.names
    said, mb = peak_mb("subset", "info", path)
    assert mb < 400, (mb, said)
    assert "is damaged" in said, said
    with pytest.raises(DatasetError, match="is damaged"):
        FrameDataset(dataset, ["rgb"], subset=path)


def test_parts_of_the_metadata_are_bounded_by_rows(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal rows take no bytes, so their number bounds what is read at once; a video stays whole."""
    for name in ("more", "other"):
        folder = dataset / "shards" / name
        shutil.copytree(dataset / "shards" / "clip", folder)
        for path in folder.glob("*.parquet"):
            table = pq.ParquetFile(path).read()
            table = with_column(table, "video_id", pa.array([name] * len(table)))
            shard = f"shards/{name}/{path.stem}.tar"
            path.write_bytes(sealed(with_column(table, "shard", pa.array([shard] * len(table)))))
    storage = open_storage(dataset)
    assert [part["video_id"].unique().to_pylist() for part in storage.tables()] == [["clip", "more", "other"]]
    monkeypatch.setattr("vrekit.writers.webdataset.storage._PART_ROWS", 50)
    parts = [(part["video_id"].unique().to_pylist(), len(part)) for part in storage.tables()]
    assert parts == [(["clip", "more"], 48), (["other"], 24)]


def test_rows_that_need_more_than_the_memory(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vrekit.writers.webdataset.sidecars.machine_memory", lambda: 4000)
    with pytest.raises(DatasetError, match="too many for the memory"):
        list(open_storage(dataset).tables())


def test_long_text_in_lance_tables(template: Path, tmp_path: Path) -> None:
    import lance

    video, representations = str(template.parent / "clip.npy"), parse_config(CONFIG).representations
    dataset = tmp_path / "evil"
    export(
        ExportRequest(video=video, dataset=dataset, representations=representations, threads=1, writer="lance"),
    )
    path = next(dataset.glob("lance/*.lance"))
    table = lance.dataset(str(path))
    table.drop_columns(["rgb:status"])
    table.add_columns({"rgb:status": "repeat('x', 10000000)"})
    said, mb = peak_mb("info", dataset)
    assert mb < 700, (mb, said)
    assert "bytes of text in 8 rows of metadata" in said, said
