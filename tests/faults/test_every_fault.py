"""The table of faults and the tests agree: every row has a test, and every tested number has a row."""

import re

from conftest import ROOT

FIRST_ROWS = 44
"""Number of the first rows, which have no gaps; later numbers may have gaps."""


def marks_in_code() -> set[int]:
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    return {int(number) for number in re.findall(r"@pytest\.mark\.fault\((\d+)\)", text)}


def numbers_in_table() -> list[int]:
    table = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    return [int(row) for row in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)]


def test_every_row_has_a_test_and_every_tested_number_a_row() -> None:
    assert set(numbers_in_table()) == marks_in_code()


def test_rows_are_in_order_and_none_of_the_first_is_missing() -> None:
    rows = numbers_in_table()
    assert rows == sorted(set(rows))
    assert set(range(1, FIRST_ROWS + 1)) <= set(rows)


def test_every_path_in_the_table_exists() -> None:
    table = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    last_cells = re.findall(r"^\| \d+ \|.*\|([^|]*)\|$", table, re.MULTILINE)
    paths = {path for cell in last_cells for path in re.findall(r"`(.+?)`", cell)}
    assert len(paths) > 30
    assert [path for path in sorted(paths) if not (ROOT / "sdk/spatialnet_edge" / path).exists()] == []
