"""`kappaflow data`."""

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from kappaflow.cli.show import print_json, tell


def data(*, json: Annotated[bool, Parameter(negative=())] = False) -> None:
    """List the data sets that are shipped or come with other packages, and their sources.

    For example:

    kappaflow data

    kappaflow fit digits --out runs/digits

    Parameters
    ----------
    json
        Print the list as JSON.
    """
    from kappaflow.data import data_sets, toy_sets
    from kappaflow.data.dataset import kinds
    from kappaflow.data.shipped import ROWS

    sets, images = data_sets(), [one for kind in kinds() for one in kind.sets()]
    if json:
        tables = [{**asdict(one), "path": str(one.path)} for one in sets]
        drawn = [{"name": one.name, "description": one.description} for one in toy_sets()]
        print_json([*tables, *drawn, *map(asdict, images)])
        return
    for one in sets:
        tell(f"{one.name}: {one.description}")
        tell(f"  {one.rows:,} rows; columns {', '.join(one.columns)}")
        tell(f"  {one.citation}; {one.license}\n")
    for one in toy_sets():
        tell(f"{one.name}: {one.description}")
    tell(f"  {ROWS:,} points each, generated on loading; columns x0, x1\n")
    for one in images:
        tell(f"{one.name}: {one.description}")
        tell(f"  comes with {one.package}; {one.citation}\n")
    tell("A csv, tsv, parquet, arrow, npy or npz file will do: kappaflow fit FILE")
    tell("A folder of images will do: kappaflow fit FOLDER --size 32")
