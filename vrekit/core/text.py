"""Text for other formats."""


def yaml_text(text: str) -> str:
    """Return text as a quoted YAML scalar."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
