"""What a payload is judged by: that it is there, and that there is anything in it."""

from __future__ import annotations

import random

import msgspec
import pytest

from evalgauge.core.payload import examine

VALUES = {
    "null": (False, False),
    '""': (True, True),
    "{}": (True, True),
    "[]": (True, True),
    "{ }": (True, True),
    "[\t ]": (True, True),
    '" "': (True, False),
    '"{}"': (True, False),
    "5": (True, False),
    "-0.5e3": (True, False),
    "false": (True, False),
    "[ 1 ]": (True, False),
    "[[]]": (True, False),
    '{ "a": {} }': (True, False),
    '{"":""}': (True, False),
    '"n"': (True, False),
}
"""JSON → there, empty."""


@pytest.mark.parametrize("text", VALUES)
def test_a_payload_is_judged_by_its_text(text: str) -> None:
    """Null is not there, and space within makes nothing out of an empty object or list."""
    found = examine([msgspec.Raw(text.encode())])
    assert (found.there.tolist(), found.empty.tolist()) == ([VALUES[text][0]], [VALUES[text][1]])


@pytest.mark.parametrize("absent", [False, True])
def test_many_are_judged_each_for_itself(*, absent: bool) -> None:
    """Neighbours decide nothing, whether or not some are absent; values come as a decoder leaves them."""
    chosen = random.Random(1).choices(list(VALUES), k=5000)  # noqa: S311 - reproducible, no secret
    body = f"[{' , '.join(chosen)}]"
    values: list[msgspec.Raw | None] = [*msgspec.json.Decoder(list[msgspec.Raw]).decode(body.encode())]
    expected = [VALUES[text] for text in chosen]
    if absent:
        values[::7] = [None] * len(values[::7])
        expected[::7] = [(False, False)] * len(expected[::7])
    found = examine(values)
    assert list(zip(found.there.tolist(), found.empty.tolist(), strict=True)) == expected


def test_none_are_judged() -> None:
    """An empty batch has no payloads."""
    assert [len(one) for one in examine([])] == [0, 0]
