"""`${oc.env:VAR,default}` and `${oc.decode:…}`: the part of OmegaConf's interpolation that VRE's configs use.

YAML cannot hold `${…}` everywhere: inside `{a: ${oc.env:A}}` the braces end the mapping. So expressions are
swapped for harmless marks of the same length before the YAML is parsed, and put back in the scalars it yields.
"""

import re
from collections.abc import Mapping

# Characters of Unicode's private use area, which YAML allows and configs do not hold.
_OPEN, _FILL = "\ue000", "\ue001"
_MARK = re.compile(f"{_OPEN}([0-9]+){_FILL}*")


class InterpolationError(ValueError):
    """An expression that has no value; its text goes into a mistake."""


def hide(text: str) -> tuple[str, list[str]]:
    """Return `text` with every `${…}` swapped for a mark, and the expressions in order.

    Line and column numbers stay what they were. An expression that is not closed on its line is left as it is.
    """
    pieces: list[str] = []
    expressions: list[str] = []
    at = 0
    while (start := text.find("${", at)) != -1:
        end = _closing_brace(text, start)
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


def interpolate(text: str, environ: Mapping[str, str]) -> str:
    """Return `text` with every `${…}` replaced by its value; values are not searched for expressions again.

    Args:
        text: One scalar of the config.
        environ: The environment variables.

    Raises:
        InterpolationError: If an expression is not closed, is of an unknown sort, or names a variable that is not
            set and has no default.
    """
    pieces: list[str] = []
    at = 0
    while (start := text.find("${", at)) != -1:
        end = _closing_brace(text, start)
        if end is None:
            raise InterpolationError(f"{text[start:]!r} has no closing '}}' on its line")
        pieces += [text[at:start], _evaluate(text[start + 2 : end], environ)]
        at = end + 1
    return "".join(pieces) + text[at:]


def is_decode(text: str) -> bool:
    """Return whether `text` is one `${oc.decode:…}` and nothing else: its value is then parsed even when quoted."""
    return text.startswith("${oc.decode:") and _closing_brace(text, 0) == len(text) - 1


def _evaluate(expression: str, environ: Mapping[str, str]) -> str:
    resolver, _, argument = expression.partition(":")
    if resolver == "oc.env":
        name, comma, default = (part.strip() for part in argument.partition(","))
        if name in environ:
            return environ[name]
        if comma:
            return interpolate(default, environ)
        raise InterpolationError(
            f"the environment variable {name!r} is not set; set it, or give a default: ${{oc.env:{name},default}}"
        )
    if resolver == "oc.decode":
        value = interpolate(argument, environ).strip()
        quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""
        return value[1:-1] if quoted else value
    meant = f" (did you mean ${{oc.env:{expression}}}?)" if re.fullmatch(r"[A-Za-z_]\w*", expression) else ""
    raise InterpolationError(f"unknown interpolation ${{{expression}}}{meant}; there are oc.env and oc.decode")


def _closing_brace(text: str, start: int) -> int | None:
    depth = 0
    for at in range(start, len(text)):
        match text[at]:
            case "{":
                depth += 1
            case "}":
                depth -= 1
                if depth == 0:
                    return at
            case "\n":
                return None
    return None
