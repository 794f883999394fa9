"""Tables to fit flows to: loading, examining, repairing, splitting, and shipped data sets.

Everything here returns values or raises one sentence; nothing prints, asks, or reads a pickle.
"""

from kappaflow.data.examine import examine
from kappaflow.data.load import load_table
from kappaflow.data.matrix import load_matrix
from kappaflow.data.prepare import prepare
from kappaflow.data.problem import Problem
from kappaflow.data.repair import repair
from kappaflow.data.repeats import atom_rows, drop_duplicate_rows
from kappaflow.data.shipped import DataSet, data_sets, path_of, shipped_names
from kappaflow.data.split import split
from kappaflow.data.table import Table
from kappaflow.data.write import check_writable, write_table

__all__ = [
    "DataSet",
    "Problem",
    "Table",
    "atom_rows",
    "check_writable",
    "data_sets",
    "drop_duplicate_rows",
    "examine",
    "load_matrix",
    "load_table",
    "path_of",
    "prepare",
    "repair",
    "shipped_names",
    "split",
    "write_table",
]
