"""`kappaflow data`."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from kappaflow.cli.fit_options import COMMON, LoadTable, given
from kappaflow.cli.parameters import Data, Json
from kappaflow.cli.show import print_columns, print_json, print_text
from kappaflow.errors import ArgumentError
from kappaflow.options import option

if TYPE_CHECKING:
    from kappaflow.data import ColumnSummary, Examination


def data(
    file: Data | None = None,
    /,
    *,
    rows: Annotated[LoadTable | None, Parameter(name="*", group=COMMON)] = None,  # pyright: ignore[reportInvalidTypeForm]
    json: Json = False,
) -> None:
    """Show what the columns of a table hold, its problems, and options of a fit that help.

    Without a file, list the data sets that are shipped or come with other packages.

    For example:

    kappaflow data events.csv

    kappaflow data

    Parameters
    ----------
    file
        A table as for kappaflow fit, or the name of a data set.
    """
    from kappaflow.data import examine
    from kappaflow.data.dataset import kind_of

    options = given(rows or LoadTable())
    if file is None:
        for name in options:
            raise ArgumentError(f"'{name}' should be left out without a file to examine.")
        _list_sets(json=json)
        return
    kind = kind_of(file)
    if kind is not None:
        raise ArgumentError(f"'file' should be a table, {file} holds {kind.name}.")
    examination = examine(file, **options)
    if json:
        print_json(examination.to_dict())
        return
    _print(examination)


def _print(examination: "Examination") -> None:
    """Prints columns, problems and suggested options."""
    repeated = examination.repeated_rows
    repeats = f", {repeated:,} repeat earlier ones" if repeated else ""
    print_text(f"{examination.table.source}: {len(examination.table):,} rows{repeats}\n")
    print_columns([
        ("column", "type", "least", "median", "greatest", "spread", "distinct", "missing", "ends"),
        *(tuple(_cells(column)) for column in examination.columns),
    ])
    lines = [f"note: {note}" for note in examination.table.notes]
    lines += [f"{problem.severity}: {problem.message}" for problem in examination]
    print_text("\n" + "\n".join(lines or ["No problem found."]))
    suggested = [option(name, value) for name, value in examination.suggestions.items()]
    if suggested:
        print_text("\nOptions of kappaflow fit that may help:\n  " + "\n  ".join(suggested))


def _cells(column: "ColumnSummary") -> Iterator[str]:
    """Yields what is printed of a column."""
    step = "" if column.step is None or column.kind != "rounded" else f" to {column.step:.6g}"
    role = "" if column.role == "modeled" else f", {column.role}"
    yield column.name
    yield f"{column.kind}{step}{role}"
    for number in (column.least, column.median, column.greatest, column.spread):
        yield "" if number is None else f"{number:.5g}"
    yield f"{column.distinct:,}"
    yield f"{column.missing:,}" if column.missing else ""
    yield column.bounds or ""


def _list_sets(*, json: bool) -> None:
    """Prints the data sets that are shipped or come with other packages."""
    from kappaflow.data import data_sets, toy_sets
    from kappaflow.data.dataset import kinds
    from kappaflow.data.toys import ROWS

    sets, images = data_sets(), [data_set for kind in kinds() for data_set in kind.sets()]
    if json:
        tables = [{**asdict(data_set), "path": str(data_set.path)} for data_set in sets]
        drawn = [
            {"name": data_set.name, "description": data_set.description} for data_set in toy_sets()
        ]
        print_json([*tables, *drawn, *map(asdict, images)])
        return
    for data_set in sets:
        print_text(f"{data_set.name}: {data_set.description}")
        print_text(f"  {data_set.rows:,} rows; columns {', '.join(data_set.columns)}")
        print_text(f"  {data_set.citation}; {data_set.license}\n")
    for data_set in toy_sets():
        print_text(f"{data_set.name}: {data_set.description}")
    print_text(f"  {ROWS:,} points each, generated on loading; columns x0, x1\n")
    for data_set in images:
        print_text(f"{data_set.name}: {data_set.description}")
        print_text(f"  comes with {data_set.package}; {data_set.citation}\n")
    print_text("A csv, txt, parquet, npy, h5, fits or root file will do: kappaflow fit FILE")
    print_text("A folder of images will do: kappaflow fit FOLDER --size 32")
