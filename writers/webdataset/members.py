"""The members of a tar by their headers (`docs/format.md`), which are all that is read of it.

The tar may come from a stranger. GNU and pax headers, whose payload is a name or a map of holes, are not interpreted:
vrekit writes none.
"""

import os
import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from vrekit.core.errors import DatasetError
from vrekit.core.files import open_regular

_BLOCK = 512
_END_OF_ARCHIVE = bytes(2 * _BLOCK)
_OCTAL = re.compile(rb" *([0-7]+)[ \0]*")
_WITHOUT_PAYLOAD = set("123456")  # links, devices, folders and pipes: their size says nothing


class TarMember(NamedTuple):
    """A member: its name, its payload's offset and size in bytes, and the type of its header."""

    name: str
    offset: int
    size: int
    type: str

    @property
    def is_plain(self) -> bool:
        """Whether it is a plain file, the only type that vrekit writes."""
        return self.type in ("0", "\0")


def read_members(descriptor: int) -> tuple[list[TarMember], str]:
    """Return the members of a tar up to the first damage, and what the damage is; all payloads are inside the file.

    Raises:
        OSError: If the tar cannot be read.
    """
    members: list[TarMember] = []
    position, tar_bytes = 0, os.fstat(descriptor).st_size
    while any(block := os.pread(descriptor, _BLOCK, position)):
        size, checksum = _OCTAL.fullmatch(block[124:136]), _OCTAL.fullmatch(block[148:156])
        actual = sum(block) - sum(block[148:156]) + 8 * ord(" ")
        if len(block) < _BLOCK or not size or not checksum or int(checksum[1], 8) != actual:
            return members, f"the header at byte {position} is not valid"
        prefix = block[345:500] if block[257:263] == b"ustar\0" else b""
        parts = [part.split(b"\0")[0].decode(errors="backslashreplace") for part in (prefix, block[:100])]
        name, kind = "/".join(filter(None, parts)), chr(block[156])
        member = TarMember(name, position + _BLOCK, 0 if kind in _WITHOUT_PAYLOAD else int(size[1], 8), kind)
        end = member.offset + member.size
        if end > tar_bytes:
            return members, f"member {name} ends at byte {end}, the tar at {tar_bytes}"
        members.append(member)
        position = end + -end % _BLOCK
    tail = max(position, tar_bytes - len(_END_OF_ARCHIVE))  # readers stop at the first end, others look at the last
    if any(os.pread(descriptor, len(_END_OF_ARCHIVE), at) != _END_OF_ARCHIVE for at in (position, tail)):
        return members, "it has no end-of-archive blocks"
    return members, ""


def endings_in(tar: Path, names: Collection[str]) -> dict[str, str]:
    """Return the file name ending of each representation's payloads in a tar, as far as it can be read."""
    try:
        descriptor = open_regular(tar)
    except (DatasetError, OSError):
        return {}
    with os.fdopen(descriptor, "rb"):
        members, _ = read_members(descriptor)
    endings = {}
    for member in members:
        ending = PurePosixPath(member.name).name.partition(".")[2]
        for name in sorted(names, key=len, reverse=True):  # canny.image before canny
            if ending.startswith(f"{name}."):
                endings[name] = ending.removeprefix(f"{name}.")
                break
    return endings
