"""YAML text → plain values, with the line of each; says everything that PyYAML would pass over in silence.

One file knows PyYAML: it composes nodes, and the values are built from them here, because its own
constructor keeps the last of two equal keys, reads `1:30` as 90 and a date as a date.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import yaml

from proxy.settings.environment import WrongValueError, fill
from proxy.settings.problems import Path, Problem, dotted

MOST_VALUES: Final = 100_000
"""Aliases can multiply a small file into a large one; no configuration has this many values."""

_WHOLE: Final = re.compile(r"[-+]?[0-9]{1,18}\Z")
_DECIMAL: Final = re.compile(r"[-+]?[0-9]{1,18}\.[0-9]{1,18}\Z")
_TRUE: Final = frozenset({"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"})
_FALSE: Final = frozenset({"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"})
_EMPTY: Final = frozenset({"", "~", "null", "Null", "NULL"})
_PLAIN_TAGS: Final = frozenset(
    f"tag:yaml.org,2002:{kind}"
    for kind in ("str", "int", "float", "bool", "null", "timestamp", "value", "merge", "map", "seq")
)
# `{token: ${NAME}}` is no YAML: inside braces a plain value ends at a brace. So the braces of references are
# out of the way while YAML is read; everything else about them is `environment.py`'s.
_REFERENCE: Final = re.compile(r"""\$\{([^{}\[\]\n"',#]*)\}""")
_MARKS: Final = re.compile("[\ue000\ue001]")
_TAG_WORDS: Final = "tags (!name) are not used here; put a value that begins with ! in quotes"


class Document:
    """The values of one file (`value`, a mapping), the line of every key, and the faults met so far."""

    def __init__(self, source: str, env: Mapping[str, str], value: dict[str, object] | None = None) -> None:
        """Of a `value` that was never written in a file, no line can be named."""
        self.source = source
        self.value = value or {}
        self.problems: list[Problem] = []
        self.unset: set[Path] = set()  # values already reported; what stands there means nothing
        self._env = env
        self._lines: dict[Path, int] = {(): 0 if value else 1}
        self._values = 0

    def line(self, path: Path) -> int:
        """The line of the key or list item at `path`, or of the nearest thing around it."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines[path]

    def problem(self, path: Path, message: str) -> Problem:
        """A fault at `path` of this file."""
        return Problem(self.source, self.line(path), dotted(path), message)

    def fault(self, path: Path, message: str) -> None:
        """Note a fault at `path`."""
        self.problems.append(self.problem(path, message))

    def stands_at(self, path: Path, at: Path) -> None:
        """What is not in the file, at `path`, is to be told of in the line of `at`."""
        self._lines[path] = self.line(at)

    def filled(self, text: str, path: Path) -> str | None:
        """Text with the environment in it, for what stands at `path`; None: it cannot be, as is noted."""
        try:
            return fill(text, self._env)
        except WrongValueError as error:
            self._nothing(path, str(error))
            return None

    def read(self, text: str) -> None:
        """Fill `value` from YAML text. Faults are noted, never raised."""
        if _MARKS.search(text):
            self._syntax(1, "a private-use character (U+E000 or U+E001); remove it")
            return
        text = _REFERENCE.sub("\ue000\\1\ue001", text)
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            if node is None:
                self.fault((), "the file is empty; write at least upstreams and routes")
            elif not isinstance(node, yaml.MappingNode):
                self.fault((), "the file is not a mapping; begin with lines such as `upstreams:`")
            else:
                self.value = self._mapping(node, (), ())
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            self._syntax(line, "a control character that YAML does not allow; remove it")
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._syntax(mark.line + 1 if mark else 1, _syntax_words(error))
        except RecursionError:
            self._syntax(1, "nested too deeply")

    def _syntax(self, line: int, message: str) -> None:
        self.problems.append(Problem(self.source, line, "", message))

    def _build(self, node: yaml.Node, path: Path, above: tuple[yaml.Node, ...]) -> object:
        self._lines.setdefault(path, node.start_mark.line + 1)
        self._values += 1
        if self._values > MOST_VALUES:
            raise yaml.MarkedYAMLError(problem="too many values", problem_mark=node.start_mark)
        if any(node is each for each in above):
            self._nothing(path, "an alias (*name) inside its own anchor; write the value out")
            return None
        if node.tag not in _PLAIN_TAGS:
            self._nothing(path, _TAG_WORDS)
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, above)
        if isinstance(node, yaml.SequenceNode):
            return [self._build(item, (*path, at), (*above, node)) for at, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode), "YAML has three kinds of node"  # noqa: S101
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path, above: tuple[yaml.Node, ...]) -> dict[str, object]:
        within = (*above, node)
        result: dict[str, object] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                merged.append(value_node)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._syntax(key_node.start_mark.line + 1, "a key must be one word, not a list or a mapping")
                continue
            key = _as_written(key_node.value)
            line = key_node.start_mark.line + 1
            here = (*path, key)
            if key in result:
                message = f"is written twice, first in line {self._lines[here]}; keep one of the two"
                self.problems.append(Problem(self.source, line, dotted(here), message))
                continue
            self._lines.setdefault(here, line)
            result[key] = self._build(value_node, here, within)
        for each in merged:
            self._merge(each, result, path, within)
        return result

    def _merge(
        self, node: yaml.Node, result: dict[str, object], path: Path, above: tuple[yaml.Node, ...]
    ) -> None:
        """`<<: *base`: the keys of `base` that are not stated here."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for source in sources:
            if not isinstance(source, yaml.MappingNode):
                self.fault(path, "<< takes a mapping; write `<<: *name`")
            elif any(source is each for each in above):
                self.fault(path, "an alias (*name) inside its own anchor; write the value out")
            else:
                for key, value in self._mapping(source, path, above).items():
                    result.setdefault(key, value)

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> object:
        text = _as_written(node.value)
        plain = node.style is None
        filled = self.filled(text, path)
        if filled is None:
            return None
        if not plain or filled is not text:
            return filled
        if text in _EMPTY:
            self._nothing(path, "has no value; write one, or remove the key")
            return None
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        if _WHOLE.match(text):
            return int(text)
        return float(text) if _DECIMAL.match(text) else text

    def _nothing(self, path: Path, message: str) -> None:
        self.fault(path, message)
        self.unset.add(path)


def _as_written(text: str) -> str:
    return text.replace("\ue000", "${").replace("\ue001", "}")


def _syntax_words(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "it cannot be read"
    # PyYAML quotes the file in these; a secret may begin with * or %, so they are told in our words.
    if isinstance(error, yaml.composer.ComposerError):
        if "document" in (error.context or ""):
            return "a second document begins here (---); write one document"
        return "an alias (*name) without its anchor; put a value that begins with * or & in quotes"
    if "'\\t'" in problem:
        return "a tab; indent with spaces"
    if "tag handle" in problem:
        return _TAG_WORDS
    if isinstance(error, yaml.scanner.ScannerError | yaml.parser.ParserError):
        context = f" {error.context}" if error.context else ""
        return f"not valid YAML{context}: {problem}"
    return "too many values: aliases (*name) multiply; write fewer" if "too many" in problem else problem
