"""A predicate selects what it means, at the level its columns belong to; stages follow in their fixed order."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.catalog.query_dataset import (
    NAMES,
    Predicate,
    expected_samples,
    failed_row,
    make_row,
    predicates,
    random_rows,
    write_dataset,
)
from vrekit.catalog.dataset import Dataset, open_dataset
from vrekit.catalog.query import Query, select, select_frames
from vrekit.catalog.statistics import STATISTICS_SCHEMA, Statistics, write_statistics
from vrekit.core.errors import UsageError
from vrekit.core.schema import SampleRow

Key = tuple[object, ...]


def keys_of(dataset: Dataset, query: Query) -> list[Key]:
    table = select(dataset, query).keys()
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


@given(random_rows(), st.lists(predicates, min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_a_predicate_selects_what_it_means(
    tmp_path_factory: pytest.TempPathFactory, rows: list[SampleRow], wanted: list[Predicate]
) -> None:
    folder = write_dataset(tmp_path_factory.mktemp("random") / "out", rows)
    samples = expected_samples(rows)
    with open_dataset(folder) as dataset:
        for predicate in wanted:
            chosen = [row for row in samples if predicate.holds(row)]
            selection = select(dataset, Query(where=predicate.sql, on="samples"))
            keys = selection.keys()
            found = list(zip(*(keys[name].to_pylist() for name in keys.column_names), strict=True))
            assert found == [(row.video_id, row.frame_index, row.representation) for row in chosen], predicate.sql
            assert selection.count == len(chosen)
            if select(dataset, Query(where=predicate.sql)).level == "samples":
                frames = select_frames(dataset, predicate.sql)
                pairs = list(zip(frames["video_id"].to_pylist(), frames["frame_index"].to_pylist(), strict=True))
                assert pairs == sorted({(row.video_id, row.frame_index) for row in chosen}), predicate.sql


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    rows = [make_row(video, frame, name) for video in ("bus", "car") for frame in range(20) for name in NAMES]
    rows = [row for row in rows if (row.frame_index, row.representation) != (7, "depth")]
    folder = write_dataset(
        tmp_path_factory.mktemp("fixed") / "out", [*rows, failed_row("bus", 7, "depth"), failed_row("car", 30, "rgb")]
    )
    table = STATISTICS_SCHEMA.empty_table().from_pylist(
        [
            {"video_id": "car", "frame_index": frame, "luma_mean": frame / 32, "class_histogram": [0.25, 0.75]}
            for frame in range(20)
        ],
        schema=STATISTICS_SCHEMA,
    )
    write_statistics(folder, "car", Statistics(table))
    with open_dataset(folder) as opened:
        yield opened


def test_the_level_follows_the_columns(dataset: Dataset) -> None:
    level = {
        None: "frames",
        "frame_index < 3": "frames",
        "total_bytes > 3 AND luma_mean > 0.5": "frames",
        "representation = 'rgb'": "samples",
        "byte_size > 3 AND luma_mean > 0.5": "samples",
        "video_id IN (SELECT video_id FROM samples WHERE codec = 'png')": "frames",
    }
    assert {where: select(dataset, Query(where=where)).level for where in level} == level
    assert select(dataset, Query(), "video_id, codec").level == "samples"
    assert select(dataset, Query(order_by="byte_size")).level == "samples"
    assert select(dataset, Query(where="frame_index < 3", on="samples")).count == 18


def test_frames_of_samples_and_samples_of_frames(dataset: Dataset) -> None:
    assert keys_of(dataset, Query(where="luma_mean BETWEEN 0.5 AND 0.54 AND representation <> 'depth'")) == [
        ("car", 16, "canny"),
        ("car", 16, "rgb"),
        ("car", 17, "canny"),
        ("car", 17, "rgb"),
    ]
    assert keys_of(dataset, Query(where="class_histogram[2] > 0.7 AND luma_mean = 0.5")) == [("car", 16)]
    assert keys_of(dataset, Query(where="list_contains(failed, 'depth')")) == [("bus", 7)]
    assert keys_of(dataset, Query(where="status = 'failed' AND error = 'boom'")) == [
        ("bus", 7, "depth"),
        ("car", 30, "rgb"),
    ]


def test_representations_ask_frames_for_all_and_samples_for_any(dataset: Dataset) -> None:
    assert select(dataset, Query(representations=("depth", "rgb"))).count == 38
    assert select(dataset, Query(representations=("canny", "rgb"))).count == 40
    assert select(dataset, Query(representations=("canny", "rgb"), on="samples")).count == 81
    with pytest.raises(UsageError, match=r"no representation 'rbg' \(did you mean 'rgb'\?\)"):
        select(dataset, Query(representations=("rbg",)))


def test_stages_come_in_their_order_with_counts(dataset: Dataset) -> None:
    query = Query(
        where="frame_index < 16",
        representations=("rgb",),
        fps=4,
        stride=2,
        per_video=3,
        sample="50%",
        seed=1,
        order_by="frame_index DESC",
        limit=2,
    )
    selection = select(dataset, query)
    assert [(stage.op, stage.n_in, stage.n_out) for stage in selection.stages] == [
        ("where", 41, 32),
        ("representations", 32, 32),
        ("fps", 32, 16),
        ("stride", 16, 8),
        ("per-video", 8, 6),
        ("sample", 6, 3),
        ("order-by", 3, 3),
        ("limit", 3, 2),
    ]
    assert selection.count == 2
    found = keys_of(dataset, query)
    assert len(found) == 2
    assert found[0][1] >= found[1][1]  # type: ignore[operator]  # frame numbers
    assert all(frame in (0, 4, 8, 12) for _, frame in found)


def test_thinning_out_whole_frames_keeps_all_their_samples(dataset: Dataset) -> None:
    found = keys_of(dataset, Query(where="video_id = 'bus'", on="samples", stride=10))
    assert found == [("bus", frame, name) for frame in (0, 10) for name in NAMES]
    some = keys_of(dataset, Query(where="video_id = 'bus'", on="samples", sample="5"))
    assert len(some) == 5


def test_order_and_limit(dataset: Dataset) -> None:
    found = keys_of(dataset, Query(where="video_id = 'car' AND luma_mean >= 0", order_by="luma_mean DESC", limit=3))
    assert found == [("car", 19), ("car", 18), ("car", 17)]
    assert keys_of(dataset, Query(limit=0)) == []
    assert keys_of(dataset, Query(order_by="frame_index % 2, video_id --", limit=2)) == [("bus", 0), ("bus", 2)]


def test_columns_and_a_prefix(dataset: Dataset) -> None:
    selection = select(dataset, Query(where="frame_index = 3", stride=1), "key, total_bytes / 2 AS half")
    assert selection.table("key, total_bytes / 2 AS half").to_pylist() == [
        {"key": "bus/00000003", "half": 39.5},
        {"key": "car/00000003", "half": 39.5},
    ]
    assert selection.table("key", first=1).to_pylist() == [{"key": "bus/00000003"}]


@pytest.mark.parametrize(
    ("query", "message", "hint"),
    [
        (Query(where="framme_index = 3"), r"no column 'framme_index' \(did you mean 'frame_index'", "frames has"),
        (Query(where="lumamean > 3"), r"did you mean 'luma_mean'", "frames has the columns"),
        (Query(where='codec = "png"'), "no column 'png'", "text goes in single quotes: 'png'"),
        (Query(where="codec = 'png'", on="frames"), "'codec' is a column of samples", "--on samples"),
        (Query(where="frame_index >"), "not valid SQL: syntax error", None),
        (Query(where="frame_index = 'x'"), "not valid SQL: Could not convert", None),
        (Query(where="nonsense(frame_index)"), "not valid SQL: Scalar Function with name nonsense", None),
        (Query(where="count(*) > 1"), "WHERE clause cannot contain aggregates", None),
        (Query(order_by="kodec"), r"no column 'kodec' \(did you mean 'codec'", None),
        (Query(where="frame_index IN (SELECT x FROM sample)"), r"no table 'sample' \(did you mean 'samples'", "tables"),
        (Query(where="samples.nope = 1", on="samples"), "no column 'nope'", None),
        (Query(where="samplez.codec = 1"), "no table 'samplez'", "frames, items, representations, runs, samples"),
    ],
)
def test_mistakes(dataset: Dataset, query: Query, message: str, hint: str | None) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        select(dataset, query).table()
    if hint is not None:
        assert caught.value.hint is not None
        assert hint in caught.value.hint


@pytest.mark.parametrize("changes", [{"stride": 0}, {"fps": 0.0}, {"per_video": -1}, {"limit": -1}])
def test_numbers_out_of_range(changes: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="must"):
        Query(**changes)  # type: ignore[arg-type]
