"""JSON files of a dataset, edited as a stranger would: with a checksum that is right."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vrekit.core.documents import document_bytes, read_document


@contextmanager
def edited(path: Path) -> Iterator[dict[str, Any]]:
    """Give the content of a file, and write what was made of it."""
    content = read_document(path).fields.raw()
    yield content
    path.write_bytes(document_bytes(content))
