"""Declares, once, the options of tables: which rows and columns are used, and how they are read.

Runs, estimators and the command line use these declarations. This file does not import torch.
"""

from dataclasses import dataclass
from typing import Literal, TypedDict

from kappaflow.options import Duplicates, Repair, described, documented


@documented
@dataclass(frozen=True, kw_only=True)
class TableOptions:
    r"""Which rows and columns of a table are used, and how."""

    columns: list[str] | None = described(
        "Columns to model, by name. Default: all columns of numbers.", default=None
    )
    exclude: list[str] = described("Columns to leave out, such as a target.", default_factory=list)
    context: list[str] = described(
        "Columns that the density is conditioned on, numbers or texts of 2 to 50 labels.",
        default_factory=list,
    )
    where: list[str] = described(
        "Conditions that the rows to train on have to meet, such as class=g.", default_factory=list
    )
    against: str | None = described(
        "A condition on other rows of the data, which are never trained on: report how well "
        "log_prob separates them.",
        default=None,
    )
    weights: str | None = described(
        "Column with the weight of each row, 0 or more, such as a number of events. It is not "
        "modeled; likelihood, metrics and charts count rows by it.",
        default=None,
    )
    repair: Repair | None = described(
        "Fix data that has no density: drop the rows or columns concerned, jitter the columns, or "
        "dequantize rounded columns. dequantize adds uniform noise exactly as wide as one step of "
        "the values, also to rows to score: the likelihood is then a bound, and samples are "
        "rounded back. Default: dequantize columns of few values; keep adds none.",
        default=None,
    )
    jitter: list[str] | None = described(
        "Columns to add Gaussian noise to, 1e-3 of their spread, such as a column that nearly "
        "follows from others.",
        default=None,
    )
    bounds: list[str] | None = described(
        "Domains of columns, which all samples respect, such as mass=positive p=0,1 x=2, "
        "angle=circular:0,360 (x above 2; angle in degrees; circular alone means radians). "
        "Circles need the model spline.",
        default=None,
    )
    kinds: list[str] | None = described(
        "Model columns of all kinds as one density: auto, or the kinds that are not recognized, "
        "such as region=category visits=integer. Kinds are continuous, positive, circular, "
        "integer, category, boolean, date and identifier. Labels get probabilities, numbers a "
        "density given the labels, and missing values are integrated out, in columns of the "
        "context read as such.",
        default=None,
    )
    on_disk: bool | None = described(
        "Train on a table larger than memory (parquet, arrow, npy, csv or tsv), read in chunks. "
        "The training rows are kept in a file in the run folder until training ends. At most "
        "100,000 rows are for validation, and as many for the test.",
        default=None,
    )
    duplicates: Duplicates = described(
        "Rows that repeat earlier ones: keep them, with all copies in one part of the split, drop "
        "them, or weigh each row by the number of its copies.",
        default="keep",
    )
    decimal: Literal[".", ","] | None = described(
        "Decimal sign of a text file, a point or a comma. Default: detected; needed where 1,234 "
        "can be 1.234 or 1234.",
        default=None,
    )
    missing: list[str] = described(
        "Values that mean a missing one, such as -999 or n.a.; each repair leaves out such rows. "
        "none says that numbers such as -999 are measurements.",
        default_factory=list,
    )
    separator: str | None = described(
        "Sign between the fields of a text file, such as a semicolon or \\t (a tab); a blank "
        "stands for any run of blanks. Default: detected.",
        default=None,
    )
    comment: str | None = described(
        "Sign that starts a comment line at the top of a text file. Default: # or % in .dat, .txt "
        "and .ecsv files; a csv or tsv file has none.",
        default=None,
    )


class TextFormat(TypedDict, total=False):
    """The options of `TableOptions` that say how a text file is written."""

    decimal: Literal[".", ","] | None
    separator: str | None
    comment: str | None
