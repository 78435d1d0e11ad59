"""Whether Lance survives reading a damaged data file: tried in a process of its own, with little memory.

A flipped bit can make Lance ask for more memory than there is, which ends the process; nothing in it can prevent that.
"""

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import lance

_MEMORY_BYTES = 8 << 30  # many times what one payload takes
_SECONDS = 300.0
_FEW_THREADS = {"LANCE_CPU_THREADS": "2", "LANCE_IO_THREADS": "2", "TOKIO_WORKER_THREADS": "2"}


def harmful_fragments(dataset: "lance.LanceDataset", damaged: Collection[str]) -> set[int]:
    """Return the fragments that must not be read in this process.

    Args:
        dataset: The table.
        damaged: Damaged data files, relative to the table; fragments without one are not tried.
    """
    suspects = [
        fragment.fragment_id
        for fragment in dataset.get_fragments()
        if any(f"data/{file.path}" in damaged for file in fragment.data_files())
    ]
    return {number for number in suspects if not _survives(Path(dataset.uri), dataset.version, number)}


def _survives(path: Path, version: int, fragment: int) -> bool:
    # -P: else Python would import from the current folder, which may be a stranger's dataset with a `lance.py`
    command = [sys.executable, "-P", "-m", __name__, str(path), str(version), str(fragment)]
    try:
        environment = {**os.environ, **_FEW_THREADS}  # each has memory of its own
        done = subprocess.run(command, timeout=_SECONDS, capture_output=True, check=False, env=environment)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode >= 0  # negative: the signal that ended it


def _read_all(path: str, version: int, number: int) -> None:
    """Read everything of a fragment; what Lance raises does no harm."""
    import lance

    from vrekit.writers.lance.rows import column_name, representations_of

    dataset = lance.dataset(path, version=version)
    (fragment,) = (one for one in dataset.get_fragments() if one.fragment_id == number)
    names = representations_of(dataset.schema)
    metadata = [name for name in dataset.schema.names if name not in set(map(column_name, names))]
    with contextlib.suppress(Exception):
        fragment.to_table(columns=metadata)
    for name in names:
        with contextlib.suppress(Exception):
            fragment.count_rows(f"`{column_name(name)}`.kind = 0")
        rows = dataset.scanner(columns=["frame_index"], fragments=[fragment], with_row_id=True).to_table()
        for row_id in rows["_rowid"].to_pylist():
            with contextlib.suppress(Exception):
                dataset.read_blobs(column_name(name), ids=[row_id])


def _main() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    path, version, number = sys.argv[1:]
    with contextlib.suppress(BaseException):  # a panic of Rust's is no Exception
        _read_all(path, int(version), int(number))


if __name__ == "__main__":
    _main()
