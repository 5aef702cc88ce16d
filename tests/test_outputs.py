"""Every command checks its output files before the work."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from spatialnet_edge.cli.app import app
from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.output_paths import bundle_to_be_written, to_be_written

COMMANDS = (
    "bench --json OUT.json",
    "bench --html OUT.html",
    "evaluate builtin:student DATA --json OUT.json",
    "build builtin:student -o OUT.snb",
    "build builtin:student -o OUT",
    "build builtin:student --report OUT.html",
    "cost builtin:student --json OUT.json",
    "card builtin:student --data-root DATA -o OUT.md",
    "front DATA/run --data-root DATA -o OUT.png",
    "baseline --data-root DATA --json OUT.json",
    "duplicates --data-root DATA --json OUT.json",
    "soup DATA/a DATA/b --data-root DATA -o OUT",
    "export DATA/run -o OUT.snb",
    "train --data DATA -o OUT",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_refuses_before_its_work(command: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    words = command.replace("OUT", str(tmp_path / "file" / "out")).replace("DATA", str(tmp_path / "nowhere")).split()
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, UsageError), result.output
    assert "cannot be written" in str(result.exception)


def test_what_can_be_written_is_not_touched(tmp_path: Path) -> None:
    assert to_be_written(tmp_path / "new" / "figures.json") == tmp_path / "new" / "figures.json"
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "old.json").write_text("figures")
    to_be_written(tmp_path / "old.json")
    assert (tmp_path / "old.json").read_text() == "figures"
    assert to_be_written(None) is None


def test_a_bundle_is_a_file_or_a_directory(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    for path in (tmp_path / "a.snb", tmp_path / "directory"):
        assert bundle_to_be_written(path) == path
    assert [each.name for each in tmp_path.iterdir()] == ["directory"]
    with pytest.raises(UsageError, match=r"name a file that ends in \.snb"):
        bundle_to_be_written(tmp_path / "model.onnx")
