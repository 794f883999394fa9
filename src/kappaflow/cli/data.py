"""`kappaflow data`."""

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from kappaflow.cli.show import print_json


def data(*, json: Annotated[bool, Parameter(negative=())] = False) -> None:
    """List the data sets that come along, with their sources.

    Parameters
    ----------
    json
        Print the list as JSON.
    """
    from kappaflow.data import data_sets

    sets = data_sets()
    if json:
        print_json([{**asdict(one), "path": str(one.path)} for one in sets])
        return
    for one in sets:
        print(f"{one.name}: {one.description}")
        print(f"  {one.rows:,} rows; columns {', '.join(one.columns)}")
        print(f"  {one.citation}; {one.licence}\n")
    print("A csv, tsv, parquet, arrow, npy or npz file will do: kappaflow fit FILE --out RUN")
