"""docs/cloud.md: its commands and its Python run, against a server on the loopback interface."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.stores.servers import request as send
from vrekit.cli.app import app

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "cloud.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_stores")
def test_the_page_runs(s3_environment: str, tmp_path: Path, clip_mp4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(clip_mp4, "clip.mp4")
    bucket = tmp_path.name.replace("_", "-").lower()
    send(s3_environment, "PUT", f"/{bucket}")
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(lines) >= 7
    for line in lines:
        command, *arguments = shlex.split(line.replace("s3://bucket/", f"s3://{bucket}/"))
        assert command == "vrekit"
        found = CliRunner().invoke(app, arguments)
        assert found.exit_code == 0, (line, found.output)
    for block in blocks("python"):
        exec(compile(block.replace("s3://bucket/", f"s3://{bucket}/"), "docs/cloud.md", "exec"), {})
