"""What the checker of packs says of each fault: the right place, the fault, and the mend."""

from __future__ import annotations

import re

import pytest

from evalgauge.core.document import parse_document
from evalgauge.core.pack.check import check_pack
from evalgauge.core.pack.loader import examined_pack

SOUND = """\
pack: shop
version: 1
title: Shop
events:
  shop.sold:
    description: Something was sold.
    tenant: tenant_id
    fields:
      tenant_id: {type: string, required: true, max_length: 64}
      kind: {type: string, required: true, enum: [book, toy]}
      method: {type: string, max_length: 8}
      took_ms: {type: number, unit: ms}
      weight: {type: number}
      price: {type: number, unit: usd, min: 0}
      items: {type: integer}
      floor: {type: integer, min: 0, max: 5}
      gift: {type: boolean}
      basket: {type: any, payload: true}
    quality:
      plausible: {field: took_ms, min: 0, max: 30000}
      basket_there: {field: basket, not_empty: true}
  shop.opened:
    description: A shop opened.
    fields:
      tenant_id: {type: string, required: true}
      took_ms: {type: number, unit: s}
  shop.closed:
    description: A shop closed.
    fields:
      tenant_id: {type: string, required: true}
metrics:
  shop_sales:
    type: counter
    help: Sales.
    on: shop.sold
    where: {kind: {in: [book, toy]}, took_ms: {ge: 0}}
    labels: {tenant: tenant_id, kind: kind, method: {field: method, default: none}}
  shop_revenue_usd:
    type: counter
    help: Revenue.
    on: shop.sold
    value: price
    labels: {gift: {field: gift, table: {"true": wrapped, "false": plain}, default: plain}}
  shop_duration_seconds:
    type: histogram
    help: Time of a sale.
    on: shop.sold
    value: took_ms
    labels: {tenant: tenant_id, floor: floor}
    buckets: [0.1, 1, 10]
  shop_shops_open:
    type: gauge
    help: Shops open now.
    on: [shop.opened, shop.closed]
    up: shop.opened
    down: shop.closed
    across: sum
    labels: {tenant: tenant_id}
  shop_violations:
    type: counter
    help: Rules broken.
    on: shop.sold
    labels: {rule: {quality: rule}}
foreign:
  till_queue: {help: Queue of the till., labels: [till]}
parameters:
  slow: {value: 5, unit: s, description: Slow from here on.}
recording:
  shop:
    rules:
      tenant:shop_sales:rate5m:
        expr: sum by (tenant, kind) (rate(shop_sales_total[5m]))
        description: Sales each second.
alerts:
  ShopSlow:
    expr: |-
      histogram_quantile(0.9, sum by (tenant, le) (rate(shop_duration_seconds_bucket[5m]))) > ${slow}
    severity: warning
    summary: Slow at {{ $labels.tenant }}
    description: Slower than ${slow} s.
    runbook: Look.
dashboard:
  title: Shop
  description: The shop.
  variables:
    tenant: {label: tenant, metric: shop_sales_total, title: Tenant}
  rows:
    - title: Sales
      panels:
        - title: Rate
          description: Sales each second.
          type: timeseries
          thresholds: [{from: "${slow}", color: red}, {from: 100, color: blue}]
          queries:
            - {expr: 'sum by (kind) (tenant:shop_sales:rate5m{tenant=~"$tenant"})', legend: "{{kind}}"}
            - {expr: 'max by (till) (till_queue)', legend: "{{till}}"}
"""


def found(text: str) -> list[str]:
    """Every problem of a pack, as printed."""
    document = parse_document(text, "shop.yaml")
    examined = examined_pack(document)
    assert examined.model is not None
    return [
        str(one) for one in [*examined.problems, *check_pack(document, examined.model, (), examined.broken)]
    ]


def line_of(text: str, snippet: str) -> int:
    """Line (from 1) on which `snippet` stands first."""
    return text[: text.index(snippet)].count("\n") + 1


def test_a_sound_pack_has_no_problem() -> None:
    """The base of all cases below: whatever they report comes from their one change."""
    assert found(SOUND) == []


CASES = {
    # Shape
    "unknown key": ("labels: {rule:", "lables: {rule:", "unknown key `lables`", "Did you mean `labels`?"),
    "no help": ("    help: Rules broken.\n", "", "key `help` of `shop_violations` is missing", ""),
    "no across": ("    across: sum\n", "", "key `across` of `shop_shops_open` is missing", ""),
    "unknown type": (
        "type: histogram",
        "type: histogramm",
        "unknown `histogramm`",
        "Did you mean `histogram`?",
    ),
    "quoted number": ("version: 1", 'version: "1"', "`version` must be a whole number, not `1`", ""),
    "bool in words": (
        "required: true, max_length: 64",
        "required: yes, max_length: 64",
        "must be true or false",
        "",
    ),
    "bad metric name": ("  shop_sales:\n", "  shop-sales:\n", "`shop-sales` is no valid name", "Lower-case"),
    "infinite bucket": ("[0.1, 1, 10]", "[0.1, 1, .inf]", "must be a finite number", ""),
    "event renamed": (
        "  shop.closed:\n    desc",
        "  shop.closing:\n    desc",
        "no event type `shop.closed`",
        "`shop.closing`?",
    ),
    # Fields and quality
    "unit unknown": ("unit: ms}", "unit: msec}", "unknown unit `msec`", ""),
    "unit on text": (
        "method: {type: string, max_length: 8}",
        "method: {type: string, unit: s}",
        "`unit` is for numbers",
        "",
    ),
    "enum on number": (
        "items: {type: integer}",
        "items: {type: integer, enum: [a]}",
        "`enum` is for strings",
        "",
    ),
    "max_length on number": (
        "weight: {type: number}",
        "weight: {type: number, max_length: 3}",
        "`max_length` is for str",
        "",
    ),
    "min above max": ("min: 0, max: 5}", "min: 6, max: 5}", "`min` 6 is above `max` 5", ""),
    "field named not": (
        "gift: {type: boolean}\n",
        "gift: {type: boolean}\n      not: {type: string}\n",
        "is a word of filters",
        "",
    ),
    "member twice": ("enum: [book, toy]", "enum: [book, toy, toy]", "`toy` stands in the enum twice", ""),
    "reserved member": ("enum: [book, toy]", "enum: [book, toy, _other]", "`_other` is reserved", ""),
    "tenant no field": (
        "tenant: tenant_id\n",
        "tenant: tenant\n",
        "`tenant` is no field",
        "Did you mean `tenant_id`?",
    ),
    "tenant no string": ("tenant: tenant_id\n", "tenant: gift\n", "`gift` must be a string", ""),
    "rule on no field": (
        "field: took_ms, min: 0",
        "field: took, min: 0",
        "`took` is no field",
        "Did you mean `took_ms`?",
    ),
    "rule min on text": (
        "field: took_ms, min: 0, max: 30000",
        "field: method, min: 0",
        "`min` is for numbers",
        "",
    ),
    "rule for required": ("field: basket, not_empty", "field: kind, present", "`present` is pointless", ""),
    "rule for nothing": ("field: basket, not_empty: true", "field: basket", "asks for nothing", ""),
    "number not empty": (
        "field: basket, not_empty",
        "field: price, not_empty",
        "never empty",
        "Use `present`.",
    ),
    "rule below schema": ("field: took_ms, min: 0, max: 30000", "field: price, min: -5", "never broken", ""),
    # Metric names and units
    "total": (
        "shop_violations:",
        "shop_violations_total:",
        "must not end in `_total`",
        "call it `shop_violations`",
    ),
    "info": ("shop_violations:", "shop_violations_info:", "must not end in `_info`", ""),
    "own prefix": ("  shop_violations:", "  evalgauge_violations:", "belong to pack `evalgauge`", ""),
    "base unit": (
        "  shop_revenue_usd:",
        "  shop_revenue:",
        "must end in its base unit `_usd`",
        "`shop_revenue_usd`",
    ),
    "no unit": ("value: price", "value: weight", "nothing says in which unit `weight` is", ""),
    "conflict": (
        "value: took_ms",
        "value: took_ms\n    unit: s",
        "unit `s`, but `took_ms` of `shop.sold` is in `ms`",
        "",
    ),
    "unit of count": (
        "    on: shop.sold\n    labels: {rule",
        "    on: shop.sold\n    unit: s\n    labels: {rule",
        "have no unit",
        "",
    ),
    "two units": (
        "    on: shop.sold\n    value: took_ms\n    labels: {tenant: tenant_id, floor: floor}",
        "    on: [shop.sold, shop.opened]\n    value: took_ms\n    labels: {tenant: tenant_id}",
        "has different units: ms, s",
        "",
    ),
    "one name twice": (
        "  shop_violations:",
        "  shop_sales_total:",
        "exposed as `shop_sales_total`, which `shop_sales` is already",
        "",
    ),
    # Values
    "negative": ("unit: usd, min: 0", "unit: usd", "may be negative", "Declare `min: 0` for `price`"),
    "value no number": ("value: price", "value: kind", "is of type `string`, not a number", ""),
    "value no field": ("value: price", "value: prise", "`prise` is no field", "Did you mean `price`?"),
    "histogram of nothing": (
        "    value: took_ms\n",
        "",
        "key `value` of `shop_duration_seconds` is missing",
        "",
    ),
    "neither set nor moved": ("    up: shop.opened\n    down: shop.closed\n", "", "needs either `value`", ""),
    "both": (
        "    up: shop.opened\n",
        "    up: shop.opened\n    value: took_ms\n",
        "needs either `value`",
        "",
    ),
    "set by a time and moved": (
        "    up: shop.opened\n",
        "    up: shop.opened\n    time: true\n",
        "needs either `value`",
        "",
    ),
    "only up": ("    down: shop.closed\n", "", "no event type moves it `down`", ""),
    "up elsewhere": (
        "    up: shop.opened\n",
        "    up: shop.sold\n",
        "`shop.sold` in `up` is not in `on`",
        "",
    ),
    "moved by max": ("across: sum", "across: max", "only the sum over replicas", "Write `across: sum`."),
    "process": (
        "    on: shop.sold\n    labels: {rule: {quality: rule}}",
        "    on: process",
        "belongs to pack `evalgauge`",
        "",
    ),
    "unknown event": (
        "    up: shop.opened\n",
        "    up: shop.opend\n",
        "`shop.opend` in `up`",
        "Did you mean `shop.opened`?",
    ),
    "unknown on": (
        "on: [shop.opened,",
        "on: [shop.opend,",
        "no event type `shop.opend`",
        "Did you mean `shop.opened`?",
    ),
    # Buckets
    "not ascending": ("[0.1, 1, 10]", "[0.1, 10, 1]", "bucket 1 comes after 10", "Sort them."),
    "twice": ("[0.1, 1, 10]", "[0.1, 1, 1]", "bucket 1 stands there twice", ""),
    "milliseconds": (
        "[0.1, 1, 10]",
        "[100, 1000, 10000]",
        "all values fall into the first bucket",
        "in seconds",
    ),
    # Labels
    "label no field": (
        "labels: {tenant: tenant_id, kind",
        "labels: {tenant: tennant, kind",
        "label `tenant` names no field",
        "Did you mean `tenant_id`? Fields: tenant_id, kind,",
    ),
    "label not everywhere": (
        "across: sum\n    labels: {tenant: tenant_id}",
        "across: sum\n    labels: {took: took_ms}",
        "names no field of `shop.closed`",
        "",
    ),
    "label number": ("kind: kind, method", "kind: price, method", "is a number", "histogram"),
    "label integer": (
        "floor: floor}",
        "floor: items}",
        "is a number without bounds",
        "Declare its `min` and `max`",
    ),
    "label any": ("kind: kind, method", "kind: basket, method", "`basket` is payload", ""),
    "label le": ("floor: floor}", "le: tenant_id}", "label `le` is reserved", ""),
    "label job": ("floor: floor}", "job: tenant_id}", "label `job` is reserved", ""),
    "two origins": ("{quality: rule}", "{quality: rule, constant: x}", "both `constant` and `quality`", ""),
    "no origin": ("{quality: rule}", "{limit: 3}", "and has none of them", ""),
    "table of no member": ('"true": wrapped', '"yes": wrapped', "`gift` is never `yes`", ""),
    "table enum": (
        "kind: kind, method",
        "kind: {field: kind, table: {boook: x}}, method",
        "`kind` is never `boook`",
        "Did you mean `book`?",
    ),
    "default unused": (
        "kind: kind, method",
        "kind: {field: kind, default: x}, method",
        "`default` is never used",
        "",
    ),
    "default long": ("default: none}", "default: nothing_here}", "is longer than max_length 8", ""),
    "reserved default": ("default: none}", "default: _other}", "`_other` is reserved", ""),
    "limit below enum": (
        "kind: kind, method",
        "kind: {field: kind, limit: 1}, method",
        "limit 1 is below the 2 values",
        "",
    ),
    "quality of nothing": (
        "across: sum\n    labels: {tenant: tenant_id}",
        "across: sum\n    labels: {v: {quality: validity}}",
        "has no quality rules",
        "",
    ),
    "rule of a histogram": (
        "floor: floor}",
        "rule: {quality: rule}}",
        "for a counter, not for a histogram",
        None,
    ),
    # Filters
    "where no field": (
        "where: {kind: {in",
        "where: {knid: {in",
        "`knid` is no field of `shop.sold`",
        "Did you mean `kind`?",
    ),
    "where no member": (
        "{in: [book, toy]}",
        "{in: [book, tou]}",
        "`kind` is never `tou`",
        "Did you mean `toy`?",
    ),
    "where short member": (
        "where: {kind: {in: [book, toy]}",
        "where: {kind: bok",
        "`kind` is never `bok`",
        "Did you mean `book`?",
    ),
    "where order of text": (
        "where: {kind: {in: [book, toy]}",
        "where: {kind: {gt: 3}",
        "`gt` compares numbers",
        "",
    ),
    "where number as text": ("took_ms: {ge: 0}}", 'took_ms: "5"}', "never equals `5`", ""),
    "where flag as text": ("took_ms: {ge: 0}}", "gift: wrapped}", "never equals `wrapped`", ""),
    "where impossible": (
        "took_ms: {ge: 0}}",
        "took_ms: {gt: 5, lt: 3}}",
        "is above 5 and below 3 at once",
        "",
    ),
    "where absent and equal": ("took_ms: {ge: 0}}", "took_ms: {ge: 0, present: false}}", "never holds", ""),
    "where any": ("took_ms: {ge: 0}}", "basket: x}", "only `present` can be asked", ""),
    "where nested": (
        "where: {kind: {in: [book, toy]}, took_ms: {ge: 0}}",
        "where: {all: [{not: {any: [{kind: bok}]}}]}",
        "`kind` is never `bok`",
        "",
    ),
    # Queries
    "not PromQL": ("sum by (kind) (tenant", "sum by (kind (tenant", "not valid PromQL", ""),
    "nothing emits": (
        "rate(shop_sales_total[5m])",
        "rate(shop_sale_total[5m])",
        "nothing emits `shop_sale_total`",
        "Did you mean `shop_sales_total`?",
    ),
    "without suffix": (
        "rate(shop_sales_total[5m])",
        "rate(shop_sales[5m])",
        "nothing emits `shop_sales`",
        "exposed as `shop_sales_total`",
    ),
    "no label by": (
        "sum by (tenant, kind)",
        "sum by (tenant, knid)",
        "no series in it has a label `knid`",
        "Did you mean `kind`?",
    ),
    "no label matched": (
        "shop_sales_total[5m]",
        'shop_sales_total{floor="1"}[5m]',
        "has no label `floor`",
        "",
    ),
    "no value matched": (
        "shop_sales_total[5m]",
        'shop_sales_total{kind="bok"}[5m]',
        "`kind` of `shop_sales_total` is never `bok`",
        "Did you mean `book`?",
    ),
    "no word matched": (
        "shop_sales_total[5m]",
        'shop_sales_total{kind=~"book|tou"}[5m]',
        "is never `tou`",
        "Did you mean `toy`?",
    ),
    "rate of gauge": (
        "rate(shop_sales_total[5m])",
        "rate(shop_shops_open[5m])",
        "`shop_shops_open` is a gauge",
        "",
    ),
    "quantile without le": (
        "sum by (tenant, le)",
        "sum by (tenant)",
        "needs the label `le`",
        "Aggregate `by (le, …)`.",
    ),
    "label in template": ("$labels.tenant }}", "$labels.kind }}", "its result has no label `kind`", ""),
    "parameter unknown": (
        "> ${slow}",
        "> ${slwo}",
        "no parameter is called `slwo`",
        "Did you mean `${slow}`?",
    ),
    "parameter in text": (
        "than ${slow} s",
        "than ${sloow} s",
        "no parameter is called `sloow`",
        "Did you mean `slow`?",
    ),
    "parameter unused": (
        "parameters:\n",
        "parameters:\n  quick: {value: 1, description: d}\n",
        "`quick` is used by nothing",
        "",
    ),
    "foreign unused": (
        "max by (till) (till_queue)",
        "max by (kind) (shop_sales_total)",
        "foreign metric `till_queue` is used by nothing",
        None,
    ),
    "foreign label": (
        "max by (till)",
        "max by (tilt)",
        "no series in it has a label `tilt`",
        "Did you mean `till`?",
    ),
    "legend": ('legend: "{{kind}}"', 'legend: "{{tenant}}"', "the result has no label `tenant`", ""),
    "variable unknown": ('"$tenant"', '"$tennant"', "unknown variable `$tennant`", "Did you mean `tenant`?"),
    "variable equal": (
        'tenant=~"$tenant"',
        'tenant="$tenant"',
        "may be several values",
        'Write `tenant=~"$tenant"`.',
    ),
    "variable label": (
        "{label: tenant, metric: shop_sales_total",
        "{label: tennant, metric: shop_sales_total",
        "has no label `tennant`",
        "",
    ),
    "variable metric": (
        "metric: shop_sales_total",
        "metric: shop_sales",
        "nothing emits `shop_sales`",
        "exposed as `shop_sales_total`",
    ),
    "variable unused": ('{tenant=~"$tenant"}', "", "variable `tenant` is used by no query", ""),
    "thresholds": (
        "{from: 100, color: blue}",
        "{from: 1, color: blue}",
        "threshold 1 comes after 5",
        "Sort them.",
    ),
    "threshold unknown": (
        '"${slow}", color: red',
        '"${slo}", color: red',
        "no parameter is called `slo`",
        "",
    ),
    "constant alert": (
        "histogram_quantile(0.9, sum by (tenant, le) (rate(shop_duration_seconds_bucket[5m]))) > ${slow}",
        "${slow} + 1",
        "the alert would always fire",
        "",
    ),
    "matrix of lines": (
        "          type: timeseries\n",
        "          type: timeseries\n          matrix: {rows: kind, columns: till}\n",
        "panel `Rate`: `matrix` is for a table with one query",
        "",
    ),
    "unit of a line": (
        'legend: "{{till}}"}',
        'legend: "{{till}}", unit: s}',
        "panel `Rate`: a query's `unit` is for a table, where `legend` names its column",
        "Give the panel a unit.",
    ),
    "no queries": (
        "          queries:\n            - {expr: 'sum",
        "          nothing:\n            - {expr: 'sum",
        "unknown key `nothing`",
        None,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_fault_is_named_with_its_mend(case: str) -> None:
    """One change to a sound pack, and what is said of it."""
    before, after, message, hint = CASES[case]
    assert before in SOUND
    text = SOUND.replace(before, after, 1)
    matching = [one for one in found(text) if message in one]
    assert matching, found(text)
    assert hint is None or hint in matching[0], matching
    line = int(matching[0].split(":")[1])
    first = (
        line_of(text[: SOUND.index(before)] + "\0", "\0")
        if case not in ELSEWHERE
        else line_of(text, ELSEWHERE[case])
    )
    # On a line that was changed, or on the one of the key that encloses it.
    assert first - 1 <= line <= first + max(before.count("\n"), after.count("\n")), (matching, first)


ELSEWHERE = {
    "event renamed": "on: [shop.opened, shop.closed]",
    "unit on text": "method: {type",
    "no across": "shop_shops_open:",
    "no help": "shop_violations:",
    "negative": "value: price",
    "no label by": "expr: sum by",
    "foreign unused": "till_queue:",
    "neither set nor moved": "shop_shops_open:",
    "both": "shop_shops_open:",
    "set by a time and moved": "shop_shops_open:",
    "only up": "shop_shops_open:",
    "up elsewhere": "up: shop.sold",
    "histogram of nothing": "shop_duration_seconds:",
    "quantile without le": "expr: |-",
    "parameter unknown": "expr: |-",
    "constant alert": "expr: |-",
    "variable unused": "    tenant: {label: tenant",
    "no queries": "          nothing:",
}
"""Where a fault is told that is not told on the changed line: at the key that refers to the change."""


def test_a_matrix_is_made_of_labels_that_are_there() -> None:
    """Of a table's one query; the panel is named, and where it stands."""
    text = SOUND.replace("type: timeseries", "type: table\n          matrix: {rows: kind, columns: day}")
    query = next(line for line in text.splitlines() if "max by (till) (till_queue)" in line)
    text = text.replace(query, "")
    message = "panel `Rate`: the result has no label `day`"
    [one] = [one for one in found(text) if message in one]
    assert int(one.split(":")[1]) == line_of(text, "matrix: {")


def test_all_problems_of_a_file_come_at_once_and_none_follows_from_another() -> None:
    """A metric with a typo in a key is not also missing from the rules that use it."""
    text = (
        SOUND.replace("unit: ms}", "units: ms}")
        .replace("labels: {rule:", "lables: {rule:")
        .replace("(tenant, kind)", "(tenant, kinds)")
    )
    problems = found(text)
    assert [re.sub(r"^shop.yaml:\d+:\d+: ", "", one.split("\n")[0]) for one in problems] == [
        "unknown key `units`",
        "unknown key `lables`",
        "`tenant:shop_sales:rate5m`: `sum by (kinds)`: no series in it has a label `kinds`",
    ]


TESTED = """\
alert_tests:
  - name: slow
    series: {'shop_duration_seconds_bucket{tenant="a", le="1"}': 0+1x9}
    at: 5m
    firing: [ShopSlow]
  - {name: quick, like: slow, series: {'shop_duration_seconds_bucket{tenant="b", le="1"}': 1 2 _x3 4}, at: 5m}
dashboard:
"""


@pytest.mark.parametrize(
    ("before", "after", "message", "hint"),
    [
        ("[ShopSlow]", "[ShopSlo]", "`slow`: no alert is called `ShopSlo`", "Did you mean `ShopSlow`?"),
        ("name: quick", "name: slow", "two tests are called `slow`", "Rename one."),
        ("like: slow", "like: slwo", "no test is called `slwo`", "Did you mean `slow`?"),
        ("name: slow", "name: slow\n    like: quick", "`quick` is like another test itself", "Name `slow`"),
        (
            'bucket{tenant="a"',
            'buckets{tenant="a"',
            "`slow`: nothing emits `shop_duration_seconds_buckets`",
            "",
        ),
        (
            '{tenant="a"',
            '{tenat="a"',
            "`slow`: `shop_duration_seconds_bucket` has no label `tenat`",
            "`tenant`",
        ),
        ('tenant="a"', 'tenant=~"a"', "is no series", "Write its name and labels with their values"),
        ("0+1x9", "0+1*9", "`0+1*9` are no values as promtool takes them", "0+10x60"),
    ],
)
def test_tests_of_alerts_name_only_what_there_is(before: str, after: str, message: str, hint: str) -> None:
    """Series that nothing emits would test nothing."""
    text = SOUND.replace("dashboard:\n", TESTED, 1)
    assert found(text) == []
    problems = found(text.replace(before, after, 1))
    [problem] = [one for one in problems if message in one] or problems
    assert message in problem
    assert hint in problem
