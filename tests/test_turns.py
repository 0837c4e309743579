"""Turns: one at a time, and nobody waits for long."""

from __future__ import annotations

import sys
import threading

import pytest

from evalgauge.core import turns as turns_module
from evalgauge.core.turns import Turns


def test_one_works_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as nobody waits too long, no two turns overlap, whoever takes them."""
    monkeypatch.setattr(turns_module, "_PATIENCE", 300.0)
    turns, inside, most = Turns(), 0, 0
    together = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        for _ in range(50):
            with turns.turn():
                with together:
                    inside += 1
                    most = max(most, inside)
                for _ in range(200):  # long enough for the interpreter to let another thread run
                    pass
                with together:
                    inside -= 1

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert (inside, most) == (0, 1)


def test_who_never_gets_a_turn_goes_on_without() -> None:
    """And gives nothing back that it did not have."""
    turns = Turns()
    went_on = threading.Event()

    def work() -> None:
        with turns.turn():
            went_on.set()

    with turns.turn():
        thread = threading.Thread(target=work)
        thread.start()
        assert went_on.wait(30), "somebody else's long turn holds it up"
        thread.join()
        assert turns._lock.locked()
    assert not turns._lock.locked()


def test_a_turn_ends_with_an_error() -> None:
    """What is raised in it goes on; the turn is over."""
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns.turn():
        _ = 1 // 0
    assert not turns._lock.locked()
