"""Fields that are read together give what each gives alone, whatever is remembered of them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from evalgauge.core import encoders
from tests.engine_helpers import Lab, event, lines, one_by_one

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("values", "combinations"), [(-1, 1 << 14), (1 << 10, 1 << 14), (1 << 10, 5), (4, 20)]
)
def test_labels_are_the_same_however_they_are_read(
    tmp_path: Path, values: int, combinations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never together, always, until there are too many combinations, and until one field has too many values."""
    dice = random.Random(5)  # noqa: S311 - the same stream at every run
    found = lines(
        *(
            event(
                number,
                tenant=dice.choice(["t", "u", ""]),
                kind=dice.choice("abc"),
                who=dice.choice(["ann", "bob", None, f"w{number % 9}"]),
                ok=dice.choice([True, False, None]),
                took_ms=dice.choice([None, 5, 70_000]),
            )
            for number in range(400)
        )
    )
    with one_by_one(tmp_path / "one", found) as oracle:
        expected = oracle.shown()
    monkeypatch.setattr(encoders, "MOST_VALUES", values)
    monkeypatch.setattr(encoders, "MOST_COMBINATIONS", combinations)
    with Lab(tmp_path / "together") as bench:
        for start in range(0, len(found), 40):
            bench.feed(b"\n".join(found[start : start + 40]))
        bench.engine.commit()
        assert bench.shown() == expected
