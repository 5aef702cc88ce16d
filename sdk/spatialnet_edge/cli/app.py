"""The command `spatialnet-edge`: a table of commands. Each one is imported when it is called.

Other packages add commands under the entry point `spatialnet_edge.commands`.
Exit statuses: 0 done, 1 failed while running, 2 wrong usage, 78 refused (see `errors.py`).
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from spatialnet_edge import __version__
from spatialnet_edge.core.errors import MissingExtra, SpatialNetError
from spatialnet_edge.core.printable import printable


@dataclass(frozen=True, slots=True)
class Row:
    """One command: its module and function, one line of help, and the optional libraries that it needs."""

    target: str
    help: str
    extra: str = ""
    libraries: tuple[str, ...] = ()

    def load(self) -> Callable[..., None]:
        module, function = self.target.split(":")
        try:
            return getattr(import_module(module), function)
        except ModuleNotFoundError as error:
            if error.name in self.libraries:
                raise MissingExtra(error.name, self.extra) from error
            raise


OPTIMIZE = ("onnx", "sklearn", "scipy", "jinja2", "matplotlib")
TRAINING = ("torch", "safetensors", "lightning_fabric", "matplotlib", "onnx", "onnxscript", "sklearn")
COMMANDS: dict[str, Row] = {
    "build": Row(
        "spatialnet_optimize.cli.build:build", "Build the fastest bundle that passes the gates.", "optimize", OPTIMIZE
    ),
    "run": Row("spatialnet_edge.cli.run:run", "Classify every frame of a source."),
    "evaluate": Row("spatialnet_optimize.cli.evaluate:evaluate", "Measure accuracy on labelled images.", "optimize", OPTIMIZE),
    "inspect": Row("spatialnet_edge.cli.inspect:inspect", "Verify a bundle and show its contents."),
    "serve": Row("spatialnet_edge.cli.serve:serve", "Run unattended, as a service."),
    "health": Row("spatialnet_edge.cli.serve:health", "Report whether the service works."),
    "keygen": Row("spatialnet_edge.cli.keys:keygen", "Make key pairs for signing bundles."),
    "sign": Row("spatialnet_edge.cli.keys:sign_command", "Sign a bundle."),
    "verify": Row("spatialnet_edge.cli.keys:verify", "Verify a bundle's signature, file set and hashes."),
    "install": Row("spatialnet_edge.cli.slots:install", "Install a bundle on trial."),
    "rollback": Row("spatialnet_edge.cli.slots:rollback", "Return to the previous bundle."),
    "status": Row("spatialnet_edge.cli.slots:status", "Show which bundles are installed."),
    "revoke": Row("spatialnet_edge.cli.keys:revoke", "Sign a list of revoked keys."),
    "distrust": Row("spatialnet_edge.cli.keys:distrust", "Add a signed list of revoked keys to the trust store."),
    "log": Row("spatialnet_edge.cli.log:log", "Verify a log and print its records."),
    "doctor": Row("spatialnet_edge.cli.doctor:doctor", "Report what works on this computer, and how to fix the rest."),
    "bench": Row("spatialnet_benchmarks.cli:bench", "Measure latency and throughput on this computer."),
    "accept": Row("spatialnet_benchmarks.acceptance:accept", "Run the acceptance test of a new device."),
    "targets": Row("spatialnet_optimize.cli.targets:targets", "List the devices that a bundle can be built for."),
    "cost": Row("spatialnet_optimize.cli.cost:cost", "Predict latency on other devices.", "optimize", OPTIMIZE),
    "train": Row(
        "spatialnet_training.cli.train:train", "Train a network on your images or on data sets.", "training", TRAINING
    ),
    "baseline": Row(
        "spatialnet_training.studies.baseline:baseline",
        "Evaluate traditional features on the same data.",
        "training",
        TRAINING,
    ),
    "duplicates": Row(
        "spatialnet_training.studies.near_duplicates:duplicates", "Count near duplicates between splits.", "training", TRAINING
    ),
    "ablate": Row(
        "spatialnet_training.studies.ablation:ablate",
        "Measure the contribution of each part of a network.",
        "training",
        TRAINING,
    ),
    "modalities": Row(
        "spatialnet_training.studies.missing_bands:modalities", "Evaluate a network with missing bands.", "training", TRAINING
    ),
    "card": Row(
        "spatialnet_optimize.report.model_card:card",
        "Evaluate a model on its data sets and write its card.",
        "training",
        TRAINING,
    ),
    "front": Row(
        "spatialnet_optimize.evaluation.pareto:front",
        "Plot accuracy against latency for several networks.",
        "training",
        TRAINING,
    ),
    "teach-known": Row(
        "spatialnet_training.studies.known:teach_known",
        "Train a network's output 'known', for abstention.",
        "training",
        TRAINING,
    ),
    "recalibrate": Row(
        "spatialnet_training.studies.recalibrate:recalibrate", "Let confidence fall on poor pictures.", "training", TRAINING
    ),
    "soup": Row("spatialnet_training.studies.soup:soup", "Average the weights of two related networks.", "training", TRAINING),
    "reproduce": Row(
        "spatialnet_optimize.cli.reproduce:reproduce", "Make a shipped model again from public weights.", "training", TRAINING
    ),
    "export": Row("spatialnet_optimize.cli.export:export", "Export a checkpoint as a portable bundle.", "training", TRAINING),
}


PANELS: dict[str, tuple[str, ...]] = {
    "Everyday": ("run", "evaluate", "inspect", "bench", "doctor"),
    "Build": ("build", "export", "targets", "cost"),
    "Fly": (
        "accept",
        "serve",
        "health",
        "install",
        "rollback",
        "status",
        "log",
        "keygen",
        "sign",
        "verify",
        "revoke",
        "distrust",
    ),
    "Train": ("train", "teach-known", "recalibrate", "soup", "reproduce"),
    "Study": ("card", "front", "baseline", "duplicates", "ablate", "modalities"),
}
"""The panels of `--help`, in order. Commands of other packages are in the last one."""
ADDED = "Added by other packages"


RENAMED: dict[str, dict[str, str]] = {
    "ablate": {"--seeds": "--repeats", "--out": "--output"},
    "baseline": {"--only": "--data-set"},
    "build": {
        "--targets": "--targets-file",
        "--fresh": "--no-cache",
        "--level": "--optimization-level",
        "--batches": "--batch",
    },
    "cost": {"--targets": "--targets-file"},
    "duplicates": {"--only": "--data-set"},
    "evaluate": {"--head": "--heads"},
    "front": {"--sizes": "--size"},
    "modalities": {"--seeds": "--repeats", "--out": "--output"},
    "reproduce": {"--out": "--output"},
    "run": {"--show": "--heads"},
    "targets": {"--targets": "--targets-file"},
    "train": {"--metres": "--gsd", "--out": "--output"},
}
"""Maps each command to its renamed options (old name to new name). Old names still work and are hidden."""


JSON_WITHOUT_FILE = ("doctor", "health", "inspect", "status")
"""Commands whose `--json` took no file in earlier releases."""


def with_new_names(command: str, arguments: list[str]) -> list[str]:
    """Replace old option names with the current ones. Print a warning to standard error for each."""
    renamed, found = RENAMED.get(command, {}), list[str]()
    for place, argument in enumerate(arguments):
        option, separator, value = argument.partition("=")
        if argument == "--json" and command in JSON_WITHOUT_FILE and not takes_a_file(command, arguments, place):
            typer.echo("--json now takes a file; write '--json -' for standard output", err=True)
            option, separator, value = "--json", "=", "-"
        if option in renamed:
            typer.echo(f"{option} is now called {renamed[option]}; the next release removes the old name", err=True)
            option = renamed[option]
        found.append(option + separator + value)
    return found


def takes_a_file(command: str, arguments: list[str], place: int) -> bool:
    """Whether a file follows `--json` at this place: not the end, another option, or the only bundle of `inspect`."""
    words = [each for each in arguments if each == "-" or not each.startswith("-")]
    if command == "inspect" and len(words) < 2:
        return "-" in words
    return arguments[place + 1 : place + 2] != [] and arguments[place + 1] in words


def panel_of(command: str) -> str:
    return next((panel for panel, commands in PANELS.items() if command in commands), ADDED)


def added_commands() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="spatialnet_edge.commands") if entry.name not in COMMANDS}


class LazyGroup(TyperGroup):
    """Click group that lists the commands of the table and imports only the called one."""

    def list_commands(self, ctx: Any) -> list[str]:
        listed = [name for commands in PANELS.values() for name in commands if name in COMMANDS]
        return [*dict.fromkeys((*listed, *COMMANDS, *added_commands()))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A placeholder with the help line only; `resolve_command` imports the real command."""
        if cmd_name in COMMANDS:
            return TyperCommand(cmd_name, help=COMMANDS[cmd_name].help, rich_help_panel=panel_of(cmd_name))
        if cmd_name in (added := added_commands()):
            return TyperCommand(cmd_name, help=f"From {added[cmd_name].value.partition('.')[0]}.", rich_help_panel=ADDED)
        return None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, stand_in, rest = super().resolve_command(ctx, args)
        if stand_in is None or name is None:
            return name, stand_in, rest
        function = COMMANDS[name].load() if name in COMMANDS else added_commands()[name].load()
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        single.command(name)(function)
        return name, get_command(single), with_new_names(name, rest)


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, pretty_exceptions_enable=False)


def show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=show_version, is_eager=True, help="Print the version."),
) -> None:
    """Run remote-sensing classifiers on drones and satellites."""


def main() -> None:
    """Entry point: converts a `SpatialNetError` into one line on standard error and an exit status."""
    warnings.filterwarnings("ignore", "Image size .* could be decompression bomb")  # Pillow's; such a picture is refused
    try:
        app(prog_name="spatialnet-edge")
    except SpatialNetError as error:
        print(f"spatialnet-edge: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        sys.exit(error.exit_status)
    except BrokenPipeError:  # `… | head`: the reader has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
