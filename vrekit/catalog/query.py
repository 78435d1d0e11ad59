"""Selecting frames or samples of a dataset by an SQL predicate, and thinning them out in a fixed order of stages.

    where → representations → fps → stride → per-video → sample → order-by → limit

A predicate selects frames when it (with the columns to show and to sort by) only uses columns of `frames`, else
samples, that is (video, frame, representation); `on` says it outright. Over samples, the columns of their frame can
be used as well: `representation = 'canny' AND luma_mean < 0.1`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pyarrow.compute import call_function

from vrekit.catalog import stages
from vrekit.catalog.dataset import Dataset
from vrekit.catalog.sandbox import UnknownColumnError, UnknownTableError, sql_literal
from vrekit.catalog.stages import Positions, Rows
from vrekit.core.errors import UsageError
from vrekit.core.names import did_you_mean

Level = Literal["auto", "frames", "samples"]

_KEYS = {"frames": ("video_id", "frame_index"), "samples": ("video_id", "frame_index", "representation")}
_SHOWN = {
    "frames": "video_id, frame_index, pts_seconds, representations, total_bytes",
    "samples": "video_id, frame_index, representation, status, codec, byte_size, duration",
}
# auto tries these one after the other and takes the first that has every column
_RELATIONS: tuple[tuple[Literal["frames", "samples"], str], ...] = (
    ("frames", "frames"),
    ("samples", "samples"),
    ("samples", "samples_with_frames"),
)
_CHOSEN = "vrekit_chosen"
_WHOLE_SELECT = re.compile(r"\s*(?:select|with|from)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What to select.

    Attributes:
        where: DuckDB SQL predicate; None selects everything.
        on: What a row of the result is; `auto` goes by the columns used.
        representations: Over frames: those that have all of these. Over samples: those of these representations.
        fps: Frames per second to keep, by presentation time.
        stride: Keep every n-th selected frame of each video.
        per_video: Keep at most this many frames of each video, evenly spread.
        sample: Keep some at random: a number such as `1000`, or a share such as `10%`.
        seed: Decides the random choice.
        order_by: SQL expressions to sort by; by default video, frame, representation.
        limit: Keep the first so many.
    """

    where: str | None = None
    on: Level = "auto"
    representations: tuple[str, ...] = ()
    fps: float | None = None
    stride: int | None = None
    per_video: int | None = None
    sample: str | None = None
    seed: int = 0
    order_by: str | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        for name in ("fps", "stride", "per_video"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"{name} is {value!r}, but must be above 0")
        if self.limit is not None and self.limit < 0:
            raise UsageError(f"limit is {self.limit}, but must not be negative")
        if self.where and _WHOLE_SELECT.match(self.where):
            raise UsageError(
                f"a predicate is a condition, not a whole SELECT: {self.where}",
                hint='a SELECT goes into --sql (from Python: `dataset.sql`); a predicate is e.g. "byte_size > 10000"',
            )


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a selection: its name, what it was told, and how many rows went in and came out."""

    op: str
    params: Mapping[str, Any]
    n_in: int
    n_out: int

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        return {"op": self.op, "params": dict(self.params), "n_in": self.n_in, "n_out": self.n_out}


@dataclass(frozen=True, slots=True)
class Selection:
    """The rows a query selected; columns are read when they are asked for, so the dataset must stay open.

    Attributes:
        level: What a row is: `frames` or `samples`.
        stages: What happened, in order.
    """

    dataset: Dataset = field(repr=False)
    query: Query
    level: Literal["frames", "samples"]
    stages: tuple[Stage, ...]
    _source: str = field(repr=False)
    _chosen: pa.Table | None = field(repr=False)

    @property
    def count(self) -> int:
        """How many rows it has."""
        return self.stages[-1].n_out

    def table(self, columns: str | None = None, *, first: int | None = None) -> pa.Table:
        """Return the rows in their order.

        Args:
            columns: SQL select list, such as `"video_id, frame_index, luma_mean * 255 AS luma"`; by default the
                columns that say most.
            first: Return only so many of them.

        Raises:
            UsageError: If a column is not there.
        """
        if self._chosen is not None:
            self.dataset.sandbox.register(_CHOSEN, self._chosen)
        return self.dataset.sandbox.fetch(
            f"SELECT {columns or _SHOWN[self.level]}\nFROM {self._source}\nORDER BY {_order(self.query, self.level)}"
            f"\nLIMIT {self.count if first is None else min(first, self.count)}"
        )

    def keys(self) -> pa.Table:
        """Return video_id and frame_index (and representation, over samples) of the rows in their order."""
        return self.table(", ".join(_KEYS[self.level]))


def select(dataset: Dataset, query: Query, columns: str | None = None) -> Selection:
    """Return what a query selects.

    Args:
        dataset: An open dataset.
        query: What to select.
        columns: Columns that `Selection.table` will be asked for; with `on="auto"` they count for the choice.

    Raises:
        UsageError: If the predicate is no valid SQL expression, names unknown columns, or reads anything else.

    Example:
        >>> select(dataset, Query(where="representation = 'depth' AND byte_size > 10000", limit=100)).count
        100
    """
    level, relation = _bind(dataset, query, columns)
    total = _count(dataset, level)
    conditions = [f"({query.where}\n)"] if query.where and query.where.strip() else []
    source = _filtered(relation, conditions)
    done: list[Stage] = []

    def passed(op: str, params: dict[str, Any], n_out: int) -> None:
        done.append(Stage(op, params, done[-1].n_out if done else total, n_out))

    passed("where", {"where": query.where, "on": level}, _count(dataset, source) if conditions else total)
    if query.representations:
        conditions.append(_with_representations(dataset, query.representations, level))
        source = _filtered(relation, conditions)
        passed("representations", {"names": list(query.representations)}, _count(dataset, source))
    chosen = None
    steps = _steps(query)
    if steps:
        names = ", ".join(_KEYS[level])
        chosen = dataset.sandbox.fetch(f"SELECT {names}, pts_seconds FROM {source} ORDER BY {names}")
        rows = Rows.from_table(chosen)
        for op, params, step in steps:
            positions = step(rows)
            rows, chosen = rows.take(positions), chosen.take(pa.array(positions))
            passed(op, params, len(rows))
        chosen = chosen.select(_KEYS[level])
        source = f"{relation} SEMI JOIN {_CHOSEN} USING ({names})"
    if query.order_by:
        passed("order-by", {"order_by": query.order_by}, done[-1].n_out)
    if query.limit is not None:
        passed("limit", {"limit": query.limit}, min(query.limit, done[-1].n_out))
    return Selection(dataset, query, level, tuple(done), source, chosen)


def _steps(query: Query) -> list[tuple[str, dict[str, Any], Callable[[Rows], Positions]]]:
    steps: list[tuple[str, dict[str, Any], Callable[[Rows], Positions]]] = []
    if (fps := query.fps) is not None:
        steps.append(("fps", {"fps": fps}, lambda rows: stages.at_fps(rows, fps)))
    if (step := query.stride) is not None:
        steps.append(("stride", {"stride": step}, lambda rows: stages.stride(rows, step)))
    if (count := query.per_video) is not None:
        steps.append(("per-video", {"count": count}, lambda rows: stages.per_video(rows, count)))
    if (text := query.sample) is not None:
        seed = query.seed
        params = {"sample": text, "seed": seed}
        steps.append(("sample", params, lambda rows: stages.sample(rows, stages.sample_count(text, len(rows)), seed)))
    return steps


def _bind(dataset: Dataset, query: Query, columns: str | None) -> tuple[Literal["frames", "samples"], str]:
    """Return the level and relation the query's columns belong to."""
    candidates = [one for one in _RELATIONS if query.on in ("auto", one[0])]
    unknown: UsageError | None = None
    for level, relation in candidates:
        shown = columns or "1"
        try:
            if query.where and query.where.strip():  # alone first, so that a message shows what was typed
                dataset.sandbox.relation(f"SELECT 1 FROM {relation} WHERE ({query.where}\n)")
            dataset.sandbox.relation(f"SELECT {shown}\nFROM {relation} ORDER BY {_order(query, level)}")
        except (UnknownColumnError, UnknownTableError) as error:
            # what the widest relation lacks says most; `samples.codec` is no table there
            if unknown is None or isinstance(error, UnknownColumnError):
                unknown = error
            continue
        return level, relation
    assert unknown is not None  # one of the candidates bound, or all of them raised
    column = unknown.column if isinstance(unknown, UnknownColumnError) else None
    if query.on == "frames" and column in dataset.sandbox.columns("samples"):
        raise UsageError(f"{column!r} is a column of samples, not of frames", hint="--on samples") from unknown
    raise unknown


def _order(query: Query, level: str) -> str:
    return ", ".join([*([f"{query.order_by}\n"] if query.order_by else []), *_KEYS[level]])


def _filtered(relation: str, conditions: list[str]) -> str:
    return f"{relation} WHERE {' AND '.join(conditions)}" if conditions else relation


def _count(dataset: Dataset, source: str) -> int:
    return int(dataset.sandbox.fetch(f"SELECT count(*) AS n FROM {source}")["n"][0].as_py())


def _with_representations(dataset: Dataset, names: tuple[str, ...], level: str) -> str:
    known = dataset.manifest.stored_names
    for name in names:
        if name not in known:
            raise UsageError(
                f"the dataset stores no representation {name!r}{did_you_mean(name, known)}",
                hint=f"it stores {', '.join(known) or 'none'}",
            )
    literals = ", ".join(sql_literal(name) for name in names)
    if level == "samples":
        return f"representation IN ({literals})"
    return f"list_has_all(representations, [{literals}])"


def select_frames(dataset: Dataset, query: str | Query) -> pa.Table:
    """Return the frames a predicate or query selects: columns video_id and frame_index, without repeats.

    They are sorted. One over samples selects the frames it selects a sample of.

    Args:
        dataset: An open dataset.
        query: A predicate, or a query without `order_by`.
    """
    keys = (
        select(dataset, Query(where=query) if isinstance(query, str) else query)
        .keys()
        .select(["video_id", "frame_index"])
    )
    video, frame = keys["video_id"], keys["frame_index"].to_numpy()
    new = np.ones(len(keys), np.bool_)
    if len(keys):
        same_video = call_function("equal", [video.slice(1), video.slice(0, len(keys) - 1)]).to_numpy()
        new[1:] = ~same_video | (np.diff(frame) != 0)
    return keys.filter(pa.array(new))
