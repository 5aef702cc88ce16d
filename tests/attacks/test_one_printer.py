"""Every command prints through `cli/printer.py`, which escapes control characters and switches off rich's markup."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from spatialnet_edge.cli import doctor as doctor_module
from spatialnet_edge.cli.doctor import Check, doctor

ROOT = Path(__file__).parents[2]
PACKAGES = ("sdk", "training", "optimize", "benchmarks")
PRINTER = ROOT / "sdk/spatialnet_edge/cli/printer.py"
MAKES_A_CONSOLE = {"Console", "get_console"}
PRINTS = {"print", "print_json", "inspect"}
TAKES_A_CONSOLE = {"track", "Progress", "Live", "Status"}
"""Calls of rich that print to a plain console of rich's own where no `console` is passed."""


def plain_consoles(source: str) -> Iterator[int]:
    """Line numbers of what prints to a console that is not a `Printer`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            passed = any(keyword.arg == "console" for keyword in node.keywords)
            if name in MAKES_A_CONSOLE or (name in TAKES_A_CONSOLE and not passed):
                yield node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module == "rich" and {each.name for each in node.names} & PRINTS:
            yield node.lineno


def console_lines(file: Path) -> list[str]:
    return [f"{file.relative_to(ROOT)}:{line}" for line in plain_consoles(file.read_text(encoding="utf-8"))]


def test_every_command_uses_the_common_printer() -> None:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py") if file != PRINTER]
    assert len(files) > 100
    assert [line for file in files for line in console_lines(file)] == []


@pytest.mark.parametrize(
    "source",
    [
        "Console().print(1)",
        "rich.console.Console(stderr=True)",
        "track(x)",
        "Live()",
        "from rich import print",
        "get_console()",
    ],
)
def test_a_plain_console_is_detected(source: str) -> None:
    assert list(plain_consoles(source)) == [1]


def test_a_printer_and_what_is_given_one_are_allowed() -> None:
    assert list(plain_consoles("printer().print(1)\ntrack(x, console=printer())\nConsoleWatcher(console)")) == []


@pytest.mark.fault(64)
def test_doctor_escapes_messages_of_libraries(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "[red]found[/] \x1b]0;PWNED\x07"
    for name in ("opencv", "video_decoding", "gpu", "gstreamer", "shipped_model"):
        monkeypatch.setattr(doctor_module, name, lambda: Check("library x", False, hostile, hostile))
    monkeypatch.setattr(doctor_module, "libraries", list)
    monkeypatch.setattr(doctor_module, "backends", list)
    doctor()
    shown = capsys.readouterr().out
    assert "\x1b]" not in shown
    assert r"[red]found[/] \x1b]0;PWNED\x07" in shown
    assert r"fix: [red]found[/] \x1b]0;PWNED\x07" in shown


def test_targets_escapes_a_users_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from spatialnet_optimize.cli.targets import targets

    file = tmp_path / "targets.toml"
    file.write_text(
        '[mine]\ndescription = "[bold]mine[/] \\u001b[2J"\nprecisions = ["fp32"]\ncompile = "cpu"\n', encoding="utf-8"
    )
    targets(file)
    shown = capsys.readouterr().out
    assert "\x1b[2J" not in shown
    assert r"[bold]mine[/] \x1b[2J" in shown
