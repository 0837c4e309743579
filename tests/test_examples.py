"""The examples: all of them sound, and one of them uses all that a pack can say, so that the reference can show it."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from evalgauge.core import instrumentpage, plugins
from evalgauge.core.errors import ConfigError
from evalgauge.core.pack.event_model import DERIVATIONS
from evalgauge.core.pack.loader import LoadedPack, load
from evalgauge.generators import rules

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
HELPDESK = EXAMPLES / "helpdesk"
PROGRAM = Path(sys.executable).with_name("evalgauge")
PAGE = ROOT / "docs" / "instruments.md"

FUNCTIONS = """
def language_of(text):
    return None if text is None else "de" if "ß" in text else "other"
"""
DERIVED = """\
    derive:
      language: {function: language_of, fields: [customer], type: string, enum: [de, other]}
"""


def evalgauge(*words: str | Path, folder: Path = ROOT, packages: Path | None = None) -> str:
    """What a command prints that must end well; `packages` is a folder of further installed packages."""
    env = {**os.environ, "PYTHONPATH": str(packages)} if packages is not None else None
    done = subprocess.run([PROGRAM, *words], check=False, capture_output=True, text=True, cwd=folder, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def helpdesk() -> LoadedPack:
    """The pack, as the command that makes the page loads it."""
    [one] = load([os.path.relpath(HELPDESK / "pack.yaml")])
    return one


@pytest.mark.parametrize("pack", sorted(EXAMPLES.glob("*/pack.yaml")), ids=lambda path: path.parent.name)
def test_every_pack_passes_its_check(pack: Path) -> None:
    """With its mapping, where it has one."""
    mapping = pack.with_name("mapping.yaml")
    evalgauge("check", "--pack", pack, *(("--mapping", mapping) if mapping.exists() else ()))


@pytest.mark.parametrize("file", sorted((EXAMPLES / "tests").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_unit_test_of_a_pack_passes(file: Path) -> None:
    """By the command that their first lines name."""
    assert f"evalgauge test {file.relative_to(ROOT)}" in file.read_text().splitlines()[0]
    assert " 0 failed" in evalgauge("test", file)


def test_the_helpdesk_uses_every_kind_of_metric(helpdesk: LoadedPack) -> None:
    """A new instrument needs an example, which its reference then shows."""
    used = {metric.type for metric in helpdesk.pack.metrics.values()}
    assert used == {*plugins.names(plugins.INSTRUMENTS)}


def test_the_helpdesk_uses_all_else_that_a_pack_can_say(helpdesk: LoadedPack) -> None:
    """Forms of patterns, gauges and windows, sources of labels, derived fields but functions, rules, alerts."""
    declared = yaml.safe_load((HELPDESK / "pack.yaml").read_text().replace("on:", "types:"))
    metrics = declared["metrics"].values()
    of = {kind: [one for one in metrics if one["type"] == kind] for kind in ("pattern", "gauge", "window")}
    assert {
        "sequence"
        if "sequence" in one
        else "within"
        if "within" in one
        else "among"
        if "among" in one
        else "simple"
        for one in of["pattern"]
    } == {"sequence", "within", "among", "simple"}
    assert {key for one in of["gauge"] for key in ("value", "time", "up", "down") if key in one} == {
        *("value", "time", "up", "down")
    }
    assert {key for one in of["window"] for key in one} >= {
        "size",
        "every",
        "events",
        "quantiles",
        "distinct",
    }
    labels = [label for one in metrics for label in one.get("labels", {}).values() if isinstance(label, dict)]
    assert {key for label in labels for key in label} >= {"field", "constant", "quality", "calendar", "table"}
    derived = {
        next(iter(one)) for event in declared["events"].values() for one in event.get("derive", {}).values()
    }
    assert derived == {*DERIVATIONS} - {"function"}
    assert any("emit" in one for one in metrics)
    assert declared["recording"]
    assert declared["alerts"]
    assert declared["dashboard"]
    assert helpdesk.pack.pack == "helpdesk"


def test_the_sample_is_what_its_generator_prints() -> None:
    """Byte for byte."""
    made = subprocess.run(
        [sys.executable, HELPDESK / "make_events.py"], check=True, capture_output=True
    ).stdout
    assert made == (HELPDESK / "events.ndjson").read_bytes()


def test_the_sample_says_something_of_every_metric(helpdesk: LoadedPack) -> None:
    """Nothing in it is refused, and every metric has a series that a number can be read of."""
    text = evalgauge(
        "replay", "events.ndjson", "--pack", "./pack.yaml", "--out", "-", "--strict", folder=HELPDESK
    )
    shown = {re.split(r"[{ ]", line)[0] for line in text.splitlines() if line and line[0] != "#"}
    # A window of these says more than its count: its unit stands last.
    stems = {name: re.sub(r"_(ratio|seconds|usd)$", "", name) for name in helpdesk.pack.metrics}
    assert [name for name, stem in stems.items() if not any(one.startswith(stem) for one in shown)] == []
    # Eight parts were announced: six are done, and two are half done.
    assert re.search(r'^helpdesk_rewrite_ratio\{rewrite="spring"\} 0.875$', text, re.MULTILINE)
    assert re.search(
        r'^helpdesk_ticket_floods_total\{team="accounts",severity="high"\} [1-9]', text, re.MULTILINE
    )


def test_the_configuration_is_sound() -> None:
    """From the folder that its first line names."""
    evalgauge("check", "--config", "evalgauge.yaml", folder=HELPDESK)


def test_the_commands_of_its_readme_end_well(tmp_path: Path) -> None:
    """In a copy of the examples; all but `run`, which serves until it is told to end."""
    copy = tmp_path / "examples"
    shutil.copytree(EXAMPLES, copy, ignore=shutil.ignore_patterns("evalgauge-state", "__pycache__"))
    [block] = re.findall(
        r"^```sh\n(.*?)^```$", (HELPDESK / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )
    commands = [line.partition("#")[0].split() for line in block.splitlines()]
    assert {words[1] for words in commands} == {"check", "test", "replay", "run", "generate"}
    for program, *words in commands:
        assert program == "evalgauge"
        if words[0] != "run":
            evalgauge(*words, folder=copy / "helpdesk")
    assert (copy / "helpdesk" / "dashboards" / "helpdesk.json").is_file()


@pytest.fixture
def rule_file(helpdesk: LoadedPack, tmp_path: Path) -> Path:
    """The generated rules, by the command."""
    evalgauge("generate", "rules", "--pack", HELPDESK / "pack.yaml", "-o", tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {*rules.generate(helpdesk.pack)}
    return tmp_path / "helpdesk.yaml"


def test_promtool_finds_nothing_in_its_rules(rule_file: Path, promtool: Path) -> None:
    """With every lint on, and a lint's finding being an error."""
    words: list[str | Path] = [promtool, "check", "rules", "--lint=all", "--lint-fatal", rule_file]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 rules found" in done.stdout


# The reference page


def test_the_page_is_what_the_code_says() -> None:
    """After a change of a model, an instrument or the example: `python3 dev.py generate`."""
    words = [sys.executable, "-m", "evalgauge.core.instrumentpage", "examples/helpdesk/pack.yaml"]
    made = subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert made == PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", plugins.names(plugins.INSTRUMENTS))
def test_every_kind_has_a_section_that_says_all_of_it(kind: str, helpdesk: LoadedPack) -> None:
    """An example, its series, where its state is, and what it leaves out or forgets; each from the code."""
    [section] = re.findall(
        rf"^## {kind.capitalize()}\n(.*?)(?=^## )", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    instrument = plugins.load(plugins.INSTRUMENTS, kind)
    metrics = [name for name, metric in helpdesk.pack.metrics.items() if metric.type == kind]
    assert f"```yaml\n{metrics[0]}:\n  type: {kind}\n" in section
    assert f"| `{metrics[0]}" in section
    assert "- State" in section
    assert ("must say so by `keyed_by`" in section) == instrument.keyed
    for word in ("Unobserved", "Late", *(("Evicted",) if instrument.keyed else ())):
        assert re.search(rf"^- {word} \(`.*`\): \w", section, re.MULTILINE), word
    assert inspect.cleandoc(instrument.__doc__).splitlines()[0] in section


def test_examples_on_the_page_are_parts_of_the_pack() -> None:
    """As YAML they are equal, whatever stands about them."""
    pack = yaml.safe_load((HELPDESK / "pack.yaml").read_text().replace("on:", "types:"))
    blocks = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    *metrics, _, derived = (yaml.safe_load(one.replace("on:", "types:")) for one in blocks)
    assert len(metrics) == len(plugins.names(plugins.INSTRUMENTS))
    for block in metrics:
        assert block == {name: pack["metrics"][name] for name in block}
    fields = {name: one for event in pack["events"].values() for name, one in event.get("derive", {}).items()}
    assert derived == {name: fields[name] for name in derived}


def test_links_lead_to_headings_of_packs() -> None:
    """The tables of keys link to what explains a part."""
    packs = (ROOT / "docs" / "packs.md").read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lower()).replace(" ", "-")
        for line in re.findall(r"^#+ (.*)$", packs, re.MULTILINE)
    }
    links = {*re.findall(r"\]\(packs\.md#([\w-]+)\)", PAGE.read_text())}
    assert links
    assert links <= headings


def test_a_kind_without_example_is_an_error() -> None:
    """The page cannot be made of a pack that leaves one out."""
    [loaded] = load([os.path.relpath(EXAMPLES / "alpaca_eval" / "pack.yaml")])
    with pytest.raises(ConfigError, match="declares no metric of the kind `gauge`"):
        instrumentpage.page(loaded)


# Functions


def test_a_function_of_an_installed_package_is_a_further_derived_field(tmp_path: Path) -> None:
    """The one form that the example leaves out, added to it as the documentation says."""
    installed = tmp_path / "installed"
    about = installed / "helpdesk_words-1.0.dist-info"
    about.mkdir(parents=True)
    (installed / "helpdesk_words.py").write_text(FUNCTIONS)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: helpdesk-words\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[evalgauge.derive]\nlanguage_of = helpdesk_words:language_of\n")
    text = (HELPDESK / "pack.yaml").read_text()
    text = text.replace("    derive:\n", DERIVED, 1).replace(
        "      size: size\n", "      language: language\n", 1
    )
    pack = tmp_path / "pack.yaml"
    pack.write_text(text)
    case = {
        "packs": [str(pack)],
        "tests": [
            {
                "name": "a customer's language",
                "events": [
                    {
                        "type": "helpdesk.ticket.opened",
                        "data": {"team": "a", "ticket_id": "t1", "channel": "mail", "customer": "Strauß"},
                    }
                ],
                "metrics": {
                    'helpdesk_tickets_total{team="a",channel="written",language="de",shard="0"}': 1,
                },
            }
        ],
    }
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(case))
    evalgauge("check", "--pack", pack, packages=installed)
    assert " 0 failed" in evalgauge("test", tmp_path / "case.yaml", packages=installed)
