"""`evalgauge test`: cases that hold, cases that fail, and files that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from evalgauge.core.casefile import parse_sample, same
from tests.running import evalgauge

if TYPE_CHECKING:
    from tests.running import Done

EXAMPLES = sorted((Path(__file__).parent.parent / "examples" / "tests").glob("*.yaml"))
DATA = "{tenant_id: a, workflow_id: w, method_used: rule, status: success, execution_time_ms: 100}"
EVENT = f"{{type: judgment.executed, data: {DATA}}}"
HEAD = f"packs: [judgment]\ntests:\n  - name: one judgment\n    events:\n      - {EVENT}\n"
LABELS = 'tenant="a",workflow="w",method="rule"'


def run(folder: Path, text: str, *words: str) -> Done:
    """Run a file of cases."""
    (folder / "t.yaml").write_text(text)
    return evalgauge("test", "t.yaml", *words, cwd=folder)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_hold(path: Path) -> None:
    """Each case of each file that is shipped."""
    done = evalgauge("test", path)
    assert done.code == 0, done.out
    assert len(yaml.safe_load(path.read_text())["tests"]) == done.out.count("  ok  ")


def test_there_is_an_example_for_each_pack_of_the_first_hour() -> None:
    """Built-in packs, and one of one's own with its mapping."""
    assert [path.stem for path in EXAMPLES] == ["ahp", "alpaca_eval", "helpdesk", "judgment"]


def test_a_failure_names_its_place_what_was_wanted_and_what_came(tmp_path: Path) -> None:
    """A wrong value, a sample that is not there, one that should not be, a refusal more and one less."""
    text = (
        HEAD
        + "      - {type: judgment.executed, data: {}}\n    metrics:\n"
        + f'      judgment_executions_total{{{LABELS},status="success"}}: 2\n'
        + '      judgment_executions_total{tenant="b"}: 1\n'
        + f"      judgment_duration_seconds_sum{{{LABELS}}}: 0.2\n"
        + "    absent: ['judgment_records_total{tenant=\"a\"}']\n    refusals:\n      - {event: 1, reason: bad_id}\n"
    )
    done = run(tmp_path, text)
    assert done.code == 1
    shown = 'method="rule",status="success",tenant="a",workflow="w"'
    assert done.out == (
        "t.yaml\n  FAILED  one judgment\n"
        "    t.yaml:13:9: event 1\n      want: refused as bad_id\n      got:  accepted\n"
        "    t.yaml:6:9: event 2\n      want: accepted\n"
        "      got:  refused as missing_field: required field `tenant_id` is missing\n"
        f"    t.yaml:8:7: judgment_executions_total{{{shown}}}\n      want: 2\n      got:  1\n"
        '    t.yaml:9:7: judgment_executions_total{tenant="b"}\n      want: 1\n'
        f"      got:  nothing; there is judgment_executions_total{{{shown}}} 1\n"
        '    t.yaml:10:7: judgment_duration_seconds_sum{method="rule",tenant="a",workflow="w"}\n'
        "      want: 0.2\n      got:  0.1\n"
        '    t.yaml:11:14: judgment_records_total{tenant="a"}\n      want: nothing\n'
        '      got:  judgment_records_total{tenant="a",validity="invalid"} 1\n'
        "0 ok, 1 failed\n"
    )


def test_only_takes_everything_that_is_not_named_for_a_failure(tmp_path: Path) -> None:
    """One sample of a histogram names all of it; a list limits it to some metrics."""
    some = HEAD + f'    metrics:\n      judgment_executions_total{{{LABELS},status="success"}}: 1\n'
    assert run(tmp_path, some).code == 0
    done = run(tmp_path, some + "    only: true\n")
    assert done.code == 1
    assert done.out.count("want: nothing, by `only`") == 4  # duration, records, and two rules
    assert run(tmp_path, some + "    only: [judgment_executions, judgment_slow]\n").code == 0
    named = (
        some
        + f"      judgment_duration_seconds_count{{{LABELS}}}: 1\n    only: [judgment_duration_seconds]\n"
    )
    assert run(tmp_path, named).code == 0


def test_cases_can_be_picked_by_name(tmp_path: Path) -> None:
    """And nothing picked is a mistake."""
    two = HEAD + f"  - name: another\n    events: [{EVENT}]\n"
    assert run(tmp_path, two, "-k", "another").out.endswith("  ok      another\n1 ok, 0 failed\n")
    assert run(tmp_path, two, "-k", "none").code == 2


def test_a_file_is_read_strictly_and_every_fault_is_told(tmp_path: Path) -> None:
    """Keys, samples, labels, metrics, reasons and numbers; exit code 2, and nothing is run."""
    text = (
        HEAD
        + "    metrics:\n"
        + "      judgment_executons_total: 1\n"
        + '      judgment_executions_total{tennant="a"}: 1\n'
        + "      judgment_executions_total{: 1\n"
        + '    absent: ["judgment_slow"]\n'
        + "    only: [judgment_exec]\n"
        + "    refusals: [{event: 2, reason: missing_feld}]\n"
    )
    done = run(tmp_path, text)
    assert done.code == 2
    assert done.out == ""
    for fault in (
        "t.yaml:7:7: no pack exposes `judgment_executons_total`\n  Did you mean `judgment_executions_total`?",
        "t.yaml:8:7: `judgment_executions_total` has no label `tennant`\n  Did you mean `tenant`?",
        "t.yaml:9:7: `judgment_executions_total{` is no sample",
        "t.yaml:10:14: no pack exposes `judgment_slow`\n  Did you mean `judgment_slow_total`?",
        "t.yaml:11:12: no pack declares the metric `judgment_exec`",
        "t.yaml:12:24: there is no event 2, only 1",
        "t.yaml:12:35: `missing_feld` is no reason\n  Did you mean `missing_field`?",
        "evalgauge: 7 problems",
    ):
        assert fault in done.err
    unknown = run(tmp_path, HEAD + "    metrcs: {}\n")
    assert "t.yaml:6:5: unknown key `metrcs`\n  Did you mean `metrics`?" in unknown.err


def test_faults_of_the_pack_and_the_mapping_are_told_too(tmp_path: Path) -> None:
    """Paths are relative to the file of cases."""
    (tmp_path / "below").mkdir()
    (tmp_path / "pack.yaml").write_text("pack: x\nversion: 1\ntitel: X\n")
    (tmp_path / "below" / "t.yaml").write_text(
        f"packs: [../pack.yaml]\ntests: [{{name: x, events: [{EVENT}]}}]\n"
    )
    done = evalgauge("test", "below/t.yaml", cwd=tmp_path)
    assert done.code == 2
    assert "below/../pack.yaml:3:1: unknown key `titel`\n  Did you mean `title`?" in done.err
    assert "no pack is called `judgement`" in run(tmp_path, HEAD.replace("[judgment]", "[judgement]")).err


def test_samples_are_the_same_however_they_are_written() -> None:
    """Order of labels, spaces, the form of a bound; and text that is no sample."""
    first = parse_sample('x_bucket{a="1",le="0.50"}')
    assert first == parse_sample('x_bucket{ le="0.5", a="1", b="" }')
    assert str(first) == 'x_bucket{a="1",le="0.5"}'
    assert str(parse_sample('x{a="q\\"uo\\\\te"}')) == 'x{a="q\\"uo\\\\te"}'
    for text in ("", "x{", "x y", "1x", 'x{a="1"} 2', "x\ny", "x{a=1}"):
        assert parse_sample(text) is None, text


def test_whole_numbers_are_exact_and_others_decimal() -> None:
    """A sum of a tenth and two tenths may be written as 0.3."""
    assert same(0.1 + 0.2, 0.3)
    assert not same(0.3000001, 0.3)
    assert not same(1_000_000_000_000_001, 1_000_000_000_000_000)
    assert same(float("nan"), float("nan"))
