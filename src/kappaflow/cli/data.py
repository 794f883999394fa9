"""`kappaflow data`."""

from dataclasses import asdict

from kappaflow.cli.parameters import Json
from kappaflow.cli.show import print_json, print_text


def data(*, json: Json = False) -> None:
    """List the data sets that are shipped or come with other packages, and their sources.

    For example:

    kappaflow data

    kappaflow fit digits --out runs/digits
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
        print_text(f"{one.name}: {one.description}")
        print_text(f"  {one.rows:,} rows; columns {', '.join(one.columns)}")
        print_text(f"  {one.citation}; {one.license}\n")
    for one in toy_sets():
        print_text(f"{one.name}: {one.description}")
    print_text(f"  {ROWS:,} points each, generated on loading; columns x0, x1\n")
    for one in images:
        print_text(f"{one.name}: {one.description}")
        print_text(f"  comes with {one.package}; {one.citation}\n")
    print_text("A csv, tsv, parquet, arrow, npy or npz file will do: kappaflow fit FILE")
    print_text("A folder of images will do: kappaflow fit FOLDER --size 32")
