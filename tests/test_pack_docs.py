"""The documentation of packs and mappings: tables as generated, examples that load, links that lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from evalgauge.core.document import parse_document
from evalgauge.core.keytables import key_table, with_tables
from evalgauge.core.pack.check import check_pack
from evalgauge.core.pack.loader import examined_pack
from evalgauge.core.units import UNITS

DOCS = Path(__file__).parent.parent / "docs"
WITH_TABLES = ("packs.md", "mapping.md")


@pytest.mark.parametrize("name", WITH_TABLES)
def test_the_tables_are_those_of_the_models(name: str) -> None:
    """After a change of a model: `python -m evalgauge.core.keytables docs/packs.md docs/mapping.md`."""
    text = (DOCS / name).read_text(encoding="utf-8")
    assert text == with_tables(text)
    assert text.count("<!-- keys of") == text.count("<!-- end -->") > 5


@pytest.mark.parametrize("name", WITH_TABLES)
def test_links_within_a_document_lead_to_its_headings(name: str) -> None:
    """The tables link to the headings that explain a part."""
    text = (DOCS / name).read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lower()).replace(" ", "-")
        for line in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    assert {*re.findall(r"\]\(#([\w-]+)\)", text)} <= headings


def test_the_pack_in_one_page_is_sound() -> None:
    """What a reader copies works."""
    text = (DOCS / "packs.md").read_text(encoding="utf-8")
    example = next(
        one for one in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if one.startswith("pack:")
    )
    document = parse_document(example, "shop.yaml")
    examined = examined_pack(document)
    assert examined.problems == []
    assert examined.model is not None
    assert check_pack(document, examined.model) == []


def test_every_unit_is_documented() -> None:
    """A unit that nobody can find is not there."""
    text = (DOCS / "packs.md").read_text(encoding="utf-8")
    for unit in UNITS:
        assert f"`{unit}`" in text or f'`"{unit}"`' in text, unit


def test_a_table_says_type_default_and_meaning() -> None:
    """Durations, choices and shorthands in words."""
    table = key_table("pack", "AlertSpec")
    assert "| `for` | duration | `0` | How long it must hold before it fires. |" in table.replace(
        " |  |", " | `0` |"
    )
    assert "| `severity` | `critical`, `high`, `warning`, `medium`, `info` | required |" in table
    assert "| `labels` | name → text or [label](#labels) |" in key_table("pack", "CounterSpec")
