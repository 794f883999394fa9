"""Tables to fit flows to: loading, examining, repairing, splitting, shipped sets; kinds of data.

Functions return values or raise an error of one sentence. None prints or loads a pickle.
"""

from kappaflow.data.chunks import TableOnDisk
from kappaflow.data.dataset import Dataset, Kind, register_kind
from kappaflow.data.duplicates import drop_duplicate_rows, weigh_duplicate_rows
from kappaflow.data.examine import Problem, examine
from kappaflow.data.load import load_table, table_names
from kappaflow.data.matrix import load_matrix
from kappaflow.data.on_disk import MappedTable
from kappaflow.data.prepare import prepare, repair
from kappaflow.data.rounding import atom_rows, dequantize, resolutions
from kappaflow.data.shipped import (
    DataSet,
    ToySet,
    data_sets,
    path_of,
    shipped_names,
    toy,
    toy_log_prob,
    toy_names,
    toy_sets,
)
from kappaflow.data.split import split
from kappaflow.data.table import Table, weighted
from kappaflow.data.write import check_writable, write_table

__all__ = [
    "DataSet",
    "Dataset",
    "Kind",
    "MappedTable",
    "Problem",
    "Table",
    "TableOnDisk",
    "ToySet",
    "atom_rows",
    "check_writable",
    "data_sets",
    "dequantize",
    "drop_duplicate_rows",
    "examine",
    "load_matrix",
    "load_table",
    "path_of",
    "prepare",
    "register_kind",
    "repair",
    "resolutions",
    "shipped_names",
    "split",
    "table_names",
    "toy",
    "toy_log_prob",
    "toy_names",
    "toy_sets",
    "weigh_duplicate_rows",
    "weighted",
    "write_table",
]
