"""Help, tables, hints and completion of the command line."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import pytest
from msgspec.structs import replace
from rich.console import Console
from typer import Option, Typer
from typer.main import get_command
from typer.testing import CliRunner

from spatialnet_edge.bundle.manifest import BuildRecord, CandidateRecord
from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_edge.cli.app import COMMANDS, PANELS, RENAMED, app, with_new_names
from spatialnet_edge.cli.inspect import candidates
from spatialnet_edge.cli.option_groups import grouped
from spatialnet_edge.core import installation
from spatialnet_edge.core.installation import install_command

ROOT = Path(__file__).parents[2]


def shown(*arguments: str, **environment: str) -> str:
    command = [sys.executable, "-c", "from spatialnet_edge.cli.app import main; main()", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "80"} | environment, timeout=120
    )
    return done.stdout


def test_every_command_stands_in_one_panel() -> None:
    listed = [name for commands in PANELS.values() for name in commands]
    assert sorted(listed) == sorted(COMMANDS)


def test_help_shows_the_panels_in_80_columns() -> None:
    text = shown("--help")
    assert [text.index(f"─ {panel} ─") for panel in PANELS] == sorted(text.index(f"─ {panel} ─") for panel in PANELS)
    assert all(f"│ {name} " in text for name in COMMANDS)
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("command", [("targets",), ("doctor",)])
def test_tables_are_legible_in_80_columns(command: tuple[str, ...]) -> None:
    text = shown(*command)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


def parameters(name: str) -> list[Any]:
    command = Typer(add_completion=False)
    command.command()(COMMANDS[name].load())
    return list(get_command(command).params)


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_is_cut_off_in_80_columns(name: str) -> None:
    text = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "80"}).output
    assert max(map(len, text.splitlines())) <= 80
    assert not re.findall(r"\w…", text), "a word is cut off"
    assert "Raises:" not in text
    assert "Args:" not in text
    for option in parameters(name):
        if option.param_type_name == "option":
            assert all(each in text for each in (*option.opts, *option.secondary_opts)), option.opts


def test_an_option_is_a_flag_in_every_command_or_in_none() -> None:
    kinds: dict[str, dict[bool, list[str]]] = {}
    for name in COMMANDS:
        for option in parameters(name):
            if option.param_type_name == "option":
                for spelling in option.opts:
                    kinds.setdefault(spelling, {}).setdefault(option.is_flag, []).append(name)
    assert {spelling: found for spelling, found in kinds.items() if len(found) > 1} == {}
    twice = {spelling for spelling in kinds if f"{spelling}s" in kinds}
    assert twice == set(), "one option in the singular and in the plural"


@pytest.mark.parametrize(
    ("command", "given", "read"),
    [
        ("doctor", ["--json"], ["--json=-"]),
        ("doctor", ["--json", "a.json"], ["--json", "a.json"]),
        ("health", ["--json", "--strict"], ["--json=-", "--strict"]),
        ("status", ["--root", "a", "--json"], ["--root", "a", "--json=-"]),
        ("status", ["--json", "-", "--root", "a"], ["--json", "-", "--root", "a"]),
        ("inspect", ["a.snb", "--json"], ["a.snb", "--json=-"]),
        ("inspect", ["--json", "a.snb"], ["--json=-", "a.snb"]),
        ("inspect", ["--json", "-", "a.snb"], ["--json", "-", "a.snb"]),
        ("inspect", ["--json", "a.json", "a.snb"], ["--json", "a.json", "a.snb"]),
        ("run", ["a.snb", "--json"], ["a.snb", "--json"]),
    ],
)
def test_json_without_a_file_prints_as_before(command: str, given: list[str], read: list[str]) -> None:
    assert with_new_names(command, given) == read


def test_json_goes_to_a_file_or_to_standard_output(tiny_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "new" / "manifest.json"
    beside = CliRunner().invoke(app, ["inspect", str(tiny_path), "--json", str(file)])
    assert "sha256" in beside.stdout
    printed = CliRunner().invoke(app, ["inspect", str(tiny_path), "--json", "-"])
    assert json.loads(printed.stdout) == json.loads(file.read_text())
    costs = CliRunner().invoke(app, ["cost", str(tiny_path), "--target", "orin-nano", "--json", "-"])
    assert all(row["target"].startswith("orin-nano") for row in json.loads(costs.stdout))
    assert "PREDICTED" in costs.stderr


@dataclass(frozen=True)
class Rates:
    low: Annotated[float, Option(min=0)] = 1.0
    high: Annotated[float, Option("--top-rate")] = 2.0


def test_a_group_of_options_arrives_as_one_object() -> None:
    found: list[object] = []

    @grouped(rates="Rates of the test")
    def command(name: str, rates: Rates, loud: bool = False) -> None:
        """A command."""
        found.append((name, rates, loud))

    typer = Typer(add_completion=False)
    typer.command()(command)
    assert CliRunner().invoke(typer, ["a", "--low", "3", "--top-rate", "4", "--loud"]).exit_code == 0
    assert CliRunner().invoke(typer, ["b"]).exit_code == 0
    assert found == [("a", Rates(3.0, 4.0), True), ("b", Rates(), False)]
    assert "─ Rates of the test ─" in CliRunner().invoke(typer, ["--help"]).output
    assert CliRunner().invoke(typer, ["b", "--low", "-1"]).exit_code == 2


@pytest.mark.parametrize(
    ("command", "old", "new"), [(c, old, new) for c, names in RENAMED.items() for old, new in names.items()]
)
def test_an_old_name_of_an_option_still_works_and_is_not_shown(command: str, old: str, new: str) -> None:
    assert with_new_names(command, ["a", old, f"{old}=3"]) == ["a", new, f"{new}=3"]
    text = shown(command, "--help")
    assert new in text
    assert f"{old} " not in text


def test_an_old_name_reaches_the_command(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["targets", "--targets", str(tmp_path / "none.toml")])
    assert "no table of targets" in str(result.exception)
    assert "--targets is now called --targets-file" in result.output


def test_a_shell_completes_commands_and_options() -> None:
    asked = {"_SPATIALNET_EDGE_COMPLETE": "complete_bash"}
    assert shown(COMP_WORDS="spatialnet-edge ro", COMP_CWORD="1", **asked).split() == ["rollback"]
    assert "--targets-file" in shown(COMP_WORDS="spatialnet-edge targets --", COMP_CWORD="2", **asked)


class Distribution:
    def __init__(self, record: str | None) -> None:
        self.record = record

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self.record


@pytest.mark.parametrize(
    ("record", "command"),
    [
        ('{"url": "file:///home/me/my%20clone", "dir_info": {"editable": true}}', "pip install -e '/home/me/my clone[mqtt]'"),
        ('{"url": "file:///home/o%27neil", "dir_info": {"editable": true}}', """pip install -e '/home/o'"'"'neil[mqtt]'"""),
        ('{"url": "file:///home/me/clone", "dir_info": {}}', "pip install '/home/me/clone[mqtt]'"),
        ('{"url": "file:///tmp/spatialnet_edge-1.whl", "archive_info": {}}', "pip install '/tmp/spatialnet_edge-1.whl[mqtt]'"),
        (None, f"pip install -e '{ROOT}[mqtt]'"),
    ],
)
def test_a_hint_names_the_checkout_or_the_wheel(record: str | None, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "distribution", lambda name: Distribution(record))
    assert install_command("mqtt") == command


def test_a_hint_names_the_wheel_as_a_build_calls_it_where_its_origin_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "distribution", lambda name: Distribution(None))
    monkeypatch.setattr(
        installation, "__file__", str(tmp_path / "site-packages" / "spatialnet_edge" / "core" / "installation.py")
    )
    assert install_command("mqtt") == "pip install 'spatialnet_edge-VERSION-py3-none-any.whl[mqtt]'"


def test_shipped_models_have_a_name_of_today_and_of_before() -> None:
    from spatialnet_edge.bundle.reader import ALIASES, BUILTIN, locate

    assert {*ALIASES.values()} < {*BUILTIN}
    for old, new in ALIASES.items():
        assert locate(f"builtin:{old}") == locate(f"builtin:{new}")
    shipped = {path.name for path in (ROOT / "sdk/spatialnet_edge/models").glob("*.snb")}
    assert {*BUILTIN.values()} == shipped


def test_the_candidates_of_a_build_keep_their_names_in_80_columns(tiny_path: Path) -> None:
    name = "int8-qdq-fp16-minmax"
    verdict = "accuracy: land_use_ucmerced loses 1.25 points, 0.5 allowed"
    made = CandidateRecord(name, 4_133_952, {}, 0.25, 0.9987, 3.81, 12.5, False, verdict, stripped_size=1_200_000)
    build = BuildRecord("orin-nano", "AMD EPYC 9R14", {}, 0.5, 240, "", (made,), "the fastest")
    written = StringIO()
    Console(width=80, file=written).print(candidates(replace(open_bundle(tiny_path).manifest, build=build)))
    text = written.getvalue()
    assert name in text
    assert "…" not in text
    assert "1.20 MB without weights" in " ".join(text.split())
