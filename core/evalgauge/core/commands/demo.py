"""`evalgauge demo`: the main job on made-up events, with nothing to set up."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from typing import NamedTuple

import click

from evalgauge.core import logs
from evalgauge.core.commands import options
from evalgauge.core.config import load_config
from evalgauge.core.demo.live import Live, Samples, scrape
from evalgauge.core.demo.script import SCRIPT, going_on
from evalgauge.core.demo.sender import Sender
from evalgauge.core.demo.week import DAY, MINUTE, WEEK, in_week, moment, seconds_of
from evalgauge.core.demo.world import PACKS, world
from evalgauge.core.errors import EvalgaugeError
from evalgauge.core.process import Process

METRICS = "127.0.0.1:9464"
DOOR = "127.0.0.1:8080"
DOOR_PATH = "/v1/events"
_COLUMNS = (
    "time",
    "judgments",
    "failed",
    "p95",
    "confidence",
    "comparisons",
    "waiting",
    "refused",
    "series",
)
_WIDTHS = (10, 11, 8, 8, 12, 13, 9, 9, 8)


class _Begin(click.ParamType[float]):
    """A day, or a time of one; UTC unless it says otherwise."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Unix time of a text."""
        try:
            when = datetime.fromisoformat(str(value))
        except ValueError as error:
            self.fail(f"{error}; write it as 2026-03-02 or 2026-03-02T10:00Z", param, ctx)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


class _Moment(click.ParamType[int]):
    """A time of the week."""

    name = "DAY HH:MM"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Seconds since Monday 00:00 of a text."""
        try:
            return seconds_of(str(value))
        except ValueError:
            self.fail(
                f"{value!r} is no time of a week; write it as 'Tue 10:05' or 'Tue 10:05:30'", param, ctx
            )


@click.command(
    epilog="Example: evalgauge demo --begin 2026-03-02 --for 30s --seed 7",
    short_help="Show the main job on made-up events, with nothing to set up.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same events.")
@click.option(
    "--for", "duration", type=options.Age(), default="60s", show_default=True, help="How long; 0 is for ever."
)
@click.option(
    "--begin",
    type=_Begin(),
    help="When what is played begins, as 2026-03-02 or 2026-03-02T10:00Z; default a Sunday, three days ago or more.",
)
@click.option(
    "--now",
    "as_if",
    type=_Moment(),
    help="What the world's clock says as the demo starts, as 'Tue 10:05'; default the time that it is, in UTC.",
)
@click.option(
    "--speed",
    type=click.FloatRange(1, 1_000_000),
    default=3 * DAY / MINUTE,
    show_default="three days in a minute",
    help="How many times as fast as it went the past is played; then it goes on as fast as the clock.",
)
@click.option(
    "--rate",
    type=click.FloatRange(1, 1_000),
    default=1,
    show_default=True,
    help="How many times as many judgments are made.",
)
@click.option("--script", is_flag=True, help="Only print what goes wrong when, and which alerts must say so.")
@click.option(
    "--listen", metavar="HOST:PORT", help=f"Address of /metrics; default {METRICS}, or a free port."
)
@click.option(
    "--door", metavar="HOST:PORT", help=f"Address that takes events; default {DOOR}, or a free port."
)
@options.log_flags
def command(  # noqa: PLR0913 - they belong together
    *,
    seed: int,
    duration: float,
    begin: float | None,
    as_if: int | None,
    speed: float,
    rate: float,
    script: bool,
    listen: str | None,
    door: str | None,
    log_level: str | None,
    log_format: str | None,
) -> None:
    """Run evalgauge on loopback with state in a temporary folder, and send it made-up days of events over HTTP.

    People work in shifts in two time zones, nights and weekends are quiet, a judge drifts, and on Tuesdays things go
    wrong (--script). The past is played faster than it went, from a Sunday on; where that comes to now it goes on as
    fast as the clock. A share of the events is wrong on purpose: it is refused, and the rest counts. The numbers are
    read from /metrics as Prometheus would; in the end they must be what was acknowledged.
    """
    if script:
        _print_script()
        return
    now = time.time()
    # Whole seconds, so that no time of an event is rounded.
    ahead = 0 if as_if is None else as_if - int(in_week(now))
    if begin is None:
        # Who says what time it is wants to see that, and not what went before.
        begin = _last_sunday(now + ahead - (3 * DAY if as_if is None else DAY)) - ahead
    if begin >= now:
        raise click.BadParameter("it must lie in the past", param_hint="--begin")
    logs.set_up(log_level or "warning", log_format or "console")
    addresses = _Addresses(listen or _free(METRICS), door or _free(DOOR))
    sender = Sender(world(seed, begin, rate, ahead), addresses.events, begin, speed)
    with tempfile.TemporaryDirectory(prefix="evalgauge-demo-") as folder:
        process = Process(
            load_config(
                None,
                {},
                packs=[*PACKS],
                inputs={"door": {"type": "http", "listen": addresses.door, "path": DOOR_PATH}},
                exporters={"metrics": {"type": "prometheus", "listen": addresses.metrics}},
                state__folder=folder,
                # A machine that is held up must not take the past for over.
                engine__idle_after=60,
                shutdown_timeout=3,
            )
        )
        show = _Show(addresses, sender, seed, duration, folder, ahead)
        _play(process, sender, duration, show)
    sys.exit(show.end())


def _last_sunday(now: float) -> float:
    """Its midnight UTC; Tuesday is two days after."""
    return now - (in_week(now) - 6 * DAY) % WEEK


def _print_script() -> None:
    for incident in sorted(SCRIPT, key=lambda one: one.start):
        click.echo(f"{moment(incident.start)} to {moment(incident.end)} UTC: {incident.title}")
        for one in incident.alerts:
            labels = ", ".join(f'{name}="{value}"' for name, value in one.labels.items())
            gone = "stands" if one.gone is None else f"gone {one.gone / MINUTE:g} min after its end"
            click.echo(f"  {one.alert}{{{labels}}} within {one.within / MINUTE:g} min, {gone}")


class _Addresses(NamedTuple):
    metrics: str
    door: str

    @property
    def scrape(self) -> str:
        return f"http://{_reachable(self.metrics)}/metrics"

    @property
    def events(self) -> str:
        return f"http://{_reachable(self.door)}{DOOR_PATH}"


def _reachable(address: str) -> str:
    host, _, port = address.rpartition(":")
    return f"{host or '127.0.0.1'}:{port}"


def _free(address: str) -> str:
    """The address if nobody listens there, else the same host with a free port."""
    host, _, port = address.rpartition(":")
    for number in (int(port), 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, number))
            return f"{host}:{probe.getsockname()[1]}"
    return f"{host}:0"


def _play(process: Process, sender: Sender, duration: float, show: _Show) -> None:
    """Run the process here, in the main thread, and the sender beside it, until the time is over or Ctrl-C."""
    stop = threading.Event()
    failure: list[BaseException] = []

    def work() -> None:
        try:
            _wait_until_up(show.addresses.scrape, stop)
            show.begin()
            watcher = threading.Thread(target=show.watch, args=(stop,), name="watch", daemon=True)
            watcher.start()
            sender.play(duration, stop)
            stop.set()
            watcher.join()
            show.last_look()
        except BaseException as error:  # noqa: BLE001 - a plug-in may raise anything
            failure.append(error)
        finally:
            process.end()

    def interrupted(*_: object) -> None:
        show.interrupted = True
        stop.set()

    worker = threading.Thread(target=work, name="demo", daemon=True)
    signal.signal(signal.SIGINT, interrupted)
    signal.signal(signal.SIGTERM, interrupted)
    worker.start()
    try:
        process.run()
    finally:
        stop.set()
    worker.join()
    if failure:
        raise failure[0]


def _wait_until_up(url: str, stop: threading.Event) -> None:
    end = time.monotonic() + 20
    while not stop.is_set():
        try:
            scrape(url)
        except OSError as error:
            if time.monotonic() > end:
                raise EvalgaugeError(f"{url} does not answer: {error}") from error
            stop.wait(0.05)
        else:
            return


class _Show:
    """What the demo prints."""

    def __init__(  # noqa: PLR0913, PLR0917 - all of it is shown
        self, addresses: _Addresses, sender: Sender, seed: int, duration: float, folder: str, ahead: int
    ) -> None:
        self.addresses = addresses
        self.interrupted = False
        self._sender, self._seed, self._duration, self._folder = sender, seed, duration, folder
        self._every = min(5.0, max(1.0, duration / 12)) if duration else 5.0
        self._ahead = ahead
        self._looked = 0.0
        self._samples: Samples = {}

    def begin(self) -> None:
        """Say where everything is."""
        length = f"{self._duration:g} s or" if self._duration else ""
        begin = datetime.fromtimestamp(self._sender.begin, UTC).isoformat(timespec="minutes")
        click.echo(
            f"evalgauge demo, seed {self._seed}, from {begin}, {length} until Ctrl-C\n".replace("  ", " ")
        )
        if self._ahead:
            now = time.time()
            monday = datetime.fromtimestamp(round(now - in_week(now + self._ahead)), UTC).isoformat()
            click.echo(f"  its own clock said Mon 00:00 at {monday}")
        door = self.addresses.events
        for name, text in (
            ("metrics", self.addresses.scrape),
            ("status", self.addresses.scrape.removesuffix("metrics")),
            ("events", f"{door} (takes yours too)"),
            ("refused", f"evalgauge deadletter list --state {self._folder}"),
        ):
            click.echo(f"  {name:8} {text}")
        click.echo(
            "\n"
            + "".join(name.rjust(width) for name, width in zip(_COLUMNS, _WIDTHS, strict=True))
            + "  goes wrong"
        )
        self._looked = time.monotonic()
        self._samples = scrape(self.addresses.scrape)

    def watch(self, stop: threading.Event) -> None:
        """Print a row now and then."""
        while not stop.wait(self._every):
            with contextlib.suppress(OSError):
                self._row()

    def last_look(self) -> None:
        """Look once more when everything sent is acknowledged, and so is committed and shown."""
        self._row()

    def _row(self) -> None:
        now = time.monotonic()
        samples = scrape(self.addresses.scrape)
        live = Live(samples, self._samples, now - self._looked)
        self._samples, self._looked = samples, now
        executed = "judgment_executions_total"
        new = live.change(executed)
        failed = new - live.change(executed, status="success")
        slow = live.quantile("judgment_duration_seconds", 0.95)
        confidence = live.mean("judgment_confidence_ratio")
        own = tuple(f"{pack}_" for pack in PACKS)
        until = self._sender.until + self._ahead
        cells = (
            moment(in_week(until)),
            f"{live.total(executed):,.0f}",
            f"{100 * failed / new:.1f} %" if new else "-",
            f"{slow:.2f} s" if slow is not None else "-",
            f"{confidence:.2f}" if confidence is not None else "-",
            f"{live.total('ahp_comparisons_total'):,.0f}",
            f"{live.total('qna_answer_open'):,.0f}",
            f"{live.total('evalgauge_events_rejected_total'):,.0f}",
            f"{sum(1 for name, _ in samples if name.startswith(own)):,}",
        )
        row = "".join(cell.rjust(width) for cell, width in zip(cells, _WIDTHS, strict=True))
        click.echo(f"{row}  {', '.join(one.name for one in going_on(until))}".rstrip())

    def end(self) -> int:
        """Print the summary; the exit code: 1 where the metrics do not say what was acknowledged."""
        sent = self._sender.sent
        live = Live(self._samples, {}, 0)
        told = {name: int(live.total(f"evalgauge_events_{name}_total")) for name in ("accepted", "rejected")}
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(sent.reasons.items()))
        click.echo(
            f"\nSent {sent.events:,} events over HTTP: {sent.accepted:,} accepted, {sent.rejected:,} refused",
            nl=False,
        )
        click.echo(f" ({reasons})." if reasons else ".")
        counted = f"/metrics says {told['accepted']:,} accepted and {told['rejected']:,} refused"
        if told["accepted"] < sent.accepted or told["rejected"] < sent.rejected:
            click.echo(
                f"{counted}: what was acknowledged is not counted, which is a fault. Please report it."
            )
            return 1
        if (told["accepted"], told["rejected"]) == (sent.accepted, sent.rejected):
            click.echo("/metrics says the same: what was acknowledged is counted, once.")
        else:
            click.echo(f"{counted}: yours are among them.")
        click.echo(
            "Next: evalgauge packs show judgment · evalgauge generate dashboards --pack judgment -o dashboards · "
            "evalgauge run --pack judgment"
        )
        return 0
