"""The first day with a data-centre GPU: every step once, each in a process of its own with a time limit. See README.md.

python benchmarks/gpu_day/day.py --out results            # on the GPU
python benchmarks/gpu_day/day.py --out results --rehearse # anywhere: the same steps on a stand-in of the driver, without figures
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from steps import PLAN, Day, Outcome, Skipped, gpu_name

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
REHEARSAL = "rehearsal: no GPU"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--rehearse", action="store_true", help="run on a stand-in of the driver; no figure is written")
    parser.add_argument("--data", type=Path, help="labelled images for the training step: a folder, zip or table")
    parser.add_argument("--only", default="", help="run these steps alone, separated by commas")
    parser.add_argument("--step", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    day = Day(given.out.resolve(), given.rehearse, given.data)
    if given.step:
        return run_step(day, given.step)
    name = REHEARSAL if day.rehearsal else gpu_name()
    if not name:
        sys.exit("no NVIDIA GPU here, so nothing is measured; --rehearse runs the plan on a stand-in of the driver")
    wanted = [each for each in given.only.split(",") if each] or list(PLAN)
    with tempfile.TemporaryDirectory() as folder:
        environment = rehearsal_environment(Path(folder)) if day.rehearsal else dict(os.environ)
        records = [supervised(day, step, environment) for step in wanted]
    (day.out / "day.json").write_text(json.dumps({"device": name, "steps": records}, indent=1) + "\n", encoding="utf-8")
    return 0 if all(record["outcome"] != Outcome.FAIL for record in records) else 1


def supervised(day: Day, step: str, environment: dict[str, str]) -> dict[str, Any]:
    """Run a step in a process of its own; ends it at its time limit."""
    limit = PLAN[step].limit_s
    command = [sys.executable, __file__, "--out", str(day.out), "--step", step]
    command += ["--rehearse"] * day.rehearsal + (["--data", str(day.data)] if day.data else [])
    path = day.out / f"{step}.json"
    path.unlink(missing_ok=True)
    started = time.monotonic()
    with (day.out / f"{step}.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if path.exists():
        record = json.loads(path.read_text(encoding="utf-8"))
    else:
        found = f"ended with {process.returncode} after {time.monotonic() - started:.0f} s of {limit:.0f}; see {step}.log"
        record = {"step": step, "outcome": Outcome.FAIL, "found": found, "device": None, "figures": None}
    print(f"{record['outcome']} {step}: {record['found']}", flush=True)
    return record


def run_step(day: Day, step: str) -> int:
    """Run one step here, and write its record: figures only with the name of the GPU that they were measured on."""
    started = time.monotonic()
    figures: dict[str, Any] | None = None
    try:
        found, figures = PLAN[step].run(day)
        outcome = Outcome.PASS
    except Skipped as why:
        outcome, found = Outcome.SKIP, str(why)
    device = REHEARSAL if day.rehearsal else gpu_name()
    record = {
        "step": step,
        "outcome": outcome,
        "found": found,
        "device": device,
        "figures": None if day.rehearsal or not device else figures,
        "seconds": round(time.monotonic() - started, 1),
    }
    (day.out / f"{step}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def rehearsal_environment(folder: Path) -> dict[str, str]:
    """The environment of a step on the stand-in of the driver, which is compiled here, with a TensorRT that is played on it."""
    sys.path.insert(0, str(ROOT / "tests" / "cuda"))
    from standin import build_standin

    if shutil.which("gcc") is None and shutil.which("cc") is None:
        sys.exit("a rehearsal compiles the stand-in of the driver; install a C compiler")
    paths = os.pathsep.join([str(ROOT / "tests" / "cuda" / "played"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"LD_LIBRARY_PATH": str(build_standin(folder)), "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""}


if __name__ == "__main__":
    sys.exit(main())
