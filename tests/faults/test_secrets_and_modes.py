"""Who may read and write the files: keys, the trust store, and what a service writes."""

import subprocess
from pathlib import Path

import pytest

from service_fixtures import COMMAND, wait_for


@pytest.mark.fault(50)
@pytest.mark.parametrize("umask", [0, 0o077])
def test_files_of_a_service_are_for_its_user_and_group(payload: Path, umask: int) -> None:
    folder = payload.parent
    text = payload.read_text().replace('"null:"', f'"jsonl:{folder}/out.jsonl"')
    payload.write_text(text.replace("[health]", f'[health]\nmetrics = "{folder}/spatialnet.prom"'))
    command = [*COMMAND, "serve", "--config", str(payload)]
    service = subprocess.Popen(command, stderr=subprocess.DEVNULL, umask=umask)
    wait_for(folder / "health.json", lambda found: found.state == "READY" and not found.on_trial)
    service.terminate()
    assert service.wait(10) == 0
    root = folder / "root"
    written = [folder / "health.json", folder / "out.jsonl", root / "state.json"]
    written += [*(folder / "results").glob("*.log"), *(root / "events").glob("*.log")]
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in written} == {path.name: "0o640" for path in written}
    assert len(written) >= 5
    assert (root / "engine.lock").stat().st_mode & 0o137 == 0
    assert (folder / "spatialnet.prom").stat().st_mode & 0o777 == 0o644  # for node_exporter; nothing secret is in it
