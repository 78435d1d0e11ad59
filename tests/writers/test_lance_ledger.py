"""Lance keeps no checksums of metadata: a ledger beside each table has them."""

import os
import struct
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import lance
import pytest

from tests.jobs.merge_datasets import members_of, rows_of
from vrekit.core.checksum import crc32
from vrekit.engine.export import export, resume
from vrekit.engine.request import ExportRequest
from vrekit.jobs.gc import collect_garbage
from vrekit.jobs.merge.run import merge
from vrekit.jobs.repair import repair
from vrekit.jobs.validate import validate
from vrekit.writers.lance.ledger import check_ledger, ledger_path, read_ledger, record_files
from vrekit.writers.lance.probe import harmful_fragments
from vrekit.writers.lance.rows import find_tables, open_table

MakeRequest = Callable[..., ExportRequest]


@pytest.fixture
def request_(make_request: MakeRequest) -> ExportRequest:
    request = make_request(writer="lance", fps=7.0)
    export(request)
    return request


def table_of(folder: Path) -> Path:
    (table,) = find_tables(folder)
    return table


def change_time(folder: Path, at: float) -> Path:
    """Change a timestamp in a data file, which Lance reads without a word, to half a second more."""
    for path in sorted(table_of(folder).glob("data/*.lance")):
        data = path.read_bytes()
        place = data.find(struct.pack("<d", at))
        if place >= 0:
            path.write_bytes(data[:place] + struct.pack("<d", at + 0.5) + data[place + 8 :])
            return path
    raise AssertionError(f"{at} is not there")


def test_the_files_of_a_table_are_listed(request_: ExportRequest) -> None:
    table = table_of(request_.dataset)
    listed = read_ledger(table)
    found = check_ledger(open_table(table))
    assert (found.damaged, found.unlisted) == ([], [])
    assert found.checked > 3
    kinds = {path.split("/")[0] for path in listed}
    assert kinds == {"data", "_versions", "_indices"}
    for path, known in listed.items():
        data = (table / path).read_bytes()
        assert (len(data), crc32(data)) == (known.bytes, known.crc32)


def test_changed_metadata_is_found_and_computed_again(request_: ExportRequest) -> None:
    folder = request_.dataset
    rows, members = rows_of(folder), members_of(folder)
    time = next(row["pts_seconds"] for key, row in rows.items() if key[1] == 3)
    path = change_time(folder, time)
    assert rows_of(folder) != rows  # and nobody would know
    report = validate(folder)
    assert [(one.code, one.path) for one in report.problems] == [("fragment", "lance/all.lance")]
    assert path.name in report.problems[0].message
    assert repair(folder, report.problems).left == []
    assert validate(folder).problems == []
    resume(folder)
    assert validate(folder).problems == []
    assert {key: row["pts_seconds"] for key, row in rows_of(folder).items()} == {
        key: row["pts_seconds"] for key, row in rows.items()
    }
    assert members_of(folder) == members


def test_a_changed_version_is_found(request_: ExportRequest) -> None:
    folder = request_.dataset
    table = table_of(folder)
    members = members_of(folder)
    latest = sorted(table.glob("_versions/*.manifest"))[0]
    data = bytearray(latest.read_bytes())
    at = data.find(b"vrekit.format_version")
    data[at] ^= 1  # it still opens
    latest.write_bytes(data)
    lance.dataset(str(table))
    report = validate(folder)
    assert "version" in {one.code for one in report.problems}
    assert repair(folder, report.problems).left == []
    resume(folder)
    assert validate(folder).problems == []
    assert members_of(folder) == members


def test_gc_forgets_files_that_are_gone(request_: ExportRequest) -> None:
    table = table_of(request_.dataset)
    collect_garbage(request_.dataset, older_than=timedelta(0))
    assert all((table / path).exists() for path in read_ledger(table))
    assert validate(request_.dataset).warnings == []


def test_a_copy_has_a_ledger_of_its_own(request_: ExportRequest, tmp_path: Path) -> None:
    merge([request_.dataset], tmp_path / "copy")
    found = check_ledger(open_table(table_of(tmp_path / "copy")))
    assert (found.damaged, found.unlisted) == ([], [])
    assert validate(tmp_path / "copy").problems == []


def test_a_table_without_a_ledger_is_one_warning(request_: ExportRequest) -> None:
    ledger_path(table_of(request_.dataset)).unlink()
    report = validate(request_.dataset)
    assert report.problems == []
    assert [(one.code, one.path) for one in report.warnings] == [("unprotected", "lance")]


def test_a_torn_line_costs_no_other(request_: ExportRequest) -> None:
    table = table_of(request_.dataset)
    ledger = ledger_path(table)
    *whole, last = read_ledger(table)
    os.truncate(ledger, ledger.stat().st_size - 5)
    assert list(read_ledger(table)) == whole
    record_files(table, [str(table / last)])
    assert list(read_ledger(table)) == [*whole, last]
    assert check_ledger(open_table(table)).unlisted == []


def test_damage_that_lance_fails_on_is_not_read(request_: ExportRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = request_.dataset
    rows, members = rows_of(folder), members_of(folder)
    path = change_time(folder, next(row["pts_seconds"] for key, row in rows.items() if key[1] == 3))
    tried = []

    def dies(table: Path, version: int, fragment: int, seconds: int) -> bool:
        tried.append(fragment)
        return False

    monkeypatch.setattr("vrekit.writers.lance.probe._survives", dies)
    report = validate(folder)
    assert [(one.code, one.path) for one in report.problems] == [("fragment", "lance/all.lance")]
    assert path.name in report.problems[0].message
    assert "Lance fails on its damage" in report.problems[0].message
    assert report.payloads == sum(key[1] >= 8 for key in rows)
    assert repair(folder, report.problems).left == []
    assert len(tried) == 2
    resume(folder)
    assert validate(folder).problems == []
    assert members_of(folder) == members


def test_the_probe_tells_death_from_damage(request_: ExportRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    table = open_table(table_of(request_.dataset))
    files = [f"data/{file.path}" for fragment in table.get_fragments() for file in fragment.data_files()]
    for file in files[:1]:
        (table_of(request_.dataset) / file).write_bytes(b"nothing")
    assert harmful_fragments(table, []) == set()
    assert harmful_fragments(table, files[:2]) == set()
    monkeypatch.setattr("vrekit.writers.lance.probe.sys.executable", str(request_.dataset / "cannot start"))
    (request_.dataset / "cannot start").write_text("#!/bin/sh\nexit 1\n")
    (request_.dataset / "cannot start").chmod(0o755)
    assert len(harmful_fragments(table, files[:1])) == 1  # not known to be harmless
    monkeypatch.setattr("vrekit.writers.lance.probe.sys.executable", str(request_.dataset / "dies"))
    (request_.dataset / "dies").write_text("#!/bin/sh\nkill -ABRT $$\n")
    (request_.dataset / "dies").chmod(0o755)
    assert len(harmful_fragments(table, files[:2])) == 2


@pytest.mark.parametrize("name", ["lance.py", "vrekit.py", "sitecustomize.py", "json.py"])
def test_the_probe_runs_no_code_of_the_current_folder(
    request_: ExportRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As a stranger's dataset may be it: `cd DATASET; vrekit validate .`."""
    table = open_table(table_of(request_.dataset))
    (file, *_) = [f"data/{file.path}" for fragment in table.get_fragments() for file in fragment.data_files()]
    (table_of(request_.dataset) / file).write_bytes(b"nothing")
    (request_.dataset / name).write_text(f"open({str(tmp_path / 'it-ran')!r}, 'w')\n")
    monkeypatch.chdir(request_.dataset)
    assert harmful_fragments(table, [file]) == set()
    assert not (tmp_path / "it-ran").exists()


def test_a_probe_that_hangs_is_ended_in_time(request_: ExportRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    table = open_table(table_of(request_.dataset))
    (file, *_) = [f"data/{file.path}" for fragment in table.get_fragments() for file in fragment.data_files()]
    (request_.dataset / "hangs").write_text("#!/bin/sh\nexec sleep 60\n")
    (request_.dataset / "hangs").chmod(0o755)
    monkeypatch.setattr("vrekit.writers.lance.probe.sys.executable", str(request_.dataset / "hangs"))
    monkeypatch.setattr("vrekit.writers.lance.probe._SECONDS", 0.5)
    started = time.monotonic()
    assert len(harmful_fragments(table, [file])) == 1
    assert time.monotonic() - started < 30
