"""The dataset card, `README.md`: what the dataset is, for people and for Hugging Face `datasets`."""

import html
import re
from pathlib import Path

from vrekit.catalog.card_features import column_type
from vrekit.catalog.manifest import Manifest, RepresentationRecord
from vrekit.core.files import write_atomic
from vrekit.core.schema import FORMAT_VERSION

CARD_NAME = "README.md"


def write_card(folder: Path, manifest: Manifest) -> None:
    """Write or replace the dataset card."""
    write_atomic(folder / CARD_NAME, card_text(manifest).encode())


def card_text(manifest: Manifest) -> str:
    """Return the card: YAML front matter with one configuration per group of shards, then the description."""
    return f"---\n{_front_matter(manifest)}---\n\n{_body(manifest)}"


def _front_matter(manifest: Manifest) -> str:
    lines = ["tags:", "- video", "- webdataset" if manifest.writer == "webdataset" else "- lance"]
    if manifest.writer == "webdataset":
        # Without this, `datasets` would load the Parquet sidecars, and take a video named test_… for the test split.
        lines.append("configs:")
        # the default has samples with every representation, not one with clips
        clips = {record.group for record in manifest.representations.values() if record.clips}
        default = next((group for group in manifest.groups if group not in clips), next(iter(manifest.groups), None))
        for group in manifest.groups:
            lines += [f"- config_name: {_quoted(group)}"]
            lines += ["  default: true"] if group == default else []
            lines += ["  data_files:", "  - split: train", f"    path: {_quoted(f'shards/*/{group}-????????-*.tar')}"]
        infos = [line for group in manifest.groups for line in _columns(manifest, group)]
        lines += ["dataset_info:", *infos] if infos else []
    return "\n".join(lines) + "\n"


def _columns(manifest: Manifest, group: str) -> list[str]:
    """Return the columns of a group's samples, none if one of them is of a kind that is not known here."""
    types = {
        f"{name}.{record.suffix}": column_type(name, record)
        for name, record in manifest.representations.items()
        if record.group == group
    }
    if None in types.values():
        return []
    lines = [f"- config_name: {_quoted(group)}", "  features:"]
    for name, kind in {**types, "__key__": "dtype: string", "__url__": "dtype: string"}.items():
        lines.append(f"  - {{name: {_quoted(name)}, {kind}}}")
    return lines


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is: a dataset may be a stranger's, and its card is shown on web pages."""
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(" ".join(text.split())))


def _body(manifest: Manifest) -> str:
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
    lines += ["", *_READING[manifest.writer]]
    return "\n".join(lines) + "\n"


def _cells(record: RepresentationRecord) -> str:
    stored, type_name = record.stored, _plain(record.spec.type)
    shape = "×".join("?" if side is None else str(side) for side in stored.shape) or "scalar"
    if record.is_virtual:
        how = f"computed on read from {', '.join(record.spec.dependencies)}"
        return f"{type_name} | {stored.kind} | {how} | {stored.dtype} {shape} | –"
    return f"{type_name} | {stored.kind} | `.{record.suffix}` | {stored.dtype} {shape} | `{record.group}`"


_READING = {
    "webdataset": (
        "## Reading it",
        "",
        "With vrekit (decoded tensors, shuffling, exact resume):",
        "",
        "```python",
        "from vrekit.readers import make_loader",
        "",
        'loader = make_loader("PATH/TO/THIS/FOLDER", batch_size=8, shuffle=True, seed=0)',
        "```",
        "",
        (
            "Without it: the shards are plain WebDataset tars (samples `<video>/<frame>.<representation>.<ext>`); the "
            "`.parquet` file beside each tar has one row per frame and representation, with the payload's place in the "
            "tar, its CRC-32, dtype and shape. `dataset.json` says how each representation was computed and encoded."
        ),
        "",
        (
            "A sample may lack representations: frames fail, and merged datasets differ. `datasets.load_dataset` on "
            "this folder takes the columns from this card and has None there. The builder `webdataset` on its own "
            "takes the columns of the first samples and drops all others silently, unless it is given `features=`."
        ),
    ),
    "lance": (
        "## Reading it",
        "",
        "With vrekit (decoded tensors, shuffling, exact resume):",
        "",
        "```python",
        "from vrekit.readers import make_loader",
        "",
        'loader = make_loader("PATH/TO/THIS/FOLDER", batch_size=8, shuffle=True, seed=0)',
        "```",
        "",
        (
            "Without it: `lance/<group>.lance` are Lance tables with one row per frame. Column `<representation>` has "
            "the payloads (`lance.dataset(path).read_blobs(column, indices=[...])`), `<representation>:<field>` their "
            "CRC-32, dtype, shape and so on; `dataset.json` says how each representation was computed and encoded."
        ),
    ),
}
