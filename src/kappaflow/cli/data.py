"""`kappaflow data`."""

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from kappaflow.cli.show import print_json


def data(*, json: Annotated[bool, Parameter(negative=())] = False) -> None:
    """List the data sets that come along or with other packages, with their sources.

    Parameters
    ----------
    json
        Print the list as JSON.
    """
    from kappaflow.data import data_sets, image_sets, toy_sets
    from kappaflow.data.toys import ROWS

    sets, images = data_sets(), image_sets()
    if json:
        tables = [{**asdict(one), "path": str(one.path)} for one in sets]
        drawn = [{"name": one.name, "description": one.description} for one in toy_sets()]
        print_json([*tables, *drawn, *map(asdict, images)])
        return
    for one in sets:
        print(f"{one.name}: {one.description}")
        print(f"  {one.rows:,} rows; columns {', '.join(one.columns)}")
        print(f"  {one.citation}; {one.licence}\n")
    for one in toy_sets():
        print(f"{one.name}: {one.description}")
    print(f"  {ROWS:,} points each, drawn when they are asked for; columns x0, x1\n")
    for one in images:
        print(f"{one.name}: {one.description}")
        print(f"  comes with {one.package}; {one.citation}\n")
    print("A csv, tsv, parquet, arrow, npy or npz file will do: kappaflow fit FILE --out RUN")
    print("A folder of images will do: kappaflow fit FOLDER --size 32 --out RUN")
