"""The AlpacaEval leaderboard comes out of the metrics alone, for the published annotations and for any like them."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "alpaca_eval"
DATA = ROOT.parent / "shared" / "data" / "alpaca_eval"
PROGRAM = Path(sys.executable).with_name("evalgauge")
COUNTS = ("n_wins", "n_wins_base", "n_draws", "n_total")

Row = dict[str, str]


def _leaderboard(annotations: Path, folder: Path, *, workers: int = 1) -> dict[str, Row]:
    """Replay a file of annotations and print the table, both by the commands a user types; rows by model."""
    metrics = folder / "m.prom"
    replayed = subprocess.run(
        [PROGRAM, "replay", annotations, "--pack", EXAMPLE / "pack.yaml", "--mapping", EXAMPLE / "mapping.yaml",
         "--out", metrics, "--workers", str(workers), "--strict"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert replayed.returncode == 0, replayed.stderr
    printed = subprocess.run(
        [sys.executable, EXAMPLE / "leaderboard.py", metrics], capture_output=True, text=True, check=True
    ).stdout
    return {row["generator"]: row for row in csv.DictReader(io.StringIO(printed, newline=""))}


def _assert_equal(found: dict[str, Row], expected: dict[str, Row]) -> None:
    assert found.keys() == expected.keys()
    for model, row in expected.items():
        assert list(found[model]) == list(row), "the columns differ"
        assert float(found[model]["win_rate"]) == pytest.approx(float(row["win_rate"]), abs=1e-6), model
        assert float(found[model]["discrete_win_rate"]) == pytest.approx(
            float(row["discrete_win_rate"]), abs=1e-6
        )
        for name in COUNTS:
            assert int(found[model][name]) == int(row[name]), (model, name)


def test_the_published_leaderboard_comes_out_of_the_published_annotations(tmp_path: Path) -> None:
    """For all 38 models the win rate equals the published one to 1e-6, and the counts are equal."""
    annotations = DATA / "annotations.ndjson"
    if not annotations.exists():
        missing = (
            f"{annotations} is not there: put AlpacaEval's annotations and published table into that folder"
        )
        if os.environ.get("CI") == "true":
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    with (DATA / "published.csv").open(encoding="utf-8", newline="") as file:
        published = {row["generator"]: row for row in csv.DictReader(file)}
    assert len(published) == 38
    _assert_equal(_leaderboard(annotations, tmp_path), published)


@pytest.mark.parametrize("workers", [1, 2])
def test_other_models_come_out_as_directly_computed(tmp_path: Path, workers: int) -> None:
    """A file of the same shape with other models, judges, ties and prices, among them names that need escaping."""
    rng = random.Random("alpaca")  # noqa: S311 - reproducible, no secret
    models = ["plain", 'say "hi"', "back\\slash", "模型-7B", "two\nlines", *(f"model-{n}" for n in range(60))]
    expected: dict[str, list[Fraction]] = {}
    lines = []
    for _ in range(20_000):
        model = rng.choice(models)
        preference = rng.choice((1, 2, 1.5, 1.0, 2.0, round(rng.uniform(1, 2), 10), rng.uniform(1, 2)))
        # A preference from 1 to 2 less one is exact in binary.
        expected.setdefault(model, []).append(Fraction(preference) - 1)
        row = {
            "generator": model,
            "annotator": rng.choice(("judge-a", "judge-b")),
            "dataset": "made",
            "preference": preference,
            "price_per_example": rng.choice((None, 0.0123)),
            "time_per_example": rng.choice((None, 1.5, 0.4)),
        }
        lines.append(json.dumps(row))
    annotations = tmp_path / "made.ndjson"
    annotations.write_text("\n".join(lines), encoding="utf-8")
    half = Fraction(1, 2)
    table = {}
    for model, wins in expected.items():
        over, under = sum(win > half for win in wins), sum(win < half for win in wins)
        draws = len(wins) - over - under
        table[model] = {
            "generator": model,
            "win_rate": str(float(sum(wins) / len(wins) * 100)),
            "n_wins": str(over),
            "n_wins_base": str(under),
            "n_draws": str(draws),
            "n_total": str(len(wins)),
            "discrete_win_rate": str((over + draws / 2) / len(wins) * 100),
        }
    _assert_equal(_leaderboard(annotations, tmp_path, workers=workers), table)
