"""The unit is hardened as documented, and its example configuration is valid."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import ROOT
from spatialnet_edge.service.config import ServiceConfig, load_service_config

FOLDER = ROOT / "firmware_examples" / "systemd"
MOST_EXPOSED = 2.0


def unit() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (FOLDER / "spatialnet-edge.service").read_text(encoding="utf-8").splitlines():
        key, separator, value = line.partition("=")
        if separator and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_the_unit_watches_and_restarts_as_the_program_expects() -> None:
    found = unit()
    assert found["Type"] == ["notify"]
    assert found["WatchdogSec"] == ["15"]
    assert found["Restart"] == ["always"]
    assert found["RestartPreventExitStatus"] == ["78"]
    assert found["StartLimitIntervalSec"] == ["0"]
    assert load_service_config(FOLDER / "payload.toml").health.hang_s < 15


def test_devices_are_named_as_systemd_knows_them() -> None:
    """Patterns are only valid for groups (systemd.resource-control(5)); a pattern of paths would silently allow nothing."""
    allowed = [entry.rpartition(" ") for entry in unit()["DeviceAllow"]]
    assert {rights for _, _, rights in allowed} == {"rw"}
    names = [name for name, _, _ in allowed]
    assert {"/dev/nvmap", "char-nvidia*", "/dev/nvgpu/igpu0/ctrl", "char-video4linux"} <= set(names)
    for name in names:
        assert name.startswith("char-") or (name.startswith("/dev/") and "*" not in name), name


def test_the_unit_is_hardened() -> None:
    analyse = shutil.which("systemd-analyze")
    if analyse is None:
        pytest.skip("systemd is not on this machine")
    command = [analyse, "security", "--offline=true", str(FOLDER / "spatialnet-edge.service")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    exposure = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert exposure is not None, done.stderr
    assert float(exposure[1]) <= MOST_EXPOSED


def test_the_example_has_every_option() -> None:
    text = (FOLDER / "payload.toml").read_text(encoding="utf-8")
    sections = [ServiceConfig, *(type(getattr(ServiceConfig(sources=()), name)) for name in ("engine", "health", "limits"))]
    for section in sections:
        for name in section.__struct_fields__:
            assert re.search(rf"^#? ?\[*{name}\b", text, re.MULTILINE) or name == "device", name


def test_the_example_is_valid(tmp_path: Path) -> None:
    config = load_service_config(FOLDER / "payload.toml")
    assert [source.uri for source in config.sources] == ["0"]
    assert config.sources[0].deadline_ms == 200
