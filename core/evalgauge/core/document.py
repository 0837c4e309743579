"""YAML files read strictly: every fault at once, each with file, line, column and a way to mend it."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from evalgauge.core.errors import DocumentError, Problem
from evalgauge.core.findings import Path_, described, suggest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from evalgauge.core.findings import Finding

__all__ = [
    "Document",
    "Examined",
    "Path_",
    "examine",
    "parse_document",
    "problems_of",
    "read_document",
    "suggest",
]
__all__ += ["validate"]

ModelT = TypeVar("ModelT", bound=BaseModel)

_MAX_NODES = 200_000
"""Values of one file, aliases counted each time: a file of a few lines cannot grow into gigabytes."""

_TAG = "tag:yaml.org,2002:"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # libyaml is ten times as fast
    """YAML 1.2 core schema: in 1.1 the key `on` is a boolean, `1:30` a number and a date no string."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own shape


for _kind, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?[0-9]+$", list("-+0123456789")),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+0123456789."),
    ),
):
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(_pattern), _first)

_SCALARS: Mapping[str, Callable[[str], Any]] = {
    _TAG + "str": str,
    _TAG + "null": lambda _: None,
    _TAG + "bool": lambda text: text.lower() == "true",
    _TAG + "int": int,
    _TAG + "float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
}


@dataclass(slots=True)
class Document:
    """A parsed file: its plain value, and where each key and value of it stands."""

    file: str
    value: Any
    keys: dict[Path_, tuple[int, int]] = field(default_factory=dict)
    """Path → (line, column) from 1 of the key, or of the item in a list."""
    values: dict[Path_, tuple[int, int]] = field(default_factory=dict)
    """Path → (line, column) from 1 of the value."""

    def problem(
        self, path: Sequence[str | int], message: str, hint: str = "", *, at_key: bool = False
    ) -> Problem:
        """A problem at `path`, or at the nearest enclosing node that stands in the file."""
        where = tuple(path)
        marks = self.keys if at_key else self.values
        while where and where not in marks:
            where = where[:-1]
        line, column = marks.get(where, (1, 1))
        return Problem(self.file, line, column, message, hint)


@dataclass(frozen=True, slots=True)
class Examined(Generic[ModelT]):
    """What `examine` found: the model of all that is sound, every fault, and the entries that have one."""

    model: ModelT | None
    problems: list[Problem]
    broken: frozenset[Path_]


def read_document(path: str | Path) -> Document:
    """Read and parse one YAML file. Raises `DocumentError` when it is missing or no single YAML document."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DocumentError([Problem(str(path), 1, 1, f"cannot be read: {reason}")]) from error
    return parse_document(text, str(path))


def parse_document(text: str, file: str) -> Document:
    """Parse YAML text that is called `file` in messages. Duplicate keys, circular aliases and tags are errors."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        message = f"not valid YAML: {error.problem or error.context}"
        raise DocumentError([Problem(file, line, column, message)]) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"not valid YAML: character U+{error.character:04X} is not allowed"
        raise DocumentError([Problem(file, line, 1, message)]) from error
    except RecursionError as error:
        raise DocumentError([Problem(file, 1, 1, "not usable YAML: it is nested too deeply")]) from error
    builder = _Builder(Document(file, None))
    if node is not None:
        builder.document.value = builder.build(node, (), ())
    if builder.problems:
        raise DocumentError(builder.problems)
    return builder.document


class _Builder:
    """Plain values from YAML nodes, with the place of each."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []
        self._left = _MAX_NODES

    def build(self, node: yaml.Node, path: Path_, above: tuple[int, ...]) -> Any:
        """The value of `node`, which stands at `path` below the nodes with the ids `above`."""
        at = (node.start_mark.line + 1, node.start_mark.column + 1)
        self.document.values[path] = at
        self._left -= 1
        if id(node) in above:
            return self._problem(at, "an alias refers to what it is part of", "Write the value out.")
        if self._left < 0:
            if self._left == -1:
                self._problem(at, f"the file holds more than {_MAX_NODES} values", "Aliases count each time.")
            return None
        below = (*above, id(node))
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path, below)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            for index, item in enumerate(node.value):
                self.document.keys[*path, index] = (item.start_mark.line + 1, item.start_mark.column + 1)
            return [self.build(item, (*path, index), below) for index, item in enumerate(node.value)]
        return self._scalar(node, at)

    def _scalar(self, node: yaml.Node, at: tuple[int, int]) -> Any:
        if not isinstance(node, yaml.ScalarNode) or node.tag not in _SCALARS:
            return self._problem(at, f"the tag `{node.tag}` is not known here", "Leave the tag out.")
        try:
            return _SCALARS[node.tag](node.value)
        except ValueError:
            return self._problem(at, f"`{node.value}` is not what its tag says", "Leave the tag out.")

    def _mapping(self, node: yaml.MappingNode, path: Path_, below: tuple[int, ...]) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            position = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(position, "a key must be plain text")
                continue
            key = key_node.value
            here = (*path, key)
            if key in mapping:
                first = self.document.keys[here]
                self._problem(
                    position, f"key `{key}` is given twice", f"It stands at line {first[0]} already."
                )
                continue
            self.document.keys[here] = position
            mapping[key] = self.build(value_node, here, below)
        return mapping

    def _problem(self, at: tuple[int, int], message: str, hint: str = "") -> None:
        self.problems.append(Problem(self.document.file, *at, message, hint))


def validate(document: Document, model: type[ModelT]) -> ModelT:
    """Turn a document into `model`. Raises `DocumentError` with every fault the model finds."""
    try:
        return model.model_validate(_mapping_of(document), by_alias=True, by_name=False)
    except ValidationError as error:
        raise DocumentError(problems_of(document, error, model)) from error


def problems_of(document: Document, error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Pydantic's findings as problems at their place in the file, unknown keys with a suggestion."""
    return in_order([_problem_of(document, finding) for finding in described(error, model, document.values)])


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Problems as a person reads the file, each once."""
    return sorted(
        set(problems), key=lambda problem: (problem.file, problem.line, problem.column, problem.message)
    )


def examine(
    document: Document,
    model: type[ModelT],
    entry_of: Callable[[Path_], Path_],
    placeholders: Mapping[str, Any],
) -> Examined[ModelT]:
    """All faults of a document, and a model of the rest, so that what is sound can be checked further.

    A key that nobody knows is left out; any other fault takes out its whole entry: `entry_of(path)`.
    `placeholders` stand in for keys at the top that are missing or wrong. Raises `DocumentError` if the file
    holds no mapping at all.
    """
    value = copy.deepcopy(_mapping_of(document))
    problems: set[Problem] = set()
    broken: set[Path_] = set()
    while True:
        try:
            sound = model.model_validate(value, by_alias=True, by_name=False)
            return Examined(sound, in_order(problems), frozenset(broken))
        except ValidationError as error:
            changed = False
            for finding in described(error, model, document.values):
                entry = entry_of(finding.path)
                if finding.kind == "too_short" and any(
                    other[: len(finding.path)] == finding.path for other in broken
                ):
                    # A section is empty only because its broken entries were left out: no fault of its own.
                    entry = finding.path
                elif finding.kind != "value_error" or entry not in broken:
                    # Nor is it that something is missing where a misspelt key was left out.
                    problems.add(_problem_of(document, finding))
                broken.add(entry)
                left_out = finding.path if finding.kind == "extra_forbidden" else entry
                changed |= _leave_out(value, left_out, finding.missing, placeholders)
            if not changed:
                return Examined(None, in_order(problems), frozenset(broken))


def _problem_of(document: Document, finding: Finding) -> Problem:
    return document.problem(finding.path, finding.message, finding.hint, at_key=finding.at_key)


def _mapping_of(document: Document) -> dict[str, Any]:
    if not isinstance(document.value, dict):
        raise DocumentError(
            [document.problem((), "the file must hold a mapping of keys", "See `evalgauge schema`.")]
        )
    return document.value


def _leave_out(value: dict[str, Any], path: Path_, missing: str, placeholders: Mapping[str, Any]) -> bool:
    """Take `path` out of `value`, or put a placeholder there; whether anything changed."""
    top = str(path[0]) if path else missing
    if len(path) <= 1 and top in placeholders:
        if value.get(top) == placeholders[top]:
            return False
        value[top] = placeholders[top]
        return True
    if not path:
        return False
    holder: Any = value
    for part in path[:-1]:
        try:
            holder = holder[part]
        except (KeyError, IndexError, TypeError):
            return False
    if not isinstance(holder, dict) or path[-1] not in holder:
        return False
    del holder[path[-1]]
    return True
