"""Tables of labelled images: a CSV with a column `path`, optionally `split`, and one column per quantity or class to learn."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Literal

from spatialnet_edge.core.errors import DataRefused, UsageError
from spatialnet_training.data.dataset_options import DatasetOptions
from spatialnet_training.data.file_tree import Unused, rows_of_csv

PATH, SPLIT = "path", "split"

Kind = Literal["words", "binary", "numbers"]

Table = list[dict[str, str]]


def read_table(path: Path) -> Table:
    """Read the rows of a CSV with a column `path`; all files must exist; cells are stripped.

    Raises:
        DataRefused: it cannot be read, has no such column or no rows, or lists a file that does not exist.
    """
    try:
        table = rows_of_csv(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataRefused(f"{path}: cannot be read as a table in UTF-8: {error}") from error
    check_table(path, table)
    return table


def check_table(path: Path, table: Table) -> None:
    """Check that a table lists images.

    Raises:
        DataRefused: it has no column `path` or no rows, or lists a file that does not exist.
    """
    if not table or PATH not in table[0]:
        found = ", ".join(table[0]) if table else "nothing"
        raise DataRefused(f"{path}: has {found}; expected a header with 'path' and at least one column of labels, and rows")
    if missing := [row[PATH] for row in table if not (path.parent / row[PATH]).is_file()]:
        raise DataRefused(f"{path}: lists {len(missing)} files that do not exist, the first {missing[0]}")


def each_path_once(path: Path, table: Table) -> tuple[Table, list[Unused]]:
    """The table without repeated rows, and the repeated rows.

    Raises:
        DataRefused: two rows of one image are different.
    """
    first: dict[str, dict[str, str]] = {}
    repeated: list[Unused] = []
    for row in table:
        before = first.setdefault(row[PATH], row)
        if before is row:
            continue
        if differs := [name for name in row if row[name] != before[name]]:
            name = differs[0]
            raise DataRefused(
                f"{path}: {row[PATH]} is listed twice, with {name} '{before[name]}' and '{row[name]}'; keep the right row"
            )
        repeated.append(Unused(row[PATH], "listed twice; used once"))
    return list(first.values()), repeated


def label_columns(path: Path, table: Table, options: DatasetOptions) -> list[str]:
    """The columns to learn, in their order.

    Raises:
        UsageError: an option names an unknown column.
        DataRefused: two columns would become the same head.
    """
    there = list(table[0])
    asked = (*options.columns, *options.ignore, *options.regression)
    if absent := [name for name in asked if name not in there]:
        raise UsageError(f"{path}: has no column '{absent[0]}'; it has {', '.join(there)}")
    left_out = {PATH, SPLIT, *options.ignore, *([options.group] if options.group in there else [])}
    columns = [name for name in there if name not in left_out and (not options.columns or name in options.columns)]
    heads: dict[str, str] = {}
    for name in columns:
        other = heads.setdefault(head_name(name), name)
        if other != name:
            raise DataRefused(
                f"{path}: the columns '{other}' and '{name}' would both be '{head_name(name)}'; rename one of them"
            )
    return columns


def kind_of(path: Path, name: str, cells: Sequence[str], regression: bool = False) -> Kind:
    """The kind of a column: `words` (also integers, which are used as class numbers), `binary` or `numbers`.

    Args:
        regression: whether its numbers are a quantity.

    Raises:
        DataRefused: the column has only one value, words among numbers, or a different value in nearly every row.
    """
    known = [cell for cell in cells if cell]
    if len(set(known)) < 2:
        raise DataRefused(f"{path}: column '{name}' has the same value everywhere; remove it, or add images with other values")
    numbers = [cell for cell in known if is_number(cell)]
    if numbers and len(numbers) < len(known):
        word = next(cell for cell in known if not is_number(cell))
        raise DataRefused(f"{path}: column '{name}' has numbers and '{word}'; use either numbers or words")
    if regression:
        if not numbers:
            raise DataRefused(f"{path}: column '{name}' has no numbers, so it cannot be used with --regression")
        return "numbers"
    if numbers and {float(cell) for cell in known} == {0.0, 1.0}:
        return "binary"
    if numbers and not all(is_integer(cell) for cell in known):
        return "numbers"
    check_not_an_identifier(path, name, known, bool(numbers))
    return "words"


def check_not_an_identifier(path: Path, name: str, known: Sequence[str], integers: bool) -> None:
    """Refuse a column of names, dates or counts that would become hundreds of classes.

    Raises:
        DataRefused: more than half of the rows have a unique value.
    """
    distinct = len(set(known))
    if distinct > 10 and distinct > len(known) / 2:
        quantity = f", or --regression {name} if it is a quantity" if integers else ""
        raise DataRefused(
            f"{path}: column '{name}' has {distinct} different values in {len(known)} rows, too many for classes; "
            f"exclude it with --ignore {name}{quantity}"
        )


def stratum_column(table: Table, columns: Sequence[str]) -> str | None:
    """The first column with repeated words, used to stratify the hold-out. None if there is none."""
    for name in columns:
        known = [row[name] for row in table if row[name]]
        if 1 < len(set(known)) <= len(known) / 2:
            return name
    return None


def is_number(cell: str) -> bool:
    try:
        return isfinite(float(cell))
    except ValueError:
        return False


def is_integer(cell: str) -> bool:
    return cell.lstrip("+-").isdigit()


def head_name(column: str) -> str:
    """The head name for a column name: lower case, underscores."""
    return "".join(c if c.isalnum() else "_" for c in column.strip().lower())


def cells_by_head(table: Table, columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """Each file's cells by head or label name."""

    def cells(row: Mapping[str, str]) -> dict[str, str]:
        return {head_name(name): row[name] for name in columns}

    return {row[PATH]: cells(row) for row in table}
