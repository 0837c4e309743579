"""A configuration in layers: a file, the environment over it, flags over both; each value knows where it came from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evalgauge.core.document import Document, parse_document
from evalgauge.core.errors import DocumentError, Problem
from evalgauge.core.findings import dotted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from evalgauge.core.document import Path_

PREFIX = "EVALGAUGE_"
COMMAND_LINE = "command line"

_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_PLAIN = re.compile(r"[-+.0-9][-+.0-9eE]*|true|false|null|~|")
_YAML = ("[", "{", '"', "'")


@dataclass(slots=True)
class Layered(Document):
    """A document some of whose values came from elsewhere than its file."""

    origins: dict[Path_, str] = field(default_factory=dict)
    """Path → what gave the value in place of the file: an environment variable, the command line."""
    variables: dict[Path_, str] = field(default_factory=dict)
    """Path → the `${…}` in the file's own text that gave (part of) the value."""
    texts: dict[Path_, str] = field(default_factory=dict)
    """Path → the text as it was given, where it looks like a number, true or false but need not be meant so."""

    def problem(
        self, path: Sequence[str | int], message: str, hint: str = "", *, at_key: bool = False
    ) -> Problem:
        """A problem at `path`: named by its variable or place in the file, whichever gave the value."""
        where = tuple(path)
        while where and where not in self.origins and where not in self.values:
            where = where[:-1]
        if where in self.origins:
            return Problem(self.origins[where], 0, 0, message, hint)
        if where in self.variables:
            hint = f"{hint} The value comes from {self.variables[where]}.".strip()
        return Document.problem(self, path, message, hint, at_key=at_key)


def layered(document: Document) -> Layered:
    """A document that takes further layers."""
    return Layered(document.file, document.value, document.keys, document.values)


def substitute(document: Layered, environment: Mapping[str, str]) -> list[Problem]:
    """Put the environment's values in place of `${NAME}` and `${NAME:-default}`; `$${` stands for `${`."""
    problems: list[Problem] = []

    def walk(value: Any, path: Path_) -> Any:
        if isinstance(value, dict):
            return {key: walk(one, (*path, key)) for key, one in value.items()}
        if isinstance(value, list):
            return [walk(one, (*path, at)) for at, one in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        names: list[str] = []

        def one(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            text: str | None = environment.get(match[1], match[2])
            names.append(f"environment variable {match[1]}")
            if text is None:
                hint = f"Set it, or write ${{{match[1]}:-a default}}."
                problems.append(document.problem(path, f"{names[-1]} is not set", hint))
                return ""
            return text

        text = _VARIABLE.sub(one, value)
        if not names:
            return text
        document.variables[path] = " and ".join(dict.fromkeys(names))
        # A value that is nothing but a variable has the type that its text has in YAML.
        whole = _VARIABLE.fullmatch(value) is not None and _PLAIN.fullmatch(text.strip()) is not None
        if not whole:
            return text
        document.texts[path] = text
        return parse_document(text, document.variables[path]).value

    document.value = walk(document.value, ())
    return problems


def from_environment(
    document: Layered, environment: Mapping[str, str], top: Collection[str]
) -> list[Problem]:
    """Put every variable `EVALGAUGE_<KEY>__<KEY>…` into the document; `top` are the keys at the top.

    A variable without `__` counts only if it names a key at the top: others may belong to somebody else, such as
    those that Kubernetes sets for a service of our name.
    """
    problems: list[Problem] = []
    for name in sorted(environment):
        keys = name.removeprefix(PREFIX).lower().split("__")
        if not name.startswith(PREFIX) or (len(keys) == 1 and keys[0] not in top):
            continue
        origin = f"environment variable {name}"
        text = environment[name]
        given = Document(origin, text)
        if text.lstrip().startswith(_YAML) or _PLAIN.fullmatch(text.strip()):
            try:
                given = parse_document(text, origin)
            except DocumentError as error:
                hint = "Text that begins so is read as YAML: put it in quotes."
                problems += [Problem(origin, 0, 0, one.message, hint) for one in error.problems]
                continue
        problem = put(document, keys, given, origin, text)
        if problem:
            problems.append(problem)
    return problems


def put(
    document: Layered, keys: Sequence[str], given: Document, origin: str, text: str | None = None
) -> Problem | None:
    """Put the value of `given` where `keys` lead; a problem where they lead nowhere.

    `text` is how the value was written, where that may be meant as text though it looks like something else.
    """
    tree: Any = document.value
    path: Path_ = ()
    for place, word in enumerate(keys):
        key = _key(tree, word)
        if key is None:
            message = f"`{dotted(path)}` has {len(tree)} entries, and `{word}` is none of them or the next"
            return Problem(origin, 0, 0, message, "Entries count from 0.")
        path = (*path, key)
        last = place == len(keys) - 1
        inner = given.value if last else _at(tree, key)
        if not last and not isinstance(inner, dict | list):
            # `…TOKENS__0__NAME` where there is no list of tokens yet begins one.
            inner = [] if keys[place + 1] == "0" else {}
            _forget(document, path)
            document.values[path] = (0, 0)
            document.origins[path] = origin
        if isinstance(tree, list) and key == len(tree):
            tree.append(inner)
        else:
            tree[key] = inner
        tree = inner
    _forget(document, path)
    for below in given.values or {(): (0, 0)}:
        document.values[(*path, *below)] = (0, 0)
        document.origins[(*path, *below)] = origin
    if text is not None and not isinstance(given.value, str | dict | list):
        document.texts[path] = text
    return None


def take_as_text(document: Layered, path: Path_) -> bool:
    """Put the text at `path` as it was given in place of the number (or true, false) it looks like."""
    text = document.texts.pop(path, None)
    if text is None:
        return False
    tree = document.value
    for key in path[:-1]:
        tree = tree[key]
    tree[path[-1]] = text
    return True


def _key(tree: Any, word: str) -> str | int | None:
    """The key or index that a word of a variable's name means; names of inputs may hold dashes, variables cannot."""
    if isinstance(tree, list):
        return int(word) if word.isdecimal() and int(word) <= len(tree) else None
    return next((have for have in tree if have.replace("-", "_").lower() == word), word)


def _at(tree: Any, key: str | int) -> Any:
    if isinstance(tree, list):
        return tree[key] if isinstance(key, int) and key < len(tree) else None
    return tree.get(key)


def _forget(document: Layered, path: Path_) -> None:
    """What was known of the places at and below `path`: another value stands there now."""
    for known in (document.keys, document.values, document.origins, document.variables, document.texts):
        for place in [one for one in known if one[: len(path)] == path]:
            known.pop(place)
