"""The command `accept`: acceptance test of a new device, one verdict per line.

Each check is a plain function of an `AcceptanceRun`; `CHECKS` is their order. A check that is impossible on this computer is
skipped with its reason; a skipped check does not count as passed.
"""

from __future__ import annotations

import html as htmllib
import json as jsonlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from spatialnet_benchmarks.acceptance_checks import CHECKS
from spatialnet_benchmarks.acceptance_run import AcceptanceRun, Outcome, Verdict
from spatialnet_benchmarks.environment import environment, state
from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_edge.cli.json_file import console_beside, json_option, write_json
from spatialnet_edge.core.errors import first_line
from spatialnet_edge.core.output_paths import to_be_written
from spatialnet_training.data.labelled_dataset import open_labelled


@dataclass(frozen=True, slots=True)
class AcceptanceReport:
    """Results of an acceptance run.

    Attributes:
        before, after: temperature, clocks and load at the start and at the end.
    """

    bundle: str
    identity: str
    environment: dict[str, Any]
    before: dict[str, Any]
    after: dict[str, Any]
    verdicts: tuple[Verdict, ...]

    @property
    def accepted(self) -> bool:
        return all(verdict.outcome is not Outcome.FAIL for verdict in self.verdicts)


def accept(
    bundle: Annotated[str, typer.Argument(help="A bundle built on this device.")],
    labelled: Annotated[Path, typer.Option(help="Labelled images: a folder, a zip or a CSV; the first 1,000 are used.")],
    json: Annotated[Path | None, json_option("every figure")] = None,
    html: Annotated[Path | None, typer.Option(help="Write an HTML page to this file.", callback=to_be_written)] = None,
    soak: Annotated[
        float, typer.Option(min=1, help="Duration in seconds of the run that checks for leaks and throttling.")
    ] = 3600.0,
    runs: Annotated[int, typer.Option(min=20, help="Number of inferences per latency measurement.")] = 1000,
    opens: Annotated[int, typer.Option(min=2, help="Number of times the engine is opened and closed.")] = 100,
) -> None:
    """Run the acceptance test of a device and print one verdict per line. Exit status 1 if a check failed."""
    console = console_beside(json)
    opened = open_bundle(bundle)
    run = AcceptanceRun(opened, open_labelled(labelled), soak, runs, opens)
    before, verdicts = state(), []
    for check in CHECKS:
        verdict = judged(check, run)
        verdicts.append(verdict)
        console.print(f"{verdict.outcome.value} {verdict.check}: {verdict.found}", soft_wrap=True)
    report = AcceptanceReport(bundle, opened.sha256, environment(), before, state(), tuple(verdicts))
    write_json(json, asdict(report) | {"accepted": report.accepted})
    if html is not None:
        html.write_text(page(report), encoding="utf-8")
    console.print("accepted" if report.accepted else "not accepted", style="bold")
    if not report.accepted:
        raise typer.Exit(1)


def judged(check: Any, run: AcceptanceRun) -> Verdict:
    """Run a check. An unexpected error counts as a failure, and the other checks still run."""
    try:
        return check(run)
    except Exception as error:
        return Verdict(check.__name__, Outcome.FAIL, f"{type(error).__name__}: {first_line(error)}")


def fact(value: object) -> str:
    """One fact about the device as text; a table as `name value` pairs."""
    return ", ".join(f"{name} {each}" for name, each in value.items()) if isinstance(value, Mapping) else str(value)


def page(report: AcceptanceReport) -> str:
    """The report as one HTML page without scripts."""

    def rows(pairs: Sequence[tuple[str, str, str]]) -> str:
        return "\n".join("<tr>" + "".join(f"<td>{htmllib.escape(cell)}</td>" for cell in row) + "</tr>" for row in pairs)

    verdicts = rows([(each.outcome.value, each.check, each.found) for each in report.verdicts])
    facts = rows([(name, "", fact(value)) for name, value in report.environment.items()])
    figures = htmllib.escape(jsonlib.dumps([asdict(each) for each in report.verdicts], indent=1))
    result = "accepted" if report.accepted else "not accepted"
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Acceptance: {result}</title>
<style>body {{ font: 15px sans-serif; margin: 2em; max-width: 70em }} td {{ padding: .2em .8em; vertical-align: top }}</style>
<h1>{result}</h1>
<p>{htmllib.escape(report.bundle)}, {report.identity}</p>
<table>{verdicts}</table>
<h2>Device</h2>
<table>{facts}</table>
<h2>Figures</h2>
<pre>{figures}</pre>
</html>
"""
