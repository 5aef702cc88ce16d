"""Choice of the bundle: the configured one, a trial, the current one, or a fallback after a crash loop."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from spatialnet_edge.api import Model, load
from spatialnet_edge.bundle.admission import refuse_other_model
from spatialnet_edge.bundle.slots import CURRENT, PREVIOUS, TRIAL, Slots
from spatialnet_edge.bundle.trust import Trust
from spatialnet_edge.core.errors import BundleError, EngineError, Refused, UsageError
from spatialnet_edge.runtime.selection import heads_to_show, read_selection
from spatialnet_edge.runtime.session import Batching
from spatialnet_edge.service.config import ServiceConfig, trust_of
from spatialnet_edge.service.events import Events


@dataclass(frozen=True, slots=True)
class Started:
    """The chosen model.

    Attributes:
        on_trial: whether the bundle is on trial.
        safe: whether this is safe mode after a crash loop: the last good bundle with the portable graph.
        stands_in: whether this is the previous bundle, because the current one is refused.
        trial_waits: whether a bundle on trial waits, because the trust store has a fault.
    """

    model: Model
    on_trial: bool = False
    safe: bool = False
    stands_in: bool = False
    trial_waits: bool = False


def choose_model(config: ServiceConfig, safe: bool, events: Events) -> Started:
    """Open, verify and test the bundle to use: the configured one; after a crash loop the best fallback; otherwise the result
    of `installed_model`.

    Raises:
        Refused: the bundle is refused, and there is no other.
        EngineError: the bundle does not run on this computer, and there is no other.
    """
    trust = trust_of(config)
    if config.bundle:
        return Started(load_model(config, config.bundle, trust, safe), safe=safe)
    slots = Slots(Path(config.root))
    for refuge in slots.refuges if safe else ():
        try:
            started = Started(load_model(config, refuge, trust, safe), safe=True)
        except (Refused, EngineError) as error:
            events("bundle_refused", f"{error}; the next fallback is used")
        else:
            slots.pin(refuge)
            events("safe_mode", f"too many starts in a short time: {refuge} on the portable graph")
            return started
    return installed_model(config, slots, trust, events)


def installed_model(config: ServiceConfig, slots: Slots, trust: Trust, events: Events) -> Started:
    """Open the installed bundle. A refused trial is rolled back, and the current bundle is used. If the current bundle is
    refused, for instance after damage on the card, the previous one is used. While the trust store has a fault, a trial is neither
    started nor rolled back.

    Raises:
        Refused, EngineError: as `choose_model`.
    """
    trial_waits = trust.problem is not None and slots.target(TRIAL) is not None
    path, on_trial = slots.choose(hold=trust.problem)
    if trial_waits:
        events("trial_waits", f"{slots.root / TRIAL}: {trust.problem}; the previous bundle runs")
    if stands_in := not on_trial and slots.current_is_gone:
        events("bundle_refused", f"{slots.root / CURRENT}: points nowhere; the previous bundle is used")
    try:
        model = load_model(config, path, trust.at_install() if on_trial else trust, safe=False)
        if on_trial:
            require_allowed(model, slots, config.compatible)
        return Started(model, on_trial, stands_in=stands_in, trial_waits=trial_waits)
    except (Refused, EngineError) as error:
        if on_trial and not slots.only_trial:
            events("trial_refused", f"{error}; the trial is rolled back")
            slots.reject_trial()
            return installed_model(config, slots, trust, events)
        before = slots.target(PREVIOUS)
        if on_trial or stands_in or before is None:
            raise
        events("bundle_refused", f"{error}; the previous bundle is used")
        slots.pin(slots.root / before)
        model = load_model(config, slots.root / before, trust, safe=False)
        return Started(model, stands_in=True, trial_waits=trial_waits)


def require_allowed(model: Model, slots: Slots, compatible: Collection[str]) -> None:
    """Close and refuse a model with a name that is not allowed.

    Raises:
        BundleError: as `refuse_other_model`.
    """
    try:
        refuse_other_model(model.bundle, slots.models, compatible)
    except BundleError:
        model.close()
        raise


def load_model(config: ServiceConfig, bundle: str | Path, trust: Trust, safe: bool) -> Model:
    """Open, verify and test a bundle with the options of the configuration.

    Raises:
        Refused: the bundle is refused, or lacks a head that the configuration names.
        EngineError: it does not run on this computer.
    """
    backend = "onnxruntime" if safe else config.engine.backend
    threads = config.engine.threads
    batching = None
    if config.engine.batch > 1 and len(config.sources) > 1:
        batching = Batching(config.engine.batch, config.engine.batch_wait_ms / 1e3)
    model = load(
        bundle,
        backend,
        threads,
        trust=trust,
        fallback=config.engine.fallback,
        inspectable_weights=config.health.scrub_s > 0,
        batching=batching,
    )
    try:
        require_heads(model, config)
    except BundleError:
        model.close()
        raise
    return model


def require_heads(model: Model, config: ServiceConfig) -> None:
    """Check the heads that cameras name.

    Raises:
        BundleError: the model lacks one of them.
    """
    spec = model.bundle.spec
    for section in config.sources:
        show = heads_to_show(spec, section.heads)
        try:
            read_selection(spec, show, ())
        except UsageError as error:
            raise BundleError(
                f"{model.bundle.path}: {error}; camera {section.shown} names that head in the configuration"
            ) from error
