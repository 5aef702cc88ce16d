"""The table of faults has 44 rows; each is the reason of at least one test."""

import re

from conftest import ROOT

ROWS = 44


def test_every_row_has_a_test() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    tested = {int(number) for number in re.findall(r"@pytest\.mark\.fault\((\d+)\)", text)}
    assert sorted(set(range(1, ROWS + 1)) - tested) == []


def test_the_table_names_every_row() -> None:
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "faults.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [int(row) for row in rows] == list(range(1, ROWS + 1))
