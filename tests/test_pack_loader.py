"""Packs by name, path and entry point: equal for the loader, checked alone and together."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from evalgauge.core.errors import ConfigError, DocumentError
from evalgauge.core.pack.loader import known_packs, load, load_pack, load_packs
from tests.test_pack_check import SOUND

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MINE = """\
pack: mine
version: 1
title: Mine
use: [judgment.executed]
metrics:
  mine_judgments:
    type: counter
    help: Judgments by model.
    on: judgment.executed
    labels: {model: {field: model, default: unknown}}
alerts:
  MineQuiet:
    expr: rate(mine_judgments_total[5m]) == 0 and on (job, instance) evalgauge_ready == 1
    severity: info
    summary: Quiet at {{ $labels.model }}
    description: No judgment of {{ $labels.model }}.
    runbook: Look.
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A sound pack of a user's own."""
    path = tmp_path / "shop.yaml"
    path.write_text(SOUND)
    return path


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A pack over events that a built-in one declares."""
    path = tmp_path / "mine.yml"
    path.write_text(MINE)
    return path


def problems(*packs: str | Path) -> list[str]:
    """What is wrong with packs that are loaded together."""
    with pytest.raises(DocumentError) as raised:
        load_packs(packs)
    return [f"{one.line}: {one.message}" for one in raised.value.problems]


@pytest.mark.parametrize("name", ["judgment", "ahp", "qna", "server", "stream", "evalgauge"])
def test_a_built_in_pack_is_had_by_its_name(name: str) -> None:
    """From the package, whether that is installed or run from its source tree."""
    loaded = load_pack(name)
    assert loaded.pack.pack == name
    assert loaded.source == "built-in"
    assert loaded.document.file.endswith(f"{name}.yaml")


def test_a_users_pack_is_had_by_its_path(shop: Path) -> None:
    """As text or path, and as sound as a built-in one."""
    assert load_pack(shop).pack.pack == "shop"
    assert load_pack(str(shop)).source == str(shop)


def test_an_unknown_name_is_told_with_a_near_one() -> None:
    """And how a file is named."""
    with pytest.raises(
        ConfigError, match=r"no pack is called `judgement`. Did you mean `judgment`\?.*\./judgement\.yaml"
    ):
        load_pack("judgement")


def test_a_file_that_is_missing_is_told() -> None:
    """It is a path, so no name is looked for."""
    assert "cannot be read: No such file or directory" in problems("./nowhere/none.yaml")[0]


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An installed distribution that brings the pack `shop`."""
    package = tmp_path / "site" / "shop_packs"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "shop.yaml").write_text(SOUND)
    info = tmp_path / "site" / "shop_packs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop-packs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[evalgauge.packs]\nshop = shop_packs\ngone = no_such_package\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    known_packs.cache_clear()
    yield "shop"
    known_packs.cache_clear()
    sys.modules.pop("shop_packs", None)


def test_a_plugins_pack_is_had_by_its_name(plugin: str) -> None:
    """Entry point of the group `evalgauge.packs`: name → package that holds `<name>.yaml`."""
    assert load_pack(plugin).source == "shop-packs"
    assert known_packs()["judgment"].source == "built-in"


@pytest.mark.usefixtures("plugin")
def test_a_plugin_whose_package_is_missing_is_told_and_harms_no_other() -> None:
    """Its name is known, so the message can say who brings it."""
    with pytest.raises(
        ConfigError, match="pack `gone` of shop-packs: package `no_such_package` is not there"
    ):
        load_pack("gone")
    assert load_pack("judgment").pack.pack == "judgment"


def test_an_event_type_of_another_pack_is_used(mine: Path) -> None:
    """That pack comes along for the events alone, and only for those that are used."""
    events, pack = load_packs([mine])
    assert pack.pack == "mine"
    assert events.pack == "judgment"
    assert list(events.events) == ["judgment.executed"]
    assert events.metrics == {}
    assert events.alerts == {}


def test_a_pack_that_is_loaded_anyway_comes_once(mine: Path) -> None:
    """In the order that was asked for."""
    assert [pack.pack for pack in load_packs([mine, "judgment", "evalgauge"])] == [
        "mine",
        "judgment",
        "evalgauge",
    ]
    assert [one.pack.pack for one in load(["judgment", "judgment"])] == ["judgment"]


def test_an_event_type_that_no_pack_declares_cannot_be_used(tmp_path: Path) -> None:
    """With the nearest that can."""
    path = tmp_path / "mine.yaml"
    path.write_text(MINE.replace("judgment.executed", "judgment.executd"))
    assert problems(path) == [
        "4: no pack declares the event type `judgment.executd`",
    ]


def test_metrics_of_a_pack_that_is_not_used_are_not_known(tmp_path: Path, shop: Path) -> None:
    """What a pack may refer to does not depend on what happens to be loaded beside it."""
    path = tmp_path / "mine.yaml"
    path.write_text(MINE.replace("evalgauge_ready == 1", "shop_shops_open == 1"))
    assert problems(path, shop) == ["13: `MineQuiet`: nothing emits `shop_shops_open`"]
    path.write_text(MINE.replace("evalgauge_ready == 1", "judgment_slow_total == 1"))
    assert load_pack(path).pack.pack == "mine"


@pytest.mark.usefixtures("plugin")
def test_a_broken_plugin_harms_no_pack_that_uses_another(mine: Path) -> None:
    """It is passed over while looking for who declares an event type."""
    assert [pack.pack for pack in load_packs([mine])] == ["judgment", "mine"]


def test_an_event_type_that_is_not_used_is_not_known(tmp_path: Path) -> None:
    """Else a pack would depend on which others are loaded."""
    path = tmp_path / "mine.yaml"
    path.write_text(MINE.replace("use: [judgment.executed]\n", ""))
    assert problems(path, "judgment") == [
        "8: metric `mine_judgments`: no event type `judgment.executed` is declared"
    ]


def test_two_packs_cannot_declare_the_same(shop: Path, tmp_path: Path) -> None:
    """Event types, exposed names (whatever the kind of metric) and recorded names."""
    other = tmp_path / "other.yaml"
    other.write_text(
        SOUND.replace("pack: shop", "pack: other")
        .replace("shop.sold", "other.sold")
        .replace("shop.opened", "other.opened")
        .replace("  shop_sales:", "  other_sales:")
        .replace("shop_sales_total", "other_sales_total")
        .replace("tenant:shop_sales", "tenant:other_sales")
        .replace("  shop_duration_seconds:", "  other_duration_seconds:")
        .replace("rate(shop_duration", "rate(other_duration")
    )
    assert problems(shop, other) == [
        "27: event type `shop.closed` is declared by pack `shop` already",
        "38: metric name `shop_revenue_usd` is declared by pack `shop` already",
        "51: metric name `shop_shops_open` is declared by pack `shop` already",
        "59: metric name `shop_violations` is declared by pack `shop` already",
    ]


def test_two_packs_cannot_have_one_name(shop: Path, tmp_path: Path) -> None:
    """Or nobody could say which is meant."""
    (tmp_path / "again.yaml").write_text(SOUND)
    assert problems(shop, tmp_path / "again.yaml") == ["1: two packs are called `shop`"]


def test_the_faults_of_all_packs_come_at_once(shop: Path, mine: Path) -> None:
    """File by file."""
    shop.write_text(SOUND.replace("help: Sales.", "hlp: Sales."))
    mine.write_text(MINE.replace("help: Judgments by model.", "hlp: x"))
    with pytest.raises(DocumentError) as raised:
        load_packs([shop, mine])
    assert {(one.file, one.message) for one in raised.value.problems} == {
        (str(path), message)
        for path, metric in ((shop, "shop_sales"), (mine, "mine_judgments"))
        for message in ("unknown key `hlp`", f"key `help` of `{metric}` is missing")
    }
