"""Tables keep to the width of the terminal, and lose nothing; a damaged file is one line."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tests.conftest import QUICK_CONFIG
from vrekit.cli.output import table
from vrekit.config.loader import parse_config
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def dataset(clip_npy: Path, tmp_path: Path) -> Path:
    specs = parse_config(QUICK_CONFIG).representations
    export(ExportRequest(video=str(clip_npy), dataset=tmp_path / "out", representations=specs, threads=1))
    return tmp_path / "out"


def longest_line(text: str) -> int:
    return max(map(len, text.splitlines()))


@pytest.mark.parametrize("what", ["representations", "codecs", "configs"])
def test_list_fits(run: Run, what: str) -> None:
    shown = run("list", what)
    assert shown.exit_code == 0
    assert 40 < longest_line(shown.stdout) <= 80


def test_info_and_query_fit(run: Run, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(dataset.parent)
    for arguments in (
        ["info", "out"],
        ["query", "out", "--limit", "3"],
        ["query", "out", "--on", "samples", "--limit", "3"],
        ["query", "out", "--sql", "SELECT * FROM samples LIMIT 2"],
    ):
        shown = run(*arguments)
        assert shown.exit_code == 0
        assert longest_line(shown.stdout) <= 80, arguments
    words = shown.stdout.split()
    assert {"payload_index", "config_hash", "compute_seconds", "run_id"} <= set(words)
    assert words.count("key") > 1  # each part begins with the first column


def test_a_long_value_wraps_and_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    value = "abcdefghij" * 20
    table(["name", "value", "number"], [[value, value, "1"]])
    shown = capsys.readouterr().out
    assert longest_line(shown) <= 80
    assert "".join(line[:39] for line in shown.splitlines()).replace(" ", "").count("abcdefghij") >= 20
    assert "…" not in shown


def test_without_a_terminal_and_a_width_lines_are_longer(
    run: Run, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS")
    assert 80 < longest_line(run("info", dataset).stdout) <= 160


def test_a_truncated_tar_is_one_line(run: Run, dataset: Path) -> None:
    (tar,) = dataset.glob("shards/*/*.tar")
    with tar.open("r+b") as file:
        file.truncate(2000)
    shown = run("validate", dataset)
    assert shown.exit_code == 1
    (line,) = shown.stdout.splitlines()
    assert line.startswith(f"place: {tar.relative_to(dataset)}: the tar is damaged: ")
    assert "90 payloads are concerned, from square frame 0 to square frame 29 (--json lists all)" in line
    assert "90 payloads, " not in shown.stderr
    assert run("validate", dataset, "--json").stdout.count('"code": "place"') == 91
    repaired = run("validate", dataset, "--repair")
    assert "1 shard repaired" in repaired.stderr
    empty = run("validate", dataset)
    assert empty.exit_code == 0
    assert "no frame is stored: `vrekit resume` computes what was asked for" in empty.stdout
    assert "1 warning" in empty.stderr
    assert "--trust-code" in run("validate", "--help").stdout
