"""Checks of the Jetson images without a board: every wheel resolves for aarch64 with Python 3.10 (JetPack 6) and 3.12
(JetPack 7), the files that they copy are sent to Docker, and hadolint has nothing to say."""

import re
import shutil
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
IMAGES = {"3.10": ROOT / "deploy/jetson/Dockerfile.jetpack6", "3.12": ROOT / "deploy/jetson/Dockerfile.jetpack7"}


def requirements(python: str) -> list[str]:
    """The requirements of the image's `pip install` line for one Python version."""
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = re.findall(r"'([^']+)'", re.search(r"pip install .*", IMAGES[python].read_text(encoding="utf-8"))[0])
    ours = [each for each in asked if each.startswith("/src")]
    extras = re.search(r"\[(.*)\]", ours[0])[1].split(",")
    every = [*project["dependencies"], *(each for extra in extras for each in project["optional-dependencies"][extra])]
    every += [each for each in asked if each not in ours]
    jetson = [Requirement(each) for each in project["optional-dependencies"]["jetson"] if not each.startswith("pycuda")]
    there = {"python_version": python, "sys_platform": "linux", "platform_machine": "aarch64"}
    found = [each for each in (*map(Requirement, every), *jetson) if each.marker is None or each.marker.evaluate(there)]
    return [f"{each.name}{each.specifier}" for each in found]


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


@pytest.mark.parametrize("image", IMAGES.values(), ids=lambda path: path.name)
def test_the_dockerfiles_are_sound(image: Path) -> None:
    text = image.read_text(encoding="utf-8")
    assert text.count("\nFROM ") == 1
    assert "/opt/spatialnet-edge/bin/spatialnet-edge" in text.partition("ENTRYPOINT")[2]
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, "--no-color", image], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_docker_is_sent_what_the_wheel_is_built_from() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    sent = {line[1:] for line in lines if line.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = {package.partition("/")[0] for package in packages} | {"pyproject.toml", project["project"]["readme"]}
    needed |= {*project["project"]["license-files"]}
    assert needed == sent
    assert all((ROOT / name).exists() for name in sent)
