"""The built-in packs hold what the workloads need: events, metrics, rules, and each number in one place."""

from __future__ import annotations

import functools
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from evalgauge.core.collect import Chunk
from evalgauge.core.engine import Engine, EngineOptions, InputRules
from evalgauge.core.pack.loader import load, load_pack
from evalgauge.core.pack.metric_model import ConsistencySpec, HistogramSpec, ProgressSpec
from evalgauge.core.selfmetrics import SelfMetrics
from evalgauge.core.sqlite_store import SqliteStore
from tests.engine_helpers import KINDS

if TYPE_CHECKING:
    from pathlib import Path

    from evalgauge.core.families import Family
    from evalgauge.core.pack.model import Pack

WORKLOADS = ("judgment", "ahp", "qna", "server", "stream")

REQUIRED = {
    "judgment.executed": {"tenant_id", "workflow_id", "method_used", "status"},
    "ahp.evaluation.started": {"project_id", "evaluation_id", "evaluator_id"},
    "ahp.comparison.submitted": {"project_id", "evaluation_id", "evaluator_id", "node_id"},
    "ahp.progress.updated": {"project_id", "evaluator_id", "node_id"},
    "ahp.node.completed": {"project_id", "evaluation_id", "evaluator_id", "node_id"},
    "ahp.evaluation.completed": {"project_id", "evaluation_id", "evaluator_id"},
    "ahp.session.started": {"project_id", "evaluator_id", "session_id"},
    "ahp.session.ended": {"project_id", "evaluator_id", "session_id"},
    "question.created": {"question_id"},
    "question.answered": {"question_id"},
    "question.escalated": {"question_id"},
    "connection.opened": {"connection_id"},
    "connection.closed": {"connection_id"},
    "message.sent": set(),
    "server.sampled": {"host"},
    "stream.event.processed": {"event_type", "status"},
    "stream.anomaly.detected": {"anomaly_type", "severity"},
    "ahp.anomaly.detected": set(),
    "ahp.milestone.reached": set(),
}
OPTIONAL = {
    "judgment.executed": {
        *(
            "input_data",
            "final_result",
            "confidence_score",
            "execution_time_ms",
            "model",
            "evaluator_version",
        ),
        *("score", "score_name", "traceparent"),
    },
    "ahp.evaluation.started": {"comparisons_expected", "deadline"},
    "ahp.comparison.submitted": {"level", "left", "right", "value", "duration_ms", "session_id"},
    "ahp.progress.updated": {"level", "progress"},
    "ahp.node.completed": {"level", "consistency_ratio"},
    "ahp.evaluation.completed": {"total_time_ms"},
    "ahp.session.started": set(),
    "ahp.session.ended": set(),
    "question.created": {"region", "urgency"},
    "question.answered": {"answer_id", "region"},
    "question.escalated": {"stage"},
    "connection.opened": set(),
    "connection.closed": set(),
    "message.sent": {"room", "status"},
    "server.sampled": {
        *("cpu", "memory", "disk"),
        *("network_in_bytes", "network_out_bytes", "connections"),
    },
    "stream.event.processed": {"processing_time_ms", "source", "partition"},
    "stream.anomaly.detected": {"score", "expected", "value"},
    # Made by the packs' own metrics.
    "ahp.anomaly.detected": {"project_id", "evaluator_id", "anomaly", "severity"},
    "ahp.milestone.reached": {"project_id", "milestone"},
}
UNBOUNDED = {"evaluation_id", "session_id", "node_id", "comparison_id", "traceparent", "left", "right"} | {
    *("question_id", "answer_id", "connection_id")
}


@functools.cache
def built_in(name: str) -> Pack:
    """A built-in pack, read once: it never changes."""
    return load_pack(name).pack


@pytest.fixture(params=WORKLOADS)
def pack(request: pytest.FixtureRequest) -> Pack:
    """Each workload's pack in turn."""
    return built_in(request.param)


def test_all_built_in_packs_are_sound_alone_and_together() -> None:
    """The strict loader finds nothing in them, and no two claim the same name."""
    assert [one.pack.pack for one in load(WORKLOADS)] == list(WORKLOADS)


def test_the_events_have_the_fields_that_the_workload_sends(pack: Pack) -> None:
    """Required fields refuse an event that lacks them; the others may be absent."""
    for name, event in pack.events.items():
        required = {field for field, spec in event.fields.items() if spec.required}
        assert required == REQUIRED[name], name
        assert set(event.fields) - required == OPTIONAL[name], name
    declared = [name for workload in WORKLOADS for name in built_in(workload).events]
    assert sorted(declared) == sorted(REQUIRED)


def test_every_field_metric_and_parameter_is_described(pack: Pack) -> None:
    """Help texts are sentences: a capital letter first, a full stop last."""
    texts = [spec.description for event in pack.events.values() for spec in event.fields.values()]
    texts += [rule.description for event in pack.events.values() for rule in event.quality.values()]
    texts += [metric.help for metric in pack.metrics.values()]
    for text in texts:
        assert re.fullmatch(r"[A-Z].*\.", text), text
    for parameter in pack.parameters.values():
        assert parameter.description.endswith("."), parameter


def test_no_id_without_bound_is_a_label(pack: Pack) -> None:
    """Sessions, evaluations and nodes grow for ever; an evaluator is a label of four metrics, with a limit."""
    fields = {
        (name, label.field): label.limit
        for name, metric in pack.metrics.items()
        for label in metric.label_specs.values()
        if label.field is not None
    }
    assert not {field for _, field in fields} & UNBOUNDED
    by_evaluator = {name: limit for (name, field), limit in fields.items() if field == "evaluator_id"}
    told = ("ahp_progress_ratio", "ahp_last_seen_timestamp_seconds", "ahp_comparisons", "ahp_anomalies")
    assert by_evaluator == (dict.fromkeys(told, 200) if pack.pack == "ahp" else {})


def test_payload_of_a_judgment_is_marked_and_in_no_metric() -> None:
    """What was judged and the verdict never reach state, metrics, spans or logs."""
    event = built_in("judgment").events["judgment.executed"]
    assert {name for name, spec in event.fields.items() if spec.payload} == {"input_data", "final_result"}
    assert event.tenant == "tenant_id"
    assert event.fields["method_used"].enum == ["rule", "llm", "hybrid"]
    assert event.fields["status"].enum == ["success", "error", "timeout"]


def test_what_a_stream_engine_says_is_of_closed_lists() -> None:
    """How an event ended, and how bad an anomaly is."""
    events = built_in("stream").events
    assert events["stream.event.processed"].fields["status"].enum == ["success", "error", "filtered"]
    assert events["stream.anomaly.detected"].fields["severity"].enum == ["low", "medium", "high", "critical"]


def test_quality_rules_have_the_given_limits() -> None:
    """Broken, an event still counts, and counts as invalid by rule."""
    found = {
        (name, rule.field): (rule.not_empty, rule.min, rule.max)
        for workload in WORKLOADS
        for name, event in built_in(workload).events.items()
        for rule in event.quality.values()
    }
    assert found == {
        ("judgment.executed", "input_data"): (True, None, None),
        ("judgment.executed", "final_result"): (True, None, None),
        ("judgment.executed", "confidence_score"): (False, 0, 1),
        ("judgment.executed", "execution_time_ms"): (False, 0, 30_000),
        ("ahp.evaluation.started", "comparisons_expected"): (False, 0, None),
        ("ahp.comparison.submitted", "value"): (False, 0.11, 9),
        ("ahp.comparison.submitted", "duration_ms"): (False, 0, None),
        ("ahp.progress.updated", "progress"): (False, 0, 100),
        ("ahp.node.completed", "consistency_ratio"): (False, 0, None),
        ("ahp.evaluation.completed", "total_time_ms"): (False, 0, None),
        ("server.sampled", "cpu"): (False, 0, 100),
        ("server.sampled", "memory"): (False, 0, 100),
        ("server.sampled", "disk"): (False, 0, 100),
        ("server.sampled", "connections"): (False, 0, None),
        ("stream.event.processed", "processing_time_ms"): (False, 0, None),
    }


def test_parameters_hold_the_given_thresholds() -> None:
    """Each is a default in one place; rules and panels say its name."""
    judgment = {name: one.value for name, one in built_in("judgment").parameters.items()}
    assert judgment == {
        "valid_ratio_warning": 0.95,
        "valid_ratio_critical": 0.9,
        "quality_window": 15,
        "quality_min_records": 50,
        "mean_duration_limit": 5,
        "mean_duration_window": 5,
        "throughput_floor": 10,
        "throughput_window": 1,
        "throughput_active_window": 30,
        "slo_objective": 0.99,
        "slo_min_executions": 50,
        "slo_min_failures": 10,
        "burn_rate_1h": 14.4,
        "burn_rate_6h": 6,
        "burn_rate_1d": 3,
        "burn_rate_3d": 1,
        "scale_out_cpu": 0.8,
        "scale_out_memory": 0.85,
        "scale_out_duration": 3,
        "scale_out_queue": 1000,
        "scale_in_cpu": 0.3,
        "scale_in_memory": 0.4,
        "scale_in_duration": 1,
    }
    ahp = {name: one.value for name, one in built_in("ahp").parameters.items()}
    assert ahp == {
        "consistency_good": 0.1,
        "consistency_limit": 0.15,
        "consistency_idle_hours": 24,
        "response_time_limit": 2,
        "completion_window": 5,
        "anomaly_window": 5,
        "late_alert_limit": 24,
        "deadline_near": 24,
        "deadline_passed": 24,
    }
    qna = {name: one.value for name, one in built_in("qna").parameters.items()}
    assert qna == {
        "answer_limit": 600,
        "urgent_limit": 60,
        "share_window": 1,
        "objective_60s": 0.5,
        "objective_300s": 0.75,
        "objective_600s": 0.99,
        "slo_min_missed": 10,
        "burn_rate_1h": 14.4,
        "burn_rate_6h": 6,
        "burn_rate_1d": 3,
        "burn_rate_3d": 1,
        "message_errors_limit": 0.05,
        "message_errors_min": 10,
        "message_errors_window": 5,
    }
    server = {name: one.value for name, one in built_in("server").parameters.items()}
    assert server == {"cpu_limit": 0.85, "memory_limit": 0.8, "cpu_critical": 0.9, "silence_window": 60}
    stream = {name: one.value for name, one in built_in("stream").parameters.items()}
    assert stream == {
        "error_ratio_limit": 0.05,
        "error_window": 5,
        "error_min_events": 100,
        "match_window": 5,
        "late_alert_limit": 24,
        "window_spread": 60,
    }


def test_alerts_have_the_given_severity_and_patience() -> None:
    """`for` stands at the alert itself, and nowhere else."""
    found = {
        name: (alert.severity, alert.for_)
        for workload in WORKLOADS
        for name, alert in built_in(workload).alerts.items()
    }
    assert found == {
        "JudgmentRecordsInvalid": ("warning", 60),
        "JudgmentRecordsUnreliable": ("critical", 60),
        "JudgmentsSlow": ("critical", 60),
        "JudgmentThroughputLow": ("warning", 60),
        "JudgmentErrorBudgetBurn1h": ("critical", 0),
        "JudgmentErrorBudgetBurn6h": ("critical", 0),
        "JudgmentErrorBudgetBurn1d": ("warning", 0),
        "JudgmentErrorBudgetBurn3d": ("warning", 0),
        "HighInconsistencyRate": ("warning", 300),
        "SlowResponseTime": ("critical", 600),
        "EvaluationComplete": ("info", 0),
        "HighAnomaly": ("critical", 0),
        "DeadlineNear": ("high", 0),
        "SlowResponse": ("warning", 0),
        "SlowUrgentResponse": ("critical", 0),
        "QuestionsErrorBudgetBurn1h": ("critical", 0),
        "QuestionsErrorBudgetBurn6h": ("critical", 0),
        "QuestionsErrorBudgetBurn1d": ("warning", 0),
        "QuestionsErrorBudgetBurn3d": ("warning", 0),
        "MessagesLost": ("warning", 300),
        "ServerOverloaded": ("warning", 60),
        "ServerCpuExhausted": ("critical", 60),
        "ServerSilent": ("warning", 60),
        "StreamErrors": ("warning", 300),
        "StreamErrorBurst": ("high", 0),
        "StreamAnomalyHigh": ("high", 0),
        "StreamAnomalyCritical": ("critical", 0),
        "StreamAnomalyBurst": ("medium", 0),
    }
    cooldowns = {
        name: alert.keep_firing_for
        for workload in WORKLOADS
        for name, alert in built_in(workload).alerts.items()
        if alert.keep_firing_for
    }
    assert cooldowns == {"ServerOverloaded": 300, "ServerCpuExhausted": 300}


def test_an_alert_compares_with_parameters_only(pack: Pack) -> None:
    """Whatever a user may want to change is named; 0, 1 and 60 are arithmetic, windows of a record are in its name."""
    for name, alert in pack.alerts.items():
        expr = re.sub(r"\$\{\w+\}", "", alert.expr)
        expr = re.sub(r"[a-z_]+:[\w:]+", "", expr)
        expr = re.sub(r"\[(1h|6h|1d|3d)\]", "", expr)
        assert set(re.findall(r"(?<![\w.])\d+(?:\.\d+)?", expr)) <= {"0", "1", "60"}, name


def test_histograms_have_bounds_where_a_threshold_lies() -> None:
    """A quantile or share at a limit is exact only if the limit is a bound."""
    bounds = {
        name: set(metric.buckets)
        for workload in WORKLOADS
        for name, metric in built_in(workload).metrics.items()
        if isinstance(metric, HistogramSpec | ConsistencySpec)
    }
    assert {5, 30} <= bounds["judgment_duration_seconds"]
    assert 2 in bounds["ahp_comparison_duration_seconds"]
    assert {0.1, 0.15} <= bounds["ahp_consistency_ratio"]
    assert {0, 1} <= bounds["judgment_score"]
    assert 1 in bounds["judgment_confidence_ratio"]


def test_metrics_have_the_labels_that_the_workload_asks_for() -> None:
    """Tenant where there is one; project for evaluations."""
    judgment = {name: set(one.labels) for name, one in built_in("judgment").metrics.items()}
    assert judgment == {
        "judgment_executions": {"tenant", "workflow", "method", "status"},
        "judgment_duration_seconds": {"tenant", "workflow", "method"},
        "judgment_confidence_ratio": {"tenant", "workflow", "method"},
        "judgment_score": {"tenant", "score_name"},
        "judgment_slow": {"tenant", "workflow", "method"},
        "judgment_records": {"tenant", "validity"},
        "judgment_quality_violations": {"tenant", "rule"},
    }
    ahp = {name: set(one.labels) for name, one in built_in("ahp").metrics.items()}
    assert ahp == {
        "ahp_comparisons": {"project", "evaluator"},
        "ahp_comparison_duration_seconds": {"project"},
        "ahp_nodes_completed": {"project", "level"},
        "ahp_evaluations_started": {"project"},
        "ahp_evaluations_completed": {"project"},
        "ahp_evaluations_active": {"project"},
        "ahp_evaluation_duration_seconds": {"project"},
        "ahp_consistency_ratio": {"project"},
        "ahp_sessions_open": {"project"},
        "ahp_evaluators_online": {"project"},
        "ahp_last_seen_timestamp_seconds": {"project", "evaluator"},
        "ahp_last_completion_timestamp_seconds": {"project"},
        "ahp_activity": {"project", "weekday", "hour"},
        "ahp_rapid_submissions": {"project"},
        "ahp_extreme_values": {"project"},
        "ahp_inconsistent_timings": {"project"},
        "ahp_anomalies": {"project", "evaluator", "anomaly", "anomaly_severity"},
        "ahp_progress_ratio": {"project"},
        "ahp_milestones": {"project", "milestone"},
        "ahp_deadline_timestamp_seconds": {"project"},
        "ahp_records": {"project", "validity"},
        "ahp_quality_violations": {"project", "rule"},
    }


def test_progress_is_told_by_level_and_evaluator_with_the_given_milestones() -> None:
    """Of a project, over all pairs of an evaluator and a node; estimates look at the last hundred points."""
    progress = built_in("ahp").metrics["ahp_progress_ratio"]
    assert isinstance(progress, ProgressSpec)
    assert set(progress.by) == {"level", "evaluator"}
    assert (progress.key, progress.pairs) == (["project_id"], ["evaluator_id", "node_id"])
    assert progress.milestones == [0.25, 0.5, 0.75, 0.9, 1]
    assert (progress.points, progress.milestone_keys) == (100, 100_000)


def test_the_recorded_series_are_those_asked_for() -> None:
    """Hourly figures by tenant and workflow; three of evaluations by project; error ratios for the burn rates."""
    recorded = {
        name
        for workload in WORKLOADS
        for group in built_in(workload).recording.values()
        for name in group.rules
    }
    assert recorded == {
        "qna:answered_in_time:ratio",
        "qna:answer_time:p95",
        "tenant_workflow:judgment_executions:increase1h",
        "tenant_workflow:judgment_successes:increase1h",
        "tenant_workflow_method:judgment_executions:share1h",
        "tenant_workflow:judgment_duration_seconds:mean1h",
        "tenant_workflow:judgment_confidence_ratio:mean1h",
        *(
            f"tenant:judgment_errors:ratio_rate{window}"
            for window in ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
        ),
        "judgment:scaling_cpu:ratio",
        "judgment:scaling_memory:ratio",
        "judgment:scaling_duration_seconds:mean5m",
        "judgment:scaling_queue:events",
        "judgment:scale_out:pressure",
        "judgment:scale_in:allowed",
        "ahp:evaluations:rate5m",
        "ahp:consistency:avg",
        "ahp:response_time:p95",
        "limit:qna_answers_budget:ratio",
        *(
            f"region_limit:qna_answers:burn_rate{window}"
            for window in ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
        ),
        *(f"host:server_{what}:live" for what in ("cpu_ratio", "memory_ratio", "disk_ratio", "connections")),
    }


def test_slow_means_longer_than_five_seconds() -> None:
    """The counter's own threshold, in the unit of its field."""
    slow = built_in("judgment").metrics["judgment_slow"]
    assert slow.model_dump(by_alias=True, exclude_none=True)["where"] == {"execution_time_ms": {"gt": 5000.0}}
    assert built_in("judgment").events["judgment.executed"].fields["execution_time_ms"].unit == "ms"


# What the packs count, by the real engine.

JUDGMENT = {
    "tenant_id": "a",
    "workflow_id": "w",
    "method_used": "llm",
    "status": "success",
    "input_data": {"question": 1},
    "final_result": "yes",
}
BY = {"project_id": "p", "evaluation_id": "e1", "evaluator_id": "v"}
AT = {**BY, "node_id": "n"}


def counted(folder: Path, *events: tuple[str, dict[str, Any]]) -> dict[str, float | list[int]]:
    """Series → value, or counts by bucket, after events of (type, data) through an engine of the workloads' packs."""
    store = SqliteStore(folder)
    try:
        engine = Engine(
            [built_in(name) for name in WORKLOADS],
            {"test": InputRules()},
            KINDS,
            store,
            SelfMetrics(built_in("evalgauge")),
            EngineOptions(),
        )
        engine.restore()
        envelope = {"specversion": "1.0", "source": "/test", "time": "2026-01-01T00:00:00Z"}
        lines = [
            json.dumps({**envelope, "id": str(number), "type": type_, "data": data})
            for number, (type_, data) in enumerate(events)
        ]
        engine.process("test", Chunk("0", "\n".join(lines).encode(), str, commit=len(lines)))
        engine.commit()
        return {name: value for family in engine.families() for name, value in series(family).items()}
    finally:
        store.close()


def series(family: Family) -> dict[str, float | list[int]]:
    """The rows of one family."""
    found: dict[str, float | list[int]] = {}
    for row in range(len(family.values)):
        pairs = zip(family.label_names, family.series[row], strict=True)
        name = f"{family.name}{{{','.join(f'{label}={value}' for label, value in pairs if value)}}}"
        if family.buckets is None:
            found[name] = float(family.values[row])
        else:
            found[f"{name} sum"] = float(family.values[row])
            found[name] = [int(count) for count in family.buckets[row]]
    return found


def test_a_judgment_that_breaks_rules_still_counts_and_is_invalid_by_rule(tmp_path: Path) -> None:
    """A time-out of 30,050 ms must not vanish just when it matters; null and empty payloads are both missing."""
    found = counted(
        tmp_path,
        ("judgment.executed", {**JUDGMENT, "confidence_score": 0.9, "execution_time_ms": 5000}),
        ("judgment.executed", {**JUDGMENT, "confidence_score": 1.5, "execution_time_ms": 5001}),
        ("judgment.executed", {**JUDGMENT, "confidence_score": -1, "status": "error"}),
        (
            "judgment.executed",
            {**JUDGMENT, "input_data": "", "final_result": None, "execution_time_ms": 30050},
        ),
        ("judgment.executed", {**JUDGMENT, "input_data": [], "status": "timeout", "execution_time_ms": -1}),
    )
    where = "tenant=a,workflow=w,method=llm"
    assert found[f"judgment_executions{{{where},status=success}}"] == 3
    assert found[f"judgment_executions{{{where},status=error}}"] == 1
    assert found[f"judgment_executions{{{where},status=timeout}}"] == 1
    assert found[f"judgment_duration_seconds{{{where}}}"] == [0, 0, 0, 0, 0, 0, 1, 1, 0, 1]
    assert found[f"judgment_duration_seconds{{{where}}} sum"] == 40.051
    assert found[f"judgment_slow{{{where}}}"] == 2
    assert found[f"judgment_confidence_ratio{{{where}}}"] == [0] * 8 + [1, 0, 0, 0, 1]
    assert found["judgment_records{tenant=a,validity=valid}"] == 1
    assert found["judgment_records{tenant=a,validity=invalid}"] == 4
    assert {name: value for name, value in found.items() if "violations" in name} == {
        "judgment_quality_violations{tenant=a,rule=input_present}": 2,
        "judgment_quality_violations{tenant=a,rule=result_present}": 1,
        "judgment_quality_violations{tenant=a,rule=confidence_in_range}": 2,
        "judgment_quality_violations{tenant=a,rule=plausible_duration}": 2,
    }


def test_scores_are_kept_apart_by_name_on_any_scale(tmp_path: Path) -> None:
    """A score without a name is `unnamed`; one below zero is in the lowest bucket; without a score none is seen."""
    found = counted(
        tmp_path,
        ("judgment.executed", {**JUDGMENT, "score": 4, "score_name": "helpfulness"}),
        ("judgment.executed", {**JUDGMENT, "score": -3}),
        ("judgment.executed", {**JUDGMENT, "score_name": "helpfulness"}),
    )
    assert found["judgment_score{tenant=a,score_name=helpfulness} sum"] == 4
    assert found["judgment_score{tenant=a,score_name=unnamed}"] == [1] + [0] * 20
    assert "evalgauge_values_unobserved{metric=judgment_score}" not in found


def test_an_evaluation_is_followed_from_start_to_end(tmp_path: Path) -> None:
    """Active and open are ups minus downs; nodes by level, those without a level or deep down in one series each."""
    session = {"project_id": "p", "evaluator_id": "v"}
    found = counted(
        tmp_path,
        ("ahp.evaluation.started", {**BY, "comparisons_expected": 3, "deadline": 1_769_904_000}),
        ("ahp.evaluation.started", {**BY, "evaluation_id": "e2"}),
        ("ahp.session.started", {**session, "session_id": "s1"}),
        ("ahp.session.started", {**session, "session_id": "s2"}),
        ("ahp.session.ended", {**session, "session_id": "s1"}),
        (
            "ahp.comparison.submitted",
            {**AT, "level": 1, "left": "x", "right": "y", "value": 1 / 9, "duration_ms": 2000},
        ),
        ("ahp.comparison.submitted", {**AT, "level": 1, "left": "x", "right": "z", "value": 9}),
        ("ahp.progress.updated", {**session, "node_id": "n", "level": 1, "progress": 100}),
        ("ahp.node.completed", {**AT, "level": 1, "consistency_ratio": 0.15}),
        ("ahp.node.completed", {**AT, "node_id": "n2", "level": 12, "consistency_ratio": 0.1}),
        ("ahp.node.completed", {**AT, "node_id": "n3"}),
        ("ahp.evaluation.completed", {**BY, "total_time_ms": 60_000}),
    )
    assert found["ahp_evaluations_started{project=p}"] == 2
    assert found["ahp_evaluations_completed{project=p}"] == 1
    assert found["ahp_evaluations_active{project=p}"] == 1
    assert found["ahp_sessions_open{project=p}"] == 1
    assert found["ahp_comparisons{project=p,evaluator=v}"] == 2
    durations = found["ahp_comparison_duration_seconds{project=p}"]
    assert isinstance(durations, list)
    assert durations.index(1) == 8, "2 s belongs to the bucket le=2"
    assert sum(durations) == 1
    assert found["ahp_nodes_completed{project=p,level=1}"] == 1
    assert found["ahp_nodes_completed{project=p,level=deeper}"] == 1
    assert found["ahp_nodes_completed{project=p}"] == 1
    assert found["ahp_consistency_ratio{project=p}"] == [0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0]
    assert found["ahp_consistency_incomplete{project=p,reason=missing}"] == 1
    assert found["ahp_deadline_timestamp_seconds{project=p}"] == 1_769_904_000
    assert found["ahp_progress_ratio{project=p}"] == 1
    assert found["ahp_evaluation_duration_seconds{project=p} sum"] == 60
    assert found["ahp_records{project=p,validity=valid}"] == 9
    assert "ahp_records{project=p,validity=invalid}" not in found


def test_evaluations_that_break_rules_count_as_invalid(tmp_path: Path) -> None:
    """A value beyond Saaty's scale, a negative time, a negative ratio, a progress beyond its end."""
    found = counted(
        tmp_path,
        ("ahp.evaluation.started", {**BY, "comparisons_expected": -1}),
        ("ahp.comparison.submitted", {**AT, "value": 0.1, "duration_ms": -1}),
        ("ahp.comparison.submitted", {**AT, "value": 9.5}),
        ("ahp.progress.updated", {"project_id": "p", "evaluator_id": "v", "node_id": "n", "progress": 101}),
        ("ahp.node.completed", {**AT, "consistency_ratio": -0.1}),
        ("ahp.evaluation.completed", {**BY, "total_time_ms": -1}),
    )
    assert found["ahp_records{project=p,validity=invalid}"] == 6
    assert {name: value for name, value in found.items() if "violations" in name} == {
        "ahp_quality_violations{project=p,rule=expectation_not_negative}": 1,
        "ahp_quality_violations{project=p,rule=value_on_scale}": 2,
        "ahp_quality_violations{project=p,rule=comparison_duration_not_negative}": 1,
        "ahp_quality_violations{project=p,rule=progress_in_range}": 1,
        "ahp_quality_violations{project=p,rule=consistency_ratio_not_negative}": 1,
        "ahp_quality_violations{project=p,rule=evaluation_duration_not_negative}": 1,
    }
    ratios = found["ahp_consistency_ratio{project=p}"]
    assert isinstance(ratios, list)
    assert (sum(ratios), found["ahp_consistency_ratio{project=p} sum"]) == (0, 0)
    assert found["evalgauge_values_unobserved{metric=ahp_consistency_ratio}"] == 3
