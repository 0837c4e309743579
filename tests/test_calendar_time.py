"""Labels from an event's time, against the standard library."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalgauge.core.calendar_time import NAMES, calendar_codes
from tests.engine_helpers import Lab, event, pack_of

if TYPE_CHECKING:
    from pathlib import Path

ZONES = ["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(-(10**10), 10**11)), st.sampled_from(ZONES))
def test_weekday_and_hour_are_those_of_the_zone(seconds: list[int], zone: str) -> None:
    """Half hours, daylight saving by half an hour, and a day that a country left out."""
    local = [datetime.fromtimestamp(one, ZoneInfo(zone)) for one in seconds]
    micros = np.array(seconds, np.int64) * 1_000_000
    # Before standard time a zone is off by odd seconds, from one to the other in the middle of a quarter of an hour.
    modern = [one.year > 1972 for one in local]
    for part, found in (("weekday", [one.weekday() for one in local]), ("hour", [one.hour for one in local])):
        codes = calendar_codes(micros, "hour" if part == "hour" else "weekday", zone).tolist()
        assert [code for code, sure in zip(codes, modern, strict=True) if sure] == [
            code for code, sure in zip(found, modern, strict=True) if sure
        ]


PACK = """\
pack: p
version: 1
title: P
events:
  p.seen: {description: Seen., fields: {who: {type: string}}}
metrics:
  p_activity:
    type: counter
    help: Activity.
    on: p.seen
    labels:
      weekday: {calendar: weekday, zone: Europe/Berlin}
      hour: {calendar: hour, zone: Europe/Berlin}
"""


def test_a_counter_by_weekday_and_hour(tmp_path: Path) -> None:
    """The night in which the clock goes back has the hour from two to three twice."""
    with Lab(tmp_path, [pack_of(PACK)]) as bench:
        for number, time in enumerate(["23:30:00", "00:30:00", "01:30:00", "02:30:00"]):
            day = "24" if time.startswith("23") else "25"
            bench.put(event(number, "p.seen", time=f"2026-10-{day}T{time}Z"))
        assert bench.value("p_activity", "sun", "01") == 1
        assert bench.value("p_activity", "sun", "02") == 2
        assert bench.value("p_activity", "sun", "03") == 1


@pytest.mark.parametrize("part", ["weekday", "hour"])
def test_every_code_has_a_name(part: str) -> None:
    """And no other."""
    hours = np.arange(24 * 7, dtype=np.int64) * 3_600_000_000
    found = calendar_codes(hours, "hour" if part == "hour" else "weekday", "UTC")
    assert set(found.tolist()) == set(range(len(NAMES[part])))
