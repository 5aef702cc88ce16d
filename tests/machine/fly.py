"""The service on a virtual machine: systemd as the first process, a kernel camera, and power cuts.

    python tests/machine/fly.py FOLDER        FOLDER as `image.sh` made it; exit status 1 when a check fails

QEMU interprets the machine, or runs it natively with ACCELERATOR=kvm in the environment. Killing QEMU is a power
cut: data that its kernel had not written to disk are lost.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

SYNCED_S = 1.5
"""Seconds after which a record must be on disk: the log is synced every second, and the serial line has a delay."""
PROCESSOR = {"tcg": "Nehalem", "kvm": "host"}
"""The minimum CPU model for NumPy's wheels; QEMU interprets it faster than `max`."""


def machine(folder: Path, arguments: str) -> subprocess.Popen[str]:
    accelerator = os.environ.get("ACCELERATOR", "tcg")
    command = [
        "qemu-system-x86_64", "-m", "2048", "-smp", "2", "-nographic", "-monitor", "none", "-no-reboot", "-nic", "none",
        "-accel", accelerator, "-cpu", PROCESSOR[accelerator],
        "-kernel", str(folder / "vmlinuz"), "-initrd", str(folder / "initrd.img"),
        "-drive", f"file={folder / 'disk.img'},format=raw,if=virtio",
        "-append", f"root=/dev/vda rw console=ttyS0 quiet systemd.show_status=no {arguments}",
    ]  # fmt: skip
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )


def lines(process: subprocess.Popen[str], console: Path) -> Iterator[str]:
    """The guest's reports; its complete output is written to a file."""
    assert process.stdout is not None
    with console.open("a", encoding="utf-8") as file:
        for line in process.stdout:
            file.write(line)
            file.flush()
            _, told, text = line.partition("flight: ")
            if told:
                yield text.strip()


def checks(folder: Path, arguments: str, name: str) -> int:
    """Boot, let the guest run its checks, and print its reports; returns the number of failed checks."""
    process = machine(folder, arguments)
    failed, ended = 0, False
    for line in lines(process, folder / "console.txt"):
        if line == "done":
            ended = True
            continue
        print(f"{name:<22} {line}", flush=True)
        failed += line.startswith("failed")
    process.wait()
    if not ended:
        print(f"{name:<22} failed: the machine ended before its checks did; see {folder / 'console.txt'}")
    return failed + (not ended)


def cut_power(folder: Path, arguments: str, after_s: float) -> list[tuple[float, str]]:
    """Boot, and cut the power a given time after the guest's first report. Returns its reports with their times (seconds
    before the cut)."""
    process = machine(folder, arguments)
    heard: list[tuple[float, str]] = []
    for line in lines(process, folder / "console.txt"):
        heard.append((time.monotonic(), line))
        if time.monotonic() - heard[0][0] > after_s:
            break
    process.kill()
    cut = time.monotonic()
    process.wait()
    return [(cut - when, line) for when, line in heard]


def main(folder: Path) -> int:
    (folder / "console.txt").unlink(missing_ok=True)
    failed = checks(folder, "flight=faults", "faults")
    failed += checks(folder, "flight=whole", "after a shutdown")
    for seconds in (3.0, 7.3):
        heard = cut_power(folder, "flight=record", seconds)
        due = max((int(line.split()[1]) for ago, line in heard if line.startswith("recorded") and ago > SYNCED_S), default=0)
        failed += checks(folder, f"flight=whole at_least={due}", "power cut, recording")
    for _ in range(3):
        heard = cut_power(folder, "flight=update", random.uniform(1, 6))
        failed += checks(folder, "flight=whole", f"power cut, update {len(heard)}")
    print(f"{failed} checks failed" if failed else "everything held")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
