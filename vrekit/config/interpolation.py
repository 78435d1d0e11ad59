"""`${oc.env:VAR,default}` and `${oc.decode:…}`: the part of OmegaConf's interpolation that VRE's configs use.

YAML cannot hold `${…}` everywhere: inside `{a: ${oc.env:A}}` the braces end the mapping. So expressions are
swapped for harmless marks of the same length before the YAML is parsed, and put back in the scalars it yields.
"""

import re
from collections.abc import Mapping

# Characters of Unicode's private use area, which YAML allows and configs do not hold.
_OPEN, _FILL = "\ue000", "\ue001"
_BRACES = re.compile(r"[{}\n]")
_MAX_DEPTH = 32
_SHOWN = 200  # characters of an expression in a message
_MARK = re.compile(f"{_OPEN}([0-9]+){_FILL}*")


class InterpolationError(ValueError):
    """An expression that has no value; its text goes into a mistake."""


def hide(text: str) -> tuple[str, list[str]]:
    """Return `text` with every `${…}` swapped for a mark, and the expressions in order.

    Line and column numbers stay what they were. An expression that is not closed on its line is left as it is.
    """
    pieces: list[str] = []
    expressions: list[str] = []
    at, closing = 0, _closing_braces(text)
    while (start := text.find("${", at)) != -1:
        end = closing.get(start + 1)
        if end is None:
            pieces.append(text[at : start + 2])
            at = start + 2
            continue
        expression = text[start : end + 1]
        pieces += [text[at:start], f"{_OPEN}{len(expressions)}{_FILL}".ljust(len(expression), _FILL)]
        expressions.append(expression)
        at = end + 1
    return "".join(pieces) + text[at:], expressions


def reveal(text: str, expressions: list[str]) -> str:
    """Return `text` with the marks of `hide` swapped back for their expressions."""

    def expression(mark: re.Match[str]) -> str:
        # A mark that `hide` did not write (the text had such characters of its own) stays.
        number = mark[1] if len(mark[1]) < 9 else "999999999"
        return expressions[int(number)] if int(number) < len(expressions) else mark[0]

    return _MARK.sub(expression, text)


def interpolate(text: str, environ: Mapping[str, str], *, depth: int = 0) -> str:
    """Return `text` with every `${…}` replaced by its value; values are not searched for expressions again.

    Args:
        text: One scalar of the config.
        environ: The environment variables.
        depth: How many expressions this text is inside of.

    Raises:
        InterpolationError: If an expression is not closed, is of an unknown sort, or names a variable that is not
            set and has no default.
    """
    if "${" not in text:
        return text
    if depth > _MAX_DEPTH:
        raise InterpolationError(f"expressions are nested deeper than {_MAX_DEPTH} levels")
    pieces: list[str] = []
    at, closing = 0, _closing_braces(text)
    while (start := text.find("${", at)) != -1:
        end = closing.get(start + 1)
        if end is None:
            raise InterpolationError(f"{text[start:][:_SHOWN]!r} has no closing '}}' on its line")
        pieces += [text[at:start], _evaluate(text[start + 2 : end], environ, depth + 1)]
        at = end + 1
    return "".join(pieces) + text[at:]


def is_decode(text: str) -> bool:
    """Return whether `text` is one `${oc.decode:…}` and nothing else: its value is then parsed even when quoted."""
    return text.startswith("${oc.decode:") and _closing_braces(text).get(1) == len(text) - 1


def _evaluate(expression: str, environ: Mapping[str, str], depth: int) -> str:
    resolver, _, argument = expression.partition(":")
    if resolver == "oc.env":
        name, comma, default = (part.strip() for part in argument.partition(","))
        if name in environ:
            return environ[name]
        if comma:
            return interpolate(default, environ, depth=depth)
        raise InterpolationError(
            f"the environment variable {name!r} is not set; set it, or give a default: ${{oc.env:{name},default}}"
        )
    if resolver == "oc.decode":
        value = interpolate(argument, environ, depth=depth).strip()
        quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""
        return value[1:-1] if quoted else value
    meant = f" (did you mean ${{oc.env:{expression}}}?)" if re.fullmatch(r"[A-Za-z_]\w*", expression) else ""
    raise InterpolationError(f"unknown interpolation ${{{expression}}}{meant}; there are oc.env and oc.decode")


def _closing_braces(text: str) -> dict[int, int]:
    """Return the position of the brace that closes each one, for those that are closed on their line."""
    closing: dict[int, int] = {}
    is_open: list[int] = []
    for brace in _BRACES.finditer(text):
        if brace[0] == "{":
            is_open.append(brace.start())
        elif brace[0] == "\n":
            is_open.clear()
        elif is_open:
            closing[is_open.pop()] = brace.start()
    return closing
