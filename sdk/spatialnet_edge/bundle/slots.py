"""Two bundles and a trial: an update that does not work takes itself back.

    ROOT/bundles/<sha256>/   immutable, named by the hash of the manifest
    ROOT/current             link to what flies
    ROOT/previous            link to what flew before
    ROOT/trial               link to what was installed and has not proved itself yet
    ROOT/state.json          tries of the trial, and the highest serial accepted of each model (see `slot_state.py`)

A trial is started at most `MAX_TRIES` times while there is another bundle to fly instead. Each try is counted, and on the disk,
before anything of the bundle is loaded, so that a crash in native code counts too; one that is stopped as it was asked to is not.
It becomes `current` when it is marked good: after the golden test and some time of real frames. Every step is one atomic rename, in
an order in which a power cut between any two leaves a bundle to fly.

One process at a time changes the slots: each change holds a lock on ROOT. The folder that a process flies is pinned (see
`pins.py`): no install removes it.

Order at a start: parse the configuration, every URI and every option in it; then `choose`, which counts the try; then load. What is
refused before `choose` says nothing against the trial.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from spatialnet_edge.bundle.manifest import MAX_MANIFEST_BYTES, decode_manifest
from spatialnet_edge.bundle.pins import is_pinned, pin, unpin
from spatialnet_edge.bundle.reader import MANIFEST, Bundle, contents, open_bundle
from spatialnet_edge.bundle.slot_state import COPIES, State, read_state, write_state
from spatialnet_edge.bundle.storage import DirectoryStore
from spatialnet_edge.bundle.trust import Trust
from spatialnet_edge.bundle.writer import write_raw
from spatialnet_edge.core.atomic_io import FULL, locked_folder, point_link, sync_folder
from spatialnet_edge.core.errors import BundleError

BUNDLES, CURRENT, PREVIOUS, TRIAL = "bundles", "current", "previous", "trial"
LINKS = (CURRENT, PREVIOUS, TRIAL)
MAX_TRIES = 3
CHANGE_S = 60.0
"""How long a change waits for another process to finish its own."""
START_S = 10.0
"""How long a start waits for it; then what has proved itself flies."""
ANYBODY = Trust(allow_unsigned=True)


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots below a root folder."""

    root: Path

    def install(self, source: Path, trust: Trust, compatible: Collection[str] = ()) -> Bundle:
        """Check a bundle, copy it and put it on trial.

        What earlier installs left behind, such as half a bundle after a power cut, is removed before anything is written.

        Args:
            compatible: names of other models that may take the place of the one that flies here.

        Raises:
            BundleError: it is refused (see `open_bundle`), older than what was accepted before, another model, or the folder cannot
                be written.
        """
        bundle = open_bundle(source, trust.at_install())
        files = contents(bundle)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with self._change():
                self.refuse_replay(bundle)
                self.refuse_other_model(bundle, compatible)
                (self.root / BUNDLES).mkdir(exist_ok=True)
                self._remove_unused()
                kept = self.root / BUNDLES / bundle.sha256
                if not self._is_whole(kept):
                    shutil.rmtree(kept, ignore_errors=True)  # damaged: nothing can fly it
                    write_raw(kept, files)
                self._write(msgspec.structs.replace(self.state, tries=0))
                point_link(self.root / TRIAL, f"{BUNDLES}/{bundle.sha256}")
                self._remove_unused()
                return open_bundle(kept, trust)
        except OSError as error:
            raise BundleError(f"{self.root}: cannot be written: {error.strerror}; what was installed before stays") from error

    def refuse_replay(self, bundle: Bundle) -> None:
        """Refuse an older release than one that was accepted: an attacker may replay what was signed long ago.

        Raises:
            BundleError: with both serials; or the highest serials are not known any more.
        """
        state = self.state
        if not state.complete:
            raise BundleError(
                f"{self.root}: both copies of the state ({', '.join(COPIES)}) are damaged or missing, so the highest serials are "
                f"unknown; give --rebuild-state to take them from the bundles that are installed"
            )
        least = state.accepted.get(bundle.spec.name, 0)
        if bundle.manifest.serial < least:
            raise BundleError(
                f"{bundle.path}: serial {bundle.manifest.serial} of '{bundle.spec.name}' is older than {least}, which was accepted "
                f"before; build it again with a higher --serial, or go back with 'spatialnet-edge rollback'"
            )

    def refuse_other_model(self, bundle: Bundle, compatible: Collection[str] = ()) -> None:
        """Refuse a model of another name than the one that flies here: a right signature says who made it, not what it is for.

        Args:
            compatible: other names that may fly here.

        Raises:
            BundleError: with both names.
        """
        here, name = self.models, bundle.spec.name
        if here and name not in here and name not in compatible:
            raise BundleError(
                f"{bundle.path}: is the model '{name}'; the model here is '{', '.join(sorted(here))}'; if it may take its place, "
                f"name it under 'compatible' in the configuration, and install it with --config"
            )

    @property
    def models(self) -> frozenset[str]:
        """The name of the model that flies; of all that were accepted when no manifest can be read; none at first."""
        for link in (CURRENT, PREVIOUS):
            try:
                raw = DirectoryStore(self.root / link).read(MANIFEST, MAX_MANIFEST_BYTES)
                return frozenset({decode_manifest(raw, str(self.root / link)).spec.name})
            except BundleError:
                continue
        return frozenset(self.state.accepted)

    def rebuild_state(self) -> State:
        """Take the highest serials from the bundles that are installed, when both copies of the state are damaged.

        Raises:
            BundleError: the folder cannot be written.
        """
        try:
            with self._change():
                state = self.state
                accepted = dict(state.accepted)
                for link in (CURRENT, PREVIOUS):
                    if self.target(link) is not None:
                        bundle = open_bundle(self.root / link, ANYBODY)
                        name = bundle.spec.name
                        accepted[name] = max(bundle.manifest.serial, accepted.get(name, 0))
                self._write(msgspec.structs.replace(state, accepted=accepted, complete=True))
                return self.state
        except OSError as error:
            raise BundleError(f"{self.root}: cannot be written: {error.strerror}") from error

    def choose(self) -> tuple[Path, bool]:
        """What to start now, and whether it is on trial. It is pinned for the life of this process.

        Counts the try; a trial that has used up its tries is taken back, and one whose try cannot be counted, on a full disk or
        while another process changes the slots, waits, unless nothing would fly without it.

        Returns:
            The bundle's own folder, not a link to it: links change while it flies.

        Raises:
            BundleError: nothing is installed.
        """
        if not self.root.is_dir():
            raise self._nothing_installed()
        try:
            with locked_folder(self.root, START_S):
                path, on_trial = self._choose()
                pin(self.root, path)
        except TimeoutError:
            path, on_trial = self._proved() or (self._trial_alone(), True)
            pin(self.root, path)
        return path, on_trial

    def _choose(self) -> tuple[Path, bool]:
        if (trial := self.target(TRIAL)) is not None:
            if self.state.tries >= MAX_TRIES and not self.only_trial:
                self._reject_trial()
            elif self._count_try() or self.only_trial:
                return self.root / trial, True
        if (proved := self._proved()) is None:
            raise self._nothing_installed()
        return proved

    def _proved(self) -> tuple[Path, bool] | None:
        """`current`; `previous` when `current` leads nowhere."""
        found = [target for link in (CURRENT, PREVIOUS) if (target := self.target(link)) is not None]
        return (self.root / found[0], False) if found else None

    def _trial_alone(self) -> Path:
        if (trial := self.target(TRIAL)) is None:
            raise self._nothing_installed()
        return self.root / trial

    def _nothing_installed(self) -> BundleError:
        return BundleError(f"{self.root}: no bundle is installed; 'spatialnet-edge install BUNDLE --root {self.root}' does it")

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

    def pin(self, folder: Path) -> None:
        """Keep a folder that is flown without `choose`, such as a refuge."""
        pin(self.root, folder)

    def unpin(self) -> None:
        """This process flies nothing from here any more."""
        unpin(self.root)

    def forgive_try(self) -> None:
        """The trial was stopped as it was asked to, before it could prove itself: that says nothing against it."""
        with self._change():
            state = self.state
            self._write(msgspec.structs.replace(state, tries=max(0, state.tries - 1)))

    def mark_good(self, flown: Path) -> None:
        """The trial becomes `current`, `current` becomes `previous`, and nothing older will be accepted again.

        Args:
            flown: what `choose` gave.

        Raises:
            BundleError: it is not on trial any more: it was taken back, or another one was installed, which has still to prove
                itself.
        """
        with self._change():
            trial, current = self.target(TRIAL), self.target(CURRENT)
            if trial is None and current is not None and self.root / current == flown:
                return
            if trial is None:
                raise BundleError(f"{flown}: was taken back while it flew; {self._next()} flies at the next start")
            if self.root / trial != flown:
                raise BundleError(
                    f"{flown}: is not on trial any more; {self.root / trial} was installed since, and flies at the next start"
                )
            bundle = open_bundle(flown, ANYBODY)
            if current is not None and current != trial:
                point_link(self.root / PREVIOUS, current)
            point_link(self.root / CURRENT, trial)
            state = self.state
            highest = max(bundle.manifest.serial, state.accepted.get(bundle.spec.name, 0))
            accepted = state.accepted | {bundle.spec.name: highest}
            self._write(msgspec.structs.replace(state, tries=0, accepted=accepted))
            self._reject_trial()

    def _next(self) -> str:
        proved = self._proved()
        return "nothing" if proved is None else str(proved[0])

    def reject_trial(self) -> None:
        """No trial any more; what it pointed to stays on the disk until the next install."""
        with self._change():
            self._reject_trial()

    def _reject_trial(self) -> None:
        (self.root / TRIAL).unlink(missing_ok=True)
        sync_folder(self.root)

    def rollback(self) -> Path:
        """Take back the trial; without one, let `current` be what flew before.

        Returns:
            What flies at the next start.

        Raises:
            BundleError: there is nothing to go back to.
        """
        if not self.root.is_dir():
            raise self._nothing_installed()
        with self._change():
            if self.target(TRIAL) is not None:
                proved = self._proved()
                if proved is None:
                    raise BundleError(f"{self.root}: nothing to go back to: the trial is the only bundle")
                self._reject_trial()
                return proved[0]
            before = self.target(PREVIOUS)
            if before is None:
                raise BundleError(f"{self.root}: nothing to go back to: no trial and no previous bundle")
            point_link(self.root / CURRENT, before)
            (self.root / PREVIOUS).unlink()  # the bundle that was left is no refuge
            sync_folder(self.root)
            return self.root / CURRENT

    def target(self, link: str) -> str | None:
        """What a link points to, relative to the root; None when there is no such link, or it leads nowhere."""
        path = self.root / link
        return str(path.readlink()) if path.is_symlink() and path.exists() else None

    @property
    def only_trial(self) -> bool:
        """Whether nothing would fly without the trial: then it is not taken back, whatever it does."""
        return self._proved() is None

    @property
    def current_is_gone(self) -> bool:
        """Whether `current` leads nowhere, so that `previous` flies in its place."""
        return self.target(CURRENT) is None and self.target(PREVIOUS) is not None

    @property
    def refuges(self) -> list[Path]:
        """What to fall back to in a crash loop, best first: what flew before, what flies, or else the trial."""
        found = [target for link in (PREVIOUS, CURRENT, TRIAL) if (target := self.target(link)) is not None]
        return [self.root / target for target in dict.fromkeys(found)]

    @property
    def state(self) -> State:
        """As on the disk. A state that cannot be read is not complete: a computer must start without it, and install nothing."""
        return read_state(self.root, used=any((self.root / link).is_symlink() for link in LINKS))

    def _write(self, state: State) -> None:
        write_state(self.root, state)

    @contextmanager
    def _change(self) -> Generator[None, None, None]:
        """Hold the lock of the slots.

        Raises:
            BundleError: another process holds it for too long.
        """
        try:
            with locked_folder(self.root, CHANGE_S):
                yield
        except TimeoutError as error:
            raise BundleError(
                f"{self.root}: another process has been changing the slots for {CHANGE_S:.0f} s; try again"
            ) from error

    def _is_whole(self, kept: Path) -> bool:
        try:
            open_bundle(kept, ANYBODY)
        except BundleError:
            return False
        return True

    def _remove_unused(self) -> None:
        """Remove what no link leads to and nobody flies, and what writers that were cut off have left."""
        linked = {self.target(link) for link in LINKS}
        for folder in (self.root / BUNDLES).iterdir():
            if f"{BUNDLES}/{folder.name}" not in linked and not is_pinned(folder):
                shutil.rmtree(folder)
        for name in (*COPIES, *LINKS):
            for temporary in self.root.glob(f".{name}.*"):
                temporary.unlink(missing_ok=True)
