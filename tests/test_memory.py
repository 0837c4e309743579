"""How often the interpreter looks for garbage while pipelines run."""

from __future__ import annotations

import gc

from evalgauge.core.memory import few_collections


def test_the_last_to_end_puts_everything_back() -> None:
    """Two that overlap, as the pipelines of two processes in one test do."""
    before = gc.get_threshold()
    one, two = few_collections(), few_collections()
    with one:
        seldom = gc.get_threshold()
        assert seldom[0] > before[0]
        two.__enter__()
    assert gc.get_threshold() == seldom
    assert gc.get_freeze_count() > 0
    two.__exit__(None, None, None)
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
