"""Which results are passed on and which heads they keep; rows for spreadsheets."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

import spatialnet_edge
from conftest import lit
from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.frames import Frame, Pose
from spatialnet_edge.sinks.record_codec import pack, unpack

PICTURES = [lit(60), lit(200), lit(1 + 1), lit(210)]


def test_only_results_with_an_answer_pass_and_the_others_are_counted(tiny_path: Path) -> None:
    with spatialnet_edge.load(tiny_path) as model:
        results = model.stream(PICTURES, only=("shade=bright", "bands=red"), show=("level", "shade"))
        found = list(results)
        assert [round(result.level.value) for result in found] == [200, 210]
        assert [*found[0].predictions] == ["level", "shade"]
        assert results.stats.skipped == {"not_selected": 2}
        assert results.stats.in_flight == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"show": ("height",)}, "no head 'height'; this model has shade, bands, level"),
        ({"only": ("shade=grey",)}, "'shade=grey': expected shade=LABEL with LABEL one of dark, bright"),
        ({"only": ("shade",)}, "expected shade=LABEL"),
        ({"only": ("level=3",)}, "one of none"),
    ],
)
def test_heads_and_labels_are_checked_before_the_first_frame(
    tiny_path: Path, options: dict[str, tuple[str, ...]], message: str
) -> None:
    with spatialnet_edge.load(tiny_path) as model, pytest.raises(UsageError, match=message):
        model.stream(PICTURES, **options)  # pyright: ignore[reportArgumentType]


def test_a_csv_file_has_one_header_and_a_row_for_each_frame(tiny_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    frames = [Frame(picture, seq, "a, b.mp4", pose=Pose(43.5, -1.25, 90.0)) for seq, picture in enumerate(PICTURES)]
    with spatialnet_edge.load(tiny_path) as model:
        for _ in range(2):
            assert len(list(model.stream(frames, sinks=[f"csv:{file}"]))) == 4
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert len(rows) == 8
    assert rows[4]["seq"] == "0"
    bright, dark = rows[1], rows[2]
    assert (bright["source"], bright["latitude"], bright["longitude"]) == ("a, b.mp4", "43.5", "-1.25")
    assert (bright["shade"], bright["bands"], float(bright["level"])) == ("bright", "red;green;blue", 200.0)
    assert float(bright["shade_confidence"]) > 0.9
    assert (dark["shade"], dark["bands"], dark["level"], dark["reason"]) == ("", "", "", "dark")


def test_run_shows_the_selected_heads(tiny_path: Path, tmp_path: Path) -> None:
    from PIL import Image

    for index, picture in enumerate(PICTURES):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
    command = [sys.executable, "-m", "spatialnet_edge", "run", str(tiny_path), str(tmp_path), "--heads", "shade"]
    done = subprocess.run(
        [*command, "--only", "shade=bright", "--top", "2", "--sink", "csv:-"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "shade bright 100%, dark 0%" in done.stdout
    assert "skipped: not_selected │ 2" in done.stdout
    assert "seq,source,captured_unix,latitude,longitude,late,reason,shade,shade_confidence" in done.stdout
    nothing = subprocess.run(
        [*command, "--only", "shade=dark", "--only", "bands=red"], capture_output=True, text=True, timeout=60
    )
    assert nothing.returncode == 0, nothing.stderr


def test_a_record_has_the_number_of_the_head_in_the_model(tiny_path: Path) -> None:
    with spatialnet_edge.load(tiny_path) as model:
        found = list(model.stream(PICTURES[1:2], show=("level", "shade")))
    assert found[0].heads == ("shade", "bands", "level")
    assert [answer.head for answer in unpack(pack(found[0])).answers] == [2, 0]


def test_a_csv_file_with_other_columns_gets_a_new_row_of_names(tiny_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    with spatialnet_edge.load(tiny_path) as model:
        for show in (("level",), ("shade",), ("shade",)):
            list(model.stream(PICTURES[1:2], show=show, sinks=[f"csv:{file}"]))
    with file.open(newline="") as opened:
        rows = list(csv.reader(opened))
    assert [len(row) for row in rows] == [8, 8, 9, 9, 9]
    assert [row[-1] for row in rows if row[0] == "seq"] == ["level", "shade_confidence"]
