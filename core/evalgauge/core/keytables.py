"""Tables of a file format's keys for its documentation, from the JSON Schema of the model that reads it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalgauge.core.schema import schema_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_TABLE = re.compile(r"(<!-- keys of (\w+)(?:: (\w+))? -->\n)(?:\|[^\n]*\n)*(<!-- end -->)")
"""Where a table stands in a document: `<!-- keys of pack: FieldSpec -->`, up to `<!-- end -->`."""

_WORDS = {
    "string": "text",
    "number": "number",
    "integer": "whole number",
    "boolean": "true or false",
    "object": "mapping",
    "array": "list",
    "null": "",
}


def with_tables(text: str) -> str:
    """`text` with every marked table made anew. Raises KeyError for a kind of file or a model that is not there."""
    return _TABLE.sub(lambda match: f"{match[1]}{key_table(match[2], match[3])}\n{match[4]}", text)


def key_table(kind: str, definition: str | None = None) -> str:
    """The keys of a kind of file, or of one of its parts, as a Markdown table."""
    schema = schema_of(kind)
    part = schema if definition is None else schema["$defs"][definition]
    required = part.get("required", [])
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key, one in part["properties"].items():
        cells = [
            f"`{key}`",
            _type(one, schema),
            _default(one, required=key in required),
            one.get("description", ""),
        ]
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows)


def _default(one: dict[str, Any], *, required: bool) -> str:
    if required:
        return "required"
    default = one.get("default")
    if default in (None, "", {}, []):
        return ""
    if isinstance(default, bool):
        return "`true`" if default else "`false`"
    if isinstance(default, float) and default.is_integer():
        default = int(default)
    return f"`{default}`"


def _type(one: dict[str, Any], schema: dict[str, Any]) -> str:  # noqa: PLR0911 - one for each form
    """A value's type in words."""
    if "$ref" in one:
        return _named(one["$ref"].rsplit("/", 1)[-1], schema)
    if "const" in one:
        return f"`{one['const']}`"
    if "enum" in one:
        return ", ".join(f"`{member}`" for member in one["enum"])
    branches = one.get("anyOf") or one.get("oneOf")
    if branches and {"$ref": "#/$defs/Not"} in branches:
        return "[filter](#filters)"
    if branches:
        found = dict.fromkeys(word for branch in branches if (word := _type(branch, schema)))
        if {*found} == {"number", "text"} and any(
            branch.get("pattern", "").endswith("+$") for branch in branches
        ):
            return "duration"
        if {*found} == {"whole number", "text"} and any(
            "[KMG]" in branch.get("pattern", "") for branch in branches
        ):
            return "size"
        return " or ".join(found)
    kind = one.get("type", "")
    if kind == "array":
        return f"list of {_type(one.get('items', {}), schema)}"
    if kind == "object":
        values = [*one.get("patternProperties", {}).values()]
        values += [one["additionalProperties"]] if isinstance(one.get("additionalProperties"), dict) else []
        return f"name → {_type(values[0], schema)}" if values else "mapping"
    return _WORDS.get(kind, "anything")


def _named(name: str, schema: dict[str, Any]) -> str:
    """The words for a part that has a name of its own: what kind of thing it is, not how it is called in code."""
    part = schema["$defs"][name]
    if "properties" not in part:
        return _type(part, schema)
    return _PARTS.get(name, name)


_PARTS = {
    "AlertSpec": "[alert](#alerts)",
    "AlertTest": "[test](#tests-of-alerts)",
    "CaseSpec": "[case](#cases)",
    "DeadLetterConfig": "[dead letters](#dead-letters)",
    "DeduplicationConfig": "[de-duplication](#de-duplication)",
    "EngineConfig": "[engine](#engine)",
    "FileInput": "[input](#inputs)",
    "HttpInput": "[input](#inputs)",
    "KafkaGroup": "[group](#kafka-groups)",
    "KafkaInput": "[input](#inputs)",
    "KafkaSasl": "[SASL](#kafka-security)",
    "KafkaSecurity": "[security](#kafka-security)",
    "KafkaTls": "[TLS](#kafka-security)",
    "LogConfig": "[log](#log)",
    "PrometheusExporter": "[exporter](#exporters)",
    "Rate": "[rate](#rate)",
    "RefusalSpec": "[refusal](#refusals)",
    "StateConfig": "[state](#state)",
    "TlsServerConfig": "[TLS](#tls)",
    "Token": "[token](#tokens)",
    "ActiveSpec": "[active](#active)",
    "AllOf": "[filter](#filters)",
    "AnyOf": "[filter](#filters)",
    "Comparison": "[comparison](#filters)",
    "BucketSpec": "[bucket](#derived-fields)",
    "ConsistencySpec": "[consistency](#consistency)",
    "CounterSpec": "[counter](#counter)",
    "DashboardSpec": "[dashboard](#dashboard)",
    "DeviationSpec": "[deviation](#deviation)",
    "DeriveSpec": "[derived field](#derived-fields)",
    "ElapsedSpec": "[elapsed](#elapsed)",
    "EmitSpec": "[emit](#internal-events)",
    "EventSpec": "[event type](#event-types)",
    "FirstOf": "[first](#id)",
    "FieldSpec": "[field](#fields)",
    "ForeignMetric": "[foreign metric](#foreign-metrics)",
    "GaugeSpec": "[gauge](#gauge)",
    "HashSpec": "[hash](#derived-fields)",
    "HistogramSpec": "[histogram](#histogram)",
    "IdMapping": "[id](#id)",
    "LabelSpec": "[label](#labels)",
    "Matrix": "[matrix](#panels)",
    "Not": "[filter](#filters)",
    "Panel": "[panel](#panels)",
    "ParameterSpec": "[parameter](#parameters)",
    "PatternSpec": "[pattern](#pattern)",
    "ProgressSpec": "[progress](#progress)",
    "QualityRule": "[quality rule](#quality-rules)",
    "Query": "[query](#panels)",
    "RecordingGroup": "[group](#recording-rules)",
    "RecordingRule": "[rule](#recording-rules)",
    "Row": "[row](#panels)",
    "SourceMapping": "[source](#source)",
    "Threshold": "[threshold](#panels)",
    "TimeMapping": "[time](#time)",
    "TypeMapping": "[type](#type)",
    "ValueMapping": "[value](#data)",
    "Variable": "[variable](#dashboard)",
    "WindowSpec": "[window](#window)",
}
"""Part of a file → how documents name it, with the heading that explains it."""


def main(paths: Sequence[str]) -> None:
    """Make the tables of documents anew: `python -m evalgauge.core.keytables docs/packs.md docs/mapping.md`."""
    for path in paths:
        text = Path(path).read_text(encoding="utf-8")
        Path(path).write_text(with_tables(text), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
