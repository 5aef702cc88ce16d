"""Trusted keys, and updates that are rolled back."""

import errno
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from typer.testing import CliRunner

from conftest import tiny_graph, write_tiny_bundle
from spatialnet_edge.bundle import slot_state, slots
from spatialnet_edge.bundle.keys import read_private, write_key_pair
from spatialnet_edge.bundle.reader import MANIFEST, SIGNATURE, Bundle, contents, open_bundle
from spatialnet_edge.bundle.signature import sign
from spatialnet_edge.bundle.slots import CURRENT, MAX_TRIES, PREVIOUS, TRIAL, Slots
from spatialnet_edge.bundle.trust import STORE_VARIABLE, Trust, open_trust
from spatialnet_edge.bundle.writer import write_bundle, write_raw
from spatialnet_edge.cli.app import app
from spatialnet_edge.core import atomic_io as durable
from spatialnet_edge.core.errors import BundleError, SpatialNetError, UsageError

ANY = Trust(allow_unsigned=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A store with two public keys, their private keys elsewhere, and an untrusted key."""
    folder = tmp_path_factory.mktemp("keys")
    store = folder / "trust"
    store.mkdir()
    for name in ("operations", "spare", "stranger"):
        public, _ = write_key_pair(folder, name)
        if name != "stranger":
            shutil.copy(public, store)
    return SimpleNamespace(store=store, folder=folder)


def signed(source: Path, target: Path, key: Path, serial: int | None = None) -> Bundle:
    files = contents(open_bundle(source, ANY))
    if serial is not None:
        manifest = msgspec.json.decode(files[MANIFEST]) | {"serial": serial}
        files[MANIFEST] = msgspec.json.encode(manifest)
    write_raw(target, files | {SIGNATURE: sign(files[MANIFEST], read_private(key))})
    return open_bundle(target, ANY)


@pytest.mark.parametrize("name", ["operations", "spare"])
def test_either_trusted_key_is_accepted(tiny_path: Path, tmp_path: Path, keys: SimpleNamespace, name: str) -> None:
    path = signed(tiny_path, tmp_path / "signed.snb", keys.folder / f"{name}.key").path
    assert open_bundle(path, open_trust(keys.store)).signature.startswith("signed by ")


@pytest.mark.fault(18)
def test_an_unsigned_bundle_is_refused_unless_allowed(tiny_path: Path, keys: SimpleNamespace) -> None:
    with pytest.raises(BundleError, match=r"not signed.*--allow-unsigned"):
        open_bundle(tiny_path, open_trust(keys.store))
    assert open_bundle(tiny_path, open_trust(keys.store, allow_unsigned=True)).signature == "unsigned"


@pytest.mark.fault(18)
def test_an_unknown_key_is_refused_unless_allowed(tiny_path: Path, tmp_path: Path, keys: SimpleNamespace) -> None:
    path = signed(tiny_path, tmp_path / "signed.snb", keys.folder / "stranger.key").path
    with pytest.raises(BundleError, match="unknown key"):
        open_bundle(path, open_trust(keys.store))
    assert open_bundle(path, open_trust(keys.store, allow_unsigned=True)).signature == "unchecked"


@pytest.mark.fault(18)
@pytest.mark.parametrize("allowed", [False, True])
def test_a_manifest_changed_after_signing_is_always_refused(
    tiny_path: Path, tmp_path: Path, keys: SimpleNamespace, allowed: bool
) -> None:
    files = contents(signed(tiny_path, tmp_path / "signed.snb", keys.folder / "operations.key"))
    files[MANIFEST] = files[MANIFEST].replace(b'"bright"', b'"BRIGHT"')
    write_raw(tmp_path / "changed.snb", files)
    with pytest.raises(BundleError, match="does not match the manifest"):
        open_bundle(tmp_path / "changed.snb", open_trust(keys.store, allow_unsigned=allowed))


@pytest.mark.fault(18)
@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\x80\x04junk", b"x" * 5000, b'{"algorithm":"none","key":"","signature":""}']
)
def test_a_malformed_signature_is_refused(tiny_path: Path, tmp_path: Path, content: bytes) -> None:
    write_raw(tmp_path / "bad.snb", contents(open_bundle(tiny_path, ANY)) | {SIGNATURE: content})
    with pytest.raises(BundleError, match=r"manifest\.sig cannot be read"):
        open_bundle(tmp_path / "bad.snb", ANY)


def test_a_wrong_signature_is_reported_before_the_manifest_is_parsed(
    tiny_path: Path, tmp_path: Path, keys: SimpleNamespace
) -> None:
    files = contents(signed(tiny_path, tmp_path / "signed.snb", keys.folder / "operations.key"))
    write_raw(tmp_path / "bad.snb", files | {MANIFEST: b"not even JSON"})
    with pytest.raises(BundleError, match="does not match the manifest"):
        open_bundle(tmp_path / "bad.snb", open_trust(keys.store))


def test_a_trust_store_makes_every_command_demand_signatures(
    tiny_path: Path, keys: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STORE_VARIABLE, str(keys.store))
    with pytest.raises(BundleError, match="not signed"):
        open_bundle(tiny_path)
    assert open_bundle("builtin:student").signature == "shipped with this version"


def test_a_trust_store_without_keys_or_with_a_private_one_is_refused(tmp_path: Path, keys: SimpleNamespace) -> None:
    with pytest.raises(UsageError, match="no public key"):
        open_trust(tmp_path)
    shutil.copy(keys.folder / "spare.key", tmp_path / "spare.pub")
    with pytest.raises(UsageError, match="private key; it must never be on a payload"):
        open_trust(tmp_path)


def test_keygen_sign_verify_from_the_command_line(tiny_path: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    bundle = Path(shutil.copy(tiny_path, tmp_path / "flight.snb"))
    assert runner.invoke(app, ["keygen", str(tmp_path / "keys")]).exit_code == 0
    assert (tmp_path / "keys" / "operations.key").stat().st_mode & 0o077 == 0
    again = runner.invoke(app, ["keygen", str(tmp_path / "keys")])
    assert isinstance(again.exception, UsageError)
    assert runner.invoke(app, ["sign", str(bundle), "--key", str(tmp_path / "keys" / "spare.key")]).exit_code == 0
    verified = runner.invoke(app, ["verify", str(bundle), "--trust", str(tmp_path / "keys")])
    assert "signed by" in verified.output
    assert isinstance(runner.invoke(app, ["verify", str(tiny_path), "--trust", str(tmp_path / "keys")]).exception, BundleError)


def test_an_encrypted_key_signs_only_with_its_passphrase(tiny_path: Path, tmp_path: Path) -> None:
    public, _ = write_key_pair(tmp_path, "safe", "correct horse")
    bundle = Path(shutil.copy(tiny_path, tmp_path / "flight.snb"))
    arguments = ["sign", str(bundle), "--key", str(public.with_suffix(".key"))]
    assert isinstance(CliRunner().invoke(app, arguments, env={"SPATIALNET_PASSPHRASE": "wrong"}).exception, UsageError)
    assert CliRunner().invoke(app, arguments, env={"SPATIALNET_PASSPHRASE": "correct horse"}).exit_code == 0
    assert open_bundle(bundle, open_trust(tmp_path)).signature.startswith("signed by")


@pytest.fixture
def releases(tmp_path: Path, tiny_path: Path, keys: SimpleNamespace) -> list[Path]:
    """Serials 0, 1 and 2 of one model, signed."""
    return [signed(tiny_path, tmp_path / f"{n}.snb", keys.folder / "operations.key", n).path for n in range(3)]


def prove(root: Slots) -> None:
    root.mark_good(root.choose()[0])


def serial(path: Path) -> int:
    return open_bundle(path, ANY).manifest.serial


@pytest.mark.fault(26)
def test_an_older_serial_than_accepted_is_refused(releases: list[Path], tmp_path: Path, keys: SimpleNamespace) -> None:
    root = Slots(tmp_path / "root")
    root.install(releases[2], open_trust(keys.store))
    assert root.install(releases[1], open_trust(keys.store)).manifest.serial == 1  # 2 was never marked good
    root.install(releases[2], open_trust(keys.store))
    prove(root)
    with pytest.raises(BundleError, match="serial 1 of 'tiny' is older than 2"):
        root.install(releases[1], open_trust(keys.store))
    assert serial(root.root / CURRENT) == 2


def test_a_trial_marked_good_becomes_current(releases: list[Path], tmp_path: Path) -> None:
    root = Slots(tmp_path / "root")
    for release in releases[:2]:
        root.install(release, ANY)
        path, on_trial = root.choose()
        assert on_trial
        assert serial(path) == serial(release)
        root.mark_good(path)
        assert serial(path) == serial(release)  # a service that uses it may have to read it again
    assert (serial(root.root / CURRENT), serial(root.root / PREVIOUS), root.target(TRIAL)) == (1, 0, None)
    assert root.choose() == (root.root / str(root.target(CURRENT)), False)
    assert serial(root.rollback()) == 0
    with pytest.raises(BundleError, match="cannot roll back"):
        root.rollback()


@pytest.mark.fault(37)
def test_a_trial_that_crashes_is_rolled_back(releases: list[Path], tmp_path: Path) -> None:
    """The process crashes each time: only the state on disk counts."""
    root = tmp_path / "root"
    Slots(root).install(releases[0], ANY)
    prove(Slots(root))
    Slots(root).install(releases[1], ANY)
    for _ in range(MAX_TRIES):
        pid = os.fork()
        if pid == 0:
            Slots(root).choose()
            os.kill(os.getpid(), signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    path, on_trial = Slots(root).choose()
    assert not on_trial
    assert serial(path) == 0


def test_the_only_bundle_is_never_rolled_back_after_its_tries(releases: list[Path], tmp_path: Path) -> None:
    """Otherwise the computer would have no bundle."""
    root = Slots(tmp_path / "root")
    root.install(releases[0], ANY)
    for _ in range(MAX_TRIES + 2):
        path, on_trial = root.choose()
        assert on_trial
        assert serial(path) == 0
    assert root.refuges == [path]


def test_a_replaced_trial_cannot_be_marked_good(releases: list[Path], tmp_path: Path) -> None:
    root = Slots(tmp_path / "root")
    root.install(releases[0], ANY)
    prove(root)
    root.install(releases[1], ANY)
    flown, _ = root.choose()
    root.install(releases[2], ANY)
    with pytest.raises(BundleError, match="was installed meanwhile"):
        root.mark_good(flown)
    assert serial(root.root / CURRENT) == 0
    assert serial(root.root / TRIAL) == 2


@pytest.mark.fault(38)
def test_a_trial_whose_try_cannot_be_counted_waits_unless_it_is_the_only_bundle(
    releases: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk, a crashing trial would be retried without limit."""

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    root = Slots(tmp_path / "root")
    root.install(releases[0], ANY)
    with monkeypatch.context() as patch:
        patch.setattr(slot_state, "write_durably", full)
        path, on_trial = root.choose()
    assert (serial(path), on_trial) == (0, True)
    prove(root)
    root.install(releases[1], ANY)
    with monkeypatch.context() as patch:
        patch.setattr(slot_state, "write_durably", full)
        path, on_trial = root.choose()
    assert (serial(path), on_trial) == (0, False)
    path, on_trial = root.choose()
    assert (serial(path), on_trial) == (1, True)


def test_a_try_stopped_on_request_does_not_count(releases: list[Path], tmp_path: Path) -> None:
    root = Slots(tmp_path / "root")
    root.install(releases[0], ANY)
    prove(root)
    root.install(releases[1], ANY)
    for _ in range(MAX_TRIES + 2):
        path, on_trial = root.choose()
        assert on_trial
        assert serial(path) == 1
        root.forgive_try()


@pytest.mark.fault(28)
def test_a_power_cut_at_any_step_of_an_update_leaves_a_usable_bundle(
    releases: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Crash at the n-th change of the disk, for every n, in `install` and `mark_good`; then start again."""

    class PowerCut(BaseException):
        pass

    before = Slots(tmp_path / "before")
    before.install(releases[0], ANY)
    prove(before)
    steps = 0
    while True:
        root = tmp_path / f"cut{steps}"
        shutil.copytree(before.root, root, symlinks=True)
        left = steps

        def cut(function):
            def either(*arguments, **options):
                nonlocal left
                if left == 0:
                    raise PowerCut
                left -= 1
                return function(*arguments, **options)

            return either

        with monkeypatch.context() as patch:
            for name in ("replace", "unlink", "symlink"):
                patch.setattr(os, name, cut(getattr(os, name)))
            for module, name in ((durable, "sync_folder"), (slots, "sync_folder")):
                patch.setattr(module, name, cut(getattr(module, name)))
            try:
                Slots(root).install(releases[1], ANY)
                prove(Slots(root))
                finished = True
            except PowerCut:
                finished = False
        path, _ = Slots(root).choose()
        assert serial(path) in (0, 1)
        Slots(root).install(releases[1], ANY)  # the update can be repeated
        if finished:
            break
        steps += 1
    assert steps > 8
    assert serial(root / CURRENT) == 1


def test_a_damaged_copy_in_the_slots_is_replaced(releases: list[Path], tmp_path: Path) -> None:
    root = Slots(tmp_path / "root")
    kept = root.install(releases[0], ANY)
    (kept.path / "model.onnx").write_bytes(b"damaged")
    assert root.install(releases[0], ANY).read("model.onnx") == tiny_graph()


@pytest.mark.fault(43)
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_slots_that_cannot_be_written_are_reported(releases: list[Path], tmp_path: Path) -> None:
    (tmp_path / "root").mkdir(mode=0o500)
    with pytest.raises(BundleError, match="cannot be written"):
        Slots(tmp_path / "root").install(releases[0], ANY)


def test_status_shows_what_is_installed(releases: list[Path], tmp_path: Path, keys: SimpleNamespace) -> None:
    root = str(tmp_path / "root")
    runner = CliRunner()
    done = runner.invoke(app, ["install", str(releases[1]), "--root", root, "--trust", str(keys.store)])
    assert "on trial" in done.output
    prove(Slots(Path(root)))
    shown = msgspec.json.decode(runner.invoke(app, ["status", "--root", root, "--json", "-"]).output)
    assert shown["accepted"] == {"tiny": 1}
    assert [(row["slot"], row["serial"]) for row in shown["slots"]] == [("current", 1)]
    assert isinstance(runner.invoke(app, ["rollback", "--root", root]).exception, SpatialNetError)


def test_an_unsigned_bundle_can_be_written_with_a_trust_store(
    tmp_path: Path, keys: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STORE_VARIABLE, str(keys.store))
    made = write_tiny_bundle(tmp_path / "made.snb")
    assert write_bundle(tmp_path / "again.snb", made.manifest, {r.path: made.read(r.path) for r in made.manifest.files})
