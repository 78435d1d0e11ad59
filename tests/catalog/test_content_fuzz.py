"""Any content of any metadata file, with checksums that are right: it is read, or one of vrekit's errors says why not.

Each change is made to what a file says (types, ranges, nulls, sizes, depth, names, Unicode, repeats, lost and unknown
columns), or to its bytes, and most get their checksum anew, so that the content is what is checked. Few by default;
VREKIT_EXHAUSTIVE=1 makes 130,000 in all, VREKIT_FUZZ_COUNT=n as many as n and the kind's share give.
"""

import json
import os
import random
import resource
import shutil
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.catalog.test_bit_flips import make
from tests.engine.test_metadata_fuzz import CONFIG, NASTY, corrupt, mend_hashes, mutate, text_of
from tests.storages import read_progress, read_samples
from vrekit.catalog.cells import Cell
from vrekit.catalog.dataset import open_dataset
from vrekit.catalog.index import load_index
from vrekit.catalog.items import holds_items, items_path, items_schema, listed_frames
from vrekit.catalog.manifest import Manifest, read_manifest
from vrekit.catalog.parquet_files import parquet_writer, seal
from vrekit.catalog.runs import config_folders, read_runs, write_run
from vrekit.catalog.statistics import read_statistics
from vrekit.catalog.storage import open_storage
from vrekit.catalog.subset import Subset, combine, read_subset, verify
from vrekit.codecs.registry import codec_from_config
from vrekit.config.loader import parse_config
from vrekit.core.errors import VrekitError
from vrekit.core.schema import SAMPLES_SCHEMA
from vrekit.engine.export import recorded_requests
from vrekit.engine.request import ExportRequest
from vrekit.jobs.validate import validate
from vrekit.readers import FrameDataset
from vrekit.readers.index import read_index
from vrekit.writers.journal import OpenShard
from vrekit.writers.journal_lines import make_line
from vrekit.writers.lance.batches import blob_array
from vrekit.writers.lance.ledger import read_ledger
from vrekit.writers.lance.rows import column_name, find_tables, open_table, representations_of
from vrekit.writers.webdataset.sidecars import find_sidecars

EXHAUSTIVE = os.environ.get("VREKIT_EXHAUSTIVE", "") not in ("", "0")
COUNT = int(os.environ.get("VREKIT_FUZZ_COUNT", "4000" if EXHAUSTIVE else "16"))
FIRST = int(os.environ.get("VREKIT_FUZZ_FIRST", "0"))
MOST_SECONDS = 5.0
MOST_BYTES = 500 << 20
MOST_CHARACTERS = 20_000  # of a message
QUERY_BYTES = 256 << 20
ALL_LOOKS_EVERY = 128 if EXHAUSTIVE else 8  # changes; the others are looked at by the file's own reader alone

TEXTS = [one for one in NASTY if isinstance(one, str) and one != "\ud800"] + ["car", "bus", "depth", "ok", "failed"]
INTEGERS = [0, -1, 1, 2, 7, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**40 + 3, 2**53, 2**62, 2**63 - 1, -(2**63), 2**64 - 1]
FLOATS = [0.0, -0.0, -1.5, 1e308, 1e-320, float("nan"), float("inf"), -float("inf")]


# -- tables --------------------------------------------------------------------------------------------------------


def any_value(kind: pa.DataType, chance: random.Random) -> Any:
    """Return a nasty value of a type, or null."""
    if chance.random() < 0.15:
        return None
    if pa.types.is_dictionary(kind):
        return any_value(kind.value_type, chance)
    if pa.types.is_boolean(kind):
        return chance.random() < 0.5
    if pa.types.is_integer(kind):
        low, high = (
            (-(1 << kind.bit_width - 1), 1 << kind.bit_width - 1)
            if pa.types.is_signed_integer(kind)
            else (
                0,
                1 << kind.bit_width,
            )
        )
        return chance.choice([one for one in INTEGERS if low <= one < high])
    if pa.types.is_floating(kind):
        return chance.choice(FLOATS)
    if pa.types.is_list(kind):
        count = chance.choice((0, 1, 2, 3, 33, 1000))
        value = any_value(kind.value_type, chance)
        return [value] * count
    if pa.types.is_struct(kind):
        return {field.name: any_value(field.type, chance) for field in kind}
    return chance.choice(TEXTS)


TYPES = [
    *(pa.null(), pa.bool_(), pa.int8(), pa.int32(), pa.int64(), pa.uint64(), pa.float32(), pa.float64(), pa.string()),
    *(pa.binary(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.timestamp("ns"), pa.decimal128(38, 2)),
    *(pa.list_(pa.int64()), pa.list_(pa.string()), pa.list_(pa.list_(pa.int32())), pa.struct([("a", pa.int32())])),
    *(pa.date32(), pa.duration("s"), pa.binary(3), pa.map_(pa.string(), pa.int32())),
]


def retyped(column: pa.ChunkedArray, chance: random.Random) -> pa.ChunkedArray:
    """Return a column as another type, its values as far as they can be kept."""
    kind = chance.choice(TYPES)
    try:
        return column.cast(kind, safe=False)
    except (pa.ArrowException, ValueError):
        try:
            return pa.chunked_array([pa.array([any_value(kind, chance) for _ in range(len(column))], kind)])
        except (pa.ArrowException, ValueError, TypeError, OverflowError, ArithmeticError):
            return pa.chunked_array([pa.nulls(len(column), kind)])


def not_utf8(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of text that is none."""
    bad = pa.array([b"a\xff\xfe" if at % 2 else b"\xed\xa0\x80" for at in range(len(column))], pa.binary())
    return pa.chunked_array([pa.Array.from_buffers(pa.string(), len(bad), bad.buffers())])


def changed_table(table: pa.Table, chance: random.Random) -> pa.Table:
    """Return a table with one to three things changed."""
    original = table.schema
    table = pa.table(table.columns, schema=pa.schema([one.with_nullable(True) for one in original], original.metadata))
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        if not table.num_columns:
            break
        at = chance.randrange(table.num_columns)
        field, column = table.schema.field(at), table.column(at)
        kind = chance.choice(
            ("value",) * 8 + ("all", "all", "type", "type", "text", "drop", "name", "twice", "add", "rows")
        )
        if kind in ("value", "all") and len(column):
            try:
                values, value = column.to_pylist(), any_value(field.type, chance)
                number = chance.randrange(len(values))
                values = [value] * len(values) if kind == "all" else [*values[:number], value, *values[number + 1 :]]
                table = table.set_column(at, field, pa.chunked_array([pa.array(values, field.type)]))
            except (pa.ArrowException, ValueError, TypeError, OverflowError):
                continue
        elif kind == "type":
            column = retyped(column, chance)
            table = table.set_column(at, pa.field(field.name, column.type), column)
        elif kind == "text" and pa.types.is_string(field.type):
            table = table.set_column(at, field, not_utf8(column))
        elif kind == "drop":
            table = table.remove_column(at)
        elif kind == "name":
            names = list(table.column_names)
            names[at] = chance.choice(TEXTS)
            table = table.rename_columns(names)
        elif kind == "twice":
            table = table.append_column(field, column)
        elif kind == "add":
            table = table.append_column(chance.choice(TEXTS), pa.nulls(len(table), chance.choice(TYPES[1:11])))
        elif kind == "rows":
            count = len(table)
            rows = chance.choice(([], [0] * min(1, count), list(range(count)) * 2, list(range(count))[::-1]))
            table = table.take(pa.array([row for row in rows if row < count], pa.int64()))
    return with_metadata(with_nullability(table, original), chance)


def with_nullability(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the table with the fields of a schema where they hold."""
    fields = [
        next((one for one in schema if one.name == field.name and one.type == field.type), field)
        if column.null_count == 0
        else field
        for field, column in zip(table.schema, table.columns, strict=True)
    ]
    return pa.table(table.columns, schema=pa.schema(fields, table.schema.metadata))


def with_metadata(table: pa.Table, chance: random.Random) -> pa.Table:
    """Return the table, now and then with a nasty value in its schema's metadata."""
    metadata = dict(table.schema.metadata or {})
    if not metadata or chance.random() < 0.6:
        return table
    key = chance.choice(list(metadata))
    kind = chance.choice(("json", "json", "json", "nasty", "drop", "bytes", "deep"))
    if kind == "json":
        try:
            data = json.loads(metadata[key])
            assert isinstance(data, dict)
        except (ValueError, AssertionError):
            return table
        mutate(data, chance)
        metadata[key] = json.dumps(data).encode(errors="surrogatepass")
    elif kind == "nasty":
        metadata[key] = json.dumps(chance.choice(NASTY)).encode(errors="surrogatepass")
    elif kind == "drop":
        del metadata[key]
    elif kind == "bytes":
        metadata[key] = b"\xff\xfe{"
    else:
        metadata[key] = b"[" * 100_000 + b"]" * 100_000
    return table.replace_schema_metadata(metadata or None)


def parquet_bytes(table: pa.Table, chance: random.Random, group_rows: Sequence[int] = (1, 3, 1 << 17)) -> bytes:
    """Return a sealed Parquet file of a table, written in one of several ways."""
    sink = pa.BufferOutputStream()
    with parquet_writer(sink, table.schema, use_dictionary=chance.random() < 0.7) as writer:
        writer.write_table(table, row_group_size=chance.choice(group_rows))
    return seal(sink.getvalue())


def bomb(table: pa.Table, chance: random.Random) -> bytes:
    """Return a small file with much in it: many equal rows, or long texts that repeat."""
    at = chance.randrange(table.num_columns)
    field = table.schema.field(at)
    count = chance.choice((1000, 100_000, 3_000_000))
    rows = table.take(pa.array(np.zeros(count, np.int64)))
    if pa.types.is_string(field.type) and count <= 100_000:
        long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array(["x" * (64 << 10)]))
        rows = rows.set_column(at, pa.field(field.name, long.type), long)
    return parquet_bytes(rows, chance, (1 << 17, 1 << 22))


def changed_parquet(data: bytes, chance: random.Random) -> bytes:
    """Return a Parquet file with another content."""
    how = chance.random()
    if how < 0.10:  # damaged, and its checksum says so
        return corrupt(data, chance)
    if how < 0.25:  # damaged, with a checksum that is right
        found = bytearray(data)
        for _ in range(chance.choice((1, 1, 2, 8))):
            start = chance.choice((0, max(0, len(found) - 8 - int.from_bytes(found[-8:-4], "little"))))
            found[chance.randrange(start, len(found))] = chance.randrange(256)
        try:
            return seal(bytes(found))
        except AssertionError:
            return bytes(found)
    table = pq.ParquetFile(pa.BufferReader(data)).read()
    return bomb(table, chance) if how < 0.252 else parquet_bytes(changed_table(table, chance), chance)


def changed_json(data: bytes, chance: random.Random) -> bytes:
    """Return a JSON file with another content."""
    if chance.random() < 0.15:
        return corrupt(data, chance)
    content = json.loads(data)
    mutate(content, chance)
    if chance.random() < 0.8:
        mend_hashes(content)
    return text_of(content, chance)


def changed_journal(data: bytes, chance: random.Random) -> bytes:
    """Return a journal with other lines, most with the right CRC-32."""
    if chance.random() < 0.2:
        return corrupt(data, chance)
    lines = data.splitlines(keepends=True)
    at = chance.randrange(len(lines))
    kind = chance.choice(("values",) * 6 + ("row",) * 3 + ("drop", "repeat", "swap", "bytes"))
    entry = json.loads(lines[at])
    if kind == "values":
        mutate(entry, chance)
    elif kind == "row":
        row = chance.choice(entry["rows"])
        field = chance.choice(SAMPLES_SCHEMA)
        row[field.name] = any_value(field.type, chance)
    elif kind == "drop":
        del lines[at]
    elif kind == "repeat":
        lines.insert(at, lines[at])
    elif kind == "swap":
        lines[at], lines[-1] = lines[-1], lines[at]
    if kind in ("values", "row"):
        try:
            lines[at] = make_line(entry["end"], entry["rows"])
        except (KeyError, TypeError, ValueError):
            body = json.dumps(entry, separators=(",", ":"))[:-1].encode(errors="surrogatepass")
            lines[at] = b'%b,"crc":%d}\n' % (body, zlib.crc32(body))
    elif kind == "bytes":
        body = corrupt(lines[at][: lines[at].rindex(b',"crc"')], chance).replace(b"\n", b" ")
        lines[at] = b'%b,"crc":%d}\n' % (body, zlib.crc32(body))
    return b"".join(lines)


def changed_ledger(data: bytes, chance: random.Random) -> bytes:
    """Return a ledger with other lines, most with the right CRC-32."""
    if chance.random() < 0.2:
        return corrupt(data, chance)
    lines = data.splitlines()
    at = chance.randrange(len(lines))
    entry = json.loads(lines[at][9:])
    mutate(entry, chance)
    text = json.dumps(entry).encode(errors="surrogatepass")
    lines[at] = b"%08x %s" % (zlib.crc32(text), text)
    return b"\n".join(lines) + b"\n"


# -- what is read --------------------------------------------------------------------------------------------------


def look_at_manifest(folder: Path) -> Any:
    manifest = read_manifest(folder)
    manifest.dependency_problems()
    said = json.loads(json.dumps(manifest.to_json()))
    assert Manifest.from_json(said) == manifest
    for record in manifest.representations.values():
        if record.codec is not None:
            codec_from_config(record.codec)
        if holds_items(record.stored):
            items_schema(record.stored)
    return said


def look_at_runs(folder: Path) -> Any:
    runs = [run.to_json() for run in read_runs(folder, strict=True)]
    config_folders(folder)
    recorded_requests(folder)
    return json.loads(json.dumps(runs))


def look_at_samples(folder: Path) -> Any:
    rows = read_samples(folder)
    manifest = read_manifest(folder)
    index = read_index(open_storage(folder, manifest), manifest.stored_names)
    read_progress(folder, "car")
    frames = load_index(open_storage(folder, manifest)).read_frames()
    assert len(index) <= len(frames)
    return [rows, len(index)]


def look_at_subset(folder: Path) -> Any:
    subset = read_subset(folder / "some.parquet")
    combine("union", subset, subset)
    combine("minus", subset, Subset({}))
    found = FrameDataset(folder, subset=folder / "some.parquet", missing="none")
    with open_dataset(folder, memory_bytes=QUERY_BYTES) as dataset:
        verify(subset, dataset)
    json.dumps(dict(subset.metadata))
    return [list(subset.frames.items()), len(found)]


def look_at_statistics(folder: Path) -> Any:
    found = read_statistics(folder, "car")
    frames = load_index(open_storage(folder, read_manifest(folder))).read_frames()
    return [found.table, dict(found.sources), frames]


def look_at_items(folder: Path) -> Any:
    record = read_manifest(folder).representations["boxes"]
    frames = listed_frames(items_path(folder, "car", "boxes", record)).tolist()
    with open_dataset(folder, memory_bytes=QUERY_BYTES) as dataset:
        return [frames, dataset.sql("SELECT * FROM items ORDER BY ALL")]


def look_at_index(folder: Path) -> Any:
    manifest = read_manifest(folder)
    index = read_index(open_storage(folder, manifest), manifest.stored_names)
    with open_dataset(folder, memory_bytes=QUERY_BYTES) as dataset:
        found = [dataset.sql(f"SELECT * FROM {table} ORDER BY ALL") for table in ("samples", "frames")]
    return [len(index), found]


def look_at_journal(folder: Path) -> Any:
    shard = OpenShard(folder / "a.partial", folder / "a.journal", Cell("car", "all", 0, 3))
    try:
        rows = [row for table in shard.tables() for row in table.to_pylist()]
    finally:
        shard.close()
    kept = [row for line in (folder / "a.journal").read_bytes().splitlines() for row in json.loads(line)["rows"]]
    assert repr([as_stored(row) for row in kept]) == repr(rows)  # Arrow and Python read the same values
    return rows


def as_stored(row: dict[str, Any]) -> dict[str, Any]:
    """Return what Arrow makes of a row."""
    floats = {field.name for field in SAMPLES_SCHEMA if pa.types.is_floating(field.type)}
    row = {name: float(value) if name in floats and value is not None else value for name, value in row.items()}
    return dict(pa.Table.from_pylist([row], SAMPLES_SCHEMA).to_pylist()[0])


def look_at_ledger(folder: Path) -> Any:
    (table,) = find_tables(folder)
    return {path: (one.bytes, one.crc32) for path, one in read_ledger(table).items()}


def look_at_all(folder: Path) -> None:
    """Do what users do; raises what is no VrekitError."""
    for look in (validate, read_frames, read_tables):
        try:
            look(folder)
        except VrekitError:
            continue


def read_frames(folder: Path) -> Any:
    return FrameDataset(folder, missing="none")[:3]


def read_tables(folder: Path) -> None:
    with open_dataset(folder, memory_bytes=QUERY_BYTES) as dataset:
        for table in ("samples", "frames", "items", "representations", "runs", "videos"):
            dataset.sql(f"SELECT * FROM {table}")


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of file: where it is, how it is changed, and who reads it."""

    writer: str
    pattern: str
    change: Callable[[bytes, random.Random], bytes]
    look: Callable[[Path], Any]
    share: float = 2.0


TARGETS = {
    "manifest": Target("webdataset", "dataset.json", changed_json, look_at_manifest, 8.0),
    "run": Target("webdataset", "runs/*.json", changed_json, look_at_runs, 8.0),
    "sidecar": Target("webdataset", "shards/*/*.parquet", changed_parquet, look_at_samples),
    "subset": Target("webdataset", "some.parquet", changed_parquet, look_at_subset),
    "statistics": Target("webdataset", "stats/*.parquet", changed_parquet, look_at_statistics),
    "items": Target("webdataset", "items/*/*.parquet", changed_parquet, look_at_items, 0.5),
    "index": Target("webdataset", "index/*.parquet", changed_parquet, look_at_index, 0.5),
    "journal": Target("webdataset", "a.journal", changed_journal, look_at_journal, 6.0),
    "ledger": Target("lance", "lance/*.checksums", changed_ledger, look_at_ledger, 3.0),
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {writer: make_whole(tmp_path_factory.mktemp(writer) / "d", writer) for writer in ("webdataset", "lance")}


def make_whole(folder: Path, writer: str) -> Path:
    """Make a dataset with every kind of file, an open shard and a request that can be resumed among them."""
    make(folder, writer)
    if writer == "webdataset":
        add_journal(folder)
    specs = parse_config(CONFIG).representations
    request = ExportRequest(video="car.npy", dataset=folder, representations=specs, fps=10.0, writer=writer)
    (run,) = read_runs(folder)
    write_run(folder, replace(run, request=request.to_json()))
    return folder


def add_journal(folder: Path) -> None:
    """Add an open shard: the rows and payloads of the first one that is committed."""
    sidecar = find_sidecars(folder)[0]
    (folder / "a.partial").write_bytes(sidecar.with_suffix(".tar").read_bytes())
    rows = pq.read_table(sidecar, schema=SAMPLES_SCHEMA).to_pylist()
    by_frame: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        by_frame.setdefault(row["frame_index"], []).append(row)
    lines = []
    for some in by_frame.values():
        end = max(row["byte_offset"] + row["byte_size"] for row in some)
        lines.append(make_line(-(-end // 512) * 512, some))
    (folder / "a.journal").write_bytes(b"".join(lines))


def peak_bytes() -> int:
    """Return the most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Watch:
    """Runs what reads a changed file, and notes what must not be: other exceptions, much time, much memory."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.slowest = 0.0
        self.peak = peak_bytes()

    def run(self, seed: int, look: Callable[[Path], Any], folder: Path) -> None:
        """Look at a changed dataset, and do all that users do with it every few times."""
        before, started = max(self.peak, peak_bytes()), time.perf_counter()
        try:
            try:
                look(folder)
                outcome = "read"
            except VrekitError as error:
                outcome = "refused"
                if len(error.message) > MOST_CHARACTERS:
                    self.wrong.append(f"seed {seed}: a message of {len(error.message)} characters")
            if seed % ALL_LOOKS_EVERY == 0:
                look_at_all(folder)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            outcome = "another exception"
            self.wrong.append(f"seed {seed}: {type(error).__name__}: {str(error)[:300]}")
        self.outcomes[outcome] += 1
        seconds = time.perf_counter() - started
        self.slowest = max(self.slowest, seconds)
        if seconds > MOST_SECONDS:
            self.wrong.append(f"seed {seed}: {seconds:.1f} s")
        self.peak = peak_bytes()
        if self.peak - before > MOST_BYTES:
            self.wrong.append(f"seed {seed}: {(self.peak - before) >> 20} MB")

    def end(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Print the counts of a long run, and fail if something was wrong."""
        if EXHAUSTIVE:
            counts = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.most_common())
            with capsys.disabled():
                print(f"\n{self.kind}: {counts}; slowest {self.slowest:.2f} s, peak {self.peak >> 20} MB")
        assert not self.wrong, "\n".join(self.wrong[:20])


@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", TARGETS)
def test_any_content_is_read_or_refused(
    originals: dict[str, Path], tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = TARGETS[kind]
    original, folder = originals[target.writer], tmp_path / "set"
    shutil.copytree(original, folder)
    with open_dataset(folder):  # has an index from now on
        files = sorted(folder.glob(target.pattern))
    contents = {path: path.read_bytes() for path in files}
    assert files
    target.look(folder)
    look_at_all(folder)
    watch = Watch(kind)
    for seed in range(FIRST, FIRST + round(COUNT * target.share)):
        chance = random.Random(f"{kind} {seed}")
        path = chance.choice(files)
        data = target.change(contents[path], chance)
        (tmp_path / "last").write_bytes(b"%d" % seed)  # if the process dies
        path.write_bytes(data)
        watch.run(seed, target.look, folder)
        path.write_bytes(contents[path])
        if kind == "journal":
            (folder / "a.partial").write_bytes((original / "a.partial").read_bytes())
    watch.end(capsys)


@pytest.mark.timeout(0)
def test_any_rows_of_a_lance_table_are_read_or_refused(
    originals: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "set"
    shutil.copytree(originals["lance"], folder)
    (path,) = find_tables(folder)
    table = open_table(path)
    names = [column_name(name) for name in representations_of(table.schema)]
    rows = table.to_table([name for name in table.schema.names if name not in names])
    blobs = {name: [data for _, data in table.read_blobs(name, indices=list(range(len(rows))))] for name in names}
    arrays = {name: blob_array(blobs[name], table.schema.field(name).type) for name in names}
    watch = Watch("Lance rows")
    for seed in range(FIRST, FIRST + COUNT):
        chance = random.Random(f"lance {seed}")
        changed = changed_table(rows.replace_schema_metadata(table.schema.metadata), chance)
        for name, array in arrays.items() if len(changed) == len(rows) else ():
            changed = changed.append_column(table.schema.field(name), array)
        shutil.rmtree(path)
        (tmp_path / "last").write_bytes(b"%d" % seed)
        try:
            lance.write_dataset(changed, str(path), data_storage_version="2.2", enable_stable_row_ids=True)
        except BaseException as error:  # Lance cannot keep such a table; a panic of Rust's is no Exception
            if isinstance(error, KeyboardInterrupt):
                raise
            path.mkdir(exist_ok=True)
            watch.outcomes["not a table"] += 1
            continue
        watch.run(seed, look_at_samples, folder)
    watch.end(capsys)
