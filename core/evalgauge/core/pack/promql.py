"""PromQL read for sense: which series and labels an expression refers to, and which labels its result has.

Labels are followed from the selectors outwards as sets that can only be too wide, never too narrow: what is
reported is certain to be wrong, whatever the data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import promql_parser as promql

from evalgauge.core.findings import suggest
from evalgauge.core.pack.labels import Labels, both, either, equal_to, only, without
from evalgauge.core.pack.variables import variable_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evalgauge.core.pack.names import Series

Kind = Literal["vector", "scalar", "matrix", "string"]

_KINDS: dict[str, Kind] = {"Vector": "vector", "Scalar": "scalar", "Matrix": "matrix", "String": "string"}
_KIND_OF: dict[Kind, tuple[type[promql.Expr], ...]] = {
    "scalar": (promql.NumberLiteral,),
    "string": (promql.StringLiteral,),
    "matrix": (promql.MatrixSelector, promql.SubqueryExpr),
}
_ANY = Labels(None)
_NONE = Labels(frozenset())
_OF_COUNTERS = {"rate", "increase", "irate"}
_OF_GAUGES = {"delta", "idelta", "deriv"}
_COUNTING = {"counter", "bucket", "count"}
_KEEPING = {"topk", "bottomk", "limitk", "limit_ratio"}
_WORDS = re.compile(r"[\w.:-]+(\|[\w.:-]+)*")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong inside an expression."""

    message: str
    hint: str = ""


@dataclass(slots=True)
class Reading:
    """What an expression says."""

    kind: Kind = "vector"
    labels: Labels = _ANY
    faults: list[Fault] = field(default_factory=list)
    selected: set[str] = field(default_factory=set)
    """Names of the series it selects."""


def read(query: str, series: Mapping[str, Series], variables: Mapping[str, bool] | None = None) -> Reading:
    """Read one expression in plain PromQL over the series that exist.

    `variables` are those that stand in its texts (see `variables.stood_in`), with whether each may be several
    values at once. What is wrong is in `faults`; then the labels are as sure as they can be.
    """
    reader = _Reader(series, variables or {})
    try:
        tree = promql.parse(query)
    except ValueError as error:
        return Reading(faults=[Fault(f"not valid PromQL: {error}")])
    labels = reader.labels(tree)
    return Reading(_kind(tree), labels, list(dict.fromkeys(reader.faults)), reader.selected)


def _kind(tree: promql.Expr) -> Kind:
    for kind, nodes in _KIND_OF.items():
        if isinstance(tree, nodes):
            return kind
    if isinstance(tree, promql.Call):
        return _KINDS[str(tree.func.return_type).rsplit(".", 1)[-1]]
    if isinstance(tree, promql.ParenExpr | promql.UnaryExpr):
        return _kind(tree.expr)
    if isinstance(tree, promql.BinaryExpr):
        return "scalar" if _kind(tree.lhs) == _kind(tree.rhs) == "scalar" else "vector"
    return "vector"


class _Reader:
    """Labels of each node from those of its parts, with the faults met on the way."""

    def __init__(self, series: Mapping[str, Series], variables: Mapping[str, bool]) -> None:
        self._series = series
        self._variables = variables
        self.faults: list[Fault] = []
        self.selected: set[str] = set()

    def labels(self, tree: promql.Expr) -> Labels:  # noqa: PLR0911 - one for each kind of node
        """The labels of the result of `tree`."""
        if isinstance(tree, promql.VectorSelector):
            return self._selector(tree)
        if isinstance(tree, promql.MatrixSelector):
            return self._selector(tree.vector_selector)
        if isinstance(tree, promql.ParenExpr | promql.UnaryExpr | promql.SubqueryExpr):
            return self.labels(tree.expr)
        if isinstance(tree, promql.AggregateExpr):
            return self._aggregate(tree)
        if isinstance(tree, promql.BinaryExpr):
            return self._binary(tree)
        if isinstance(tree, promql.Call):
            return self._call(tree)
        return _NONE

    def _fault(self, message: str, hint: str = "") -> None:
        self.faults.append(Fault(message, hint))

    # Selectors

    def _selector(self, tree: promql.VectorSelector) -> Labels:
        matchers = [*tree.matchers.matchers, *(one for group in tree.matchers.or_matchers for one in group)]
        name = _selected(tree)
        if name is None:
            return _ANY
        self.selected.add(name)
        found = self._series.get(name)
        if found is None:
            self._fault(f"nothing emits `{name}`", self._meant(name))
            return _ANY
        labels = found.labels
        for matcher in matchers:
            if matcher.name != "__name__":
                labels = self._matched(name, labels, matcher, sure=not tree.matchers.or_matchers)
        return labels

    def _meant(self, name: str) -> str:
        for suffix in ("_total", "_count", "_sum", "_bucket"):
            if name + suffix in self._series:
                return f"It is exposed as `{name}{suffix}`."
        return suggest(name, self._series)

    def _matched(self, name: str, labels: Labels, matcher: promql.Matcher, *, sure: bool) -> Labels:
        label, value = matcher.name, matcher.value
        if labels.possible is not None and label not in labels.possible:
            self._fault(f"`{name}` has no label `{label}`", suggest(label, labels.possible))
            return labels
        variable = variable_of(value, self._variables)
        if variable is not None:
            if self._variables[variable] and matcher.op == promql.MatchOp.Equal:
                message = f'`{label}="${variable}"`: the variable may be several values at once'
                self._fault(message, f'Write `{label}=~"${variable}"`.')
            return labels
        self._check_value(name, labels, matcher)
        return _narrowed(labels, matcher) if sure else labels

    def _check_value(self, name: str, labels: Labels, matcher: promql.Matcher) -> None:
        known = labels.values.get(matcher.name)
        if known is None:
            return
        possible = known if matcher.name in labels.certain else known | {""}
        value, label = matcher.value, matcher.name
        if matcher.op == promql.MatchOp.Equal and value not in possible:
            self._fault(f"`{label}` of `{name}` is never `{value}`", suggest(value, known - {""}))
        if matcher.op == promql.MatchOp.Re:
            words = value.split("|") if _WORDS.fullmatch(value) else []
            for word in words:
                # A dot in a word may be meant as a pattern.
                if not any(_fits(word, one) for one in possible):
                    self._fault(f"`{label}` of `{name}` is never `{word}`", suggest(word, known - {""}))
            if not words and not any(_fits(value, one) for one in possible):
                self._fault(f"`{label}` of `{name}` never matches `{value}`", suggest("", known - {""}))

    # Aggregations

    def _aggregate(self, tree: promql.AggregateExpr) -> Labels:
        inner = self.labels(tree.expr)
        if isinstance(tree.param, promql.Expr):
            self.labels(tree.param)
        op = str(tree.op)
        modifier = tree.modifier
        names = frozenset(modifier.labels) if modifier is not None else frozenset()
        keeps = modifier is not None and modifier.type == promql.AggModifierType.By
        for name in sorted(names - {"__name__"}):
            if inner.possible is not None and name not in inner.possible:
                word = "by" if keeps else "without"
                self._fault(
                    f"`{op} {word} ({name})`: no series in it has a label `{name}`",
                    suggest(name, inner.possible),
                )
        if op in _KEEPING:
            return inner
        if modifier is None:
            kept = _NONE
        elif keeps:
            kept = only(inner, names)
        else:
            kept = without(inner, names)
        if self._is_bucket(tree.expr) and op in {"sum", "avg"} and "le" not in (kept.possible or {"le"}):
            self._fault(
                f"`{op}` adds up cumulative buckets over `le`",
                f"Write `{op} by (le, …)`, or select one `le`.",
            )
        if op == "count_values" and isinstance(tree.param, promql.StringLiteral):
            added = tree.param.val
            return replace(kept, possible=None if kept.possible is None else kept.possible | {added})
        return kept

    def _is_bucket(self, tree: promql.Expr) -> bool:
        """True where `tree` is plainly buckets by `le`: their selector, perhaps in a function over time."""
        while isinstance(tree, promql.ParenExpr):
            tree = tree.expr
        if isinstance(tree, promql.Call) and len(tree.args) == 1:
            tree = tree.args[0]
        selector = tree.vector_selector if isinstance(tree, promql.MatrixSelector) else tree
        if not isinstance(selector, promql.VectorSelector):
            return False
        found = self._series.get(_selected(selector) or "")
        chosen = any(matcher.name == "le" for matcher in selector.matchers.matchers)
        return found is not None and found.kind == "bucket" and not chosen

    # Operators

    def _binary(self, tree: promql.BinaryExpr) -> Labels:
        left, right = self.labels(tree.lhs), self.labels(tree.rhs)
        kinds = (_kind(tree.lhs), _kind(tree.rhs))
        if kinds[0] == "scalar":
            return right if kinds[1] == "vector" else _NONE
        if kinds[1] == "scalar":
            return left
        op, modifier = str(tree.op), tree.modifier
        matching = modifier.matching if modifier is not None else None
        names = frozenset(matching.labels) if matching is not None else frozenset()
        on = matching is not None and matching.type == promql.LabelModifierType.Include
        self._check_matching(op, left, right, names, on=on)
        if op in {"and", "unless"}:
            return left
        if op == "or":
            return either(left, right)
        return self._matched_sides(left, right, modifier, names if on else None)

    def _matched_sides(
        self, left: Labels, right: Labels, modifier: promql.BinModifier | None, on: frozenset[str] | None
    ) -> Labels:
        """Labels of an operation between series that match; `on` holds the labels of `on (…)`, if it stands there."""
        card = modifier.card if modifier is not None else promql.VectorMatchCardinality.OneToOne
        extra = frozenset((modifier.group_labels if modifier is not None else None) or ())
        if card == promql.VectorMatchCardinality.ManyToOne:
            return self._grouped(left, right, extra, "group_left")
        if card == promql.VectorMatchCardinality.OneToMany:
            return self._grouped(right, left, extra, "group_right")
        if on is not None:
            return both(only(left, on), only(right, on))
        ignored = modifier.matching.labels if modifier is not None and modifier.matching is not None else ()
        return both(without(left, ignored), without(right, ignored))

    def _check_matching(
        self, op: str, left: Labels, right: Labels, names: frozenset[str], *, on: bool
    ) -> None:
        sides = ((left, "left"), (right, "right"))
        if on:
            for name in sorted(names):
                for side, word in sides:
                    if side.possible is not None and name not in side.possible:
                        message = f"`{op} on ({name})`: the {word} side has no label `{name}`"
                        self._fault(message, suggest(name, side.possible))
            return
        for name in sorted(names):
            if all(side.possible is not None and name not in side.possible for side, _ in sides):
                self._fault(f"`{op} ignoring ({name})`: neither side has a label `{name}`")
        if op == "or":
            return
        for (one, word), (other, _) in (sides, sides[::-1]):
            alone = one.certain - names - (other.possible or frozenset())
            if other.possible is not None and alone:
                listed = ", ".join(f"`{name}`" for name in sorted(alone))
                message = f"the sides of `{op}` never match: only the {word} one has {listed}"
                self._fault(
                    message, "Say `on (…)` or `ignoring (…)`, or aggregate both sides by the same labels."
                )
                return

    def _grouped(self, many: Labels, one: Labels, extra: frozenset[str], word: str) -> Labels:
        for name in sorted(extra):
            if one.possible is not None and name not in one.possible:
                message = f"`{word} ({name})`: the side it is taken from has no label `{name}`"
                self._fault(message, suggest(name, one.possible))
        taken = only(one, extra)
        kept = without(many, extra)
        if kept.possible is None:
            return Labels(None, kept.certain | taken.certain, {**kept.values, **taken.values})
        possible = kept.possible | extra
        return Labels(possible, kept.certain | taken.certain, {**kept.values, **taken.values})

    # Functions

    def _call(self, tree: promql.Call) -> Labels:
        name = tree.func.name
        arguments: list[promql.Expr] = tree.args
        vectors = [one for one in arguments if _kind(one) in {"vector", "matrix"}]
        inner = self.labels(vectors[0]) if vectors else _NONE
        for other in arguments:
            if not vectors or other is not vectors[0]:
                self.labels(other)
        self._check_counting(name, arguments)
        if _kind(tree) == "scalar" or name == "vector":
            return _NONE
        if name in {"absent", "absent_over_time"}:
            return _absent(arguments[0])
        if name in {"histogram_quantile", "histogram_fraction"}:
            if inner.possible is not None and "le" not in inner.possible:
                self._fault(
                    f"`{name}` needs the label `le`, which its argument has lost", "Aggregate `by (le, …)`."
                )
            return without(inner, frozenset({"le"}))
        if name in {"label_replace", "label_join"}:
            return self._relabelled(name, arguments, inner)
        if name == "info":
            return _ANY
        return inner

    def _check_counting(self, name: str, arguments: list[promql.Expr]) -> None:
        if name not in _OF_COUNTERS | _OF_GAUGES or not arguments:
            return
        argument = arguments[0]
        if isinstance(argument, promql.SubqueryExpr):
            inner = argument.expr
            while isinstance(inner, promql.ParenExpr):
                inner = inner.expr
            if (
                name in _OF_COUNTERS
                and isinstance(inner, promql.AggregateExpr)
                and self._is_counter(inner.expr)
            ):
                message = f"`{name}` over an aggregation takes the reset of one counter for a reset of all"
                self._fault(message, f"Aggregate after: `{inner.op}({name}(…))`.")
            return
        if not isinstance(argument, promql.MatrixSelector):
            return
        series = _selected(argument.vector_selector) or ""
        found = self._series.get(series)
        if found is not None and found.kind == "gauge" and name in _OF_COUNTERS:
            self._fault(f"`{name}` is for counters, and `{series}` is a gauge", "Use `delta` or `deriv`.")
        if found is not None and found.kind in _COUNTING and name in _OF_GAUGES:
            self._fault(f"`{name}` is for gauges, and `{series}` is a counter", "Use `increase` or `rate`.")

    def _is_counter(self, tree: promql.Expr) -> bool:
        found = self._series.get(_selected(tree) or "") if isinstance(tree, promql.VectorSelector) else None
        return found is not None and found.kind in _COUNTING

    def _relabelled(self, name: str, arguments: list[promql.Expr], inner: Labels) -> Labels:
        texts = [one.val for one in arguments if isinstance(one, promql.StringLiteral)]
        if not texts:
            return _ANY
        sources = texts[2:3] if name == "label_replace" else texts[2:]
        for source in sources:
            if source and inner.possible is not None and source not in inner.possible:
                self._fault(
                    f"`{name}`: its argument has no label `{source}`", suggest(source, inner.possible)
                )
        values = {label: found for label, found in inner.values.items() if label != texts[0]}
        possible = None if inner.possible is None else inner.possible | {texts[0]}
        return Labels(possible, inner.certain - {texts[0]}, values)


def _selected(tree: promql.VectorSelector) -> str | None:
    """The one name that a selector selects; None where it is a pattern or missing."""
    if tree.name:
        return tree.name
    names = [
        one for one in tree.matchers.matchers if one.name == "__name__" and one.op == promql.MatchOp.Equal
    ]
    return names[0].value if names else None


def _fits(pattern: str, value: str) -> bool:
    try:
        return re.fullmatch(pattern, value) is not None
    except re.error:
        return True  # RE2 knows what Python does not


def _narrowed(labels: Labels, matcher: promql.Matcher) -> Labels:
    """What is left of a selector's labels when a matcher holds."""
    label, value = matcher.name, matcher.value
    if matcher.op == promql.MatchOp.Equal:
        return equal_to(labels, label, value)
    if matcher.op == promql.MatchOp.NotEqual and not value:
        return replace(labels, certain=labels.certain | {label})
    return labels


def _absent(tree: promql.Expr) -> Labels:
    """`absent(x{a="b"})` gives the labels that its matchers say for certain."""
    selector = tree.vector_selector if isinstance(tree, promql.MatrixSelector) else tree
    if not isinstance(selector, promql.VectorSelector):
        return _NONE
    names = [one.name for one in selector.matchers.matchers if one.name != "__name__"]
    equal = {
        one.name: one.value
        for one in selector.matchers.matchers
        if one.op == promql.MatchOp.Equal and names.count(one.name) == 1 and one.name != "__name__"
    }
    labels = frozenset(equal)
    return Labels(labels, labels, {name: frozenset({value}) for name, value in equal.items()})
