"""The triage example as its README runs it."""

import json
import subprocess
import sys
from pathlib import Path

from conftest import CLIP, ROOT

PROGRAM = ROOT / "firmware_examples" / "triage" / "triage.py"


def run(output: Path, *options: str) -> str:
    command = [sys.executable, str(PROGRAM), "builtin:student", str(CLIP), str(output), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_every_frame_is_logged_and_the_best_are_kept_within_the_budget(tmp_path: Path) -> None:
    printed = run(
        tmp_path / "pass", "--keep", "forest,shrubland,agriculture,park,water", "--least", "0.3", "--budget-kb", "60"
    )
    records = [json.loads(line) for line in (tmp_path / "pass" / "frames.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [record["seq"] for record in records] == list(range(242))
    kept = sorted((tmp_path / "pass").glob("*.jpg"))
    assert kept
    assert sum(path.stat().st_size for path in kept) <= 60_000
    assert f"kept {len(kept)} frames" in printed
    answers = {record["seq"]: record["predictions"]["land_use"] for record in records}
    assert all(answers[int(path.name[:6])]["confidence"] >= 0.3 for path in kept)


def test_nothing_wanted_keeps_nothing(tmp_path: Path) -> None:
    assert "kept 0 frames, 0 bytes" in run(tmp_path / "pass", "--keep", "port", "--least", "0.99")
    assert not list((tmp_path / "pass").glob("*.jpg"))
