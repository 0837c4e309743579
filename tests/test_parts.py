"""The parts themselves: each is had, starts, answers and stops, or says what to install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.parts import go
from tests.parts.part import Missing, Server, installed, until

if TYPE_CHECKING:
    from tests.conftest import StartPrometheus

ROOT = Path(__file__).parent.parent
SCRAPE_ITSELF = """
global: {{scrape_interval: 200ms, evaluation_interval: 200ms}}
scrape_configs:
  - job_name: itself
    static_configs: [{{targets: ["{address}"]}}]
"""
RULES = """
groups:
  - name: itself
    rules:
      - {record: "job:up:sum", expr: sum by (job) (up)}
      - {alert: ItIsUp, expr: up == 1, labels: {severity: info}}
"""
MISSING = {
    "the test": """
from tests.parts.part import Missing

def test_it():
    raise Missing("install a dragon")
""",
    "a fixture": """
import pytest
from tests.parts.part import Missing

@pytest.fixture
def dragon():
    raise Missing("install a dragon")

def test_it(dragon):
    pass
""",
}


def test_prometheus_scrapes_itself_and_evaluates_rules(prometheus: StartPrometheus, tmp_path: Path) -> None:
    """Every call of the part that tests build on gives what a real server says."""
    rules = tmp_path / "rules.yml"
    rules.write_text(RULES)
    server = prometheus("", rules=[rules])
    assert server.query("vector(7)")[0].value == 7
    assert server.query("scalar(vector(8))")[0].value == 8
    assert server.query("up") == []

    server.reload(SCRAPE_ITSELF.format(address=server.url.removeprefix("http://")))

    until(lambda: server.query('job:up:sum{job="itself"} == 1'), "the recording rule")
    [alert] = until(server.alerts, "the alert")
    assert alert["state"] == "firing"
    assert [target["health"] for target in server.targets()] == ["up"]
    [group] = server.rules()
    assert {rule["health"] for rule in group["rules"]} == {"ok"}
    assert server.metadata()["go_goroutines"][0]["type"] == "gauge"
    now = time.time()
    [series] = server.query_range('up{job="itself"}', now - 10, now, 1)
    assert series.points[-1][1] == 1
    assert "Server is ready to receive web requests" in server.log()


def test_prometheus_refuses_a_bad_configuration_with_its_own_words(prometheus: StartPrometheus) -> None:
    """A reload that fails is an assertion error with the server's sentence."""
    server = prometheus("")
    with pytest.raises(AssertionError, match="no_such_key"):
        server.reload("no_such_key: 1")


def test_promtool_finds_a_fault_in_rules(promtool: Path, tmp_path: Path) -> None:
    """It is a real promtool: it accepts good rules and refuses bad ones."""
    rules = tmp_path / "rules.yml"
    rules.write_text(RULES)
    check = [str(promtool), "check", "rules", str(rules)]
    assert subprocess.run(check, check=False, capture_output=True).returncode == 0
    rules.write_text(RULES.replace("up == 1", "up === 1"))
    refused = subprocess.run(check, check=False, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "parse error" in refused.stderr


def test_a_server_that_ends_at_once_shows_its_log(tmp_path: Path) -> None:
    """Nobody should have to look for the log of a server that did not come up."""
    command = [sys.executable, "-c", "raise SystemExit('no such luck')"]
    with (
        Server(command, tmp_path) as server,
        pytest.raises(AssertionError, match=r"(?s)ended with exit code 1.*no such luck"),
    ):
        server.start(ready=lambda: False)


def test_a_server_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """No test leaves a process behind."""
    ignore = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    with Server([sys.executable, "-c", ignore], tmp_path) as server:
        server.start(ready=lambda: "up" in server.log())
        pid = server.pid
        server.stop(seconds=0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_failed_installation_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A half-filled cache folder would be taken for a whole one by the next run."""
    monkeypatch.setenv("EVALGAUGE_PARTS_CACHE", str(tmp_path))

    def breaks(folder: Path) -> None:
        (folder / "half").touch()
        raise Missing("install nothing at all")

    with pytest.raises(Missing, match="nothing at all"):
        installed("thing", breaks)
    assert not (tmp_path / "thing").exists()
    assert (installed("thing", lambda folder: (folder / "whole").touch()) / "whole").exists()


def test_a_go_program_of_a_module_is_built_once() -> None:
    """A small program of the module proxy stands for the large ones."""
    program = go.build(
        "github.com/prometheus/statsd_exporter",
        "v0.31.0",
        "github.com/prometheus/statsd_exporter",
        "statsd_exporter",
    )
    built = program.stat().st_mtime_ns
    assert subprocess.run([program, "--version"], check=True, capture_output=True).returncode == 0
    again = go.build("github.com/prometheus/statsd_exporter", "v0.31.0", "unused", "statsd_exporter")
    assert again.stat().st_mtime_ns == built


def test_a_go_program_of_our_tree_is_built_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache key is the source, so a stale peer is never measured."""
    if shutil.which("go"):
        monkeypatch.setenv("EVALGAUGE_PARTS_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "source"
    source.mkdir()
    (source / "go.mod").write_text("module said\n\ngo 1.21\n")

    def said(word: str) -> str:
        (source / "main.go").write_text(f'package main\n\nfunc main() {{ println("{word}") }}\n')
        program = go.build_source(source, "said")
        return subprocess.run([program], check=True, capture_output=True, text=True).stderr.strip()

    assert said("one") == "one"
    assert said("two") == "two"


@pytest.mark.parametrize(
    ("ci", "exit_code"), [("true", pytest.ExitCode.TESTS_FAILED), ("", pytest.ExitCode.OK)]
)
@pytest.mark.parametrize("where", ["the test", "a fixture"])
def test_a_missing_part_skips_and_on_ci_fails(
    ci: str, exit_code: pytest.ExitCode, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person sees what to install; CI, which must have every part, does not go green without it."""
    (tmp_path / "test_it.py").write_text(MISSING[where])
    monkeypatch.setenv("CI", ci)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        "-rs",
        "test_it.py",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert ended.returncode == exit_code
    assert "install a dragon" in ended.stdout
