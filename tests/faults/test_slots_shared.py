"""Slots with concurrent processes, power cuts and damage: the active bundle is never lost, and no old release is accepted."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from conftest import tiny_graph, write_tiny_bundle
from spatialnet_edge.bundle import slots as slots_module
from spatialnet_edge.bundle import writer
from spatialnet_edge.bundle.admission import FORMER_NAMES, refuse_replay
from spatialnet_edge.bundle.reader import MANIFEST, contents, open_bundle
from spatialnet_edge.bundle.slot_state import COPIES
from spatialnet_edge.bundle.slots import BUNDLES, CURRENT, PREVIOUS, TRIAL, Slots
from spatialnet_edge.bundle.trust import Trust
from spatialnet_edge.bundle.writer import write_raw
from spatialnet_edge.core.errors import BundleError

ANY = Trust(allow_unsigned=True)
ROUNDS = 25


def release(source: Path, target: Path, serial: int, name: str = "tiny") -> Path:
    files = contents(open_bundle(source, ANY))
    manifest = msgspec.json.decode(files[MANIFEST])
    manifest["serial"] = serial
    manifest["spec"]["name"] = name
    write_raw(target, files | {MANIFEST: msgspec.json.encode(manifest)})
    return target


@pytest.fixture
def releases(tmp_path: Path, tiny_path: Path) -> list[Path]:
    return [release(tiny_path, tmp_path / f"{serial}.snb", serial) for serial in range(5)]


def prove(slots: Slots) -> None:
    slots.mark_good(slots.choose()[0])


def flown(tmp_path: Path, releases: list[Path], count: int = 1) -> Slots:
    """Slots in which the first releases were marked good, one after the other."""
    slots = Slots(tmp_path / "root")
    for path in releases[:count]:
        slots.install(path, ANY)
        prove(slots)
    return slots


def serial(path: Path) -> int:
    return open_bundle(path, ANY).manifest.serial


def fork(work: Callable[[], object], delay_s: float = 0.0) -> int:
    """Run a function in a forked process: exit status 0, 1 for a BundleError, 2 for another error."""
    pid = os.fork()
    if pid:
        return pid
    status = 2
    try:
        time.sleep(delay_s)
        work()
        status = 0
    except BundleError:
        status = 1
    finally:
        os._exit(status)


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def slow_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every verification of a bundle in the slots takes as long as for a large bundle."""

    def opened(path: Path, trust: Trust):
        bundle = open_bundle(path, trust)
        time.sleep(0.01)
        return bundle

    monkeypatch.setattr(slots_module, "open_bundle", opened)


@pytest.mark.fault(45)
@pytest.mark.usefixtures("slow_steps")
def test_an_install_during_mark_good_loses_nothing(tmp_path: Path, releases: list[Path]) -> None:
    """Without the lock, one of twelve such pairs left no usable bundle."""
    for number in range(ROUNDS):
        slots = Slots(tmp_path / f"root{number}")
        slots.install(releases[0], ANY)
        prove(slots)
        slots.install(releases[1], ANY)
        path, _ = slots.choose()
        delays = [random.random() * 0.04 for _ in range(2)]
        installing = fork(lambda slots=slots: slots.install(releases[2], ANY), delays[0])
        marking = fork(lambda slots=slots, path=path: slots.mark_good(path), delays[1])
        assert ended(installing) == 0
        marked = ended(marking)
        assert marked in (0, 1)
        assert serial(slots.root / TRIAL) == 2  # what was reported as installed is on trial
        assert serial(slots.root / CURRENT) == (1 if marked == 0 else 0)
        assert slots.state.accepted == {"tiny": 1 if marked == 0 else 0}
        assert serial(path) == 1  # the running bundle is still readable


@pytest.mark.fault(45)
@pytest.mark.usefixtures("slow_steps")
def test_two_installs_at_once_both_succeed_and_the_later_one_is_on_trial(tmp_path: Path, releases: list[Path]) -> None:
    for number in range(ROUNDS):
        slots = Slots(tmp_path / f"root{number}")
        slots.install(releases[0], ANY)
        prove(slots)
        slots.unpin()
        pids = [fork(lambda slots=slots, n=n: slots.install(releases[n], ANY), random.random() * 0.03) for n in (1, 2)]
        assert [ended(pid) for pid in pids] == [0, 0]
        assert serial(slots.root / TRIAL) in (1, 2)
        assert len(list((slots.root / BUNDLES).iterdir())) == 2


@pytest.mark.fault(45)
def test_a_bundle_used_by_another_process_is_not_removed(tmp_path: Path, releases: list[Path]) -> None:
    """A service rereads its bundle after a bit flip; after `rollback` and two installs no link points to it."""
    slots = flown(tmp_path, releases, 2)
    slots.unpin()
    ready, held = os.pipe()
    pid = fork(lambda: (os.write(held, str(slots.choose()[0]).encode()), time.sleep(60)))
    flies = Path(os.read(ready, 4096).decode())
    slots.rollback()
    slots.install(releases[2], ANY)
    slots.install(releases[3], ANY)
    assert serial(flies) == 1
    os.kill(pid, signal.SIGKILL)
    assert ended(pid) == -signal.SIGKILL
    slots.install(releases[4], ANY)
    assert not flies.exists()


@pytest.mark.fault(45)
def test_when_current_is_missing_previous_is_used(tmp_path: Path, releases: list[Path]) -> None:
    import shutil

    slots = flown(tmp_path, releases, 2)
    shutil.rmtree(slots.root / str(slots.target(CURRENT)))
    assert slots.current_is_gone
    path, on_trial = slots.choose()
    assert (serial(path), on_trial) == (0, False)
    slots.install(releases[2], ANY)
    for _ in range(3):
        assert slots.choose()[1]
    assert slots.choose() == (path, False)  # a trial that failed three times is rolled back: previous exists


@pytest.mark.fault(45)
def test_mark_good_after_a_rollback_is_an_error(tmp_path: Path, releases: list[Path]) -> None:
    slots = flown(tmp_path, releases)
    slots.install(releases[1], ANY)
    path, _ = slots.choose()
    assert slots.rollback() == slots.root / str(slots.target(CURRENT))
    with pytest.raises(BundleError, match="was rolled back while it ran"):
        slots.mark_good(path)
    assert slots.state.accepted == {"tiny": 0}


@pytest.mark.fault(45)
def test_the_only_bundle_is_not_rolled_back(tmp_path: Path, releases: list[Path]) -> None:
    slots = Slots(tmp_path / "root")
    slots.install(releases[0], ANY)
    with pytest.raises(BundleError, match="the trial is the only bundle"):
        slots.rollback()
    assert slots.choose()[1]


@pytest.mark.fault(45)
def test_a_start_does_not_wait_for_ever_for_another_process(
    tmp_path: Path, releases: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from spatialnet_edge.core.atomic_io import locked_folder

    slots = flown(tmp_path, releases)
    slots.install(releases[1], ANY)
    monkeypatch.setattr(slots_module, "START_S", 0.1)
    monkeypatch.setattr(slots_module, "CHANGE_S", 0.1)
    with locked_folder(slots.root, 1):
        path, on_trial = slots.choose()
        with pytest.raises(BundleError, match="another process"):
            slots.install(releases[2], ANY)
    assert (serial(path), on_trial) == (0, False)
    assert slots.state.tries == 0


@pytest.mark.fault(51)
def test_half_bundles_of_power_cuts_are_removed_before_anything_is_written(
    tmp_path: Path, releases: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a small disk, three of them blocked all further updates."""
    slots = flown(tmp_path, releases, 2)
    slots.unpin()

    def cut(folder: Path) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    for _ in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(writer, "sync_folder", cut)
            assert ended(fork(lambda: slots.install(releases[2], ANY))) == -signal.SIGKILL
        halves = [path for path in (slots.root / BUNDLES).iterdir() if path.name.startswith(".")]
        assert len(halves) == 1  # those of earlier power cuts are already removed
    (slots.root / ".state.json.torn").write_bytes(b"x")
    seen: list[int] = []
    written = slots_module.write_raw

    def counted(path: Path, files: dict[str, bytes]) -> None:
        seen.append(len(list(path.parent.iterdir())))
        written(path, files)

    monkeypatch.setattr(slots_module, "write_raw", counted)
    slots.install(releases[2], ANY)
    assert seen == [2]
    assert serial(slots.root / TRIAL) == 2
    assert sorted(path.name for path in slots.root.iterdir()) == sorted([BUNDLES, *COPIES, CURRENT, PREVIOUS, TRIAL])


@pytest.mark.fault(51)
def test_a_bundle_without_a_manifest_can_be_installed_again(tmp_path: Path, releases: list[Path]) -> None:
    slots = flown(tmp_path, releases)
    (slots.root / CURRENT / MANIFEST).unlink()
    slots.install(releases[0], ANY)
    assert serial(slots.choose()[0]) == 0


def replay(slots: Slots, old: Path) -> str:
    with pytest.raises(BundleError) as refused:
        slots.install(old, ANY)
    return str(refused.value)


@pytest.mark.fault(58)
def test_no_flipped_bit_of_the_state_lets_an_old_release_in(tmp_path: Path, releases: list[Path]) -> None:
    slots = Slots(tmp_path / "root")
    slots.install(releases[3], ANY)
    prove(slots)
    state = slots.root / COPIES[0]
    raw = state.read_bytes()
    old = open_bundle(releases[1], ANY)
    for bit in range(8 * len(raw)):
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        state.write_bytes(damaged)
        with pytest.raises(BundleError, match="serial 1 of 'tiny' is older than 3"):
            refuse_replay(old, slots.state, slots.root)


@pytest.mark.fault(58)
def test_one_lost_copy_of_the_state_is_replaced_and_both_lost_are_refused(tmp_path: Path, releases: list[Path]) -> None:
    slots = Slots(tmp_path / "root")
    slots.install(releases[3], ANY)
    prove(slots)
    for name in COPIES:
        (slots.root / name).unlink()
        assert "older than 3" in replay(slots, releases[1])
        slots.install(releases[3], ANY)
        assert (slots.root / name).exists()
    slots.reject_trial()
    for name in COPIES:
        (slots.root / name).write_bytes(b"0" * 64 + b' {"accepted":{}}\n')
    for path in (releases[1], releases[4]):
        assert "both copies of the state" in replay(slots, path)
    assert serial(slots.choose()[0]) == 3  # it starts anyway
    slots.forgive_try()  # and writing the state does not make it complete
    assert "both copies of the state" in replay(slots, releases[4])
    assert slots.rebuild_state().accepted == {"tiny": 3}
    assert "older than 3" in replay(slots, releases[1])
    assert slots.install(releases[4], ANY).manifest.serial == 4


@pytest.mark.fault(58)
def test_a_state_of_the_version_before_is_read(tmp_path: Path, releases: list[Path]) -> None:
    slots = Slots(tmp_path / "root")
    slots.install(releases[3], ANY)
    prove(slots)
    (slots.root / COPIES[1]).unlink()
    (slots.root / COPIES[0]).write_bytes(b'{"tries":0,"accepted":{"tiny":3}}\n')
    assert "older than 3" in replay(slots, releases[1])


@pytest.mark.fault(55)
def test_a_model_of_another_name_is_refused_unless_it_is_compatible(
    tmp_path: Path, tiny_path: Path, releases: list[Path]
) -> None:
    slots = flown(tmp_path, releases)
    other = release(tiny_path, tmp_path / "other.snb", 0, "Tiny")
    with pytest.raises(BundleError, match="holds the model 'Tiny'; the active model is 'tiny'"):
        slots.install(other, ANY)
    assert slots.target(TRIAL) is None
    slots.install(other, ANY, compatible=("Tiny",))
    prove(slots)
    assert slots.models == {"Tiny"}
    with pytest.raises(BundleError, match="holds the model 'tiny'"):
        slots.install(releases[1], ANY)


@pytest.mark.fault(55)
@pytest.mark.parametrize(("name", "former"), FORMER_NAMES.items())
def test_a_shipped_model_follows_itself_under_its_former_name(tmp_path: Path, tiny_path: Path, name: str, former: str) -> None:
    """Serials continue under the new name, and the way back to the former one stays closed."""
    slots = Slots(tmp_path / "root")
    slots.install(release(tiny_path, tmp_path / "old.snb", 10, former), ANY)
    prove(slots)
    with pytest.raises(BundleError, match=f"serial 9 of '{name}' is older than 10"):
        slots.install(release(tiny_path, tmp_path / "replayed.snb", 9, name), ANY)
    slots.install(release(tiny_path, tmp_path / "new.snb", 11, name), ANY)
    prove(slots)
    with pytest.raises(BundleError, match=f"holds the model '{former}'; the active model is '{name}'"):
        slots.install(tmp_path / "old.snb", ANY)
    with pytest.raises(BundleError, match=f"serial 10 of '{name}' is older than 11"):
        slots.install(release(tiny_path, tmp_path / "older.snb", 10, name), ANY)


def test_a_first_bundle_may_have_any_name(tmp_path: Path) -> None:
    made = write_tiny_bundle(tmp_path / "made.snb", tiny_graph())
    assert Slots(tmp_path / "root").install(made.path, ANY).spec.name == "tiny"
