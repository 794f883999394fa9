"""Tables to fit flows to: loading, examining, repairing, splitting, writing, shipped sets.

Functions return values or raise an error of one sentence. None prints or loads a pickle.

How a source becomes a `Table`, in the order in which a reader meets the files:

load           `load_table`: a path, a name, a data frame or an array becomes a table
files, limits  open a file by its suffix, if it fits in memory
text           split csv and tsv into columns of texts; text_numbers says what numbers they are
memory         columns of arrays, tensors and data frames
raw            `RawTable` and `Column`: what all of these return
columns        choose the columns to model and the rows, with a sentence for what is left out
table, naming  `Table`, and how messages name its rows
shipped, toys  the built-in tables: one in a file, and generated ones
chunks         the same table a chunk at a time, for files larger than memory

What happens to it then:

examine        columns (description), problems, edges; rounding and duplicates find theirs
prepare        repairs them, or refuses the table; domains keeps values in their domains
split          parts that share no row; on_disk writes those to train on to a file
dataset        the protocol of all data, and batches of tables
write          files that appear when they are complete
"""

from kappaflow.data.chunks import TableOnDisk
from kappaflow.data.dataset import Dataset, Kind, register_kind
from kappaflow.data.duplicates import drop_duplicate_rows, weigh_duplicate_rows
from kappaflow.data.examine import ColumnSummary, Examination, examine
from kappaflow.data.load import load_table, table_names
from kappaflow.data.matrix import load_matrix
from kappaflow.data.on_disk import MappedTable
from kappaflow.data.prepare import prepare
from kappaflow.data.problems import Problem
from kappaflow.data.rounding import atom_rows, dequantize, resolutions
from kappaflow.data.shipped import DataSet, data_sets, path_of, shipped_names
from kappaflow.data.split import split
from kappaflow.data.table import Table, weighted
from kappaflow.data.toys import ToySet, toy, toy_log_prob, toy_names, toy_sets
from kappaflow.data.write import check_writable, write_table

__all__ = [
    "ColumnSummary",
    "DataSet",
    "Dataset",
    "Examination",
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
