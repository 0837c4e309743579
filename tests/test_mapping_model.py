"""What the reader of mappings accepts, and what it says of each fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from evalgauge.core.document import parse_document, validate
from evalgauge.core.errors import DocumentError
from evalgauge.core.mapping_check import checked_mapping, load_mapping
from evalgauge.core.pack.model import Pack

if TYPE_CHECKING:
    from pathlib import Path

PACK = """\
pack: judge
version: 1
title: Judge
events:
  judge.compared:
    description: Two answers were compared.
    fields:
      model: {type: string, required: true, max_length: 20}
      winner: {type: string, required: true, enum: [left, right, draw]}
      preference: {type: number, min: 1, max: 2}
      price: {type: number, unit: usd}
      turns: {type: integer}
      human: {type: boolean}
      note: {type: any, payload: true}
  judge.failed:
    description: A comparison failed.
    fields:
      model: {type: string, required: true}
"""

SOUND = """\
mapping: foreign
version: 1
description: Some other shape.
type: {field: kind, table: {cmp: judge.compared, err: judge.failed}}
id: {fields: [run, row], separator: "-"}
time: {field: at, format: "%d/%m/%Y %H:%M", zone: Europe/Berlin}
source: {constant: lab}
data:
  judge.compared:
    model: result.model
    winner: {field: result.winner, table: {a: left, b: right}, table_default: draw, default: draw}
    preference: {field: result.score, offset: 1}
    price: {field: cents, scale: 0.01}
    turns: {constant: 2}
    human: {field: human, default: false}
    note: {field: raw}
  judge.failed:
    model: {field: result.model, default: unknown}
traceparent: trace
"""


@pytest.fixture
def pack() -> Pack:
    """The pack that the mappings map to."""
    return validate(parse_document(PACK, "judge.yaml"), Pack)


def test_a_sound_mapping_is_read_with_its_shorthands(pack: Pack, tmp_path: Path) -> None:
    """A plain path is short for `field:`; the position may be the id where the input can be read again."""
    path = tmp_path / "foreign.yaml"
    path.write_text(SOUND)
    mapping = load_mapping(path, [pack])
    assert mapping.data["judge.compared"]["model"].field == "result.model"
    assert mapping.id.fields == ["run", "row"]
    by_position = SOUND.replace('{fields: [run, row], separator: "-"}', "{from: position}")
    assert checked_mapping(parse_document(by_position, "m.yaml"), [pack]).id.from_ == "position"


CASES = {
    "unknown key": ("traceparent:", "tracparent:", "unknown key `tracparent`", "Did you mean `traceparent`?"),
    "unknown key inside": ("scale: 0.01", "scal: 0.01", "unknown key `scal`", "Did you mean `scale`?"),
    "two ways of type": (
        "type: {field: kind,",
        "type: {constant: judge.failed, field: kind,",
        "exactly one of",
        "",
    ),
    "python name": (
        "id: {fields: [run, row]",
        "id: {from_: position, fields: [run, row]",
        "unknown key `from_`",
        "`from`",
    ),
    "no source": ("source: {constant: lab}\n", "", "key `source` is missing", ""),
    "unknown type": (
        "cmp: judge.compared",
        "cmp: judge.compare",
        "no pack declares the event type `judge.compare`",
        "Did you mean `judge.compared`?",
    ),
    "unknown data type": (
        "  judge.failed:\n",
        "  judge.fail:\n",
        "no pack declares the event type `judge.fail`",
        "Did you mean `judge.failed`?",
    ),
    "type without data": (
        "  judge.failed:\n    model: {field: result.model, default: unknown}\n",
        "",
        "`data` says nothing of `judge.failed`",
        "",
    ),
    "type never reached": (", err: judge.failed", "", "no event gets the type `judge.failed`", ""),
    "unknown field": (
        "    turns: {constant",
        "    turn: {constant",
        "`turn` is no field of `judge.compared`",
        "Did you mean `turns`?",
    ),
    "required not mapped": (
        "    model: result.model\n",
        "",
        "needs the field `model`, which is not mapped",
        "Give `model:",
    ),
    "table outside enum": ("a: left", "a: lefft", "`winner` is never `lefft`", "Did you mean `left`?"),
    "table default outside enum": (
        "table_default: draw",
        "table_default: drawn",
        "`winner` is never `drawn`",
        "`draw`",
    ),
    "default outside enum": ("draw, default: draw", "draw, default: none", "`winner` is never `none`", ""),
    "default too long": (
        "model: result.model",
        "model: {field: result.model, default: a_model_with_a_long_name}",
        "longer than max_length 20",
        "",
    ),
    "default of other type": (
        "default: false",
        "default: never",
        "is of type `boolean`, and `never` is not",
        "",
    ),
    "constant out of range": (
        "{field: result.score, offset: 1}",
        "{constant: 3}",
        "`preference` is never 3",
        "",
    ),
    "constant not whole": ("{constant: 2}", "{constant: 2.5}", "is of type `integer`, and `2.5` is not", ""),
    "scale of text": (
        "model: result.model",
        "model: {field: result.model, scale: 2}",
        "`scale` is for numbers",
        "",
    ),
    "scale of constant": (
        "{constant: 2}",
        "{constant: 2, scale: 3}",
        "`scale` goes with `field`",
        "Leave it out.",
    ),
    "scale of nothing": ("scale: 0.01", "scale: 0", "makes every value the same", ""),
    "table of a number": (
        "{field: cents, scale: 0.01}",
        '{field: cents, table: {a: "1"}}',
        "`table` gives text",
        "",
    ),
    "default without table": (
        "{field: cents, scale: 0.01}",
        "{field: cents, table_default: x}",
        "`table_default` goes with `table`",
        "",
    ),
    "default of any": ("note: {field: raw}", "note: {field: raw, default: x}", "has no default", ""),
    "no format": ('"%d/%m/%Y %H:%M"', "unixms", "`unixms` is no format", "Did you mean `unix_ms`?"),
    "bad directive": ('"%d/%m/%Y %H:%M"', '"%d/%m/%Y %Q"', "is no strptime format", ""),
    "no year": ('"%d/%m/%Y %H:%M"', '"%H:%M"', "says no year", ""),
    "no zone": (", zone: Europe/Berlin", "", "have no offset, and no `zone` is named", "Name the `zone`"),
    "zone unknown": (
        "Europe/Berlin",
        "Europe/Berln",
        "no time zone is called `Europe/Berln`",
        "Did you mean `Europe/Berlin`?",
    ),
    "zone unused": ('"%d/%m/%Y %H:%M"', "unix", "`zone` is never used", ""),
    "zone beside offset": ('"%d/%m/%Y %H:%M"', '"%d/%m/%Y %H:%M%z"', "`zone` is never used", ""),
    "format of arrival": ("field: at, format", "from: arrival, format", "`format` goes with `field`", ""),
    "separator of one": (
        "{fields: [run, row], sep",
        "{field: run, sep",
        "`separator` goes with `fields`",
        "",
    ),
    "separator of one type": (
        "type: {field: kind,",
        'type: {field: kind, separator: "/",',
        "`separator` goes with `fields`",
        "",
    ),
    "table of too few values": (
        "type: {field: kind,",
        "type: {fields: [result.sort, kind],",
        "`cmp` is not made of 2 values joined by `:`",
        "Such as sort:kind.",
    ),
    "first of one": ("[run, row]", "[run, {first: [row]}]", "at least 2", ""),
    "first is no path": ("[run, row]", "[run, {first: [row, .x]}]", "`.x` is no dotted path", ""),
    "text of a constant": (
        "{constant: 2}",
        "{constant: 2, from_text: true}",
        "`from_text` goes with `field`",
        "Leave it out.",
    ),
    "text of text": (
        "model: result.model",
        "model: {field: result.model, from_text: true}",
        "`from_text` is for numbers",
        "",
    ),
    "one field of several": ("[run, row]", "[run]", "at least 2", ""),
    "no path": ("model: result.model", "model: result..model", "`result..model` is no dotted path", ""),
    "value and object": (
        "turns: {constant: 2}",
        "turns: result",
        "`result` is read as a value, and here as an object",
        "",
    ),
    "value and anything": (
        "note: {field: raw}",
        "note: {field: cents}",
        "`cents` is read as a single value and",
        "",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_fault_is_named_with_its_mend(case: str, pack: Pack) -> None:
    """One change to a sound mapping, and what is said of it."""
    before, after, message, hint = CASES[case]
    assert before in SOUND
    with pytest.raises(DocumentError) as raised:
        checked_mapping(parse_document(SOUND.replace(before, after, 1), "m.yaml"), [pack])
    matching = [one for one in raised.value.problems if message in one.message]
    assert matching, raised.value
    assert hint in matching[0].hint


def test_a_position_is_no_id_where_events_are_pushed(pack: Pack) -> None:
    """The sender repeats an event after a lost answer, and then it would count twice."""
    text = SOUND.replace('{fields: [run, row], separator: "-"}', "{from: position}")
    with pytest.raises(DocumentError, match="has no position") as raised:
        checked_mapping(parse_document(text, "m.yaml"), [pack], pushes=True)
    assert raised.value.problems[0].line == 5


def test_all_problems_come_at_once_and_none_follows_from_another(pack: Pack) -> None:
    """A mapping of a field that is wrong in itself is not also missing."""
    text = SOUND.replace("model: result.model", "model: {feld: x}").replace("scale: 0.01", "scale: much")
    with pytest.raises(DocumentError) as raised:
        checked_mapping(parse_document(text.replace("a: left", "a: lefft"), "m.yaml"), [pack])
    assert [one.line for one in raised.value.problems] == [10, 11, 13]
