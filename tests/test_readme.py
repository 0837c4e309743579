"""The README, followed by a machine: its files are checked and run as they stand, against a real Prometheus."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.parts import prometheus as prometheus_part
from tests.parts.part import Server, answers, free_port, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import StartPrometheus

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EVALGAUGE = Path(sys.executable).with_name("evalgauge")
PROSE = [
    README,
    (ROOT / "CONTRIBUTING.md").read_text(),
    *(file.read_text() for file in (ROOT / "docs").rglob("*.md")),
]


def block(language: str, containing: str) -> str:
    """The one fenced block of a language that contains a text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
    [found] = [one for one in blocks if containing in one]
    return str(found)


class Running:
    """evalgauge, run with the README's configuration on ports and folders of the test."""

    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = yaml.safe_load(block("yaml", "inputs:"))
        self.config["inputs"]["door"]["listen"] = f"127.0.0.1:{free_port()}"
        self.config["inputs"]["batch"]["path"] = str(folder / "judgments" / "*.ndjson")
        self.config["exporters"]["metrics"]["listen"] = f"127.0.0.1:{free_port()}"
        self.config["state"]["folder"] = str(folder / "state")
        (folder / "judgments").mkdir()
        self.file = folder / "evalgauge.yaml"
        self.file.write_text(yaml.safe_dump(self.config))
        self.server = Server([EVALGAUGE, "run", "--config", self.file], folder)

    @property
    def target(self) -> str:
        """Where `/metrics` is, as host:port."""
        return str(self.config["exporters"]["metrics"]["listen"])

    def post(self, *events: dict[str, Any]) -> dict[str, Any]:
        """Send events and return the answer, which comes after their commit."""
        request = urllib.request.Request(
            f"http://{self.config['inputs']['door']['listen']}/v1/events",
            json.dumps(events).encode(),
            {"Content-Type": "application/cloudevents-batch+json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return dict(json.load(answer))


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """A real process."""
    one = Running(tmp_path)
    with one.server:
        one.server.start(lambda: answers(f"http://{one.target}/readyz"))
        yield one


def event() -> dict[str, Any]:
    """The event that the README sends with curl."""
    [body] = re.findall(r" -d '(.*?)'$", block("sh", "curl -i"), flags=re.DOTALL | re.MULTILINE)
    return dict(json.loads(body))


def scrape(target: str) -> str:
    """The README's Prometheus configuration, for another target and more often."""
    config = yaml.safe_load(block("yaml", "scrape_configs:"))
    config["global"] = {"scrape_interval": "200ms", "evaluation_interval": "200ms"}
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    return yaml.safe_dump(config)


def test_the_quick_start_leads_to_a_metric_in_prometheus(
    running: Running, prometheus: StartPrometheus
) -> None:
    """Configuration, event and scrape configuration of the README work together."""
    server = prometheus(scrape(running.target))
    assert running.post(event())["accepted"] == 1
    assert running.post(event())["duplicate"] == 1
    [sample] = until(lambda: server.query("judgment_executions_total"), "the event in Prometheus")
    assert sample.value == 1
    assert sample.labels["instance"] == "evalgauge-0"
    assert sample.labels["tenant"] == "acme"


def test_the_configuration_passes_its_check(tmp_path: Path) -> None:
    """By the command that the README shows."""
    one = Running(tmp_path)
    ended = subprocess.run(
        [EVALGAUGE, "check", "--config", one.file], check=False, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.timeout(1800)  # the first time, Prometheus 3 is built
def test_with_the_flags_of_the_readme_a_series_is_born_at_zero(
    running: Running, prometheus: StartPrometheus
) -> None:
    """Seven events of a new label set are an increase of seven, though no scrape ever saw less."""
    flags = re.findall(r"--\S+", block("sh", "prometheus --enable-feature"))
    server = prometheus(scrape(running.target), flags=flags, program=prometheus_part.binary_3())
    until(lambda: server.query("up == 1"), "the first scrape")
    running.post(*({**event(), "id": str(number)} for number in range(7)))
    until(lambda: server.query("judgment_executions_total == 7"), "the events in Prometheus")
    [series] = server.query_raw("judgment_executions_total[1m]")
    assert [value for _, value in series.points][:2] in ([0, 7], [0, 0])
    assert server.query('judgment_executions_created{job="evalgauge"}') == []


def test_promtool_accepts_the_scrape_configuration(promtool: Path, tmp_path: Path) -> None:
    """Together with the generated rules that it names."""
    (tmp_path / "prometheus.yml").write_text(block("yaml", "scrape_configs:"))
    (tmp_path / "alert_rules").symlink_to(ROOT / "alert_rules")
    check = [str(promtool), "check", "config", "prometheus.yml"]
    ended = subprocess.run(check, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "alert_rules/judgment.yaml" in ended.stdout


def test_the_table_of_commands_is_the_list_of_commands() -> None:
    """What the README promises can be called, and nothing is left out."""
    promised = re.findall(r"^\| `evalgauge (\w+)", README, flags=re.MULTILINE)
    printed = subprocess.run([EVALGAUGE, "--help"], check=True, capture_output=True, text=True).stdout
    listed = re.findall(r"^  ([a-z]+)(?:  |$)", printed.partition("Commands:")[2], flags=re.MULTILINE)
    assert sorted(promised) == sorted(listed)


@pytest.mark.parametrize("text", PROSE, ids=[str(number) for number in range(len(PROSE))])
def test_links_to_files_lead_somewhere(text: str) -> None:
    """In every document."""
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]
    assert [link for link in links if not ((ROOT / link).exists() or (ROOT / "docs" / link).exists())] == []
