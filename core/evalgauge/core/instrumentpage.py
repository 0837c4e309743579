"""The reference page of instruments, from what the code says of them and what a pack declares of each kind.

`python -m evalgauge.core.instrumentpage examples/helpdesk/pack.yaml` prints it.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from evalgauge.core import plugins
from evalgauge.core.clock import Clock
from evalgauge.core.errors import ConfigError
from evalgauge.core.instrument import Declared
from evalgauge.core.keyed import needs_keys, wants_keys
from evalgauge.core.keytables import key_table
from evalgauge.core.pack.emitted import emitted
from evalgauge.core.pack.event_model import DERIVATIONS, DeriveSpec, LabelSpec
from evalgauge.core.pack.loader import load
from evalgauge.core.pack.metric_model import CountingSpec, KeyedSpec, WindowSpec
from evalgauge.core.pack.names import PROCESS, base_unit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from evalgauge.core.document import Path_
    from evalgauge.core.pack.event_model import Strict
    from evalgauge.core.pack.loader import LoadedPack
    from evalgauge.core.pack.metric_model import MetricSpec

_COMMON = ("help", "labels", "where", "limit")
"""Keys that every kind has."""
_ANY_WAY = {*_COMMON, "unit", "across", "severity", "emit", "ttl", "keys", "lateness", "exemplars"}
"""Keys that do not make a declaration one of another form."""
_LEFT_OUT = {
    "Unobserved": "`evalgauge_values_unobserved_total`",
    "Late": "`evalgauge_events_late_total`",
    "Evicted": "`…_evicted_total`",
}
"""Paragraphs of an instrument's docstring that tell what it leaves out or forgets → the counter that tells how many."""
_SCOPES = {
    (True, False): "the replica's; what it has counted stays where it is.",
    (False, True): "the partition's; it moves with it.",
    (True, True): "some is the replica's and stays where it is, some the partition's and moves with it.",
}
"""Whether an instrument has tables of the replica, and of a partition → what that means."""
_NEEDS = {
    (False, False): "nothing need be said of keys.",
    (False, True): "all events of a label set must be in one partition; `keyed_by` may say so.",
    (True, False): "all events of a key must be in one partition, and the input must say so by `keyed_by`.",
}
"""Whether a metric needs keys, and whether it wants them → what that asks for."""
_SOURCES = ("field", "table", "constant", "quality", "calendar")
"""Where a label's value comes from."""


def page(loaded: LoadedPack) -> str:
    """The page in Markdown. Raises `ConfigError` where the pack has no metric of some kind, label or derived field."""
    sections = [_head(loaded), *(_kind(name, spec, loaded) for name, spec in kinds().items())]
    return "\n".join([*sections, _labels(loaded), _derivations(loaded)])


def kinds() -> dict[str, type[MetricSpec]]:
    """Each kind of metric that is installed, by its name, in the order of the pack format."""
    specs = {get_args(one.model_fields["type"].annotation)[0]: one for one in _specs()}
    return {name: specs[name] for name in sorted(plugins.names(plugins.INSTRUMENTS), key=[*specs].index)}


def _specs() -> tuple[type[Any], ...]:
    return (*get_args(CountingSpec), *get_args(KeyedSpec), WindowSpec)


def _head(loaded: LoadedPack) -> str:
    contents = "\n".join(f"- [`{name}`](#{name}): {_first(spec)}" for name, spec in kinds().items())
    common = "\n".join(
        line
        for line in _rows(_specs()[0].__name__)
        if line.startswith("|--") or _key(line) in {"key", *_COMMON}
    )
    return f"""\
# Instruments

<!-- Made by `python3 dev.py generate`. Do not edit: what it says stands in the code. -->

Every kind of metric that a pack can declare, with the series it is exposed as. The examples are those of the pack \
[{loaded.pack.pack}](../{loaded.source}); [packs](packs.md) says more of each kind.

{contents}

All have these keys:

{common}
"""


def _kind(name: str, spec: type[MetricSpec], loaded: LoadedPack) -> str:
    instrument = plugins.load(plugins.INSTRUMENTS, name)
    said, left_out = told(instrument)
    parts = [f"## {name.capitalize()}", _whole(spec), said]
    examples = examples_of(spec, loaded)
    if not examples:
        raise ConfigError(f"{loaded.source} declares no metric of the kind `{name}`")
    parts.append(_yaml("\n".join(_source(loaded, ("metrics", one)) for one in examples)))
    parts.append("\n".join(_families(examples, loaded)))
    parts.append("\n".join([*_state(name, examples, loaded), *left_out]))
    rows = [line for line in _rows(spec.__name__) if _key(line) not in _COMMON]
    parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


def told(instrument: type) -> tuple[str, list[str]]:
    """What an instrument's docstring says of how it works, and as a list what it leaves out, with the counters."""
    lines = inspect.cleandoc(instrument.__doc__ or "").splitlines()
    begins = [at for at, line in enumerate(lines) if line.partition(":")[0] in _LEFT_OUT]
    first = begins[0] if begins else len(lines)
    items = []
    for start, end in zip(begins, [*begins[1:], len(lines)], strict=True):
        word, _, text = " ".join(line.strip() for line in lines[start:end]).partition(": ")
        items.append(f"- {word} ({_LEFT_OUT[word]}): {text}")
    return "\n".join(lines[:first]).strip(), items


def examples_of(spec: type[MetricSpec], loaded: LoadedPack) -> dict[str, MetricSpec]:
    """The pack's metrics of a kind, one of each form: a form is told by the keys that are given."""
    found: dict[frozenset[str], str] = {}
    for name, metric in loaded.pack.metrics.items():
        if isinstance(metric, spec) and PROCESS not in metric.on:
            found.setdefault(frozenset(metric.model_fields_set - _ANY_WAY), name)
    return {name: loaded.pack.metrics[name] for name in found.values()}


def _families(examples: Mapping[str, MetricSpec], loaded: LoadedPack) -> Iterator[str]:
    """The table of all that the examples are exposed as."""
    yield "| series | type | unit | labels | says |"
    yield "|---|---|---|---|---|"
    for name, metric in examples.items():
        for one in emitted(name, metric, base_unit(metric, loaded.pack.events)):
            values = {label: ", ".join(f"`{value}`" for value in texts) for label, texts in one.more.items()}
            labels = [f"`{label}`" for label in one.labels]
            labels += [f"`{label}` ({texts})" for label, texts in values.items()]
            says = one.help.removeprefix(f"{metric.help} ")
            series = f"{one.name}{'_total' if one.kind == 'counter' else ''}"
            yield f"| `{series}` | {one.kind} | {one.unit} | {', '.join(labels)} | {says} |"


def _state(kind: str, examples: Mapping[str, MetricSpec], loaded: LoadedPack) -> Iterator[str]:
    """Where state is kept, and whether a group needs keys; of each example apart where they differ."""
    instrument = plugins.load(plugins.INSTRUMENTS, kind)
    state: dict[str, list[str]] = {}
    needs: dict[str, list[str]] = {}
    for name, metric in examples.items():
        types = {type_: loaded.pack.events[type_] for type_ in metric.on}
        made = instrument(Declared(loaded.pack.pack, name, metric, types))
        part = made.part(Clock())
        state.setdefault(_SCOPES[bool(made.tables), part is not None], []).append(f"`{name}`")
        keys = _NEEDS[needs_keys(metric, instrument), wants_keys(metric)]
        needs.setdefault(keys, []).append(f"`{name}`")
    for what, found in (("State", state), ("In a Kafka group", needs)):
        for text, names in found.items():
            whose = f", {' and '.join(names)}" if len(found) > 1 else ""
            yield f"- {what}{whose}: {text}"


def _labels(loaded: LoadedPack) -> str:
    """Each source of labels, as the pack uses it first."""
    lines: dict[str, str] = {}
    for name, metric in loaded.pack.metrics.items():
        for label, spec in metric.label_specs.items():
            for source in _SOURCES:
                value = getattr(spec, source)
                form = f"{source}: {value}" if source in {"quality", "calendar"} else source
                path: Path_ = ("metrics", name, "labels", label)
                if value is not None and path in loaded.document.keys and form not in lines:
                    lines[form] = f"{_source(loaded, path)}  # {form}, in {name}"
    if missing := {*_SOURCES} - {form.partition(":")[0] for form in lines}:
        raise ConfigError(f"{loaded.source} has no label by {', '.join(sorted(missing))}")
    keys = "\n".join(_rows("LabelSpec"))
    return f"## Labels\n\n{_whole(LabelSpec)}\n\n{_yaml(chr(10).join(lines.values()))}\n\n{keys}\n"


def _derivations(loaded: LoadedPack) -> str:
    """Each form of a derived field, as the pack uses it first, and what it is."""
    shown: dict[str, tuple[str, str]] = {}
    for type_, event in loaded.pack.events.items():
        for name, spec in event.derive.items():
            made = event.columns[name]
            of = f" of {', '.join(f'`{one}`' for one in made.enum)}" if made.enum else ""
            unit = f" in `{made.unit}`" if made.unit else ""
            row = f"| `{spec.kind}` | `{name}` | {made.type}{of}{unit} |"
            shown.setdefault(spec.kind, (_source(loaded, ("events", type_, "derive", name)), row))
    if missing := {*DERIVATIONS} - {*shown} - {"function"}:
        raise ConfigError(f"{loaded.source} has no derived field by {', '.join(sorted(missing))}")
    table = "\n".join(["| form | field | is |", "|---|---|---|", *(row for _, row in shown.values())])
    example = _yaml("\n".join(text for text, _ in shown.values()))
    keys = "\n".join(_rows("DeriveSpec"))
    function = (
        "A `function` is Python of an installed package: see [derived fields](packs.md#derived-fields)."
    )
    said = _whole(DeriveSpec).replace("`DERIVATIONS`", ", ".join(f"`{one}`" for one in DERIVATIONS))
    return f"## Derived fields\n\n{said}\n\n{example}\n\n{table}\n\n{function}\n\n{keys}\n"


def _whole(spec: type[Strict]) -> str:
    return inspect.cleandoc(spec.__doc__ or "")


def _first(spec: type[Strict]) -> str:
    text = _whole(spec).splitlines()[0]
    return text[0].lower() + text[1:]


def _rows(definition: str) -> list[str]:
    """The lines of a table of keys, its links made such as lead out of this page."""
    return key_table("pack", definition).replace("](#", "](packs.md#").splitlines()


def _key(line: str) -> str:
    """The key that a line of such a table is about."""
    return line.removeprefix("| ").partition(" |")[0].strip("`")


def _source(loaded: LoadedPack, path: Path_) -> str:
    """An entry of the pack as it stands in its file, at the margin; comments below it belong to the next one."""
    lines = Path(loaded.document.file).read_text(encoding="utf-8").splitlines()
    line, column = loaded.document.keys[path]
    indent = column - 1
    if not lines[line - 1][:indent].isspace():  # within braces: it alone
        return _braced(lines[line - 1][indent:])
    end = line
    while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) > indent):
        end += 1
    return textwrap.dedent("\n".join(lines[line - 1 : end])).strip()


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _braced(text: str) -> str:
    """The first entry of what follows a brace."""
    depth = 0
    for at, character in enumerate(text):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(character, 0)
        if depth < 0 or (depth == 0 and character == ","):
            return text[:at]
    return text


def _yaml(text: str) -> str:
    return f"```yaml\n{text}\n```"


def main(arguments: Sequence[str]) -> None:
    """Print the page with the examples of a pack."""
    [loaded] = load(arguments)
    sys.stdout.write(re.sub(r"\n{3,}", "\n\n", page(loaded)))


if __name__ == "__main__":
    main(sys.argv[1:])
