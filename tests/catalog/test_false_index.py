"""An index is only a copy: `validate` notices one that says other things than the metadata it was made from."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.jobs.merge_datasets import make_dataset
from vrekit.catalog.dataset import open_dataset
from vrekit.catalog.parquet_files import parquet_writer, seal_file
from vrekit.jobs.repair import repair
from vrekit.jobs.validate import validate


@pytest.mark.parametrize("writer", ["webdataset", "lance"])
@pytest.mark.parametrize("name", ["samples", "frames"])
def test_a_false_index_is_found_and_repaired(tmp_path: Path, writer: str, name: str) -> None:
    folder = make_dataset(tmp_path / "d", {"car": range(8)}, ["rgb", "depth"], writer=writer)
    open_dataset(folder).close()
    assert validate(folder).problems == []
    path = folder / "index" / f"{name}.parquet"
    table = pq.ParquetFile(path).read()
    digest = {key: value for key, value in table.schema.metadata.items() if key == b"vrekit.index_digest"}
    frames = pa.array([0, *table["frame_index"].to_pylist()[:-1]], pa.int64())
    lying = table.set_column(table.schema.get_field_index("frame_index"), table.schema.field("frame_index"), frames)
    with parquet_writer(path, lying.schema.with_metadata(digest)) as parquet:
        parquet.write_table(lying.replace_schema_metadata(digest))
    seal_file(path)
    found = validate(folder).problems
    assert [(problem.code, problem.path) for problem in found] == [("derived", f"index/{name}.parquet")]
    assert repair(folder, found).left == []
    assert validate(folder).problems == []
