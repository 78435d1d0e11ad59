import logging
from pathlib import Path

import pytest

from vrekit.engine.runlog import run_log


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_log_that_cannot_be_written_is_one_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "run.log").symlink_to("/dev/full")
    with run_log(tmp_path, "run"):
        logging.getLogger("vrekit.test").info("one")
        logging.getLogger("vrekit.test").info("two")
    assert capsys.readouterr().err == (f"warning: the log {tmp_path}/runs/run.log ends here: no space left on device\n")
