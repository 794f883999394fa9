"""Tables of mixed columns as numbers and labels, and back.

kinds     what each column holds: a number, a label, a date or an identifier
values    the values of a column as texts, numbers and times, and as a column again
encoding  `Encoding`: rows of mixed columns as numbers and codes of labels, and the reverse
"""

from kappaflow.mixed.encoding import ColumnEncoding, Encoded, Encoding
from kappaflow.mixed.kinds import ColumnKind, detect_kinds

__all__ = ["ColumnEncoding", "ColumnKind", "Encoded", "Encoding", "detect_kinds"]
