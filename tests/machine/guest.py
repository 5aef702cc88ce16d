"""Runs inside the machine: performs the checks of `flight=` on the kernel's command line and reports on the serial line.

ok NAME: FIGURES        failed NAME: WHY        recorded COUNT        installed SERIAL        done
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from spatialnet_edge.bundle.keys import read_private
from spatialnet_edge.bundle.reader import MANIFEST, SIGNATURE, contents, open_bundle
from spatialnet_edge.bundle.signature import sign
from spatialnet_edge.bundle.trust import Trust
from spatialnet_edge.bundle.writer import write_raw
from spatialnet_edge.core.errors import SourceRefused
from spatialnet_edge.core.frames import Frame
from spatialnet_edge.service.health import Health, read_health, verdict
from spatialnet_edge.sinks.journal_reader import read_journal, segments
from spatialnet_edge.sources.registry import open_source

UNIT = "spatialnet-edge"
EDGE = f"/opt/spatialnet-edge/bin/{UNIT}"
HEALTH = Path("/run/spatialnet-edge/health.json")
RESULTS = Path("/var/log/spatialnet-edge/results")
ROOT = Path("/var/lib/spatialnet-edge")
BUNDLE, KEY = Path("/opt/landuse.snb"), Path("/root/keys/operations.key")
CAMERA = Path("/dev/video0")


def tell(text: str) -> None:
    print(f"flight: {text}", flush=True)


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}: {(done.stdout + done.stderr).strip()[-500:]}")
    return done.stdout.strip()


def shown(name: str) -> str:
    return run("systemctl", "show", UNIT, "--value", f"--property={name}")


def wait_for(what: str, happened: Callable[[], bool], seconds: float) -> float:
    """Seconds until something happens."""
    start = time.monotonic()
    while not happened():
        if time.monotonic() - start > seconds:
            last = HEALTH.read_text(encoding="utf-8") if HEALTH.exists() else "no health file"
            raise AssertionError(f"not {what} within {seconds} s; {last[:1500]}")
        time.sleep(0.05)
    return time.monotonic() - start


def health() -> Health | None:
    """The health of the process that systemd started last."""
    if not HEALTH.exists():
        return None
    found = read_health(HEALTH)
    return found if found.pid == int(shown("MainPID")) and verdict(found)[0] else None


def wait_until(state: str, seconds: float) -> float:
    """Seconds until the service reports this state."""
    return wait_for(state, lambda: (found := health()) is not None and found.state == state, seconds)


def start_again() -> None:
    run("systemctl", "start", UNIT)
    wait_until("READY", 60)


def records() -> int:
    return sum(path.read_bytes().count(b"\n") for path in segments(RESULTS)) if RESULTS.is_dir() else 0


def frames_flow() -> str:
    """Results of the camera arrive in the log: some at all, since the machine may be an interpreted one."""
    before = records()
    seconds = wait_for("five more results in the log", lambda: records() >= before + 5, 20)
    return f"{(records() - before) / seconds:.0f} results/s in the log"


def starts() -> str:
    wait_until("READY", 60)
    assert shown("ActiveState") == "active"
    times = [int(shown(name)) for name in ("ExecMainStartTimestampMonotonic", "ActiveEnterTimestampMonotonic")]
    return f"READY {(times[1] - times[0]) / 1e6:.2f} s after systemd started it"


def camera() -> str:
    driver = re.search(r"Driver name\s*: (\S+)", run("v4l2-ctl", "-d", str(CAMERA), "--info"))
    assert driver is not None
    return f"{CAMERA} of the kernel's driver {driver[1]}; {frames_flow()}"


def modes() -> str:
    """A camera by its persistent name, in a supported and in an unsupported mode."""
    run("systemctl", "stop", UNIT)
    try:
        name = min(Path("/dev/v4l/by-path").iterdir())
        source = open_source(f"{name}?size=320x180&fps=30")
        frame = next(iter(source))
        source.close()
        assert isinstance(frame, Frame)
        assert frame.pixels.shape == (180, 320, 3), frame.pixels.shape
        try:
            open_source(f"{name}?size=321x181")
        except SourceRefused as refusal:
            return f"{name.name} gives {frame.pixels.shape}; refused: {refusal}"
        raise AssertionError("a mode that the driver does not have was not refused")
    finally:
        start_again()


def hardening() -> str:
    exposure = re.search(r"exposure level for \S+: ([\d.]+)", run("systemd-analyze", "security", "--no-pager", UNIT))
    assert exposure is not None
    assert float(exposure[1]) <= 2.0
    return f"exposure {exposure[1]} of the running unit"


def restarted(signal: str, within: float) -> str:
    pid, restarts = shown("MainPID"), int(shown("NRestarts"))
    run("kill", f"-{signal}", pid)
    start = time.monotonic()
    wait_for("restarted", lambda: int(shown("NRestarts")) > restarts, within)
    restart = time.monotonic() - start
    wait_until("READY", 60)
    return f"started again after {restart:.1f} s, READY after {time.monotonic() - start:.1f} s; {frames_flow()}"


def killed() -> str:
    return restarted("KILL", 10)


def hung() -> str:
    """SIGSTOP: only systemd's watchdog can detect it."""
    found = restarted("STOP", 30)
    assert "watchdog" in run("journalctl", "--no-pager", "-u", UNIT).lower()
    return found


def capture_process() -> str:
    """The capture process is stopped: the service must replace it without being restarted itself."""
    pid = shown("MainPID")
    (child,) = children(pid)
    run("kill", "-STOP", child)
    back = wait_for("another capture process", lambda: child not in children(pid), 5)
    wait_until("READY", 10)
    assert shown("MainPID") == pid
    return f"replaced after {back:.1f} s; {frames_flow()}"


def children(pid: str) -> list[str]:
    found = subprocess.run(["pgrep", "-P", pid, "-f", "capture_process"], capture_output=True, text=True, check=False)
    return found.stdout.split()


def unplugged() -> str:
    """The driver reports a disconnected device, then the device disappears and comes back."""
    pid = shown("MainPID")
    run("v4l2-ctl", "-d", str(CAMERA), "--set-ctrl", "disconnect=1")
    seen = wait_until("DEGRADED", 5)
    wait_for(
        "let go of", lambda: subprocess.run(["modprobe", "-r", "vivid"], capture_output=True, check=False).returncode == 0, 20
    )
    time.sleep(5)
    run("modprobe", "vivid")
    back = wait_until("READY", 10)
    assert shown("MainPID") == pid
    return f"seen after {seen:.1f} s, READY {back:.1f} s after it was plugged in; {frames_flow()}"


def proved() -> str:
    """After a minute of work the trial is kept. Before that, three starts would have rolled it back if there were another
    bundle."""
    on_trial = health()
    assert on_trial is not None
    assert on_trial.on_trial, "not on trial any more, though killed over and over"
    seconds = wait_for("kept", lambda: (now := health()) is not None and not now.on_trial, 90)
    return f"kept {seconds:.0f} s later"


def refused() -> str:
    """A tampered bundle: exit status 78, and systemd does not restart the service."""
    run("systemctl", "stop", UNIT)
    current = max((ROOT / "current").resolve().rglob("*.onnx"))
    content = current.read_bytes()
    current.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        run("systemctl", "reset-failed", UNIT)
        subprocess.run(["systemctl", "start", UNIT], capture_output=True, check=False)
        time.sleep(5)
        status, state = shown("ExecMainStatus"), shown("ActiveState")
        assert (status, state) == ("78", "failed"), f"exit status {status}, {state}"
    finally:
        current.write_bytes(content)
    run("systemctl", "reset-failed", UNIT)
    start_again()
    return "exit status 78, not started again; flies once it is whole"


def drains() -> str:
    start = time.monotonic()
    run("systemctl", "stop", UNIT)
    assert shown("Result") == "success", shown("Result")
    seconds = time.monotonic() - start
    assert seconds < 5
    start_again()
    return f"stopped in {seconds:.1f} s"


def whole() -> str:
    """After a power cut: synced records are readable, the slots have complete bundles, and the service runs."""
    wait_until("READY", 60)
    readings = list(read_journal(RESULTS))
    kept, damaged = sum(len(r.records) for r in readings), sum(r.damaged for r in readings)
    least = int(told("at_least", "0"))
    assert kept >= least, f"{kept} records, where {least} had been on the disk for more than a second"
    assert damaged <= 1, f"{damaged} damaged records; a cut may tear one"
    slots = msgspec.json.decode(run(EDGE, "status", "--json", "-"))["slots"]
    assert not [row for row in slots if "refused" in row], slots
    flies = health()
    assert flies is not None
    return f"{kept} records ({least} were due), {damaged} torn; serial {flies.serial} flies; {frames_flow()}"


def record() -> None:
    """Report the number of results in the log until the power is cut."""
    wait_until("READY", 60)
    while True:
        tell(f"recorded {records()}")
        time.sleep(0.1)


def update() -> None:
    """Install one release after the other, until the power is cut."""
    opened = open_bundle(BUNDLE, Trust(allow_unsigned=True))
    files, serial = contents(opened), max([opened.manifest.serial, *installed()])
    while True:
        serial += 1
        release = files | {MANIFEST: msgspec.json.encode(msgspec.json.decode(files[MANIFEST]) | {"serial": serial})}
        write_raw(Path("/root/next.snb"), release | {SIGNATURE: sign(release[MANIFEST], read_private(KEY))})
        run("install", "-m", "644", "/root/next.snb", "/opt/next.snb")
        run("runuser", "-u", "spatialnet", "--", EDGE, "install", "/opt/next.snb")
        tell(f"installed {serial}")


def installed() -> list[int]:
    return [row["serial"] for row in msgspec.json.decode(run(EDGE, "status", "--json", "-"))["slots"]]


def told(name: str, default: str = "") -> str:
    found = re.search(rf"\b{name}=(\S+)", Path("/proc/cmdline").read_text(encoding="utf-8"))
    return found[1] if found else default


FAULTS = (starts, camera, modes, hardening, killed, hung, capture_process, unplugged, drains, proved, refused)


def main() -> None:
    if (flight := told("flight")) in ("record", "update"):
        {"record": record, "update": update}[flight]()
    for check in FAULTS if flight == "faults" else (whole,):
        try:
            tell(f"ok {check.__name__}: {check()}")
        except Exception as error:  # the next check may still give information
            tell(f"failed {check.__name__}: {' '.join(str(error).split())}")
    tell("done")
    run("systemctl", "poweroff")


if __name__ == "__main__":
    main()
