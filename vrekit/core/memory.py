"""How much memory there is, and how much this process has."""

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup/memory.max")  # of a container
_STATM = Path("/proc/self/statm")
_UNKNOWN_MEMORY = 4 << 30


def machine_memory() -> int:
    """Return the bytes of memory that this process may use: the machine's, or those of its container."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return _UNKNOWN_MEMORY
    try:
        return min(memory, int(_CGROUP.read_text()))
    except (OSError, ValueError):  # no container, or one without a limit: "max"
        return memory


def resident_memory() -> int:
    """Return the bytes of memory that this process has; 0 where the system does not tell (other than Linux)."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
