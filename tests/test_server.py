"""Pack `server`: what hosts say, in base units, and hosts that stop saying anything."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from evalgauge.core.pack.loader import load_pack
from tests.engine_helpers import NOON, Lab, event

if TYPE_CHECKING:
    from pathlib import Path


def sample(number: int, host: str, seconds: float, **data: Any) -> dict[str, Any]:
    """A sample of a host, so long after an hour before noon."""
    time = datetime.fromtimestamp(NOON - 3600 + seconds, UTC).isoformat()
    return event(number, "server.sampled", time=time, host=host, **data)


def test_a_host_that_stops_reporting_is_nought_and_its_gauges_are_gone(tmp_path: Path) -> None:
    """Time goes on by the other host; 180 s after its last sample the first is out, and back with the next one."""
    with Lab(tmp_path, packs=[load_pack("server").pack]) as bench:
        bench.put(sample(0, "a", 0, cpu=97.5), sample(1, "b", 0, cpu=5))
        assert [bench.value("server_hosts_reporting", host) for host in "ab"] == [1, 1]
        bench.put(sample(2, "b", 179, cpu=5))
        assert [bench.value("server_hosts_reporting", host) for host in "ab"] == [1, 1]
        bench.put(sample(3, "b", 180, cpu=5))
        assert [bench.value("server_hosts_reporting", host) for host in "ab"] == [0, 1]
        (cpu,) = [one for one in bench.families() if one.name == "server_cpu_ratio"]
        assert cpu.series == [("b",)]
        bench.put(sample(4, "a", 200, cpu=10))
        assert [bench.value("server_hosts_reporting", host) for host in "ab"] == [1, 1]
        assert bench.value("server_cpu_ratio", "a") == 0.1


def test_a_host_whose_clock_is_ahead_makes_no_other_vanish(tmp_path: Path) -> None:
    """Four minutes ahead, less than `clock_ahead`, and longer than a host may be silent: it is there as well."""
    with Lab(tmp_path, packs=[load_pack("server").pack]) as bench:
        for number in range(60):
            now = 10.0 * number
            bench.put(
                sample(3 * number, "a", now, cpu=97.5),
                sample(3 * number + 1, "fast", now + 240, cpu=5),
                sample(3 * number + 2, "b", now, cpu=50),
                arrival=NOON - 3600 + now,
            )
            assert [bench.value("server_hosts_reporting", host) for host in ("a", "fast", "b")] == [1, 1, 1]
            (cpu,) = [one for one in bench.families() if one.name == "server_cpu_ratio"]
            shown = dict(zip(cpu.series, cpu.values.tolist(), strict=True))
            assert shown == {("a",): 0.975, ("fast",): 0.05, ("b",): 0.5}
        bench.put(sample(999, "b", 780, cpu=50), arrival=NOON - 3600 + 780)
        assert [bench.value("server_hosts_reporting", host) for host in ("a", "fast", "b")] == [0, 1, 1]


def test_samples_are_shown_in_base_units(tmp_path: Path) -> None:
    """Ratios and bytes; what a sample leaves out, or says to be less than nothing, keeps its last value.

    A little above 100 % is invalid, and shown: of a host at its limit an alert must not lose sight.
    """
    with Lab(tmp_path, packs=[load_pack("server").pack]) as bench:
        bench.put(
            sample(0, "a", 0, cpu=85, memory=80.5, disk=100, connections=7, network_in_bytes=1_000),
            sample(1, "a", 10, network_in_bytes=24, network_out_bytes=3),
        )
        assert bench.value("server_cpu_ratio", "a") == 0.85
        assert bench.value("server_memory_ratio", "a") == 0.805
        bench.put(
            sample(2, "a", 20, cpu=100.3, memory=101, disk=-1, connections=-1),
        )
        assert bench.value("server_cpu_ratio", "a") == 1.003
        assert bench.value("server_memory_ratio", "a") == 1.01
        assert bench.value("server_disk_ratio", "a") == 1
        assert bench.value("server_network_in_bytes", "a") == 1_024
        assert bench.value("server_network_out_bytes", "a") == 3
        assert bench.value("server_records", "a", "valid") == 2
        assert bench.value("server_records", "a", "invalid") == 1
        for rule in ("cpu_in_range", "memory_in_range", "disk_in_range"):
            assert bench.value("server_quality_violations", rule) == 1
        assert bench.value("server_quality_violations", "connections_not_negative") == 1
        assert not [key for key in bench.counted() if key[0] == "evalgauge_values_unobserved"]


def test_bytes_that_are_negative_are_refused(tmp_path: Path) -> None:
    """A counter never goes down."""
    with Lab(tmp_path, packs=[load_pack("server").pack]) as bench:
        bench.put(sample(0, "a", 0, network_in_bytes=-1))
        assert [letter.reason for letter in bench.letters()] == ["out_of_range"]
