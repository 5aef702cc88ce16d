"""The service: start, main loop and shutdown."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from threading import Event

import msgspec

from spatialnet_edge import __version__
from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_edge.bundle.slots import Slots
from spatialnet_edge.bundle.trust import Trust
from spatialnet_edge.core.atomic_io import FULL, write_durably
from spatialnet_edge.core.clock import boot_id, since_boot
from spatialnet_edge.core.errors import BundleError, ConfigRefused, EngineError, Refused, RunError, SinkRefused, UsageError
from spatialnet_edge.core.hardware_info import cores
from spatialnet_edge.engines.registry import open_engine
from spatialnet_edge.service.camera_worker import CameraWorker
from spatialnet_edge.service.config import ServiceConfig
from spatialnet_edge.service.crash_loop import WITHIN_S, count_start, forget_starts, is_crash_loop, note_lasted
from spatialnet_edge.service.events import Events
from spatialnet_edge.service.health import Health
from spatialnet_edge.service.integrity_monitor import IntegrityMonitor
from spatialnet_edge.service.lock import device_lock
from spatialnet_edge.service.metrics import write_metrics
from spatialnet_edge.service.model_choice import Started, choose_model
from spatialnet_edge.service.readiness import missing, works
from spatialnet_edge.service.start_guard import StartGuard, TrialCount, leave_at_start
from spatialnet_edge.service.throttle import Throttle
from spatialnet_edge.service.watchdog import Watchdog, notify

ROUND_S = 1.0
DRAIN_S = 4.0
"""Seconds for the shutdown; one less than the documented limit."""


def serve(config: ServiceConfig, stop: Event) -> None:
    """Run until `stop` is set or every source has ended.

    Raises:
        Refused: configuration, bundle, device or folder is refused before any work; restarting does not help.
        RunError: the engine failed; restarting may help.
    """
    root = Path(config.root)
    with ExitStack() as cleanup:
        cleanup.enter_context(device_lock(root / f"{config.device}.lock"))
        events = Events(root / "events")
        cleanup.callback(events.close)
        events("start", f"spatialnet-edge {__version__}, pid {os.getpid()}")
        try:
            safe = count_start(root)
        except OSError as error:
            if error.errno not in FULL:
                raise SinkRefused(f"{root}: cannot be written by user {os.geteuid()}: {error.strerror}") from error
            safe = is_crash_loop(root)
            events("start_not_counted", f"{root}: {error.strerror}; crash loops cannot be detected until there is room")
        trial = TrialCount(root)
        with StartGuard(config.health.start_s, stop, partial(leave_at_start, trial, events)):
            started = choose_model(config, safe, events)
            cleanup.enter_context(started.model)
            events.bundle = started.model.bundle.short_hash
            for reason in started.model.opened.rejected:
                events("engine_rejected", reason)
            try:
                service = Service(config, started, events)
            except (Refused, UsageError) as error:  # a sink, folder or link failed, not the bundle
                trial.forgive()
                raise ConfigRefused(str(error)) from error
        service.run(stop)
        with suppress(OSError):
            forget_starts(root)
            if service.on_trial:
                Slots(root).forgive_try()
        events("stop", "all frames in flight were finished")


class Service:
    """Runs the cameras of a configuration on one engine and monitors them.

    Attributes:
        on_trial: whether the bundle is still on trial.
    """

    def __init__(self, config: ServiceConfig, started: Started, events: Events) -> None:
        self._config = config
        self._started = started
        self._events = events
        self._began = time.monotonic()
        self.on_trial = started.on_trial
        self._lasted = False
        self.cameras: list[CameraWorker] = []
        self._slots = Slots(Path(config.root))
        model = started.model
        self._integrity = IntegrityMonitor(
            model.vectors,
            model.session.engine,
            config.health.golden_s,
            self._reload,
            events,
            config.health.scrub_s,
        )
        self._throttle = Throttle(config.limits, events)
        self._write_health("STARTING")
        workers = cores() if model.session.engine.reentrant and len(config.sources) > 1 else 1
        self.cameras = [
            CameraWorker(section, model.session, self._integrity, self._throttle, workers, events)
            for section in config.sources
        ]
        self._watchdog = Watchdog([camera.name for camera in self.cameras], config.health.hang_s)

    def run(self, stop: Event) -> None:
        """Run until stopped, or until every source has ended.

        Raises:
            RunError: a camera failed.
        """
        for camera in self.cameras:
            camera.start(self._watchdog)
        notify("READY=1")
        try:
            while any(camera.running for camera in self.cameras) and not self._failures() and not stop.wait(ROUND_S):
                self._look_around()
        finally:
            notify("STOPPING=1")
            self._watchdog.leave_within(DRAIN_S + 1)
            self._write_health("STOPPING")
            deadline = time.monotonic() + DRAIN_S
            for camera in self.cameras:
                camera.stop(deadline)
            for camera in self.cameras:
                camera.join(deadline)
            self._write_health("STOPPED")
            self._watchdog.close()
            if not any(camera.running for camera in self.cameras):
                self._started.model.close()
        if failures := self._failures():
            self._events("failed", str(failures[0]))
            raise RunError(str(failures[0])) from failures[0]

    def _look_around(self) -> None:
        self._throttle.watch()
        up = time.monotonic() - self._began
        limit_s = self._config.health.result_s
        working = any(works(camera, limit_s) for camera in self.cameras)
        proved = up > self._config.health.mark_good_s and working
        if proved and not self._lasted:
            self._lasted = True
            with suppress(OSError):
                note_lasted(Path(self._config.root))
        if proved and self.on_trial:
            self.on_trial = False
            try:
                self._slots.mark_good(self._started.model.bundle.path)
                self._events("marked_good", f"serial {self._started.model.bundle.manifest.serial} is now current")
            except (OSError, BundleError) as error:
                self._events("not_marked_good", str(error))
        if up > WITHIN_S:
            with suppress(OSError):
                forget_starts(Path(self._config.root))
        self._events.flush()
        why = self._missing()
        begins = up < limit_s and not why and not all(camera.emitted for camera in self.cameras if camera.running)
        state = "SAFE" if self._started.safe else "DEGRADED" if why else "STARTING" if begins else "READY"
        self._write_health(state, working)
        notify(f"STATUS={state} {'; '.join(why)}")

    def _missing(self) -> tuple[str, ...]:
        """Why the service is degraded."""
        slowed = ["hot or low on power"] if self._throttle.slowed else []
        passed = ["the preferred engine was rejected"] if self._started.model.opened.rejected else []
        stands_in = ["the current bundle is refused; the previous one is used"] if self._started.stands_in else []
        waits = ["a bundle on trial waits: the trust store has a fault"] if self._started.trial_waits else []
        return (*missing(self.cameras, self._config.health.result_s), *slowed, *passed, *stands_in, *waits)

    def _failures(self) -> list[Exception]:
        return [camera.failure for camera in self.cameras if camera.failure is not None]

    def _reload(self) -> None:
        """Reload the engine from disk, verifying every hash again, and replace the current one."""
        model, settings = self._started.model, self._config
        bundle = open_bundle(model.bundle.path, Trust(allow_unsigned=True))
        if bundle.sha256 != model.bundle.sha256:
            raise EngineError(f"{bundle.path}: another bundle is there now")
        backend = "onnxruntime" if self._started.safe else settings.engine.backend
        loaded = open_engine(
            bundle,
            backend,
            settings.engine.threads,
            settings.engine.fallback,
            settings.health.scrub_s > 0,
            model.vectors.require,
        )
        model.session.replace_engine(loaded)

    def _write_health(self, state: str, working: bool = False) -> None:
        model = self._started.model
        cameras = self.cameras
        health = Health(
            state=state,
            working=working,
            why=self._missing() if cameras else (),
            pid=os.getpid(),
            boot=boot_id(),
            at_s=round(since_boot(), 3),
            up_s=round(time.monotonic() - self._began, 1),
            unix=round(time.time(), 3),
            bundle=str(model.bundle.path),
            sha256=model.bundle.sha256,
            serial=model.bundle.manifest.serial,
            on_trial=self.on_trial,
            engine=f"{model.opened.record.precision} on {model.opened.record.backend}",
            golden_rounds=self._integrity.rounds,
            temperature_c=self._throttle.seen.hottest_c,
            battery=self._throttle.seen.battery,
            dropped_lines=self._events.dropped_lines,
            events=dict(self._events.counts),
            sources={camera.name: camera.figures() for camera in cameras},
        )
        path = Path(self._config.health.file)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(path, msgspec.json.encode(health) + b"\n", sync=False)
            if self._config.health.metrics:
                write_metrics(Path(self._config.health.metrics), health)
        except OSError as error:
            if state == "STARTING" and error.errno not in FULL:
                raise SinkRefused(
                    f"{path}: the health file cannot be written by user {os.geteuid()}: {error.strerror}"
                ) from error
            self._events("health_file", f"{path}: {error.strerror}")
