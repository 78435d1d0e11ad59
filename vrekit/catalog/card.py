"""The dataset card, `README.md`: what the dataset is, for people and for Hugging Face `datasets`."""

import html
import re

from vrekit.catalog.manifest import RepresentationRecord
from vrekit.catalog.remote import remote_of
from vrekit.catalog.storage import Storage
from vrekit.core.files import write_atomic
from vrekit.core.schema import FORMAT_VERSION

CARD_NAME = "README.md"


def write_card(storage: Storage) -> None:
    """Write or replace the dataset card."""
    if (remote := remote_of(storage.folder)) is not None:
        remote.store.put(CARD_NAME, card_text(storage).encode())
        return
    write_atomic(storage.folder / CARD_NAME, card_text(storage).encode())


def card_text(storage: Storage) -> str:
    """Return the card: YAML front matter with one configuration per group of shards, then the description."""
    return f"---\n{_front_matter(storage)}---\n\n{_body(storage)}"


def _front_matter(storage: Storage) -> str:
    return "\n".join(["tags:", "- video", f"- {storage.name}", *storage.card_configs()]) + "\n"


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is: a dataset may be a stranger's, and its card is shown on web pages."""
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(" ".join(text.split())))


def _body(storage: Storage) -> str:
    manifest = storage.manifest
    lines = [
        "# Multi-modal video dataset",
        "",
        f"Made by vrekit {_plain(manifest.created_with)} (format version {FORMAT_VERSION}).",
        "",
        "## Videos",
        "",
        "| video | frames | size | fps | codec |",
        "|---|---|---|---|---|",
    ]
    for video_id, info in manifest.videos.items():
        fps = f"{info.fps:.3f}".rstrip("0").rstrip(".") if info.fps else "–"
        codec = _plain(info.codec or "–")
        lines.append(f"| {video_id} | {info.frame_count} | {info.width}×{info.height} | {fps} | {codec} |")
    lines += [
        "",
        "## Representations",
        "",
        "| name | type | kind | stored as | shape | shards |",
        "|---|---|---|---|---|---|",
    ]
    for name, record in manifest.representations.items():
        lines.append(f"| `{name}` | {_cells(record)} |")
    lines += ["", _READING, storage.card_text()]
    return "\n".join(lines) + "\n"


def _cells(record: RepresentationRecord) -> str:
    stored, type_name = record.stored, _plain(record.spec.type)
    shape = "×".join("?" if side is None else str(side) for side in stored.shape) or "scalar"
    if record.is_virtual:
        how = f"computed on read from {', '.join(record.spec.dependencies)}"
        return f"{type_name} | {stored.kind} | {how} | {stored.dtype} {shape} | –"
    return f"{type_name} | {stored.kind} | `.{record.suffix}` | {stored.dtype} {shape} | `{record.group}`"


_READING = """\
## Reading it

With vrekit (decoded tensors, shuffling, exact resume):

```python
from vrekit.readers import make_loader

loader = make_loader("PATH/TO/THIS/FOLDER", batch_size=8, shuffle=True, seed=0)
```
"""
