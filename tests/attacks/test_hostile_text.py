"""Names, labels and paths with control characters or markup are escaped on terminals, in tables and in plots."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from conftest import clip_frames
from spatialnet_edge.bundle.reader import MANIFEST, SIGNATURE, contents, open_bundle
from spatialnet_edge.bundle.slots import Slots
from spatialnet_edge.bundle.trust import Trust
from spatialnet_edge.bundle.writer import write_raw
from spatialnet_edge.cli.app import app
from spatialnet_edge.core.pixels import encode_png
from spatialnet_edge.core.printable import plot_text, printable
from spatialnet_edge.sinks.journal_reader import to_line

ANY = Trust(allow_unsigned=True)
ESCAPE = "\x1b]0;PWNED\x07"


def command(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    line = [sys.executable, "-m", "spatialnet_edge", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, timeout=120, check=False, env=os.environ | {"COLUMNS": "500"})
    assert b"\x1b]0;" not in done.stdout + done.stderr
    assert b"Traceback" not in done.stderr
    return done


def named(source: Path, target: Path, name: str, labels: list[str]) -> Path:
    files = contents(open_bundle(source, ANY))
    manifest = json.loads(files[MANIFEST])
    manifest["spec"]["name"] = name
    manifest["spec"]["tasks"][0]["labels"] = labels
    write_raw(target, files | {MANIFEST: json.dumps(manifest).encode()})
    return target


@pytest.mark.fault(64)
def test_markup_in_names_and_labels_is_shown(tiny_path: Path, tmp_path: Path) -> None:
    path = named(tiny_path, tmp_path / "a.snb", "model [/]x", ["dark[/b]", "bright[red]"])
    runner = CliRunner()
    shown = runner.invoke(app, ["inspect", str(path)])
    assert shown.exit_code == 0
    assert "model [/]x" in shown.output
    assert "bright[red]" in shown.output
    root = tmp_path / "root[/x]"
    installed = runner.invoke(app, ["install", str(path), "--root", str(root), "--allow-unsigned"])
    assert "model [/]x" in installed.output
    assert "root[/x]" in runner.invoke(app, ["status", "--root", str(root)]).output
    assert Slots(root).choose()[1]
    ran = runner.invoke(app, ["run", str(path), "synthetic:frames=5&size=64x48", "--allow-unsigned"])
    assert ran.exit_code == 0
    assert "model [/]x" in ran.output


@pytest.mark.fault(64)
def test_control_characters_of_files_keys_and_zips_are_escaped(tiny_path: Path, tmp_path: Path) -> None:
    folder = tmp_path / f"pix[{ESCAPE}"
    folder.mkdir()
    (folder / "ok.png").write_bytes(encode_png(clip_frames(1)[0]))
    (folder / f"bad[north]{ESCAPE}.jpg").write_bytes(b"\xff\xd8nope")
    ran = command("run", tiny_path, folder, "--allow-unsigned")
    assert ran.returncode == 1  # one of its files could not be decoded
    assert b"[north]" in ran.stdout + ran.stderr
    with zipfile.ZipFile(tmp_path / "zip.snb", "w") as archive:
        archive.writestr(f"../{ESCAPE}x", "x")
    refused = command("verify", tmp_path / "zip.snb", "--allow-unsigned")
    assert refused.returncode == 78
    assert rb"\x1b]0;PWNED\x07" in refused.stderr
    files = contents(open_bundle(tiny_path, ANY))
    signature = {"algorithm": "ed25519", "key": f"{ESCAPE}trusted", "signature": "AA=="}
    write_raw(tmp_path / "key.snb", files | {SIGNATURE: msgspec.json.encode(signature)})
    assert command("verify", tmp_path / "key.snb", "--allow-unsigned").returncode == 78
    shutil.copy(tiny_path, tmp_path / f"{ESCAPE}.snb")
    assert command("inspect", tmp_path / f"{ESCAPE}.snb").returncode == 0


def test_what_is_printable() -> None:
    assert printable("a\x1bb\x9b\u202ec\n") == r"a\x1bb\x9b\u202ec\x0a"
    assert printable("a\nb", keep="\n") == "a\nb"
    assert printable("Straße 東京 ½") == "Straße 東京 ½"
    assert printable("\ud800") == r"\ud800"


@pytest.mark.fault(64)
def test_a_dollar_in_a_label_is_not_mathematics(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from spatialnet_training.plots import Confusion, figure, plot_confusions

    labels = (r"$\frac{1$", "$", "a$b$c")
    plot_confusions(tmp_path / "confusion.png", [Confusion("$title_{$", labels, np.eye(3, dtype=np.int64))])
    assert (tmp_path / "confusion.png").stat().st_size > 1000
    pyplot, made, _ = figure(1, 1, (2, 2))
    for label in labels:
        text = made.text(0, 0, plot_text(label))
        assert text._preprocess_math(text.get_text()) == (label, False)
    pyplot.close(made)


@pytest.mark.fault(64)
def test_a_log_of_another_author_prints_json_without_control_characters(tmp_path: Path) -> None:
    records = [
        b'{"source":"front","note":"caf\xc3\xa9"}',
        b'{"note":"\xc2\x9b31m\xe2\x80\xae\x7f"}',
        b"\x1b]0;PWNED\x07 not JSON",
        b'{"note":"\xff"}',
        b"[" * 100_000,
    ]
    (tmp_path / "000000001.log").write_bytes(b"".join(map(to_line, records)))
    done = command("log", tmp_path)
    assert done.returncode == 0
    first, second = done.stdout.splitlines()
    assert first == records[0]
    assert second == rb'{"note":"\u009b31m\u202e\u007f"}'
    assert json.loads(second) == json.loads(records[1])
    assert b"3 records were skipped: their checksum is right, but they are not JSON" in done.stderr
