"""Ctrl-C at any point of a commit: the cell is given up, and the next process goes on with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.writer_cells import (
    CELL,
    FRAMES,
    WRITERS,
    expected_payloads,
    identities,
    make_writer,
    stored_payloads,
    write_missing,
)
from vrekit.core.locks import OwnedFile
from vrekit.writers.journal import OpenShard

PLACES = [(OpenShard, "flush"), (OpenShard, "remove"), (OpenShard, "close"), (OwnedFile, "release")]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "name"), PLACES, ids=[name for _, name in PLACES])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_commit_that_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str, owner: type, name: str, after: bool
) -> None:
    dataset = make_writer(tmp_path, writer)
    interrupts = 1

    def interrupted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Any) -> None:
            nonlocal interrupts
            interrupts -= 1
            if interrupts == 0 and not after:
                raise KeyboardInterrupt
            function(self)
            if interrupts == 0:
                raise KeyboardInterrupt

        return call

    def write() -> None:
        with dataset.open_cell(CELL) as cell:
            write_missing(cell, run_id="run1")
            monkeypatch.setattr(owner, name, interrupted(getattr(owner, name)))

    with pytest.raises(KeyboardInterrupt):
        write()
    monkeypatch.undo()
    assert not list(tmp_path.rglob(".*-00000000.lock"))
    assert not list(tmp_path.rglob("all-00000000.lock"))
    with dataset.open_cell(CELL) as cell:
        if name != "release":
            assert write_missing(cell, run_id="run2") == []
    assert stored_payloads(tmp_path, writer) == expected_payloads()
    assert len(identities(tmp_path)) == 3 * len(FRAMES)
