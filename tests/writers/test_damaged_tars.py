"""A tar that is missing or cut off is noticed by every command that relies on it, and computed again after a repair."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.jobs.merge_datasets import members_of
from tests.storages import read_samples
from vrekit.catalog.summary import summarize
from vrekit.cli.app import app
from vrekit.core.errors import DatasetError
from vrekit.engine.export import export, resume
from vrekit.engine.request import ExportRequest
from vrekit.jobs.repair import repair
from vrekit.jobs.validate import validate
from vrekit.writers.webdataset.sidecars import find_sidecars, short_tars

MakeRequest = Callable[..., ExportRequest]


@pytest.mark.parametrize("damage", ["gone", "cut", "end"])
def test_export_and_resume_do_not_say_that_all_is_stored(make_request: MakeRequest, damage: str) -> None:
    request = make_request()
    export(request)
    folder = request.dataset
    whole = members_of(folder)
    tar = find_sidecars(folder)[0].with_suffix(".tar")
    size = tar.stat().st_size
    assert short_tars(folder, read_samples(folder)) == []
    if damage == "gone":
        tar.unlink()
    else:
        os.truncate(tar, size // 2 if damage == "cut" else size - 1)
    message = "is missing, but its metadata is there" if damage == "gone" else rf"bytes, but its metadata says {size}"
    for again in (lambda: export(request), lambda: resume(folder)):
        with pytest.raises(DatasetError, match=message) as caught:
            again()
        assert "vrekit validate --repair" in str(caught.value.hint)
        assert "vrekit resume" in str(caught.value.hint)
    (short,) = summarize(folder).damaged_tars
    assert folder / short.path == tar
    output = CliRunner().invoke(app, ["info", str(folder)]).output
    assert f"damaged: {short.path} {short.problem}" in output
    repair(folder, validate(folder).problems)
    resume(folder)
    assert members_of(folder) == whole
    assert validate(folder).problems == []
    assert summarize(folder).damaged_tars == ()


def test_tars_of_other_videos_are_not_looked_at(make_request: MakeRequest, tmp_path: Path) -> None:
    request = make_request()
    export(request)
    other = make_request(video_id="other")
    export(other)
    for sidecar in find_sidecars(request.dataset, ["other"]):
        sidecar.with_suffix(".tar").unlink()
    assert export(request).run_id is None
    with pytest.raises(DatasetError, match="shards/other/"):
        export(other)
