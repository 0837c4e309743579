"""Pydantic's findings in words for the person who wrote the file: which key, what is wrong, how to mend it."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

Path_ = tuple[str | int, ...]

_NAMES = {
    r"^[a-z][a-z0-9_]*$": (
        "is no valid name here",
        "Lower-case letters, digits and `_`, starting with a letter.",
    ),
    r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$": (
        "is no valid event type",
        "Lower-case words joined by dots, such as `judgment.executed`.",
    ),
    r"^[a-z_][a-z0-9_]*(:[a-z0-9_]+)+$": (
        "is no valid name of a recording rule",
        "level:metric:operation in lower case, such as `tenant:judgment_executions:rate5m`.",
    ),
    r"^[A-Z][A-Za-z0-9]*$": ("is no valid name of an alert", "Words in CamelCase, such as `ThroughputLow`."),
}
"""Pattern → what to say of a text that does not match, and the mend."""

_KINDS = {
    "string_type": "text",
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_parsing": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping of keys",
    "model_type": "a mapping of keys",
    "none_required": "",
    "model_attributes_type": "a mapping of keys",
}
"""Finding → what would have been right there."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: its place in the file, and words for it."""

    loc: tuple[str | int, ...]
    path: Path_
    """The part of `loc` that stands in the file."""
    message: str
    hint: str = ""
    at_key: bool = False
    kind: str = ""
    """Pydantic's name of the fault, where it matters to the reader of findings."""
    missing: str = ""


def described(error: ValidationError, model: type[BaseModel], known: Container[Path_]) -> list[Finding]:
    """Every finding of `error`; the branches of a union that failed at one place become one."""
    findings = []
    wanted: dict[Path_, list[tuple[str, ErrorDetails]]] = {}
    for details in error.errors(include_url=False):
        path = path_in(known, details["loc"])
        kind = _KINDS.get(details["type"])
        if kind is not None:
            wanted.setdefault(path, []).append((kind, details))
        else:
            findings.append(_described(details, path, model))
    for path, branches in wanted.items():
        loc, details = branches[0][1]["loc"], branches[0][1]
        if loc[-1:] != path[-1:] and any(other.loc[: len(loc) - 1] == loc[:-1] for other in findings):
            # A union of which another branch fits better and says what is wrong inside.
            continue
        kinds = list(dict.fromkeys(kind for kind, _ in branches if kind))
        message = f"`{dotted(path)}` must be {_either(kinds)}, not {_shown(details['input'])}"
        quotable = "text" in kinds and isinstance(details["input"], int | float)
        findings.append(Finding(loc, path, message, "Put it in quotes." if quotable else ""))
    return findings


def _described(details: ErrorDetails, path: Path_, model: type[BaseModel]) -> Finding:  # noqa: PLR0911 - one a kind
    loc, kind, context = details["loc"], details["type"], details.get("ctx", {})
    name = str(loc[-1]) if loc else ""
    if kind == "extra_forbidden":
        return Finding(
            loc, path, f"unknown key `{name}`", suggest(name, _siblings(model, loc)), at_key=True, kind=kind
        )
    if kind == "missing":
        owner = f" of `{path[-1]}`" if path and isinstance(path[-1], str) else ""
        return Finding(loc, path, f"key `{name}`{owner} is missing", at_key=bool(path), missing=name)
    if kind == "union_tag_not_found":
        key = str(context["discriminator"]).strip("'")
        return Finding(
            loc, path, f"key `{key}` of `{path[-1]}` is missing", _choices(model, loc, key), at_key=True
        )
    if kind == "union_tag_invalid":
        key = str(context["discriminator"]).strip("'")
        tags = [tag.strip(" '") for tag in str(context["expected_tags"]).split(",")]
        return Finding(
            loc,
            (*path, key),
            f"`{dotted((*path, key))}`: unknown `{context['tag']}`",
            suggest(str(context["tag"]), tags),
        )
    if kind in {"string_pattern_mismatch", "string_too_long", "string_too_short"} and name == "[key]":
        what, hint = _pattern_words(context, details["msg"])
        return Finding(loc, path, f"`{path[-1] if path else ''}` {what}", hint, at_key=True)
    where = f"`{dotted(path)}`: " if path else ""
    if kind == "string_pattern_mismatch":
        what, hint = _pattern_words(context, details["msg"])
        return Finding(loc, path, f"{where}{_shown(details['input'])} {what}", hint)
    if kind == "string_too_short" and context.get("min_length") == 1:
        return Finding(loc, path, f"{where}must not be empty")
    if kind == "too_short" and context.get("min_length") == 1:
        return Finding(loc, path, f"{where}must not be empty", kind=kind)
    if kind == "literal_error":
        choices = [choice.strip(" '") for choice in str(context["expected"]).replace(" or ", ",").split(",")]
        return Finding(
            loc, path, f"{where}unknown {_shown(details['input'])}", suggest(str(details["input"]), choices)
        )
    message = details["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return Finding(loc, path, f"{where}{message}", kind=kind)


def _pattern_words(context: dict[str, Any], otherwise: str) -> tuple[str, str]:
    if "max_length" in context:
        return f"is longer than {context['max_length']} characters", ""
    return _NAMES.get(str(context.get("pattern")), (f"is not valid: {otherwise}", ""))


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _either(kinds: Sequence[str]) -> str:
    return kinds[0] if len(kinds) == 1 else f"{', '.join(kinds[:-1])} or {kinds[-1]}"


def dotted(path: Path_) -> str:
    """A path as a person writes it: `rows[0].panels[2].title`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def suggest(word: str, known: Iterable[str]) -> str:
    """Say which known word was probably meant, or list them when none is near."""
    names = sorted(set(known))
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"Did you mean `{near[0]}`?"
    return f"Known: {', '.join(names[:20])}{', …' if len(names) > 20 else ''}." if names else ""  # noqa: PLR2004


def path_in(known: Container[Path_], location: Sequence[str | int]) -> Path_:
    """The part of a finding's location that stands in the file: names of union branches are left out."""
    path: Path_ = ()
    for part in location:
        if (*path, part) in known:
            path = (*path, part)
    return path


def _choices(model: type[BaseModel], location: Sequence[str | int], key: str) -> str:
    found = [
        branch["properties"][key].get("const")
        for branch in _along(model, location)
        if key in branch.get("properties", {})
    ]
    return f"One of: {', '.join(sorted(str(choice) for choice in found if choice))}." if found else ""


def _siblings(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """The keys that the model which refused `location` does know."""
    return [key for branch in _along(model, location[:-1]) for key in branch.get("properties", {})]


def _along(model: type[BaseModel], location: Sequence[str | int]) -> list[dict[str, Any]]:
    """The branches of the model's JSON Schema that stand at `location`."""
    schema = model.model_json_schema(by_alias=True)
    definitions = schema.get("$defs", {})
    branches = _resolved([schema], definitions)
    for part in location:
        step: list[dict[str, Any]] = []
        for branch in branches:
            patterns = branch.get("patternProperties", {})
            if isinstance(part, int) and "items" in branch:
                step.append(branch["items"])
            elif part in branch.get("properties", {}):
                step.append(branch["properties"][part])
            elif isinstance(branch.get("additionalProperties"), dict):
                step.append(branch["additionalProperties"])
            elif patterns:
                step.extend(patterns.values())
        if not step:
            # The name of a union's branch is no step, but it may tell which branch was meant.
            step = [branch for branch in branches if _is_tagged(branch, part)]
        branches = _resolved(step or branches, definitions)
    return branches


def _is_tagged(branch: dict[str, Any], tag: str | int) -> bool:
    properties = branch.get("properties", {})
    return branch.get("title") == tag or any(one.get("const") == tag for one in properties.values())


def _resolved(candidates: Iterable[dict[str, Any]], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    todo = list(candidates)
    while todo:
        one = todo.pop()
        if "$ref" in one:
            todo.append(definitions[one["$ref"].rsplit("/", 1)[-1]])
        elif "anyOf" in one or "oneOf" in one:
            todo.extend(one.get("anyOf", []) + one.get("oneOf", []))
        else:
            found.append(one)
    return found
