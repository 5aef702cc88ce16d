"""Installed bundles: two slots and a trial. An update that does not work is rolled back.

    ROOT/bundles/<sha256>/   immutable, named by the hash of the manifest
    ROOT/current             link to the active bundle
    ROOT/previous            link to the bundle before it
    ROOT/trial               link to a newly installed bundle that is not marked good yet
    ROOT/state.json          tries of the trial, and the highest accepted serial per model (see `slot_state.py`)

A trial is started at most `MAX_TRIES` times while another bundle exists. Each try is recorded on disk before anything of the
bundle is loaded, so that a crash in native code counts too. A try that was stopped on request does not count. The trial
becomes `current` when it is
marked good: after the golden test and some time of real frames. Every step is one atomic rename. The order of the steps leaves
a usable bundle after a power cut at any point.

Only one process at a time changes the slots: each change holds a lock on ROOT. The folder of a running bundle is pinned (see
`pins.py`): no install removes it.

Order of a start: parse the configuration with every URI and option; then `choose`, which counts the try; then load. A refusal
before `choose` does not count against the trial.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from spatialnet_edge.bundle.admission import refuse_other_model, refuse_replay
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
"""Seconds that a change waits for the lock of another process."""
START_S = 10.0
"""Seconds that a start waits for the lock; after that, the proven bundle is started."""
ANYBODY = Trust(allow_unsigned=True)


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots below a root folder."""

    root: Path

    def install(self, source: Path, trust: Trust, compatible: Collection[str] = ()) -> Bundle:
        """Verify a bundle, copy it and put it on trial.

        Remains of earlier installs, such as half a bundle after a power cut, are removed before anything is written.

        Args:
            compatible: names of other models that may replace the active one.

        Raises:
            BundleError: the bundle is refused (see `open_bundle`), is older than an accepted one, or is another model; or the
                folder cannot be written.
        """
        bundle = open_bundle(source, trust.at_install())
        files = contents(bundle)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with self._change():
                refuse_replay(bundle, self.state, self.root)
                refuse_other_model(bundle, self.models, compatible)
                (self.root / BUNDLES).mkdir(exist_ok=True)
                self._remove_unused()
                kept = self.root / BUNDLES / bundle.sha256
                if not self._is_whole(kept):
                    shutil.rmtree(kept, ignore_errors=True)  # a damaged copy is of no use
                    write_raw(kept, files)
                self._write(msgspec.structs.replace(self.state, tries=0))
                point_link(self.root / TRIAL, f"{BUNDLES}/{bundle.sha256}")
                self._remove_unused()
                return open_bundle(kept, trust)
        except OSError as error:
            raise BundleError(
                f"{self.root}: cannot be written: {error.strerror}; the installed bundles are unchanged"
            ) from error

    @property
    def models(self) -> frozenset[str]:
        """The name of the active model. If no manifest can be read, the names of all accepted models; empty at first."""
        for link in (CURRENT, PREVIOUS):
            try:
                raw = DirectoryStore(self.root / link).read(MANIFEST, MAX_MANIFEST_BYTES)
                return frozenset({decode_manifest(raw, str(self.root / link)).spec.name})
            except BundleError:
                continue
        return frozenset(self.state.accepted)

    def rebuild_state(self) -> State:
        """Rebuild a state whose copies are both damaged: read the highest serials from the installed bundles.

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

    def choose(self, hold: str | None = None) -> tuple[Path, bool]:
        """Choose the bundle to start. It is pinned until this process ends.

        The try is counted. A trial without tries left is rolled back. If the try cannot be counted (full disk, or another
        process holds the lock), the trial is postponed, unless it is the only bundle.

        Args:
            hold: why no trial can be judged now; then it waits, and its tries are left as they are. None to try it.

        Returns:
            The bundle's own folder, not a link to it, because links can change meanwhile; and whether it is on trial.

        Raises:
            BundleError: no bundle is installed; or the trial is held and there is no other bundle.
        """
        if not self.root.is_dir():
            raise self._nothing_installed()
        if hold is not None and self.target(TRIAL) is not None:
            return self._choose_proved(hold)
        try:
            with locked_folder(self.root, START_S):
                path, on_trial = self._choose()
                pin(self.root, path)
        except TimeoutError:
            path, on_trial = self._proved() or (self._trial_alone(), True)
            pin(self.root, path)
        return path, on_trial

    def _choose_proved(self, hold: str) -> tuple[Path, bool]:
        if (proved := self._proved()) is None:
            raise BundleError(f"{self.root / TRIAL}: cannot be judged: {hold}; nothing else is installed")
        pin(self.root, proved[0])
        return proved

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
        """`current`, or `previous` if `current` points nowhere; None if there is neither."""
        found = [target for link in (CURRENT, PREVIOUS) if (target := self.target(link)) is not None]
        return (self.root / found[0], False) if found else None

    def _trial_alone(self) -> Path:
        if (trial := self.target(TRIAL)) is None:
            raise self._nothing_installed()
        return self.root / trial

    def _nothing_installed(self) -> BundleError:
        return BundleError(f"{self.root}: no bundle is installed; run 'spatialnet-edge install BUNDLE --root {self.root}'")

    def _count_try(self) -> bool:
        """Record one more try on disk; False if the disk is full."""
        state = self.state
        try:
            self._write(msgspec.structs.replace(state, tries=state.tries + 1))
        except OSError as error:
            if error.errno in FULL:
                return False
            raise
        return True

    def pin(self, folder: Path) -> None:
        """Pin a folder that is used without `choose`, such as a fallback after a crash loop."""
        pin(self.root, folder)

    def unpin(self) -> None:
        """Release the pin of this process."""
        unpin(self.root)

    def forgive_try(self) -> None:
        """Take back one try: the trial was stopped on request before it could be marked good."""
        with self._change():
            state = self.state
            self._write(msgspec.structs.replace(state, tries=max(0, state.tries - 1)))

    def mark_good(self, flown: Path) -> None:
        """Make the trial `current` and `current` `previous`. Lower serials are refused from now on.

        Args:
            flown: the folder that `choose` returned.

        Raises:
            BundleError: the bundle is not on trial any more: it was rolled back, or another one was installed.
        """
        with self._change():
            trial, current = self.target(TRIAL), self.target(CURRENT)
            if trial is None and current is not None and self.root / current == flown:
                return
            if trial is None:
                raise BundleError(f"{flown}: was rolled back while it ran; the next start uses {self._next()}")
            if self.root / trial != flown:
                raise BundleError(
                    f"{flown}: is not on trial any more; {self.root / trial} was installed meanwhile and is used at "
                    "the next start"
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
        """Remove the trial link. The bundle stays on disk until the next install."""
        with self._change():
            self._reject_trial()

    def _reject_trial(self) -> None:
        (self.root / TRIAL).unlink(missing_ok=True)
        sync_folder(self.root)

    def rollback(self) -> Path:
        """Remove the trial; without a trial, make `previous` `current` again.

        Returns:
            The bundle of the next start.

        Raises:
            BundleError: there is no other bundle.
        """
        if not self.root.is_dir():
            raise self._nothing_installed()
        with self._change():
            if self.target(TRIAL) is not None:
                proved = self._proved()
                if proved is None:
                    raise BundleError(f"{self.root}: cannot roll back: the trial is the only bundle")
                self._reject_trial()
                return proved[0]
            before = self.target(PREVIOUS)
            if before is None:
                raise BundleError(f"{self.root}: cannot roll back: there is neither a trial nor a previous bundle")
            point_link(self.root / CURRENT, before)
            (self.root / PREVIOUS).unlink()  # the abandoned bundle must not become a fallback
            sync_folder(self.root)
            return self.root / CURRENT

    def target(self, link: str) -> str | None:
        """The target of a link, relative to the root; None if there is no link or it points nowhere."""
        path = self.root / link
        return str(path.readlink()) if path.is_symlink() and path.exists() else None

    @property
    def only_trial(self) -> bool:
        """Whether the trial is the only bundle; then it is never rolled back."""
        return self._proved() is None

    @property
    def current_is_gone(self) -> bool:
        """Whether `current` points nowhere, so that `previous` is used."""
        return self.target(CURRENT) is None and self.target(PREVIOUS) is not None

    @property
    def refuges(self) -> list[Path]:
        """The fallbacks after a crash loop, best first: `previous`, `current`, and last the trial."""
        found = [target for link in (PREVIOUS, CURRENT, TRIAL) if (target := self.target(link)) is not None]
        return [self.root / target for target in dict.fromkeys(found)]

    @property
    def state(self) -> State:
        """The state on disk. A state that cannot be read is incomplete: the service still starts, and installs are refused."""
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
        """Remove bundles without a link or a pin, and temporary files of interrupted writes."""
        linked = {self.target(link) for link in LINKS}
        for folder in (self.root / BUNDLES).iterdir():
            if f"{BUNDLES}/{folder.name}" not in linked and not is_pinned(folder):
                shutil.rmtree(folder)
        for name in (*COPIES, *LINKS):
            for temporary in self.root.glob(f".{name}.*"):
                temporary.unlink(missing_ok=True)
