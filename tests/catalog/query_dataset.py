"""Datasets of metadata only, and predicates with their meaning in plain Python, for the tests of the catalog."""

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from vrekit.catalog.manifest import Manifest, RepresentationRecord, write_manifest
from vrekit.catalog.runs import RepresentationTotals, RunRecord, write_run
from vrekit.core.schema import SampleRow, rows_to_table
from vrekit.core.spec import Kind, OutputSpec, RepresentationSpec
from vrekit.video.base import VideoInfo
from vrekit.writers.webdataset.sidecars import SHARDS_FOLDER, sidecar_bytes

DEPTH = OutputSpec(kind=Kind.DEPTH, dtype="float32", shape=(4, 6), axes="HW", unit="m")
NAMES = ("canny", "depth", "rgb")


def make_row(video_id: str, frame: int, name: str, **changes: Any) -> SampleRow:
    """Return a stored sample's row; everything in it follows from its key."""
    number = frame * 7 + len(name)
    row = SampleRow(
        video_id=video_id,
        frame_index=frame,
        pts_seconds=frame / 8,
        representation=name,
        kind="depth",
        run_id="20260101T000000-aaaaaa",
        config_hash="0" * 16,
        compute_seconds=number % 16 / 8,
        encode_seconds=0.25,
        codec="png" if name == "rgb" else "npy.zst",
        dtype="float32",
        shape=(4, 6),
        raw_bytes=96,
        byte_offset=512 * number,
        byte_size=number % 50 + 1,
        checksum=number,
        shard=f"{SHARDS_FOLDER}/{video_id}/all-00000000-00000099.tar",
    )
    return replace(row, **changes)


def failed_row(video_id: str, frame: int, name: str, **changes: Any) -> SampleRow:
    """Return the row of a sample that failed."""
    return SampleRow(
        **{
            "video_id": video_id,
            "frame_index": frame,
            "pts_seconds": frame / 8,
            "representation": name,
            "kind": "depth",
            "run_id": "20260101T000000-aaaaaa",
            "config_hash": "0" * 16,
            "status": "failed",
            "error": "boom",
            **changes,
        }
    )


def write_dataset(folder: Path, rows: Iterable[SampleRow], names: Sequence[str] = NAMES) -> Path:
    """Write a manifest, a run record and one sidecar per video; there are no tars."""
    rows = list(rows)
    videos = dict.fromkeys(row.video_id for row in rows)
    folder.mkdir(parents=True, exist_ok=True)
    records = {
        name: RepresentationRecord(
            spec=RepresentationSpec(name=name, type="test/depth"),
            identity={"name": name},
            memory=DEPTH,
            stored=DEPTH,
            codec={"id": "npy"},
            suffix="npy",
            group="all",
        )
        for name in names
    }
    info = {
        video_id: VideoInfo(
            uri=f"{video_id}.mp4",
            fingerprint=f"1-{at:016x}",
            source="file",
            frame_count=100,
            height=4,
            width=6,
            fps=8.0,
        )
        for at, video_id in enumerate(videos)
    }
    manifest = Manifest(
        writer="webdataset",
        layout="sample",
        shard_frames=100,
        shard_size_bytes=10**9,
        videos=info,
        representations=records,
    )
    write_manifest(folder, manifest)
    run = RunRecord(
        run_id="20260101T000000-aaaaaa",
        video_id=next(iter(videos), "none"),
        request={"video": "car.mp4"},
        command=["vrekit", "export"],
        started_at="2026-01-01T00:00:00.000+00:00",
        status="done",
        totals={"rgb": RepresentationTotals(computed=3, failed=1, stored_bytes=10)},
    )
    write_run(folder, run)
    for video_id in videos:
        add_sidecar(folder, [row for row in rows if row.video_id == video_id], "all-00000000-00000099")
    return folder


def add_sidecar(folder: Path, rows: Sequence[SampleRow], name: str) -> Path:
    """Write one sidecar."""
    home = folder / SHARDS_FOLDER / rows[0].video_id
    home.mkdir(parents=True, exist_ok=True)
    path = home / f"{name}.parquet"
    path.write_bytes(sidecar_bytes(rows_to_table(rows)))
    return path


@st.composite
def random_rows(draw: st.DrawFn) -> list[SampleRow]:
    """Rows of up to three videos in any order: gaps, failures, samples that failed first and were stored later."""
    keys = draw(
        st.lists(
            st.tuples(st.sampled_from(("bus", "car", "tram")), st.integers(0, 30), st.sampled_from(NAMES)),
            min_size=1,
            max_size=40,
        )
    )
    rows = []
    for at, (video_id, frame, name) in enumerate(keys):
        run_id = f"run-{draw(st.integers(0, 3))}-{at:03d}"
        if draw(st.booleans()):
            number = draw(st.integers(1, 50))
            seconds = draw(st.sampled_from((0.0, 0.125, 0.5, 2.0)))
            changes = {"run_id": run_id, "byte_size": number, "compute_seconds": seconds}
            rows.append(make_row(video_id, frame, name, **changes, valid=draw(st.booleans())))
        else:
            rows.append(failed_row(video_id, frame, name, run_id=run_id, error=f"error {at}"))
    return rows


def expected_samples(rows: Iterable[SampleRow]) -> list[SampleRow]:
    """Return what the samples table holds: one row a key, the first stored one, or else the latest failure."""
    best: dict[tuple[str, int, str], SampleRow] = {}
    for row in sorted(rows, key=lambda row: row.video_id):  # the order of the sidecars
        key = (row.video_id, row.frame_index, row.representation)
        known = best.get(key)
        newer = known is not None and known.status == row.status == "failed" and row.run_id > known.run_id
        if known is None or newer or (known.status == "failed" and row.status == "ok"):
            best[key] = row
    return [best[key] for key in sorted(best)]


# -- predicates: SQL and what it means (three-valued: None is unknown) ---------------------------------------------

Meaning = Callable[[SampleRow], bool | None]


@dataclass(frozen=True)
class Predicate:
    """SQL text, and what it says about a row."""

    sql: str
    holds: Meaning


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "frame_index": st.integers(-1, 31),
    "pts_seconds": st.integers(0, 31).map(lambda number: number / 8),
    "byte_size": st.integers(0, 51),
    "compute_seconds": st.sampled_from((0.0, 0.125, 0.5, 1.0, 2.0)),
    "representation": st.sampled_from((*NAMES, "flow")),
    "codec": st.sampled_from(("png", "npy.zst", "jpg")),
    "status": st.sampled_from(("ok", "failed")),
    "video_id": st.sampled_from(("bus", "car", "tram", "bike")),
    "error": st.sampled_from(("error 1", "error 2", "x'y")),
}


def _literal(value: Any) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def _known(column: str, test: Callable[[Any], bool]) -> Meaning:
    def holds(row: SampleRow) -> bool | None:
        value = getattr(row, column)
        return None if value is None else test(value)

    return holds


@st.composite
def _atoms(draw: st.DrawFn) -> Predicate:
    shape = draw(st.sampled_from(("compare", "null", "in", "between", "modulo", "like", "flag", "key")))
    column = draw(st.sampled_from(sorted(_VALUES)))
    value = draw(_VALUES[column])
    if shape == "compare":
        sign = draw(st.sampled_from(sorted(_COMPARISONS)))
        return Predicate(f"{column} {sign} {_literal(value)}", _known(column, lambda x: _COMPARISONS[sign](x, value)))
    if shape == "null":
        no = draw(st.sampled_from(("", "NOT ")))
        return Predicate(f"{column} IS {no}NULL", lambda row: (getattr(row, column) is None) == (no == ""))
    if shape == "in":
        values = draw(st.lists(_VALUES[column], min_size=1, max_size=3))
        return Predicate(f"{column} IN ({', '.join(map(_literal, values))})", _known(column, lambda x: x in values))
    if shape == "between":
        other = draw(_VALUES[column])
        text = f"{column} BETWEEN {_literal(value)} AND {_literal(other)}"
        return Predicate(text, _known(column, lambda x: value <= x <= other))
    if shape == "modulo":
        by, rest = draw(st.integers(1, 5)), draw(st.integers(0, 4))
        return Predicate(f"frame_index % {by} = {rest}", lambda row: row.frame_index % by == rest)
    if shape == "like":
        letters = draw(st.sampled_from(("%n%", "rgb", "d%", "_anny")))
        pattern = re.compile(letters.replace("%", ".*").replace("_", "."))
        return Predicate(f"representation LIKE '{letters}'", lambda row: bool(pattern.fullmatch(row.representation)))
    if shape == "flag":
        return Predicate("valid", lambda row: row.valid)
    key = f"{draw(_VALUES['video_id'])}/{draw(st.integers(0, 30)):08d}"
    return Predicate(f"key = '{key}'", lambda row: f"{row.video_id}/{row.frame_index:08d}" == key)


def _not(one: Predicate) -> Predicate:
    def holds(row: SampleRow) -> bool | None:
        value = one.holds(row)
        return None if value is None else not value

    return Predicate(f"NOT ({one.sql})", holds)


def _and(a: Predicate, b: Predicate) -> Predicate:
    def holds(row: SampleRow) -> bool | None:
        values = (a.holds(row), b.holds(row))
        return False if False in values else None if None in values else True

    return Predicate(f"({a.sql}) AND ({b.sql})", holds)


def _or(a: Predicate, b: Predicate) -> Predicate:
    def holds(row: SampleRow) -> bool | None:
        values = (a.holds(row), b.holds(row))
        return True if True in values else None if None in values else False

    return Predicate(f"({a.sql}) OR ({b.sql})", holds)


predicates: st.SearchStrategy[Predicate] = st.recursive(
    _atoms(),
    lambda inner: st.one_of(inner.map(_not), st.builds(_and, inner, inner), st.builds(_or, inner, inner)),
    max_leaves=6,
)
