"""Cases of a pack run: each by an engine of its own, and every difference between what came and what was wanted."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from evalgauge.core import plugins
from evalgauge.core.casefile import Sample, same
from evalgauge.core.collect import Chunk, Verdict
from evalgauge.core.engine import Engine, EngineOptions, InputRules
from evalgauge.core.pack.loader import load_pack
from evalgauge.core.pack.names import OWN_PACK
from evalgauge.core.selfmetrics import SelfMetrics
from evalgauge.core.sqlite_store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evalgauge.core.casefile import Case, Cases

INPUT = "test"
_LIKE = 3
"""Samples of the same name that are shown where the wanted one is not there."""


class Difference(NamedTuple):
    """One thing that came out otherwise than wanted."""

    at: tuple[int, int]
    """Line and column in the file of cases."""
    what: str
    want: str
    got: str


def run_case(cases: Cases, case: Case) -> list[Difference]:
    """Everything that came out otherwise than the case wants; empty where it holds."""
    with (
        tempfile.TemporaryDirectory(prefix="evalgauge-test-") as folder,
        closing(SqliteStore(Path(folder))) as store,
    ):
        kinds = plugins.load_all(plugins.INSTRUMENTS)
        rules = {INPUT: InputRules(cases.mapping, case.spec.deduplicate)}
        metrics = SelfMetrics(load_pack(OWN_PACK).pack)
        engine = Engine(cases.packs, rules, kinds, store, metrics, EngineOptions())
        engine.restore()
        verdicts: list[Verdict] = []
        body = b"\n".join(case.lines)
        engine.process(INPUT, Chunk(INPUT, body, str, tenant=case.spec.tenant, acknowledge=verdicts.append))
        engine.commit()
        exporter = plugins.load(plugins.EXPORTERS, "prometheus")
        text = exporter.render(
            [one for one in engine.families() if not one.name.startswith(f"{OWN_PACK}_")]
        ).decode()
    got = {
        Sample.of(one.name, one.labels): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }
    return [
        *_refusals(case, verdicts[0]),
        *_metrics(case, got),
        *_absent(case, got),
        *_others(cases, case, got),
    ]


def _refusals(case: Case, verdict: Verdict) -> Iterator[Difference]:
    found = {one.line + 1: one for one in verdict.exceptions if one.status == "rejected"}
    for at, wanted in zip(case.refusals_at, case.spec.refusals, strict=True):
        got = found.pop(wanted.event, None)
        want = wanted.reason + (f", with {wanted.contains!r}" if wanted.contains else "")
        if got is None:
            yield Difference(at, f"event {wanted.event}", f"refused as {want}", "accepted")
        elif got.reason != wanted.reason or wanted.contains not in got.detail:
            yield Difference(
                at, f"event {wanted.event}", f"refused as {want}", f"refused as {got.reason}: {got.detail}"
            )
    for number, got in sorted(found.items()):
        yield Difference(
            case.events_at[number - 1],
            f"event {number}",
            "accepted",
            f"refused as {got.reason}: {got.detail}",
        )


def _metrics(case: Case, got: dict[Sample, float]) -> Iterator[Difference]:
    for sample, wanted in case.metrics.items():
        if sample not in got:
            like = [
                f"{one} {_number(value)}"
                for one, value in got.items()
                if one.name == sample.name and _kin(one, sample)
            ]
            more = f", and {len(like) - _LIKE} more" if len(like) > _LIKE else ""
            there = f"; there is {', '.join(like[:_LIKE])}{more}" if like else ""
            yield Difference(case.metrics_at[sample], str(sample), _number(wanted), f"nothing{there}")
        elif not same(got[sample], wanted):
            yield Difference(case.metrics_at[sample], str(sample), _number(wanted), _number(got[sample]))


def _kin(one: Sample, other: Sample) -> bool:
    """Whether it is worth showing one for the other: of a histogram's buckets only those with the same bound."""
    return {pair for pair in one.labels if pair[0] == "le"} == {
        pair for pair in other.labels if pair[0] == "le"
    }


def _absent(case: Case, got: dict[Sample, float]) -> Iterator[Difference]:
    for at, unwanted in zip(case.absent_at, case.absent, strict=True):
        for sample, value in got.items():
            if sample.name == unwanted.name and unwanted.labels <= sample.labels:
                yield Difference(at, str(unwanted), "nothing", f"{sample} {_number(value)}")


def _others(cases: Cases, case: Case, got: dict[Sample, float]) -> Iterator[Difference]:
    only = case.spec.only
    if only is False:
        return
    named = {sample.series() for sample in case.metrics}
    told: set[object] = set()
    for sample, value in got.items():
        series = sample.series()
        within = only is True or cases.exposed.get(sample.name) in only
        # A histogram is many samples: one of them under `metrics` names it.
        if within and series not in named and series not in told:
            told.add(series)
            yield Difference(case.at, str(sample), "nothing, by `only`", _number(value))


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))  # noqa: PLR2004
