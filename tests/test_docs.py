"""The documentation: every Python example runs, every public name is documented."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import spatialnet_edge
from conftest import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))
EXAMPLES = [
    pytest.param(block, id=f"{page.stem}-{index}")
    for page in PAGES
    for index, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
]


@pytest.mark.parametrize("block", EXAMPLES)
def test_an_example_runs_and_prints(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("samples", "docs", "optimize"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    done = subprocess.run([sys.executable, "-W", "error", "-c", block], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_every_public_name_is_in_the_reference() -> None:
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^::: spatialnet_edge\.(\w+)$", page, re.MULTILINE))
    assert documented == set(spatialnet_edge.__all__) - {"__version__"}


def test_the_long_example_calls_documented_functions_as_they_are() -> None:
    """It trains, so it is not run: every call must fit its function, and each function must be in the reference."""
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```py\n(.*?)```", page, re.DOTALL)
    tree = ast.parse(block)
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    functions = {
        each.name: getattr(importlib.import_module(node.module), each.name) for node in imports for each in node.names
    }
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") in functions]
    assert {call.func.id for call in calls} == set(functions) == {"train", "export", "build", "quantise", "evaluate"}
    for call in calls:
        named = {each.arg: ast.literal_eval(each.value) for each in call.keywords}
        inspect.signature(functions[call.func.id]).bind(*map(ast.literal_eval, call.args), **named)
    for name, function in functions.items():
        assert f"::: {function.__module__}.{name}\n" in page


def test_the_readme_is_short() -> None:
    assert (ROOT / "README.md").stat().st_size <= 6000
