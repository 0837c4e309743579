"""YAML read strictly: what is refused, and that each fault is told at its place."""

# ruff: noqa: E501 - a text and what is told of it stand side by side

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from evalgauge.core.document import parse_document, read_document, suggest, validate
from evalgauge.core.errors import DocumentError
from evalgauge.core.pack.model import Pack
from evalgauge.core.units import Duration, Size, parse_duration, parse_size

if TYPE_CHECKING:
    from pathlib import Path


def told(text: str, model: type[BaseModel] | None = None) -> list[str]:
    """Every problem of a text as `line:column: message`, with its hint after a `|` if there is one."""
    with pytest.raises(DocumentError) as raised:
        _read(text, model)
    return [
        f"{one.line}:{one.column}: {one.message}" + (f" | {one.hint}" if one.hint else "")
        for one in raised.value.problems
    ]


def _read(text: str, model: type[BaseModel] | None) -> None:
    document = parse_document(text, "f.yaml")
    if model is not None:
        validate(document, model)


class Cat(BaseModel):
    """A model as any plugin may have."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    """Another one."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal["dog"]
    name: str
    wait: Duration = 0.0
    room: Size = 0


class Zoo(BaseModel):
    """Unions in every place where they may stand."""

    model_config = ConfigDict(extra="forbid")
    pets: dict[str, Annotated[Cat | Dog, Field(discriminator="kind")]] = Field(default_factory=dict)
    queue: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = Field(default_factory=list)
    best: Cat | str = "none"
    from_: str = Field(default="", alias="from")


def test_yaml_is_read_as_version_1_2() -> None:
    """No `on` is a boolean, no `1:30` a number, no date a date, and 010 is ten."""
    document = parse_document(
        "on: yes\na: 1:30\nb: 2024-01-01\nc: 010\nd: .5\ne: 1e3\nf: ~\ng: TRUE\nh: 0x1F\n", "f.yaml"
    )
    assert document.value == {
        "on": "yes",
        "a": "1:30",
        "b": "2024-01-01",
        "c": 10,
        "d": 0.5,
        "e": 1000.0,
        "f": None,
        "g": True,
        "h": "0x1F",
    }


def test_every_key_and_value_has_its_place() -> None:
    """Lines and columns count from 1; an item of a list stands where it begins."""
    document = parse_document("a:\n  - b: 1\n  - [x, y]\n", "f.yaml")
    assert document.keys["a",] == (1, 1)
    assert document.keys["a", 0] == (2, 5)
    assert document.values["a", 0, "b"] == (2, 8)
    assert document.values["a", 1, 1] == (3, 9)
    assert str(document.problem(("a", 0, "c"), "no", "yes")) == "f.yaml:2:5: no\n  yes"


def test_a_key_given_twice_is_an_error() -> None:
    """The second would win in silence."""
    assert told("a: 1\nb: 2\na: 3\n") == ["3:1: key `a` is given twice | It stands at line 1 already."]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2\n", "not valid YAML"),
        ("a: !secret x\n", "the tag `!secret` is not known here"),
        ("a: !!timestamp 2024-01-01\n", "is not known here"),
        ("a: !!int x\n", "`x` is not what its tag says"),
        ("a: &x [*x]\n", "an alias refers to what it is part of"),
        ("? [a, b]\n: 1\n", "a key must be plain text"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("a: \x01\n", "is not allowed"),
    ],
)
def test_what_is_no_plain_yaml_is_refused(text: str, message: str) -> None:
    """Tags, cycles, keys that are no text, several documents."""
    assert message in told(text)[0]


def test_a_short_file_cannot_grow_without_end() -> None:
    """Ten lines of aliases would be ten thousand million values."""
    text = "a0: &a0 [x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 11)
    )
    assert "holds more than" in told(text)[0]


def test_aliases_are_read_and_faults_are_told_where_they_are_written() -> None:
    """An anchor saves repetition; each use is checked."""
    document = parse_document("pets:\n  a: &a {kind: cat}\n  b: *a\n", "f.yaml")
    assert validate(document, Zoo).pets["b"].kind == "cat"


def test_a_missing_file_and_one_that_is_no_text_are_told(tmp_path: Path) -> None:
    """With the path, as any other fault."""
    with pytest.raises(DocumentError, match="cannot be read: No such file"):
        read_document(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe4\n")
    with pytest.raises(DocumentError, match="cannot be read"):
        read_document(tmp_path / "latin.yaml")


def test_faults_in_unions_are_told_at_their_keys_without_the_names_of_branches() -> None:
    """Tagged and plain unions, in mappings and lists."""
    text = """\
pets:
  tom: {kind: cat, live: 7}
  rex: {kind: dog, wait: 5 minutes}
  cow: {kind: cow}
  pig: {lives: 1}
queue:
  - {kind: cat, lives: many}
  - {kind: dog, name: x, room: 5 rooms}
best: {kind: cat, lifes: 3}
"""
    assert told(text, Zoo) == [
        "2:20: unknown key `live` | Did you mean `lives`?",
        "3:3: key `name` of `rex` is missing",
        "3:26: `pets.rex.wait`: `5 minutes` is no duration; write it like 250ms, 30s, 5m, 1h30m or 7d",
        "4:15: `pets.cow.kind`: unknown `cow` | Known: cat, dog.",
        "5:3: key `kind` of `pig` is missing | One of: cat, dog.",
        "7:24: `queue[0].lives` must be a whole number, not `many`",
        "8:32: `queue[1].room`: `5 rooms` is no size; write it like 512KiB, 64MiB or 1GB",
        "9:19: unknown key `lifes` | Did you mean `lives`?",
    ]


def test_the_python_name_of_a_key_is_no_key() -> None:
    """`from` is written `from`, whatever the model calls it."""
    assert told("from_: x\n", Zoo) == ["1:1: unknown key `from_` | Did you mean `from`?"]


FAULTS = {
    "metrics: {x: {type: counter, help: h, on: a.b, lables: {}}}": "1:48: unknown key `lables` | Did you mean `labels`?",
    "metrics: {x: {type: counter, help: h, on: 5}}": "1:43: `metrics.x.on` must be a list, not `5`",
    "metrics: {x: {type: counter, help: h, on: a.b, labels: {a: 5}}}": "1:60: `metrics.x.labels.a` must be a mapping of keys, not `5`",
    "metrics: {x: {type: counter, help: h, on: a.b, labels: {a: {feld: x}}}}": "1:61: unknown key `feld` | Did you mean `field`?",
    "metrics: {x: {type: counter, help: h, on: a.b, where: {a: {lesser: 5}}}}": "1:60: unknown key `lesser` | Known: eq, ge, gt, in, le, lt, present.",
    "metrics: {x: {type: counter, help: h, on: a.b, where: {not: {all: [{a: {lt: x}}]}}}}": "1:77: `metrics.x.where.not.all[0].a.lt` must be a number, not `x`",
    "metrics: {x: {type: counter, help: h, on: a.b, where: {any: []}}}": "1:61: `metrics.x.where.any`: must not be empty",
    "alerts: {Foo: {expr: a, for: soon, severity: info, summary: s, description: d, runbook: r}}": "1:30: `alerts.Foo.for`: `soon` is no duration; write it like 250ms, 30s, 5m, 1h30m or 7d",
    "alerts: {Foo: {expr: a, severity: warn, summary: s, description: d, runbook: r}}": "1:35: `alerts.Foo.severity`: unknown `warn` | Did you mean `warning`?",
    "alerts: {foo: {expr: a, severity: info, summary: s, description: d, runbook: r}}": "1:10: `foo` is no valid name of an alert | Words in CamelCase, such as `ThroughputLow`.",
    "recording: {g: {rules: {x: {expr: a, description: d}}}}": "1:25: `x` is no valid name of a recording rule | level:metric:operation in lower case, such as `tenant:judgment_executions:rate5m`.",
    "events: {x: {description: d, fields: {a: {type: string}}}}": "1:10: `x` is no valid event type | Lower-case words joined by dots, such as `judgment.executed`.",
    "use: [x]": "1:7: `use[0]`: `x` is no valid event type | Lower-case words joined by dots, such as `judgment.executed`.",
    "parameters: {p: {value: .nan, description: d}}": "1:25: `parameters.p.value`: must be a finite number",
    "description: 5": "1:14: `description` must be text, not `5` | Put it in quotes.",
    "foreign: {x: {help: h, type: gage}}": "1:30: `foreign.x.type`: unknown `gage` | Did you mean `gauge`?",
    f"metrics: {{{'x' * 151}: {{type: counter, help: h, on: a.b}}}}": f"1:11: `{'x' * 151}` is longer than 150 characters",
}


@pytest.mark.parametrize("text", FAULTS)
def test_each_shorthand_and_alias_of_a_pack_is_told_at_its_place(text: str) -> None:
    """Whatever the model makes of it, the message speaks of what stands in the file."""
    assert told(f"{text}\npack: x\nversion: 1\ntitle: x\n", Pack) == [FAULTS[text]]


def test_a_file_without_keys_is_told() -> None:
    """An empty file, or one that holds a list."""
    for text in ("", "- a\n", "just text\n"):
        assert "must hold a mapping of keys" in told(text, Pack)[0]


def test_a_near_word_is_suggested_and_else_all_are_listed() -> None:
    """Twenty at most."""
    assert suggest("lables", ["labels", "limit"]) == "Did you mean `labels`?"
    assert suggest("xyz", ["b", "a"]) == "Known: a, b."
    assert suggest("xyz", [f"w{n:02}" for n in range(30)]).endswith("w19, ….")
    assert suggest("xyz", []) == ""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("1h30m", 5400.0), ("7d", 604800.0), (5, 5.0), ("1.5m", 90.0), (0, 0.0)],
)
def test_durations_are_read_in_seconds(text: Any, seconds: float) -> None:
    """As a number or with units."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["5", "5 m", "m", "-5s", "", -1, float("inf"), float("nan"), True, "1x"])
def test_what_is_no_duration_is_refused(text: Any) -> None:
    """A number in quotes has no unit."""
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"), [("64MiB", 64 << 20), ("1.5GB", 1_500_000_000), (5, 5), ("512", 512), ("0B", 0)]
)
def test_sizes_are_read_in_bytes(text: Any, size: int) -> None:
    """As a number or with units."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["5 rooms", "-1KiB", -1, True, "", "1.5", 2.5, "KiB"])
def test_what_is_no_size_is_refused(text: Any) -> None:
    """Half a byte, a negative one, or none."""
    with pytest.raises(ValueError, match="no size"):
        parse_size(text)
