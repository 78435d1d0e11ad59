"""The DAG for people: as text, SVG or PNG. Boxes stand in columns, each after everything it is computed from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from vrekit.core.errors import UsageError
from vrekit.core.files import storage_errors
from vrekit.core.spec import RepresentationSpec

_BOX_HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 40, 60, 16, 16
_CHARACTER = 7.5  # width of one character of the 12-pixel font
_STORED, _VIRTUAL, _INK, _EDGE = "#dbeafe", "#f5f5f4", "#1c1917", "#78716c"


def as_text(specs: Sequence[RepresentationSpec]) -> str:
    """Return one line a representation: name, type, what it is computed from. `specs` in topological order."""
    width = max((len(spec.name) for spec in specs), default=0)
    type_width = max((len(spec.type) for spec in specs), default=0)
    depths = _depths(specs)
    lines = []
    for spec in specs:
        source = ", ".join(spec.dependencies) or "frames"
        virtual = "" if spec.store else "  (virtual: computed on read)"
        indent = "  " * depths[spec.name]
        lines.append(f"{indent}{spec.name:<{width}}  {spec.type:<{type_width}}  ← {source}{virtual}".rstrip())
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Box:
    spec: RepresentationSpec
    x: float
    y: float
    width: float

    @property
    def lines(self) -> tuple[str, str]:
        return self.spec.name, self.spec.type


def _depths(specs: Sequence[RepresentationSpec]) -> dict[str, int]:
    depths: dict[str, int] = {}
    for spec in specs:
        depths[spec.name] = 1 + max((depths[name] for name in spec.dependencies), default=-1)
    return depths


def _layout(specs: Sequence[RepresentationSpec]) -> tuple[dict[str, _Box], float, float]:
    depths = _depths(specs)
    columns: dict[int, list[RepresentationSpec]] = {}
    for spec in specs:
        columns.setdefault(depths[spec.name], []).append(spec)
    boxes: dict[str, _Box] = {}
    x: float = _MARGIN
    for depth in sorted(columns):
        width = max(max(len(spec.name), len(spec.type)) for spec in columns[depth]) * _CHARACTER + 16
        for row, spec in enumerate(columns[depth]):
            boxes[spec.name] = _Box(spec, x, _MARGIN + row * (_BOX_HEIGHT + _GAP_Y), width)
        x += width + _GAP_X
    height = max((box.y for box in boxes.values()), default=0) + _BOX_HEIGHT + _MARGIN
    return boxes, x - _GAP_X + _MARGIN, height


def as_svg(specs: Sequence[RepresentationSpec]) -> str:
    """Return the DAG as an SVG document; stored representations blue, virtual ones gray and dashed."""
    boxes, width, height = _layout(specs)
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="monospace" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for box in boxes.values():
        for name in box.spec.dependencies:
            start, end = _ends(boxes[name], box)
            middle = (start[0] + end[0]) / 2
            parts.append(
                f'<path d="M{start[0]:.0f} {start[1]:.0f} C{middle:.0f} {start[1]:.0f} {middle:.0f} {end[1]:.0f} '
                f'{end[0]:.0f} {end[1]:.0f}" fill="none" stroke="{_EDGE}"/>'
            )
    for box in boxes.values():
        fill, dash = (_STORED, "") if box.spec.store else (_VIRTUAL, ' stroke-dasharray="4 3"')
        parts.append(
            f'<rect x="{box.x:.0f}" y="{box.y:.0f}" width="{box.width:.0f}" height="{_BOX_HEIGHT}" rx="6" '
            f'fill="{fill}" stroke="{_EDGE}"{dash}/>'
        )
        for line, (text, weight) in enumerate(zip(box.lines, ("bold", "normal"), strict=True)):
            parts.append(
                f'<text x="{box.x + 8:.0f}" y="{box.y + 16 + line * 16:.0f}" font-weight="{weight}" '
                f'fill="{_INK}">{escape(text)}</text>'
            )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _ends(parent: _Box, child: _Box) -> tuple[tuple[float, float], tuple[float, float]]:
    return (parent.x + parent.width, parent.y + _BOX_HEIGHT / 2), (child.x, child.y + _BOX_HEIGHT / 2)


def _save_png(specs: Sequence[RepresentationSpec], path: Path) -> None:
    from PIL import Image, ImageDraw, ImageFont

    scale = 2  # sharp on today's screens
    boxes, width, height = _layout(specs)
    picture = Image.new("RGB", (round(width) * scale, round(height) * scale), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(12 * scale)
    for box in boxes.values():
        for name in box.spec.dependencies:
            start, end = _ends(boxes[name], box)
            draw.line([_scaled(start, scale), _scaled(end, scale)], fill=_EDGE, width=scale)
    for box in boxes.values():
        corner = (box.x + box.width, box.y + _BOX_HEIGHT)
        fill = _STORED if box.spec.store else _VIRTUAL
        draw.rounded_rectangle(
            [_scaled((box.x, box.y), scale), _scaled(corner, scale)], 6 * scale, fill=fill, outline=_EDGE, width=scale
        )
        for line, text in enumerate(box.lines):
            draw.text(_scaled((box.x + 8, box.y + 4 + line * 16), scale), text, fill=_INK, font=font)
    picture.save(path)


def _scaled(point: tuple[float, float], scale: int) -> tuple[float, float]:
    return point[0] * scale, point[1] * scale


def save_picture(specs: Sequence[RepresentationSpec], path: Path) -> None:
    """Draw the DAG to an `.svg` or `.png` file. `specs` in topological order.

    Raises:
        UsageError: For another file name ending.
        StorageError: If the file cannot be written.
    """
    if path.suffix not in (".svg", ".png"):
        raise UsageError(f"cannot draw to {path.name!r}", hint="give the file a name that ends with .svg or .png")
    with storage_errors(path):
        if path.suffix == ".svg":
            path.write_text(as_svg(specs), encoding="utf-8")
        else:
            _save_png(specs, path)
