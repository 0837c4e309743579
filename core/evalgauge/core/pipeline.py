"""One run of the pipeline: inputs, queue, engine and workers for one configuration, until stopped or done."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any

from evalgauge.core import plugins
from evalgauge.core.coalesce import LIMIT_BYTES, coalesced
from evalgauge.core.collect import Chunk, Collector, FileRange, InputContext, InputStatus, Stopped
from evalgauge.core.deduplicate import Window
from evalgauge.core.engine import Engine, EngineOptions, InputRules
from evalgauge.core.errors import EvalgaugeError, StoreUnavailableError
from evalgauge.core.event import Limits
from evalgauge.core.intake import Intake
from evalgauge.core.mapping_check import load_mapping
from evalgauge.core.memory import few_collections
from evalgauge.core.store import DeadLetterLimits
from evalgauge.core.turns import Turns
from evalgauge.core.workers import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from evalgauge.core.config import Config
    from evalgauge.core.flight import FlightRecorder
    from evalgauge.core.pack.model import Pack
    from evalgauge.core.selfmetrics import SelfMetrics
    from evalgauge.core.store import Store

log = logging.getLogger(__name__)

COMMIT_ERRORS = (sqlite3.Error, OSError, StoreUnavailableError)
"""What a commit raises that may succeed when it is tried again."""
BULK_BYTES = 256 << 10
"""Chunks from this size on go to a worker process, where there are any."""
_GROUP_TIME = 0.02
"""Seconds that senders wait at most for others to join their commit."""
_RETRY = 1.0
"""Seconds between two tries of a commit that fails."""
_UPKEEP = 1.0
"""Seconds between two looks at what is only worth a look now and then: queue, sizes, lag."""
_POLL = 0.2
_LAST_COMMIT = 3.0
"""Seconds of the time to end that are kept for the last chunk and the last commit."""
_ABANDON = 10.0
"""Seconds that an input may take to end when what it brings is not wanted any more."""


class Input:
    """One running input: its collector in a thread of its own."""

    def __init__(
        self, name: str, kind: str, collector: Collector, context: InputContext, ended: Callable[[], None]
    ) -> None:
        self._ended = ended
        self.name = name
        self.kind = kind
        self.context = context
        self.collector = collector
        self.error: BaseException | None = None
        self.held = ""
        """Why it was not started, if it was not."""
        self._thread = threading.Thread(target=self._run, name=f"input-{name}", daemon=True)

    def start(self) -> None:
        """Begin to collect."""
        self._thread.start()

    def _run(self) -> None:
        try:
            self.collector.run()
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - a plug-in may raise anything
            self.error = error
        finally:
            self._ended()

    @property
    def running(self) -> bool:
        """It may still bring chunks."""
        return self._thread.is_alive()

    def join(self, timeout: float) -> bool:
        """Wait for its end; False if that took too long."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()


class _InputSink:
    def __init__(self, intake: Intake, name: str, metrics: SelfMetrics) -> None:
        self._intake, self._name, self._metrics = intake, name, metrics

    def put(self, chunk: Chunk) -> None:
        self._intake.put(self._name, chunk, self._held_back)

    def offer(self, chunk: Chunk) -> bool:
        return self._intake.offer(self._name, chunk)

    def _held_back(self, seconds: float) -> None:
        self._metrics.add("evalgauge_backpressure_seconds", seconds, (self._name,))


class Pipeline:
    """Everything between the inputs and the committed state. `run` belongs to one thread."""

    def __init__(
        self,
        config: Config,
        packs: Sequence[Pack],
        store: Store,
        metrics: SelfMetrics,
        recorder: FlightRecorder | None,
    ) -> None:
        """Load mappings and build everything. Raises `DocumentError` or `ConfigError`; nothing runs yet."""
        self._config = config
        self._store = store
        self._metrics = metrics
        self._intake = Intake(config.engine.queue_size)
        self._turns = Turns()
        self._commit_wanted = False
        self._stop = threading.Event()
        self._drain_until = 0.0
        """Once stopped, so long what is queued is worked off, if it can be read again."""
        self._pool: WorkerPool | None = None
        self._failing_since = 0.0
        self._retry_at = 0.0
        self._upkeep_at = 0.0
        self._last_commit = 0.0
        self._over = False
        """No input brings anything more: work off what is queued and end."""
        self._leaving: list[Chunk] = []
        """Last chunks of partitions that go with the next commit."""
        self._loss_open = False
        """Earlier state was lost, and not every input has committed a new position yet."""
        self._lost_events: dict[str, int] = {}
        """Input → lost events that are in the self-metrics already."""
        self._mismatches: dict[str, int] = {}
        """Input → keys that were not as they should be, and are in the self-metrics already."""
        self.restored = False
        rules = {name: _rules(one, packs) for name, one in config.inputs.items()}
        engine = config.engine
        letters = config.dead_letters
        options = EngineOptions(
            limits=Limits(engine.max_event_size, engine.max_depth, engine.clock_ahead),
            window=Window(config.deduplication.ids, config.deduplication.age),
            dead_letters=DeadLetterLimits(letters.number, letters.size, letters.age),
            keep=letters.keep,
            max_letter_bytes=letters.max_event_size,
        )
        kinds = plugins.load_all(plugins.INSTRUMENTS)
        self.engine = Engine(packs, rules, kinds, store, metrics, options, recorder)
        self.inputs: dict[str, Input] = {}
        for name, one in config.inputs.items():
            context = InputContext(
                name,
                {},
                _InputSink(self._intake, name, metrics),
                threading.Event(),
                InputStatus(),
                max_event_bytes=config.engine.max_event_size,
                engine_idle=lambda: not len(self._intake),
                turns=self._turns,
                store=store,
            )
            collector: Collector = plugins.load(plugins.COLLECTORS, one.type)(one, context)
            self.inputs[name] = Input(name, one.type, collector, context, self._intake.wake)

    def start(self) -> None:
        """Restore state and start the inputs. Raises `StateError`."""
        positions = self.engine.restore()
        self.restored = True
        policy = self._config.state.on_state_loss
        if self.engine.lost:
            log.error("earlier state is lost: %s (on_state_loss: %s)", self.engine.lost, policy)
            self._metrics.add("evalgauge_state_losses")
        if self._config.engine.workers > 1 and self.inputs:
            plans = {
                name: self.engine.plan(name) for name, one in self.inputs.items() if not one.collector.pushes
            }
            if plans:
                self._pool = WorkerPool(plans, self._config.engine.workers)
        for one in self.inputs.values():
            one.context.positions = {
                partition: position for (name, partition), position in positions.items() if name == one.name
            }
            if self.engine.lost and not one.collector.pushes:
                if policy == "hold":
                    one.held = f"its position is lost with the state: {self.engine.lost}"
                    one.context.status.note = f"held: {one.held}"
                    continue
                one.context.start_at_end = policy == "end"
            one.start()
        self._loss_open = bool(self.engine.lost) and policy != "hold"

    def run(self, *, until_done: bool, progress: Callable[[], None] | None = None) -> None:
        """Work until `stop` is called, or until every input has ended if `until_done`.

        Raises whatever ended an input, or `WorkerFailedError`; what was not committed is read or sent again.
        """
        with few_collections():
            self._work(until_done=until_done, progress=progress)

    def _work(self, *, until_done: bool, progress: Callable[[], None] | None) -> None:
        while True:
            self._over = self._stop.is_set() or (until_done and self._inputs_ended())
            busy = self._take()
            now = time.monotonic()
            if self._due(now, idle=not busy):
                self._commit(now)
            if now >= self._upkeep_at:
                self._upkeep_at = now + _UPKEEP
                self._look_around()
                if not until_done:
                    self._let_time_pass()
                if progress is not None:
                    progress()
            if busy:
                continue
            self._check_inputs()
            if self._stop.is_set() and self._failing_since:
                break  # what is not committed is read or sent again
            if self._over and not len(self._intake) and not self._pool:
                break
        self._look_around()
        if progress is not None:
            progress()

    def _inputs_ended(self) -> bool:
        return not any(one.running for one in self.inputs.values())

    def _take(self) -> bool:
        """Work on one chunk, or take one result back; False if there was nothing to do for a while."""
        if self._failing_since:
            # What cannot be committed must not pile up: the queue fills, and inputs are held back.
            time.sleep(0.02)
            return False
        pool = self._pool
        if pool:
            self._absorb(wait=_POLL if pool.full else 0)
            if pool.full:
                return True
        item = self._intake.get(0 if pool else self._pause())
        if item is None:
            return self._absorb(wait=0.005) if pool else False
        name, chunk, size = item
        if self._unwanted(chunk):
            if chunk.release is not None:
                self._leaving.append(chunk)  # it goes before it came
            return True
        started = time.perf_counter()
        bulk = isinstance(chunk.body, FileRange) or size >= BULK_BYTES
        if pool is not None and bulk and not self.inputs[name].collector.pushes:
            pool.submit(name, chunk, self.engine.work(name, chunk))
            return True
        while pool is not None and pool.waits_for(name):
            self._absorb(wait=_POLL)
        self._heed(chunk)
        before = self.engine.uncommitted
        if self._config.inputs[name].unknown_types != "ignore":
            chunk = coalesced([chunk, *self._intake.more(item, LIMIT_BYTES)])
        with self._turns.turn():
            self.engine.process(name, chunk)
        self._metrics.observe("evalgauge_batch_events", self.engine.uncommitted - before, (name,))
        self._metrics.observe("evalgauge_batch_duration_seconds", time.perf_counter() - started, (name,))
        return True

    def _unwanted(self, chunk: Chunk) -> bool:
        """Whether its events are better read again: by whoever has its partition now, or after the next start."""
        if chunk.acknowledge is not None:
            return False
        late = chunk.release is None and self._stop.is_set() and time.monotonic() > self._drain_until
        return late or (chunk.adopt is None and not self.engine.has(chunk.partition))

    def _heed(self, chunk: Chunk) -> None:
        """Follow what a chunk says of its partition."""
        if chunk.adopt is not None:
            self.engine.adopt(chunk.partition, chunk.adopt)
        if chunk.departed is not None:
            self.engine.show_departed(chunk.partition, chunk.departed)
        if chunk.release is not None:
            self._leaving.append(chunk)

    def _absorb(self, wait: float) -> bool:
        assert self._pool is not None  # noqa: S101 - for the type checker, and against a fault of the caller
        done = self._pool.next(wait)
        if done is None:
            return False
        name, chunk, deltas, worker = done
        before = self.engine.uncommitted
        started = time.perf_counter()
        self.engine.absorb(name, chunk, deltas, worker)
        self._metrics.observe("evalgauge_batch_events", self.engine.uncommitted - before, (name,))
        self._metrics.observe("evalgauge_batch_duration_seconds", time.perf_counter() - started, (name,))
        return True

    def _pause(self) -> float:
        """How long to wait for a chunk before something else is due."""
        if self._over:
            return 0.0
        if self.engine.dirty:
            state = self._config.state
            return 0.0 if self.engine.waiting else max(0.001, min(state.min_commit_interval, _POLL))
        return _POLL

    def _due(self, now: float, *, idle: bool) -> bool:
        if now < self._retry_at:
            return False
        if self._leaving:
            return True
        if not self.engine.dirty:
            return False
        state = self._config.state
        since = now - self._last_commit
        if self.engine.waiting:
            return idle or since >= _GROUP_TIME
        return since >= (state.min_commit_interval if idle or self._commit_wanted else state.commit_interval)

    def _commit(self, now: float) -> None:
        self._commit_wanted = False
        try:
            if self.engine.dirty:
                self.engine.commit()
        except COMMIT_ERRORS as error:
            self._failing_since = self._failing_since or time.time()
            self._retry_at = now + _RETRY
            log.error("commit failed, tried again in %s s: %s", _RETRY, error)  # noqa: TRY400 - meant for people
        else:
            self._failing_since = 0.0
            self._last_commit = time.monotonic()
            leaving, self._leaving = self._leaving, []
            for chunk in leaving:
                self.engine.release(chunk.partition)
                if chunk.release is not None:
                    chunk.release()

    def _check_inputs(self) -> None:
        for one in self.inputs.values():
            if one.error is not None and not one.running:
                if isinstance(one.error, EvalgaugeError):
                    raise one.error
                msg = f"input {one.name} failed: {type(one.error).__name__}: {one.error}"
                raise EvalgaugeError(msg) from one.error

    def _look_around(self) -> None:
        replayable = {name for name, one in self.inputs.items() if not one.collector.pushes}
        if self._loss_open and replayable <= self.engine.positioned:
            self._store.forget_loss()
            self._loss_open = False
        metrics = self._metrics
        metrics.set("evalgauge_queue_bytes", self._intake.used)
        metrics.set("evalgauge_queue_limit_bytes", self._intake.limit)
        metrics.set("evalgauge_checkpoint_size_bytes", self._store.size())
        if (letters := self._store.dead_letters()) is not None:
            metrics.set("evalgauge_dead_letters", letters)
        for name, value in self._store.facts().items():
            metrics.set(name, value)
        metrics.set("evalgauge_ready", not self.problems())
        for name, one in self.inputs.items():
            metrics.set("evalgauge_input_up", one.running, (name,))
            metrics.set(
                "evalgauge_input_lag_bytes", sum(list(one.context.status.lag_bytes.values())), (name,)
            )
        self._tell_lag()
        self._tell_keys()
        for name, (used, limit) in self.engine.series().items():
            metrics.set("evalgauge_series", used, (name,))
            metrics.set("evalgauge_series_limit", limit, (name,))

    def _let_time_pass(self) -> None:
        """Event time follows the clock where nothing comes and nothing waits; while one input holds it, nowhere."""
        inputs = list(self.inputs.values())
        if len(self._intake) or self._pool or self._failing_since:
            return
        if any(one.held or one.context.status.not_ready for one in inputs):
            return
        if any(one.running and one.context.status.holds_time for one in inputs):
            return
        states = [one.context.status for one in inputs]
        events = {partition: lag for one in states for partition, lag in dict(one.lag_events).items()}
        behind = any(sum(list(one.lag_bytes.values())) for one in states) or any(events.values())

        def quiet(partition: str) -> bool:
            return events.get(partition) == 0 if self._store.by_partition else not behind

        self.engine.pass_time(self._config.engine.idle_after, quiet)

    def _tell_lag(self) -> None:
        """What inputs report that count events and know how old those are; a partition that left vanishes."""
        inputs: dict[tuple[str, ...], float] = {}
        events: dict[tuple[str, ...], float] = {}
        seconds: dict[tuple[str, ...], float] = {}
        withheld: dict[tuple[str, ...], float] = {}
        for name, one in self.inputs.items():
            status = one.context.status
            # Copies, since the input's thread goes on writing.
            lag, age, lost = dict(status.lag_events), dict(status.lag_seconds), status.lost_events
            if lag:
                inputs[name,] = sum(lag.values())
            events |= {(name, partition): value for partition, value in lag.items()}
            seconds |= {(name, partition): value for partition, value in age.items()}
            if kept_back := dict(status.withheld_seconds):
                withheld[name,] = max(kept_back.values())
            if lag or lost:
                self._metrics.add(
                    "evalgauge_input_lost_events", lost - self._lost_events.get(name, 0), (name,)
                )
                self._lost_events[name] = lost
        self._metrics.replace("evalgauge_input_lag_events", inputs)
        self._metrics.replace("evalgauge_input_partition_lag_events", events)
        self._metrics.replace("evalgauge_input_partition_lag_seconds", seconds)
        self._metrics.replace("evalgauge_input_withheld_seconds", withheld)

    def _tell_keys(self) -> None:
        for name, one in self.inputs.items():
            count = one.context.status.key_mismatches
            if count is not None:
                self._metrics.add(
                    "evalgauge_input_key_mismatches", count - self._mismatches.get(name, 0), (name,)
                )
                self._mismatches[name] = count

    def problems(self) -> list[str]:
        """Why the pipeline is not ready, in words; from any thread."""
        if not self.restored:
            why = self._store.waits_for()
            return [f"state is being restored{': ' if why else ''}{why}"]
        found = [f"input {one.name} is held: {one.held}" for one in self.inputs.values() if one.held]
        waiting = ((one.name, one.context.status.not_ready) for one in self.inputs.values())
        found += [f"input {name}: {why}" for name, why in waiting if why]
        if self._failing_since:
            found.append(f"commits fail since {time.strftime('%FT%TZ', time.gmtime(self._failing_since))}")
        if self._stop.is_set():
            found.append("the process is ending")
        return found

    def request_commit(self) -> None:
        """Somebody is looking: commit soon; from any thread."""
        if self.engine.dirty:
            self._commit_wanted = True
            self._intake.wake()

    def stop_inputs(self, deadline: float) -> None:
        """Ask every input to hand over what it has and end; called beside `run`, which goes on until all is done."""
        for one in self.inputs.values():
            one.context.stop.set()
        for one in self.inputs.values():
            if not one.join(max(0.0, deadline - time.monotonic())):
                log.warning(
                    "input %s does not end in time; what it has not handed over is read or sent again",
                    one.name,
                )
        self._drain_until = deadline - _LAST_COMMIT
        self._intake.close()
        self._stop.set()
        self._intake.wake()

    def abandon(self) -> None:
        """Forget everything that is not committed, and end."""
        for one in self.inputs.values():
            one.context.stop.set()
        self._intake.close()
        self.restored = False  # at once, so that nothing is shown any more that may be another's by now
        for one in self.inputs.values():
            one.join(_ABANDON)
        self.engine.abandon()
        self.close()

    def close(self) -> None:
        """Commit what is left and end the workers.

        Where the last commit failed it is not tried again: what it held is read or sent again.
        """
        try:
            if self.engine.dirty and self.restored and not self._failing_since:
                self.engine.commit()
        finally:
            if self._pool is not None:
                self._pool.close()


def _rules(config: Any, packs: Sequence[Pack]) -> InputRules:
    pushes = plugins.load(plugins.COLLECTORS, config.type).pushes
    mapping = None if config.mapping is None else load_mapping(config.mapping, packs, pushes=pushes)
    unknown = config.unknown_types or ("refuse" if pushes else "ignore")
    deduplicate = pushes if config.deduplicate is None else config.deduplicate
    return InputRules(mapping, deduplicate, unknown == "ignore")
