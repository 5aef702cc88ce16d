"""Which bundle flies: the one that the configuration names, a trial, the proved one, or a refuge after a crash loop."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from spatialnet_edge.api import Model, load
from spatialnet_edge.bundle.slots import CURRENT, PREVIOUS, Slots
from spatialnet_edge.bundle.trust import Trust, open_trust
from spatialnet_edge.core.errors import BundleError, EngineError, Refused
from spatialnet_edge.runtime.session import Batching
from spatialnet_edge.service.config import ServiceConfig
from spatialnet_edge.service.events import Events


@dataclass(frozen=True, slots=True)
class Started:
    """The model that was chosen.

    Attributes:
        on_trial: whether it has still to prove itself.
        safe: whether this is the last good bundle on the portable graph, after a crash loop.
        stands_in: whether it flew before, and flies again because the current one is refused.
    """

    model: Model
    on_trial: bool = False
    safe: bool = False
    stands_in: bool = False


def choose_model(config: ServiceConfig, safe: bool, events: Events) -> Started:
    """The bundle to fly, opened, verified and tested: the one that the configuration names, after a crash loop the best
    refuge, else what `installed_model` says.

    Raises:
        Refused: it is refused, and there is no other.
        EngineError: it does not run here, and there is no other.
    """
    trust = open_trust(Path(config.trust) if config.trust else None, config.allow_unsigned)
    if config.bundle:
        return Started(load_model(config, config.bundle, trust, safe), safe=safe)
    slots = Slots(Path(config.root))
    for refuge in slots.refuges if safe else ():
        try:
            started = Started(load_model(config, refuge, trust, safe), safe=True)
        except (Refused, EngineError) as error:
            events("bundle_refused", f"{error}; the next best flies")
        else:
            slots.pin(refuge)
            events("safe_mode", f"too many starts in a short time: {refuge} on the portable graph")
            return started
    return installed_model(config, slots, trust, events)


def installed_model(config: ServiceConfig, slots: Slots, trust: Trust, events: Events) -> Started:
    """What is installed. A trial that is refused is taken back, and the one before flies; for one that is refused though it had
    proved itself, as when the card has worn, the one that it replaced stands in.

    Raises:
        Refused, EngineError: as `choose_model`.
    """
    path, on_trial = slots.choose()
    if stands_in := not on_trial and slots.current_is_gone:
        events("bundle_refused", f"{slots.root / CURRENT}: leads nowhere; the bundle before flies")
    try:
        model = load_model(config, path, trust.at_install() if on_trial else trust, safe=False)
        if on_trial:
            refuse_other_model(model, slots, config.compatible)
        return Started(model, on_trial, stands_in=stands_in)
    except (Refused, EngineError) as error:
        if on_trial and not slots.only_trial:
            events("trial_refused", f"{error}; the bundle before flies")
            slots.reject_trial()
            return installed_model(config, slots, trust, events)
        before = slots.target(PREVIOUS)
        if on_trial or stands_in or before is None:
            raise
        events("bundle_refused", f"{error}; the bundle before flies")
        slots.pin(slots.root / before)
        return Started(load_model(config, slots.root / before, trust, safe=False), stands_in=True)


def refuse_other_model(model: Model, slots: Slots, compatible: Collection[str]) -> None:
    """Close a model of a name that may not fly here.

    Raises:
        BundleError: as `Slots.refuse_other_model`.
    """
    try:
        slots.refuse_other_model(model.bundle, compatible)
    except BundleError:
        model.opened.engine.close()
        raise


def load_model(config: ServiceConfig, bundle: str | Path, trust: Trust, safe: bool) -> Model:
    backend = "onnxruntime" if safe else config.engine.backend
    threads = config.engine.threads
    batching = None
    if config.engine.batch > 1 and len(config.sources) > 1:
        batching = Batching(config.engine.batch, config.engine.batch_wait_ms / 1e3)
    return load(
        bundle,
        backend,
        threads,
        trust=trust,
        fallback=config.engine.fallback,
        inspectable_weights=config.health.scrub_s > 0,
        batching=batching,
    )
