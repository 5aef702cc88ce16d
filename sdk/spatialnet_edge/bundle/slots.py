"""Two bundles and a trial: an update that does not work takes itself back.

    ROOT/bundles/<sha256>/   immutable, named by the hash of the manifest
    ROOT/current             link to what flies
    ROOT/previous            link to what flew before
    ROOT/trial               link to what was installed and has not proved itself yet
    ROOT/state.json          tries of the trial, and the highest serial accepted of each model

A trial is started at most `MAX_TRIES` times while there is another bundle to fly instead. Each try is counted, and on the disk,
before anything of the bundle is loaded, so that a crash in native code counts too; one that is stopped as it was asked to is not.
It becomes `current` when it is marked good: after the golden test and some time of real frames. Every step is one atomic rename, in
an order in which a power cut between any two leaves a bundle to fly.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec

from spatialnet_edge.bundle.reader import Bundle, contents, open_bundle
from spatialnet_edge.bundle.trust import Trust
from spatialnet_edge.bundle.writer import write_raw
from spatialnet_edge.core.atomic_io import FULL, point_link, sync_folder, write_durably
from spatialnet_edge.core.errors import BundleError

BUNDLES, CURRENT, PREVIOUS, TRIAL, STATE = "bundles", "current", "previous", "trial", "state.json"
MAX_TRIES = 3


class State(msgspec.Struct, frozen=True):
    """`state.json`.

    Attributes:
        tries: how often the trial was started.
        accepted: model name to the highest serial that was ever marked good: nothing older is installed again.
    """

    tries: int = 0
    accepted: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots below a root folder."""

    root: Path

    def install(self, source: Path, trust: Trust) -> Bundle:
        """Check a bundle, copy it and put it on trial.

        Raises:
            BundleError: it is refused (see `open_bundle`), older than what was accepted before, or the folder cannot be written.
        """
        bundle = open_bundle(source, trust)
        self.refuse_replay(bundle)
        try:
            (self.root / BUNDLES).mkdir(parents=True, exist_ok=True)
            kept = self.root / BUNDLES / bundle.sha256
            if not self._is_whole(kept, trust):
                write_raw(kept, contents(bundle))
            self._write(msgspec.structs.replace(self.state, tries=0))
            point_link(self.root / TRIAL, f"{BUNDLES}/{bundle.sha256}")
            self._forget_others()
        except OSError as error:
            raise BundleError(f"{self.root}: cannot be written: {error.strerror}; what was installed before stays") from error
        return open_bundle(kept, trust)

    def refuse_replay(self, bundle: Bundle) -> None:
        """Refuse an older release than one that was accepted: an attacker may replay what was signed long ago.

        Raises:
            BundleError: with both serials.
        """
        least = self.state.accepted.get(bundle.spec.name, 0)
        if bundle.manifest.serial < least:
            raise BundleError(
                f"{bundle.path}: serial {bundle.manifest.serial} of '{bundle.spec.name}' is older than {least}, which was accepted "
                f"before; build it again with a higher --serial, or go back with 'spatialnet-edge rollback'"
            )

    def choose(self) -> tuple[Path, bool]:
        """What to start now, and whether it is on trial. Counts the try; a trial that has used up its tries is taken back, and one
        whose try cannot be counted, on a full disk, waits, unless nothing would fly without it.

        Returns:
            The bundle's own folder, not a link to it: links change while it flies.

        Raises:
            BundleError: nothing is installed.
        """
        if (trial := self.target(TRIAL)) is not None:
            if self.state.tries >= MAX_TRIES and not self.only_trial:
                self.reject_trial()
            elif self._count_try() or self.only_trial:
                return self.root / trial, True
        if (current := self.target(CURRENT)) is None:
            raise BundleError(
                f"{self.root}: no bundle is installed; 'spatialnet-edge install BUNDLE --root {self.root}' does it"
            )
        return self.root / current, False

    def _count_try(self) -> bool:
        """One more try, on the disk; False where that has no room."""
        state = self.state
        try:
            self._write(msgspec.structs.replace(state, tries=state.tries + 1))
        except OSError as error:
            if error.errno in FULL:
                return False
            raise
        return True

    def forgive_try(self) -> None:
        """The trial was stopped as it was asked to, before it could prove itself: that says nothing against it."""
        state = self.state
        self._write(msgspec.structs.replace(state, tries=max(0, state.tries - 1)))

    def mark_good(self, flown: Path) -> None:
        """The trial becomes `current`, `current` becomes `previous`, and nothing older will be accepted again.

        Args:
            flown: what `choose` gave.

        Raises:
            BundleError: another one was put on trial meanwhile; that one has still to prove itself.
        """
        trial, current = self.target(TRIAL), self.target(CURRENT)
        if trial is None:
            return
        if self.root / trial != flown:
            raise BundleError(
                f"{flown}: is not on trial any more; {self.root / trial} was installed since, and flies at the next start"
            )
        bundle = open_bundle(self.root / TRIAL, Trust(allow_unsigned=True))
        if current is not None and current != trial:
            point_link(self.root / PREVIOUS, current)
        point_link(self.root / CURRENT, trial)
        highest = max(bundle.manifest.serial, self.state.accepted.get(bundle.spec.name, 0))
        self._write(State(tries=0, accepted=self.state.accepted | {bundle.spec.name: highest}))
        self.reject_trial()

    def reject_trial(self) -> None:
        """No trial any more; what it pointed to stays on the disk until the next install."""
        (self.root / TRIAL).unlink(missing_ok=True)
        sync_folder(self.root)

    def rollback(self) -> Path:
        """Take back the trial; without one, let `current` be what flew before.

        Raises:
            BundleError: there is nothing to go back to.
        """
        if self.target(TRIAL) is not None:
            self.reject_trial()
        else:
            before = self.target(PREVIOUS)
            if before is None:
                raise BundleError(f"{self.root}: nothing to go back to: no trial and no previous bundle")
            point_link(self.root / CURRENT, before)
            (self.root / PREVIOUS).unlink()  # what was left behind is no refuge
            sync_folder(self.root)
        return self.root / CURRENT

    def target(self, link: str) -> str | None:
        """What a link points to, relative to the root; None when there is no such link, or it leads nowhere."""
        path = self.root / link
        return str(path.readlink()) if path.is_symlink() and path.exists() else None

    @property
    def only_trial(self) -> bool:
        """Whether nothing would fly without the trial: then it is not taken back, whatever it does."""
        return self.target(CURRENT) is None

    @property
    def refuges(self) -> list[Path]:
        """What to fall back to in a crash loop, best first: what flew before, what flies, or else the trial."""
        found = [target for link in (PREVIOUS, CURRENT, TRIAL) if (target := self.target(link)) is not None]
        return [self.root / target for target in dict.fromkeys(found)]

    @property
    def state(self) -> State:
        """As on the disk. A state that cannot be read counts as none: a computer must start without it."""
        try:
            return msgspec.json.decode((self.root / STATE).read_bytes(), type=State)
        except (OSError, ValueError):
            return State()

    def _write(self, state: State) -> None:
        write_durably(self.root / STATE, msgspec.json.encode(state) + b"\n")

    def _is_whole(self, kept: Path, trust: Trust) -> bool:
        try:
            open_bundle(kept, trust)
        except BundleError:
            return False
        return True

    def _forget_others(self) -> None:
        linked = {self.target(link) for link in (CURRENT, PREVIOUS, TRIAL)}
        for folder in (self.root / BUNDLES).iterdir():
            if f"{BUNDLES}/{folder.name}" not in linked:
                shutil.rmtree(folder)
