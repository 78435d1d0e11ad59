"""Large payloads of Lance tables are read in pieces, and no more of them than the metadata says."""

from pathlib import Path

import pytest

from tests.jobs.merge_datasets import make_dataset, members_of
from tests.storages import read_samples
from vrekit.core.errors import DatasetError
from vrekit.jobs.merge.manifests import Layout
from vrekit.jobs.merge.run import merge
from vrekit.jobs.validate import validate
from vrekit.writers.lance import blobs as lance_blobs
from vrekit.writers.lance import check as validate_lance
from vrekit.writers.lance.blobs import payload_pieces, read_payloads
from vrekit.writers.lance.rows import find_tables, open_table


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset whose payloads are about half of them large, of some pieces each."""
    monkeypatch.setattr(lance_blobs, "LARGE_BYTES", 500)
    monkeypatch.setattr(validate_lance, "LARGE_BYTES", 500)
    monkeypatch.setattr(lance_blobs, "_PIECE_BYTES", 200)
    return make_dataset(tmp_path / "d", {"car": range(8)}, ["rgb"], writer="lance")


def test_payloads_come_in_the_order_of_their_rows(folder: Path) -> None:
    rows = read_samples(folder).to_pylist()[::-1]
    ids, sizes = [row["byte_offset"] for row in rows], [row["byte_size"] for row in rows]
    assert min(sizes) < 500 < max(sizes)
    (path,) = find_tables(folder)
    table = open_table(path)
    found = read_payloads(table, "rgb", ids, sizes)
    one_by_one = [table.read_blobs("rgb", ids=[row_id])[0][1] for row_id in ids]
    assert found == one_by_one
    assert [b"".join(payload_pieces(table, "rgb", row_id) or ()) for row_id in ids] == one_by_one
    for size in (1, 1000):
        with pytest.raises(ValueError, match="missing row ID 99"):
            read_payloads(table, "rgb", [99], [size])
    with pytest.raises(DatasetError, match=rf"^it has {sizes[0]} bytes, but its metadata says 9000000000$"):
        read_payloads(table, "rgb", ids[:1], [9 * 10**9])


def test_they_are_what_the_tars_have(folder: Path, tmp_path: Path) -> None:
    assert validate(folder).problems == []
    merge([folder], tmp_path / "tars", layout=Layout(writer="webdataset"))
    assert members_of(tmp_path / "tars") == members_of(make_dataset(tmp_path / "same", {"car": range(8)}, ["rgb"]))
