"""Every dependency of the runtime resolves to wheels for a Jetson: aarch64 with Python 3.10 (JetPack 6) and 3.12 (JetPack 7)."""

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

GLIBC = {"3.10": 35, "3.12": 39}
"""Of the Ubuntu release that each JetPack is: 22.04 and 24.04."""


def requirements(python: str) -> list[str]:
    """The runtime's and those of the extra `cuda`, for one Python, with the NumPy that JetPack's libraries need."""
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    every = [Requirement(each) for each in (*project["dependencies"], *project["optional-dependencies"]["cuda"])]
    jetson = [Requirement(each) for each in project["optional-dependencies"]["jetson"]]
    every += [each for each in jetson if each.name != "pycuda"]  # which is compiled on the device
    there = {"python_version": python, "sys_platform": "linux", "platform_machine": "aarch64"}
    return [f"{each.name}{each.specifier}" for each in every if each.marker is None or each.marker.evaluate(there)]


@pytest.mark.parametrize("python", GLIBC)
def test_every_wheel_resolves_for_a_jetson(python: str, tmp_path: Path) -> None:
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in range(17, GLIBC[python] + 1)] + ["manylinux2014_aarch64"]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--only-binary=:all:", "--ignore-installed"]
    command += ["--target", str(tmp_path), "--python-version", python, "--implementation", "cp"]
    command += [word for platform in platforms for word in ("--platform", platform)]
    done = subprocess.run([*command, *requirements(python)], capture_output=True, text=True, timeout=250, check=False)
    offline = ("Temporary failure in name resolution", "Connection refused", "Network is unreachable", "Max retries exceeded")
    if done.returncode and any(words in done.stderr for words in offline):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
