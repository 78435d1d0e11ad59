"""Whether Lance survives reading a damaged data file: tried in a process of its own, with little memory.

A flipped bit can make Lance ask for more memory than there is, which ends the process; nothing in it can prevent that.
"""

import contextlib
import math
import os
import resource
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from vrekit.core.memory import machine_memory

if TYPE_CHECKING:
    import lance

_MEMORY_BYTES = 8 << 30  # many times what one payload takes; at most half of the machine's
_SECONDS = 30.0  # to start, and to read little
_BYTES_PER_SECOND = 5e6
_MAX_BYTES = 8 << 30
_THREADS = "2"
_FEW_THREADS = dict.fromkeys(("LANCE_CPU_THREADS", "LANCE_IO_THREADS", "TOKIO_WORKER_THREADS"), _THREADS)


def harmful_fragments(dataset: "lance.LanceDataset", damaged: Collection[str]) -> set[int]:
    """Return the fragments that must not be read in this process.

    Args:
        dataset: The table.
        damaged: Damaged data files, relative to the table; fragments without one are not tried.
    """
    suspects = [
        fragment
        for fragment in dataset.get_fragments()
        if any(f"data/{file.path}" in damaged for file in fragment.data_files())
    ]
    path, version = Path(dataset.uri), dataset.version
    return {one.fragment_id for one in suspects if not _survives(path, version, one.fragment_id, _most_seconds(one))}


def _most_seconds(fragment: "lance.LanceFragment") -> int:
    size = sum(file.file_size_bytes or 0 for file in fragment.data_files())
    return math.ceil(_SECONDS + min(size, _MAX_BYTES) / _BYTES_PER_SECOND)  # a damaged version may say any size


def _survives(path: Path, version: int, fragment: int, seconds: int) -> bool:
    """Return whether a process of its own read a fragment to its end.

    The current folder may be a stranger's dataset: `-P` keeps it out of the places that Python imports from. What ends
    this process or interrupts it ends that one, too, and if it cannot, a limit of its own does.
    """
    command = [sys.executable, "-P", "-m", __name__, str(path), str(version), str(fragment), str(seconds)]
    places = os.pathsep.join(filter(os.path.isabs, sys.path))
    environment = {**os.environ, **_FEW_THREADS, "PYTHONPATH": places}  # each thread has memory of its own
    try:
        done = subprocess.run(command, timeout=seconds, capture_output=True, check=False, env=environment)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


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
    path, version, number, seconds = sys.argv[1:]
    memory = min(_MEMORY_BYTES, machine_memory() // 2)
    cpu_seconds = int(seconds) * int(_THREADS)
    for limit, most in ((resource.RLIMIT_DATA, memory), (resource.RLIMIT_CPU, cpu_seconds), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (most, most))
    with contextlib.suppress(BaseException):  # a panic of Rust's is no Exception
        _read_all(path, int(version), int(number))


if __name__ == "__main__":
    _main()
