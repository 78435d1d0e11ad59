"""YAML text → plain values, with the line of every key. No tag is ever turned into an object.

PyYAML does the scanning, parsing and composing; the nodes are turned into values here, because its own constructors
lose the positions, keep the last of two equal keys, and read `1e-3` as text and `47429163_0` as a number. Scalars
follow YAML 1.2: `true`, `false`, `null`, numbers; everything else (`yes`, `2024-01-01`) is text.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.scanner import Scanner

from vrekit.config.interpolation import InterpolationError, hide, interpolate, is_decode, reveal
from vrekit.config.source import KeyPath, Mistake, SourceMap
from vrekit.core.errors import ConfigError

MAX_VALUES = 100_000  # aliases of aliases can make a short text grow without end
_PLAIN, _QUOTED, _MAPPING, _SEQUENCE = "plain", "quoted", "mapping", "sequence"
_STRING_TAG = "tag:yaml.org,2002:str"
_INTEGER = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{sign + word: float(sign + "inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
# What PyYAML says → what a person needs to hear.
_PLAINLY = (
    (r"found character '\\t'.*", "a tab where YAML allows only spaces"),
    (r"found character '(.)' that cannot start any token", r"text that starts with '\1' must be quoted"),
    (
        r"mapping values are not allowed here",
        "a ':' where none can stand: is the text unquoted, or the indentation off?",
    ),
    (r"could not find expected ':'", "expected `key: value`, found no ':'"),
    (r"expected <block end>, but found '<scalar>'", "text after the end of a value: are the quotes or spaces off?"),
    (r"expected <block end>, but found .*", "the indentation does not fit the lines above"),
    (r"expected '<document start>', but found .*", "the indentation does not fit the lines above"),
    (r"expected the node content, but found '?(.*?)'?", r"expected a value, found \1"),
    (r"found unexpected end of stream", "a quote or bracket is never closed"),
    (r"expected ',' or '(.)', but got .*", r"expected ',' or '\1': is a bracket or brace never closed?"),
    (r"but found another document", "a second document ('---'); a config is one"),
    (r"found undefined alias '(.*)'", r"there is no anchor '&\1' above"),
    (r"second occurrence", "this anchor is given twice"),
)


class Unknown:
    """Stands for a value that could not be worked out; its mistake is recorded already."""


UNKNOWN = Unknown()


@dataclass(slots=True)
class Document:
    """A config as plain values.

    Attributes:
        value: dict, list, str, int, float, bool, None; UNKNOWN where a value has a mistake.
        source_map: Where the keys stand.
        mistakes: What was wrong so far: keys given twice, variables that are not set, ...
    """

    value: Any
    source_map: SourceMap
    mistakes: list[Mistake] = field(default_factory=list)


def read_document(text: str, source: str, environ: Mapping[str, str]) -> Document:
    """Return the values of a YAML text.

    Args:
        text: The YAML.
        source: Name of the file for messages.
        environ: Environment variables for `${oc.env:…}`.

    Raises:
        ConfigError: If the text is not Unicode or not YAML; the first place where it breaks is named.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise ConfigError(f"{source}:{line}: not valid Unicode ({text[error.start]!r})") from error
    hidden, expressions = hide(text)
    walker = _Walker(expressions, environ)
    try:
        node = _Composer(hidden).get_single_node()
        value = None if node is None else walker.value(node, ())
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}:{_what_is_wrong(error, hidden, expressions)}") from error
    except _TooManyError as error:
        raise ConfigError(f"{source}:1: more than {MAX_VALUES} values; a config has at most that many") from error
    except (RecursionError, _TooLargeError) as error:
        raise ConfigError(f"{source}:1: nested too deeply, or an alias holds itself") from error
    except (ValueError, OverflowError) as error:  # PyYAML on "\UFFFFFFFF" and on numbers of 5,000 digits
        raise ConfigError(f"{source}:1: not YAML: {error}") from error
    return Document(value, SourceMap(source, walker.positions), walker.mistakes)


class _TooLargeError(Exception):
    """Aliases make more values than a config may have."""


class _TooManyError(Exception):
    """The text itself has more."""


class _Composer(Reader, Scanner, Parser, Composer):
    """PyYAML up to its node tree; the tag of a node says only how it was written."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        self._count = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """Return the next node; there is an end to how many."""
        self._count += 1
        if self._count > MAX_VALUES:
            raise _TooManyError
        return super().compose_node(parent, index)

    def descend_resolver(self, current_node: Node | None, current_index: Any) -> None:
        """Do nothing: tags do not depend on the path here."""

    def ascend_resolver(self) -> None:
        """Do nothing: tags do not depend on the path here."""

    def resolve(self, kind: type[Node], value: Any, implicit: Any) -> str:
        """Return how a node without a tag of its own was written."""
        if kind is ScalarNode:
            return _PLAIN if implicit[0] else _QUOTED
        return _SEQUENCE if kind is SequenceNode else _MAPPING


class _Walker:
    """Turns nodes into values and writes down where each key stands."""

    def __init__(self, expressions: list[str], environ: Mapping[str, str]) -> None:
        self.positions: dict[KeyPath, tuple[int, int]] = {}
        self.mistakes: list[Mistake] = []
        self._expressions = expressions
        self._environ = environ
        self._count = 0

    def value(self, node: Node, path: KeyPath) -> Any:
        """Return the value of a node; `path` names its key."""
        self._visit(node, path)
        if node.tag not in (_PLAIN, _QUOTED, _MAPPING, _SEQUENCE, _STRING_TAG):
            return self._mistake(path, f"the tag {node.tag!r} is not allowed; a config holds plain values")
        if isinstance(node, MappingNode):
            return {name: self.value(pair[1], (*path, name)) for name, pair in self._pairs(node, path).items()}
        if isinstance(node, SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _pairs(self, node: MappingNode, path: KeyPath) -> dict[str, tuple[Node, Node]]:
        """Return the keys of a mapping with those merged in by `<<`; its own win, then the first merged."""
        own: dict[str, tuple[Node, Node]] = {}
        merged: dict[str, tuple[Node, Node]] = {}
        for key, value in node.value:
            self._visit(key, None)
            if not isinstance(key, ScalarNode):
                self.mistakes.append(Mistake(path, "a key must be text", _place(key)))
                continue
            if key.value == "<<" and key.tag == _PLAIN:
                for base in value.value if isinstance(value, SequenceNode) else [value]:
                    if isinstance(base, MappingNode):
                        merged = self._pairs(base, path) | merged
                    else:
                        self._mistake((*path, "<<"), "expected a mapping to merge, such as *anchor")
                continue
            name = self._text(key, path)
            if name is None:
                continue
            if name in own:
                first = own[name][0].start_mark.line + 1
                self.mistakes.append(Mistake((*path, name), f"given twice, first on line {first}", _place(key)))
                continue
            own[name] = (key, value)
        # The order of the file is the order of the result, merged keys first.
        pairs = {name: own.get(name, pair) for name, pair in merged.items()} | own
        self.positions.update({(*path, name): _place(key) for name, (key, _) in pairs.items()})
        return pairs

    def _scalar(self, node: Node, path: KeyPath) -> Any:
        raw = reveal(node.value, self._expressions)
        text = self._text(node, path)
        if text is None:
            return UNKNOWN
        if node.tag != _PLAIN and not is_decode(raw):
            return text
        if text == raw or not text.startswith(("[", "{", "'", '"')):
            return _plain_value(text)
        # A variable may hold a list, such as OUTPUT_SIZE='[540, 960]'.
        inner = _Walker([], {})
        try:
            parsed = _Composer(text).get_single_node()
            value = None if parsed is None else inner.value(parsed, ())
        except (yaml.YAMLError, _TooManyError, RecursionError, ValueError, OverflowError):
            return self._mistake(path, f"{raw!r} gives {text!r}, which is not YAML")
        if inner.mistakes:
            return self._mistake(path, f"{raw!r} gives {text!r}: {inner.mistakes[0].text}")
        return value

    def _text(self, node: Node, path: KeyPath) -> str | None:
        """Return the text of a scalar with its variables filled in, None after a mistake."""
        try:
            text = interpolate(reveal(node.value, self._expressions), self._environ)
            text.encode()
        except InterpolationError as error:
            self._mistake(path, str(error))
        except UnicodeEncodeError:
            self._mistake(path, f"{node.value!r} is not valid Unicode")
        else:
            return text
        return None

    def _visit(self, node: Node, path: KeyPath | None) -> None:
        self._count += 1
        if self._count > MAX_VALUES:
            raise _TooLargeError
        if path is not None:
            self.positions.setdefault(path, _place(node))

    def _mistake(self, path: KeyPath, text: str) -> Unknown:
        self.mistakes.append(Mistake(path, text))
        return UNKNOWN


def _plain_value(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _place(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _what_is_wrong(error: yaml.YAMLError, text: str, expressions: list[str]) -> str:
    """Return `line:column: reason` of a syntax error."""
    if isinstance(error, ReaderError):
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - before.rfind("\n")
        return f"{line}:{column}: the character {chr(int(error.character))!r} is not allowed in YAML"
    mark = getattr(error, "problem_mark", None)
    reason = str(getattr(error, "problem", None) or error)
    for pattern, plainly in _PLAINLY:
        reason = re.sub(rf"^{pattern}$", plainly, reason, flags=re.DOTALL)
    reason = re.sub(r"'\\x00'|<stream end>", "the end of the text", reason)
    place = f"{mark.line + 1}:{mark.column + 1}" if mark else "1"
    return f"{place}: not YAML: {reveal(reason, expressions)}"
