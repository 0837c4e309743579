"""A bound on calls into a client library that may wait for ever."""

from __future__ import annotations

import threading
from queue import Empty, Queue
from typing import TYPE_CHECKING, TypeVar, cast

from evalgauge.collectors.kafka_client import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


class Overdue(Unavailable):
    """The call has not returned. Its thread is left to itself: nothing that it holds may be used again."""


def within(seconds: float, what: Callable[[], _T]) -> _T:
    """What this gives or raises, in a thread of its own. Raises `Overdue` where it takes longer."""
    done: Queue[tuple[_T | None, BaseException | None]] = Queue()

    def run() -> None:
        try:
            done.put((what(), None))
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            done.put((None, error))

    threading.Thread(target=run, name="kafka-call", daemon=True).start()
    try:
        found, error = done.get(timeout=seconds)
    except Empty:
        raise Overdue(f"the brokers have not answered for {seconds:g} s") from None
    if error is not None:
        raise error
    return cast("_T", found)
