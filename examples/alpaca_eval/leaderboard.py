"""Print the AlpacaEval leaderboard as CSV, from a metrics file alone.

evalgauge replay annotations.ndjson --pack pack.yaml --mapping mapping.yaml --out metrics.prom
python leaderboard.py metrics.prom
"""

import csv
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

COLUMNS = ["generator", "win_rate", "n_wins", "n_wins_base", "n_draws", "n_total", "discrete_win_rate"]
SAMPLES = {
    "alpaca_annotations_total": "total",
    "alpaca_win_ratio_total": "preference",
    "alpaca_wins_total": "wins",
    "alpaca_losses_total": "losses",
    "alpaca_draws_total": "draws",
}


def leaderboard(metrics: str) -> Iterator[list[str | float | int]]:
    """The rows of the table in text format 0.0.4, by model name."""
    sums: dict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name in SAMPLES:
                sums[sample.labels["model"]][SAMPLES[sample.name]] += sample.value
    for model, one in sorted(sums.items()):
        total = one["total"]
        yield [
            model,
            one["preference"] / total * 100,
            int(one["wins"]),
            int(one["losses"]),
            int(one["draws"]),
            int(total),
            (one["wins"] + one["draws"] / 2) / total * 100,
        ]


def main() -> None:
    """Write the table to standard output."""
    if len(sys.argv) != 2:  # noqa: PLR2004 - program and file
        sys.exit("usage: python leaderboard.py metrics.prom")
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows(leaderboard(Path(sys.argv[1]).read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
