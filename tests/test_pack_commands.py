"""`evalgauge packs` and `evalgauge schema`: what is printed, and that it is right."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from evalgauge.core.commands.packs import command as packs
from evalgauge.core.commands.schema import command as schema
from evalgauge.core.pack.loader import load_pack
from evalgauge.core.pack.names import exposed_series
from evalgauge.core.pack.summary import estimate
from evalgauge.core.schema import schema_text
from tests.engine_helpers import Lab, event, pack_of
from tests.test_pack_check import SOUND

if TYPE_CHECKING:
    from pathlib import Path


def test_the_list_names_each_pack_with_its_title_and_source() -> None:
    """As a table and as JSON."""
    printed = CliRunner().invoke(packs, ["list"]).output
    assert "Judgment engine" in printed
    listed = json.loads(CliRunner().invoke(packs, ["list", "--json"]).output)
    assert {one["pack"] for one in listed} >= {"ahp", "judgment", "evalgauge"}
    assert all(
        one["source"] == "built-in" for one in listed if one["pack"] in {"ahp", "judgment", "evalgauge"}
    )


def test_a_pack_is_shown_with_every_series_and_how_many_there_can_be(tmp_path: Path) -> None:
    """Enums multiply, a text counts with its limit and `_other`, the metric's limit caps, buckets count each."""
    path = tmp_path / "shop.yaml"
    path.write_text(SOUND)
    shown = json.loads(CliRunner().invoke(packs, ["show", str(path), "--json"]).output)
    series = {one["name"]: one for metric in shown["metrics"] for one in metric["series"]}
    assert {name: frozenset(one["labels"]) for name, one in series.items()} == exposed_series(
        load_pack(path).pack
    )
    most = {name: one["at_most"] for name, one in series.items()}
    assert most["shop_revenue_usd_total"] == 2  # wrapped, plain
    assert most["shop_violations_total"] == 2  # two rules
    # 1,001 tenants times 2 kinds times 1,001 methods, capped; then each kind with `_other` in all else.
    assert most["shop_sales_total"] == 10_002
    assert most["shop_duration_seconds_count"] == 7_007  # 1,001 tenants times floors 0 to 5, or none
    assert most["shop_duration_seconds_bucket"] == 28_028  # three bounds and +Inf
    assert shown["metrics"][2]["unit"] == "seconds"
    assert shown["recording"][0]["labels"] == ["kind", "tenant"]
    assert [one["name"] for one in shown["alerts"]] == ["ShopSlow"]


LIMITED = """\
pack: shelf
version: 1
title: Shelf
events:
  shelf.filled:
    description: Filled.
    fields:
      kind: {type: string, enum: [a, b], required: true}
      row: {type: string, required: true}
      tier: {type: integer, min: 1, max: 5, required: true}
metrics:
  shelf_fills:
    type: counter
    help: Fills.
    on: shelf.filled
    labels: {kind: kind, row: {field: row, limit: 3}, tier: {field: tier, limit: TIERS}}
    limit: LIMIT
"""


@pytest.mark.parametrize(
    ("tiers", "limit", "most"),
    [(2, 24, 24), (2, 23, 24), (2, 10, 12), (9, 40, 40), (9, 39, 40), (9, 30, 32), (9, 1, 3)],
)
def test_there_are_never_more_series_than_a_pack_is_shown_with(
    tmp_path: Path, tiers: int, limit: int, most: int
) -> None:
    """Whatever is sent: three rows or `_other`, two tiers or `_other` (or all five); at the limit each kind is left."""
    pack = pack_of(LIMITED.replace("TIERS", str(tiers)).replace("LIMIT", str(limit)))
    assert estimate(pack.metrics["shelf_fills"], pack.events) == most
    sent = [
        event(number, "shelf.filled", kind=kind, row=row, tier=tier)
        for number, (row, tier, kind) in enumerate(itertools.product("uvwxyz", range(1, 6), "ab"))
    ]
    with Lab(tmp_path, packs=[pack]) as bench:
        bench.put(*sent)
        (family,) = bench.families()
        assert len(family.series) == most


def test_a_pack_is_shown_for_people() -> None:
    """Events with their rules, series, recording rules, alerts."""
    result = CliRunner().invoke(packs, ["show", "judgment"])
    assert result.exit_code == 0
    for word in (
        "judgment.executed",
        "one of rule, llm, hybrid",
        "judgment_executions_total",
        "at most",
        "JudgmentsSlow",
    ):
        assert word in result.output


def test_what_remembers_is_shown_by_what_each_series_is() -> None:
    """A time is a histogram, its limits are counters, what is open is a gauge; only the first has seconds."""
    shown = json.loads(CliRunner().invoke(packs, ["show", "qna", "--json"]).output)
    [elapsed] = [one for one in shown["metrics"] if one["type"] == "elapsed"]
    kinds = {one["name"].removeprefix("qna_answer_"): (one["type"], one["unit"]) for one in elapsed["series"]}
    assert kinds == {
        "seconds_bucket": ("histogram", "seconds"),
        "seconds_sum": ("histogram", "seconds"),
        "seconds_count": ("histogram", ""),
        "limits_total": ("counter", ""),
        "expired_total": ("counter", ""),
        "unmatched_total": ("counter", ""),
        "evicted_total": ("counter", ""),
        "open": ("gauge", ""),
        "oldest_open_timestamp_seconds": ("gauge", "seconds"),
    }


def test_numbers_stand_in_for_parameters() -> None:
    """In what people read; and the parameters are listed with what they decide."""
    result = CliRunner().invoke(packs, ["show", "qna"])
    assert "A question waits for longer than 600 s" in result.output
    assert "${" not in result.output
    shown = json.loads(CliRunner().invoke(packs, ["show", "qna", "--json"]).output)
    assert [one["value"] for one in shown["parameters"] if one["name"] == "answer_limit"] == [600]


def test_the_schema_is_printed() -> None:
    """As it is shipped."""
    assert CliRunner().invoke(schema, ["pack"]).output == schema_text("pack")
    assert CliRunner().invoke(schema, ["nothing"]).exit_code == 2


def test_each_command_has_an_example_in_its_help() -> None:
    """`--help` shows a line to copy."""
    for arguments in ([], ["list"], ["show"]):
        assert "evalgauge packs" in CliRunner().invoke(packs, [*arguments, "--help"]).output
    assert "evalgauge schema pack" in CliRunner().invoke(schema, ["--help"]).output
