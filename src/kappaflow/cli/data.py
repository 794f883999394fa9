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
    print_text("A csv, tsv, parquet, arrow, npy or npz file will do: kappaflow fit FILE")
    print_text("A folder of images will do: kappaflow fit FOLDER --size 32")
