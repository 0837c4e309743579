"""`evalgauge check`, and what all commands share: help, exit codes, errors without tracebacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from evalgauge.core import plugins
from evalgauge.core.errors import ConfigError
from tests.running import evalgauge

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """\
packs: [judgment, ./mine.yaml]
inputs:
  door: {type: http, listen: "127.0.0.1:8080"}
  theirs: {type: file, path: [a.ndjson, b.ndjson], mapping: map.yaml, deduplicate: true}
exporters:
  metrics: {type: prometheus}
"""
PACK = """\
pack: mine
version: 1
title: Mine
events:
  mine.sold:
    description: Something was sold.
    fields:
      kind: {type: string, required: true, enum: [book, toy]}
metrics:
  mine_sales:
    type: counter
    help: Sales.
    on: mine.sold
    labels: {kind: kind}
"""
MAPPING = """\
mapping: theirs
version: 1
type: {constant: mine.sold}
id: {from: position}
time: {from: arrival}
source: {constant: theirs}
data:
  mine.sold: {kind: what.kind}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound configuration with a pack and a mapping of one's own."""
    (tmp_path / "c.yaml").write_text(CONFIG)
    (tmp_path / "mine.yaml").write_text(PACK)
    (tmp_path / "map.yaml").write_text(MAPPING)
    return tmp_path


def test_it_says_what_would_run_and_changes_nothing(folder: Path) -> None:
    """Inputs with their policy, packs with their series, exporters with their address."""
    done = evalgauge("check", "--config", "c.yaml", cwd=folder)
    assert (done.code, done.err) == (0, "")
    lines = [line.split() for line in done.out.splitlines()]
    door = next(line for line in lines if line[:2] == ["door", "http"])
    assert door[2] == "127.0.0.1:8080/v1/events"
    assert (
        " ".join(door[3:]) == "pushed, answered after the commit; repeats count once; unknown types: refuse"
    )
    theirs = next(line for line in lines if line[:2] == ["theirs", "file"])
    assert " ".join(theirs[2:]) == (
        "a.ndjson, b.ndjson read, goes on from its committed position; repeats count once; unknown types: ignore; "
        "mapping map.yaml"
    )
    assert ["mine", "1", "./mine.yaml", "1", "1", "0", "0", "2"] in lines
    assert ["metrics", "prometheus", "127.0.0.1:9464"] in lines
    assert "new, starts at zero" in done.out
    assert {path.name for path in folder.iterdir()} == {"c.yaml", "mine.yaml", "map.yaml"}


def test_every_fault_of_every_file_is_told_at_once(folder: Path) -> None:
    """Configuration, pack and mapping, each with its place."""
    (folder / "c.yaml").write_text(CONFIG + "engine: {workrs: 2}\n")
    (folder / "mine.yaml").write_text(PACK.replace("labels: {kind: kind}", "labels: {kind: kindd}"))
    done = evalgauge("check", "--config", "c.yaml", cwd=folder)
    assert done.code == 2
    assert "c.yaml:7:10: unknown key `workrs`\n  Did you mean `workers`?" in done.err
    assert "mine.yaml:14:20: " in done.err
    assert done.err.endswith("evalgauge: 2 problems\n")


def test_a_mapping_is_checked_by_the_kind_of_its_input(folder: Path) -> None:
    """What is pushed has no position."""
    (folder / "c.yaml").write_text(CONFIG.replace('8080"}', '8080", mapping: map.yaml}'))
    done = evalgauge("check", "--config", "c.yaml", cwd=folder)
    assert done.code == 2
    assert "map.yaml:4:12: what is pushed here has no position" in done.err


def test_addresses_certificates_and_tokens_are_looked_at(folder: Path) -> None:
    """A door beyond loopback without protection, two on one port, a token file that is not there."""
    text = CONFIG.replace("127.0.0.1:8080", "0.0.0.0:8080")
    (folder / "c.yaml").write_text(text)
    open_door = evalgauge("check", "--config", "c.yaml", cwd=folder)
    assert open_door.code == 2
    assert "input `door`" in open_door.err
    (folder / "c.yaml").write_text(CONFIG.replace("8080", "9464"))
    clash = evalgauge("check", "--config", "c.yaml", cwd=folder)
    assert "input `door` and exporter `metrics` both listen on 127.0.0.1:9464" in clash.err
    (folder / "c.yaml").write_text(
        CONFIG.replace("{type: prometheus}", "{type: prometheus, token_file: nowhere}")
    )
    token = evalgauge("check", "--config", "c.yaml", cwd=folder)
    assert token.code == 2
    assert "nowhere" in token.err


def test_packs_and_a_mapping_alone(folder: Path) -> None:
    """No configuration is needed to check a pack."""
    done = evalgauge("check", "--pack", "./mine.yaml", "--mapping", "map.yaml", cwd=folder)
    assert done.code == 0
    assert done.out.endswith("Sound: 1 pack and the mapping.\n")
    (folder / "map.yaml").write_text(MAPPING.replace("what.kind", "what.kind, sort: x"))
    done = evalgauge("check", "--pack", "./mine.yaml", "--mapping", "map.yaml", cwd=folder)
    assert done.code == 2
    assert "map.yaml:8:32: `sort` is no field of `mine.sold`" in done.err


@pytest.mark.parametrize(
    "words", [("check",), ("check", "--nope"), ("chek",), ("run", "--config", "none.yaml")]
)
def test_what_cannot_be_done_ends_with_2(words: tuple[str, ...], tmp_path: Path) -> None:
    """And says why, without a traceback."""
    done = evalgauge(*words, cwd=tmp_path)
    assert done.code == 2
    assert done.err
    assert "Traceback" not in done.err


def test_a_misspelt_command_is_guessed(tmp_path: Path) -> None:
    """As keys are."""
    assert "Did you mean `check`?" in evalgauge("chek", cwd=tmp_path).err


@pytest.mark.parametrize("name", plugins.names(plugins.COMMANDS))
def test_the_help_of_each_command_ends_with_an_example(name: str) -> None:
    """One that can be copied."""
    done = evalgauge(name, "--help")
    assert done.code == 0
    lines = [line.strip().removeprefix("Example: ") for line in done.out.splitlines()]
    assert any(line.startswith(f"evalgauge {name} ") for line in lines)


def test_the_help_lists_every_command_and_the_exit_codes() -> None:
    """What a person types first."""
    done = evalgauge("--help")
    assert done.code == 0
    for name in plugins.names(plugins.COMMANDS):
        assert f"\n  {name} " in done.out
    assert "cannot be loaded" not in done.out
    assert "3 the state folder cannot be used" in done.out
    assert evalgauge("--version").out.startswith("evalgauge, version ")


GROUP = """\
packs: [judgment, ./gauges.yaml]
replica: r1
inputs:
  judgments:
    type: kafka
    bootstrap: 127.0.0.1:1
    topics: [judgments]
    group: {id: team}
"""
GAUGES = (
    PACK.replace("mine", "gauges")
    + """\
  gauges_stock:
    type: gauge
    help: How many are left.
    on: gauges.sold
    value: left
    across: sum
    labels: {kind: kind}
"""
)


@pytest.mark.parametrize("keyed", [False, True])
def test_of_a_group_it_says_where_state_is_and_what_needs_keys(tmp_path: Path, *, keyed: bool) -> None:
    """State is in topics, and gauges that events set need events of a label set in one partition."""
    (tmp_path / "c.yaml").write_text(GROUP + ("    keyed_by: kind\n" if keyed else ""))
    fields = "      kind: {type: string, required: true, enum: [book, toy]}\n"
    left = '      left: {type: number, unit: "1"}\n'
    (tmp_path / "gauges.yaml").write_text(GAUGES.replace(fields, fields + left))
    done = evalgauge("check", "--config", "c.yaml", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "topic team-changelog of group team" in done.out
    assert "dead letters: topic team-dead-letters" in done.out
    assert ("note: gauges_stock is set by events" in done.out) is not keyed


def test_a_command_that_cannot_be_loaded_spoils_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin that lacks its library is listed with the reason, and says it when called."""
    load = plugins.load

    def broken(group: str, name: str) -> Any:
        if name == "tap":
            raise ConfigError("command `tap` cannot be loaded: No module named 'theirs'")
        return load(group, name)

    monkeypatch.setattr(plugins, "load", broken)
    listed = evalgauge("--help")
    assert listed.code == 0
    assert "(command `tap` cannot be loaded" in listed.out
    called = evalgauge("check", "--help")
    assert called.code == 0
