"""Tables of mixed columns: labels, counts, dates and numbers with gaps, as one density.

kinds          recognize what a column holds
columns        how one column is modeled
encoding       columns as numbers and labels, and back to a frame
labels         the distribution of the labels
curves, heads  normal scores of numbers; distributions of labels and counts
proposals      draws of missing numbers given the rest of a row
noise          random numbers of draws, which follow from the values of a row
rows           rows with gaps, filled again for each batch of a training
match          whether sampled labels match held-out ones
table_model    `TableModel`: densities, samples, completions
saved          all its parts but the flow: made, written and read
prepared       a source, encoded and split
"""

from kappaflow.mixed.encoding import Encoded, Encoding
from kappaflow.mixed.kinds import ColumnKind, detect_kinds
from kappaflow.mixed.prepared import MixedParts, chosen_rows, completed_rows, prepared
from kappaflow.mixed.table_model import Completed, RowScores, TableModel

__all__ = [
    "ColumnKind",
    "Completed",
    "Encoded",
    "Encoding",
    "MixedParts",
    "RowScores",
    "TableModel",
    "chosen_rows",
    "completed_rows",
    "detect_kinds",
    "prepared",
]
