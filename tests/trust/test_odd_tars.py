"""Tars of other programs' making: sparse files, long names, links; `validate` reads them right or refuses them."""

import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.trust.arena import run
from vrekit.config.loader import parse_config
from vrekit.core.schema import SAMPLES_SCHEMA
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest
from vrekit.readers import FrameDataset
from vrekit.writers.webdataset.sidecars import sidecar_bytes

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    np.save(folder / "clip.npy", np.random.default_rng(0).integers(0, 255, (3, 24, 32, 3), np.uint8))
    representations = parse_config("representations: {rgb: {type: color/rgb, codec: npy}}").representations
    video, dataset = str(folder / "clip.npy"), folder / "dataset"
    export(ExportRequest(video=video, dataset=dataset, representations=representations, threads=1))
    return dataset


def members_of(tar: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(tar) as archive:
        return [(member.name, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]


def pack(tar: Path, kind: int, change: Callable[[tarfile.TarInfo], None]) -> list[int]:
    """Write the tar anew in another form; return where each payload lies."""
    members = members_of(tar)
    with tarfile.open(tar, "w", format=kind) as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            change(member)
            archive.addfile(member, io.BytesIO(data))
    with tarfile.open(tar) as archive:
        return [member.offset_data for member in archive]


def place_rows(tar: Path, offsets: list[int]) -> None:
    sidecar = tar.with_suffix(".parquet")
    table = pq.ParquetFile(sidecar).read()
    at = table.schema.get_field_index("byte_offset")
    import pyarrow as pa

    table = table.set_column(at, SAMPLES_SCHEMA.field("byte_offset"), pa.array(offsets, pa.int64()))
    sidecar.write_bytes(sidecar_bytes(table.replace_schema_metadata()))


def with_pax(member: tarfile.TarInfo) -> None:
    member.pax_headers = {"comment": "x" * 2000, "path": member.name, "size": str(member.size)}


def lying_pax(member: tarfile.TarInfo) -> None:
    member.pax_headers = {"path": "../../victim", "GNU.sparse.realname": "../x", "GNU.sparse.major": "1"}


FORMS: dict[str, tuple[int, Callable[[tarfile.TarInfo], None]]] = {
    "gnu": (tarfile.GNU_FORMAT, lambda member: None),
    "pax": (tarfile.PAX_FORMAT, with_pax),
    "lying pax": (tarfile.PAX_FORMAT, lying_pax),
    "links": (tarfile.GNU_FORMAT, lambda member: setattr(member, "linkname", "../../victim")),
    "sparse": (tarfile.GNU_FORMAT, lambda member: setattr(member, "type", tarfile.GNUTYPE_SPARSE)),
    "long links": (tarfile.GNU_FORMAT, lambda member: setattr(member, "linkname", "x" * 500)),
}


@pytest.mark.parametrize("form", FORMS)
def test_values_are_right_or_refused(form: str, template: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "evil"
    shutil.copytree(template, dataset)
    shutil.rmtree(dataset / "index", ignore_errors=True)
    (tar,) = dataset.glob("shards/clip/*.tar")
    try:
        offsets = pack(tar, *FORMS[form])
    except tarfile.TarError:
        with tarfile.open(template / tar.relative_to(dataset)) as archive:
            offsets = [member.offset_data for member in archive]
    place_rows(tar, offsets if len(offsets) == 3 else [512, 512, 512])
    said = run("validate", dataset)
    honest = FrameDataset(template, ["rgb"])
    if said.startswith("0: "):
        here = FrameDataset(dataset, ["rgb"])
        assert all(np.array_equal(honest[number]["rgb"], here[number]["rgb"]) for number in range(3))
    for arguments in (("repair", dataset), ("resume", dataset), ("merge", dataset, "-o", tmp_path / "merged")):
        run(*arguments)
    here = FrameDataset(tmp_path / "merged", ["rgb"])
    assert all(np.array_equal(honest[number]["rgb"], here[number]["rgb"]) for number in range(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil", "merged"]


def test_a_hole_in_a_tar_is_read_as_zeros(template: Path, tmp_path: Path) -> None:
    """A tar of a terabyte that is a hole takes neither memory nor time."""
    dataset = tmp_path / "evil"
    shutil.copytree(template, dataset)
    (tar,) = dataset.glob("shards/clip/*.tar")
    with tar.open("r+b") as file:
        file.truncate(1 << 40)
    said = run("validate", dataset)
    assert said.startswith(("0: ", "1: ")), said
    honest, here = FrameDataset(template, ["rgb"]), FrameDataset(dataset, ["rgb"])
    assert np.array_equal(honest[0]["rgb"], here[0]["rgb"])
