"""Expired and revoked keys: no new bundle with them is installed, and an active bundle stays active."""

import os
import shutil
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from typer.testing import CliRunner

from spatialnet_edge.bundle.keys import read_private, read_public, write_key_pair
from spatialnet_edge.bundle.reader import MANIFEST, SIGNATURE, contents, open_bundle
from spatialnet_edge.bundle.revocation import FILE, RevocationList, SignedList, sign_list, stored_list, take_list
from spatialnet_edge.bundle.signature import sign
from spatialnet_edge.bundle.slots import TRIAL, Slots
from spatialnet_edge.bundle.trust import Trust, open_trust
from spatialnet_edge.bundle.writer import write_raw
from spatialnet_edge.cli.app import app
from spatialnet_edge.core.errors import BundleError, UsageError

ANY = Trust(allow_unsigned=True)
YESTERDAY, TOMORROW = date.today() - timedelta(days=2), date.today() + timedelta(days=2)


@pytest.fixture
def keys(tmp_path: Path) -> SimpleNamespace:
    """A store with one daily key, one expired key, and one offline key that may revoke."""
    folder, store = tmp_path / "keys", tmp_path / "trust"
    store.mkdir()
    ids = {}
    for name, expires in (("daily", TOMORROW), ("old", YESTERDAY), ("safe", None)):
        public, ids[name] = write_key_pair(folder, name, expires=expires, may_revoke=name == "safe")
        shutil.copy(public, store)
    return SimpleNamespace(folder=folder, store=store, ids=ids)


def signed(source: Path, target: Path, key: Path, serial: int) -> Path:
    files = contents(open_bundle(source, ANY))
    raw = msgspec.json.encode(msgspec.json.decode(files[MANIFEST]) | {"serial": serial})
    write_raw(target, files | {MANIFEST: raw, SIGNATURE: sign(raw, read_private(key))})
    return target


def revoke(keys: SimpleNamespace, names: list[str], serial: int = 1, by: str = "safe") -> Path:
    found = RevocationList(serial, tuple(keys.ids[name] for name in names))
    path = keys.folder / f"list{serial}.json"
    path.write_bytes(sign_list(found, read_private(keys.folder / f"{by}.key")))
    return path


def trusted(keys: SimpleNamespace) -> dict:
    return dict(open_trust(keys.store).keys)


def test_an_expired_key_installs_nothing_and_what_it_signed_flies_on(
    tiny_path: Path, tmp_path: Path, keys: SimpleNamespace
) -> None:
    path = signed(tiny_path, tmp_path / "old.snb", keys.folder / "old.key", 0)
    trust = open_trust(keys.store)
    with pytest.raises(BundleError, match="which is expired"):
        Slots(tmp_path / "root").install(path, trust)
    assert open_bundle(path, trust).signature == f"signed by {keys.ids['old']}, expired"
    assert not read_public(keys.store / "daily.pub").expired()
    assert read_public(keys.store / "daily.pub").expired(TOMORROW + timedelta(days=1))


def test_a_revoked_key_installs_nothing_and_what_it_signed_flies_on(
    tiny_path: Path, tmp_path: Path, keys: SimpleNamespace
) -> None:
    first, second = (signed(tiny_path, tmp_path / f"{n}.snb", keys.folder / "daily.key", n) for n in range(2))
    slots = Slots(tmp_path / "root")
    slots.install(first, open_trust(keys.store))
    slots.mark_good(slots.choose()[0])
    assert take_list(keys.store, revoke(keys, ["daily"]), trusted(keys)).revoked == (keys.ids["daily"],)
    trust = open_trust(keys.store)
    for allowed in (False, True):
        with pytest.raises(BundleError, match="which is revoked"):
            slots.install(second, open_trust(keys.store, allow_unsigned=allowed))
    path, on_trial = slots.choose()
    assert not on_trial
    assert open_bundle(path, trust).signature.endswith(", revoked")
    slots.install(signed(tiny_path, tmp_path / "safe.snb", keys.folder / "safe.key", 1), trust)
    assert slots.target(TRIAL) is not None


def test_only_a_key_that_may_revoke_signs_a_list(keys: SimpleNamespace) -> None:
    with pytest.raises(BundleError, match="may not revoke keys"):
        take_list(keys.store, revoke(keys, ["safe"], by="daily"), trusted(keys))
    assert not (keys.store / FILE).exists()


def test_a_list_must_be_newer_and_complete(keys: SimpleNamespace) -> None:
    take_list(keys.store, revoke(keys, ["old", "daily"], serial=5), trusted(keys))
    for path in (revoke(keys, ["old", "daily"], serial=4), revoke(keys, ["old"], serial=6)):
        with pytest.raises(BundleError, match="must have a higher serial than 5 and name all keys"):
            take_list(keys.store, path, trusted(keys))
    take_list(keys.store, revoke(keys, ["old", "daily", "safe"], serial=7), trusted(keys))
    with pytest.raises(BundleError, match="was revoked by list 7"):
        take_list(keys.store, revoke(keys, ["old", "daily", "safe"], serial=8), trusted(keys))


def test_every_change_of_a_list_is_detected(tiny_path: Path, tmp_path: Path, keys: SimpleNamespace) -> None:
    """A damaged list blocks installs, because the revoked keys are unknown; an active bundle stays active."""
    path = signed(tiny_path, tmp_path / "a.snb", keys.folder / "daily.key", 0)
    content = revoke(keys, ["old"]).read_bytes()
    refused = 0
    for place in range(0, len(content) - 1, 3):
        damaged = bytearray(content)
        damaged[place] ^= 1
        (keys.store / FILE).write_bytes(damaged)
        try:
            found = stored_list(keys.store, trusted(keys))
        except BundleError:
            refused += 1
        else:  # base64 has bits that mean nothing
            assert found == RevocationList(1, (keys.ids["old"],))
    assert refused > 80
    (keys.store / FILE).write_bytes(content[:-5])
    trust = open_trust(keys.store)
    assert open_bundle(path, trust).signature == f"signed by {keys.ids['daily']}"
    with pytest.raises(BundleError, match="cannot be verified"):
        open_bundle(path, trust.at_install())
    take_list(keys.store, revoke(keys, ["old"]), trusted(keys))
    open_bundle(path, open_trust(keys.store).at_install())


def test_a_list_of_another_kind_is_refused(keys: SimpleNamespace) -> None:
    signature = msgspec.json.decode(sign(b"{}", read_private(keys.folder / "safe.key")))
    for content in (b"", b"[]", b"x" * 100_000, msgspec.json.encode({"list": "e30=", "signature": signature})):
        path = keys.folder / "bad.json"
        path.write_bytes(content)
        with pytest.raises(BundleError):
            take_list(keys.store, path, trusted(keys))
    assert SignedList.__struct_fields__ == ("list", "signature")


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_a_store_writable_by_others_blocks_installs(tiny_path: Path, tmp_path: Path, keys: SimpleNamespace) -> None:
    path = signed(tiny_path, tmp_path / "a.snb", keys.folder / "daily.key", 0)
    for target, mode in ((keys.store, 0o777), (keys.store / "daily.pub", 0o666)):
        before = target.stat().st_mode & 0o777
        target.chmod(mode)
        trust = open_trust(keys.store)
        assert open_bundle(path, trust).signature.startswith("signed by")
        with pytest.raises(BundleError, match=r"other users may change the trusted keys; run: chmod"):
            Slots(tmp_path / "root").install(path, trust)
        target.chmod(before)
    (keys.folder / "daily.key").chmod(0o644)
    with pytest.raises(UsageError, match=r"others may read this private key; run: chmod 600"):
        read_private(keys.folder / "daily.key")


@pytest.mark.parametrize("note", ["expires: never", "may-revoke: perhaps", "colour: blue", "nonsense"])
def test_an_unknown_note_of_a_key_is_refused(keys: SimpleNamespace, note: str) -> None:
    path = keys.store / "daily.pub"
    path.write_text(f"{note}\n{path.read_text()}")
    with pytest.raises(UsageError, match="cannot be read"):
        open_trust(keys.store)


def test_revoke_and_distrust_from_the_command_line(tiny_path: Path, tmp_path: Path) -> None:
    runner, folder, store = CliRunner(), tmp_path / "keys", tmp_path / "trust"
    made = runner.invoke(app, ["keygen", str(folder), "--expires", "2099-12-31"])
    assert made.exit_code == 0
    store.mkdir()
    for path in folder.glob("*.pub"):
        shutil.copy(path, store)
    daily, safe = (read_public(store / f"{name}.pub") for name in ("operations", "spare"))
    assert (daily.expires, daily.may_revoke, safe.expires, safe.may_revoke) == (date(2099, 12, 31), False, None, True)
    bundle = signed(tiny_path, tmp_path / "a.snb", folder / "operations.key", 0)
    assert runner.invoke(app, ["verify", str(bundle), "--trust", str(store)]).exit_code == 0
    listed = str(tmp_path / "list.json")
    done = runner.invoke(app, ["revoke", daily.id, "--key", str(folder / "spare.key"), "--serial", "1", "-o", listed])
    assert done.exit_code == 0, done.exception
    assert runner.invoke(app, ["distrust", listed, "--trust", str(store)]).exit_code == 0
    assert isinstance(runner.invoke(app, ["verify", str(bundle), "--trust", str(store)]).exception, BundleError)
    wrong = runner.invoke(app, ["revoke", "nonsense", "--key", str(folder / "spare.key"), "--serial", "1", "-o", listed])
    assert isinstance(wrong.exception, UsageError)
    assert isinstance(runner.invoke(app, ["keygen", str(folder), "--expires", "soon"]).exception, UsageError)
