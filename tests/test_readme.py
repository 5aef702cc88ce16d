"""The README's examples run in an empty folder with links to the repository's samples."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PAGES = [
    path.relative_to(ROOT)
    for folder in ("docs", "sdk", "training", "optimize", "firmware_examples", "benchmarks", "samples")
    for path in sorted((ROOT / folder).rglob("*.md"))
] + [Path(name) for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
COMMANDS = re.search(r"## The commands\n\n```console\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def beside_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("samples", "docs", "optimize"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_python_blocks_run_and_print(block: str, beside_the_repository: Path) -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", block], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.timeout(900)
def test_the_commands_run_in_order(beside_the_repository: Path) -> None:
    assert COMMANDS is not None
    for line in COMMANDS.group(1).strip().splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == "spatialnet-edge"
        command = [sys.executable, "-c", "from spatialnet_edge.cli.app import main; main()", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, f"{line}: {done.stderr}"
    written = {path.name for path in beside_the_repository.iterdir()}
    assert {"landuse.snb", "results.jsonl", "annotated.mp4", "metrics.json", "bench.json"} <= written


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_and_pictures_are_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[)#]", (ROOT / page).read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (ROOT / page).parent.joinpath(target).exists(), target
