"""The running process: pipeline, exporters, signals and reload for one configuration file."""

from __future__ import annotations

import logging
import platform
import signal
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalgauge.core import flight, plugins
from evalgauge.core.collect import Stopped
from evalgauge.core.errors import ConfigError, EvalgaugeError, FencedError
from evalgauge.core.export import Exporter, ExporterContext, InputReport, NotReady, StatusReport
from evalgauge.core.flight import FlightRecorder, Phase
from evalgauge.core.keyed import check_keys
from evalgauge.core.memory import keep_freed
from evalgauge.core.pack.loader import load_packs
from evalgauge.core.pipeline import COMMIT_ERRORS, Pipeline
from evalgauge.core.selfmetrics import SelfMetrics
from evalgauge.core.stores import kept_store, open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from evalgauge.core.config import Config
    from evalgauge.core.families import Family
    from evalgauge.core.pack.model import Pack

log = logging.getLogger(__name__)

OWN_PACK = "evalgauge"


class Process:
    """Runs one configuration until told to end; a reload swaps the pipeline and keeps state and process."""

    def __init__(self, config: Config, reread: Callable[[], Config] | None = None) -> None:
        """`reread` reads the configuration anew for a reload. Raises what is wrong with the configuration."""
        self._config = config
        self._reread = reread
        self._packs = load_with_own(config.packs)
        self._metrics = SelfMetrics(next(pack for pack in self._packs if pack.pack == OWN_PACK))
        folder = Path(config.state.folder)
        self._store, self._folder_lock = open_store(config)
        _tell_of_last_life(folder)
        self._recorder = FlightRecorder(folder)
        self._started = time.time()
        self._ending = threading.Event()
        self._reload_lock = threading.Lock()
        self._next: tuple[Config, list[Pack], Pipeline] | None = None
        """What a reload has prepared; `_turn` guards it and `pipeline`."""
        self._turn = threading.Lock()
        self._stopper: threading.Thread | None = None
        try:
            self.pipeline = self._build(config, self._packs)
            self.exporters = {name: self._exporter(one) for name, one in config.exporters.items()}
        except BaseException:
            self._let_go()
            raise

    def _build(self, config: Config, packs: list[Pack]) -> Pipeline:
        if self._store.by_partition:
            check_keys(config, packs, plugins.load_all(plugins.INSTRUMENTS))
        return Pipeline(config, packs, self._store, self._metrics, self._recorder)

    def _exporter(self, config: Any) -> Exporter:
        exporter: Exporter = plugins.load(plugins.EXPORTERS, config.type)(
            config,
            ExporterContext(
                snapshot=self.families,
                request_commit=lambda: self.pipeline.request_commit(),  # noqa: PLW0108 - the pipeline changes with a reload
                readiness=self.readiness,
                status=self.status,
                reload=self.reload,
                observe_scrape=lambda seconds: self._metrics.observe(
                    "evalgauge_scrape_duration_seconds", seconds
                ),
            ),
        )
        return exporter

    def run(self, *, until_done: bool = False, progress: Callable[[], None] | None = None) -> None:
        """Run until `end` is called, or until every input has ended. Raises what ended it otherwise."""
        keep_freed()
        metrics = self._metrics
        metrics.set("evalgauge_build_info", 1, (version("evalgauge"), platform.python_version()))
        for result in ("success", "failure"):  # an alert's increase() needs to have seen them at 0
            metrics.add("evalgauge_commits", 0, (result,))
        metrics.add("evalgauge_state_takeovers", 0)  # likewise: the first of a life would be no increase
        metrics.set("evalgauge_start_time_seconds", self._started)
        metrics.set("evalgauge_config_last_reload_successful", 1)
        metrics.set("evalgauge_config_last_reload_success_timestamp_seconds", self._started)
        try:
            for exporter in self.exporters.values():
                exporter.start()
            self._work(until_done=until_done, progress=progress)
        except Stopped:
            log.info("ended before state was restored")
        finally:
            try:
                self.pipeline.close()
            except FencedError as error:
                log.warning("%s; what was not committed comes again, to whoever reads it next", error)
            finally:
                self.close()

    def _work(self, *, until_done: bool, progress: Callable[[], None] | None) -> None:
        while True:
            try:
                if not self.pipeline.restored:
                    self.pipeline.start()
                if self._next is not None or self._ending.is_set():
                    self._stop_inputs()  # who asked for it may have asked the pipeline before this one
                self.pipeline.run(until_done=until_done, progress=progress)
                if self._next is None or self._ending.is_set():
                    return
                self._close_before_swap()
                self._swap()
            except FencedError as error:
                self._begin_anew(error)

    def close(self) -> None:
        """Let exporters, recorder and store go; `run` does it by itself."""
        for exporter in self.exporters.values():
            exporter.stop(grace=1.0)
        self._recorder.close()
        self._let_go()

    def _let_go(self) -> None:
        self._store.close()
        if self._folder_lock is not None:
            self._folder_lock.close()

    def _begin_anew(self, why: FencedError) -> None:
        """What is in memory is not what counts any more: throw it away and go on from what is committed."""
        log.warning("%s; what was not committed is thrown away, and everything restored", why)
        self._metrics.add("evalgauge_state_takeovers")
        self.pipeline.abandon()
        if self._ending.is_set():
            raise Stopped
        with self._turn:
            self.pipeline = self._build(self._config, self._packs)
            if self._next is not None:
                config, packs, _ = self._next
                self._next = config, packs, self._build(config, packs)

    def end(self) -> None:
        """End in order: inputs first, then what is queued, then the last commit; from any thread, at once."""
        if not self._ending.is_set():
            self._ending.set()
            self._stop_inputs()
            if not self.pipeline.restored or self._next is not None:
                self._store.stop()

    def _stop_inputs(self) -> None:
        pipeline = self.pipeline
        deadline = time.monotonic() + self._config.shutdown_timeout
        self._stopper = threading.Thread(
            target=pipeline.stop_inputs, args=(deadline,), name="stop", daemon=True
        )
        self._stopper.start()

    def handle_signals(self) -> None:
        """SIGTERM and SIGINT end, SIGHUP reloads. Call from the main thread."""
        signal.signal(signal.SIGTERM, lambda *_: self.end())
        signal.signal(signal.SIGINT, lambda *_: self.end())
        signal.signal(
            signal.SIGHUP, lambda *_: threading.Thread(target=self.reload, name="reload", daemon=True).start()
        )

    def reload(self) -> str | None:
        """Read the configuration anew and go over to it; None if that went well, else why the old one stays."""
        with self._reload_lock:
            try:
                self._prepare_reload()
            except (EvalgaugeError, OSError) as error:
                log.error("reload failed, the old configuration stays: %s", error)  # noqa: TRY400 - meant for people
                self._metrics.set("evalgauge_config_last_reload_successful", 0)
                return str(error)
            deadline = time.monotonic() + self._config.shutdown_timeout + 5
            while self._next is not None and not self._ending.is_set() and time.monotonic() < deadline:
                time.sleep(0.02)
            return (
                None
                if self._next is None
                else "the old inputs do not end; the new configuration waits for them"
            )

    def _prepare_reload(self) -> None:
        if self._reread is None:
            msg = "this process was started without a configuration file"
            raise ConfigError(msg)
        config = self._reread()
        if config.state.folder != self._config.state.folder or config.exporters != self._config.exporters:
            msg = "`state.folder` and `exporters` cannot change while the process runs: restart it"
            raise ConfigError(msg)
        if self._store.by_partition and (config.inputs, config.replica) != (
            self._config.inputs,
            self._config.replica,
        ):
            msg = (
                "`replica` and an input that keeps the state cannot change while the process runs: restart it"
            )
            raise ConfigError(msg)
        if not self._store.by_partition and kept_store(config) is not None:
            msg = "state cannot move from the state folder to an input while the process runs: restart it"
            raise ConfigError(msg)
        packs = load_with_own(config.packs)
        pipeline = self._build(config, packs)
        with self._turn:
            self._next = config, packs, pipeline
            self._stop_inputs()

    def _close_before_swap(self) -> None:
        try:
            self.pipeline.close()
        except COMMIT_ERRORS as error:
            log.warning("the last commit before the reload failed, what it held comes again: %s", error)

    def _swap(self) -> None:
        assert self._next is not None  # noqa: S101 - for the type checker, and against a fault of the caller
        taken = self._next
        config, packs, pipeline = taken
        pipeline.start()
        with self._turn:
            self._config, self._packs, self.pipeline = config, packs, pipeline
            if self._next is taken:  # else somebody has reloaded once more meanwhile
                self._next = None
        self._metrics.set("evalgauge_config_last_reload_successful", 1)
        self._metrics.set("evalgauge_config_last_reload_success_timestamp_seconds", time.time())
        log.info("configuration reloaded")

    def families(self) -> Sequence[Family]:
        """Everything that is committed, and what the process says of itself. Raises `NotReady`."""
        pipeline = self.pipeline
        if not pipeline.restored:
            raise NotReady(["state is being restored"])
        return [*pipeline.engine.families(), *self._metrics.families()]

    def readiness(self) -> list[str]:
        """Why the process is not ready, in words."""
        return self.pipeline.problems()

    def status(self) -> StatusReport:
        """The process as it stands now."""
        pipeline = self.pipeline
        rejects: dict[str, int] = {}
        if pipeline.restored:
            rejected = next(f for f in pipeline.engine.families() if f.name == "evalgauge_events_rejected")
            reason = rejected.label_names.index("reason")
            for labels, value in zip(rejected.series, rejected.values.tolist(), strict=False):
                rejects[labels[reason]] = rejects.get(labels[reason], 0) + int(value)
        return StatusReport(
            version=version("evalgauge"),
            started=self._started,
            packs=[f"{pack.pack} {pack.version}" for pack in self._packs],
            inputs=[
                InputReport(
                    name,
                    one.kind,
                    dict(one.context.status.positions),
                    dict(one.context.status.lag_bytes),
                    one.context.status.note,
                )
                for name, one in pipeline.inputs.items()
            ],
            rejects=rejects,
            last_commit_age=max(0.0, time.time() - pipeline.engine.last_commit)
            if pipeline.restored
            else None,
        )


def load_with_own(names: Sequence[str]) -> list[Pack]:
    """The packs of a configuration, with our own after them. Raises `DocumentError` or `ConfigError`."""
    return load_packs([*names, *([] if OWN_PACK in names else [OWN_PACK])])


def _tell_of_last_life(folder: Path) -> None:
    last = flight.read(folder)
    if last is not None and last.phase is not Phase.ENDED:
        log.warning(
            "process %s before this one was killed while %s, with %s events not committed; they come again",
            last.pid,
            last.phase.name.lower(),
            last.uncommitted,
        )
