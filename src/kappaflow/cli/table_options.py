"""Options of `kappaflow fit` that only tables have, and what tables take for those left out."""

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from kappaflow.cli.of_models import PADDING
from kappaflow.cli.whole import Whole

Names = Annotated[list[str] | None, Parameter(consume_multiple=True)]


@dataclass(frozen=True)
class TableOptions:
    """What to make of a table, and the models of tables.

    Parameters
    ----------
    partition
        What each coupling keeps: the first half, the even features, a random half for each
        (random), or a random half for every two, which take turns (random-half, the default; half
        with --mixing, where all couplings keep the same).
    bins
        spline, zuko:nsf: pieces of each curve (8).
    tail_bound
        spline: where curves end and the identity begins, in standard deviations (5).
    linear
        invertible_network: svd (condition numbers stay bounded; the default) or plain.
    condition_number
        invertible_network: the largest condition number of a linear layer (10).
    negative_slope
        invertible_network: slope of the leaky ReLU below zero (0.2).
    smoothing
        invertible_network: rounds the corner of the leaky ReLU (0.3; 0 for the corner itself).
    start
        What is set from the training rows before the first step: whiten, six linear couplings
        that make the rows uncorrelated and learn on; gaussianize, a curve for each column that
        makes it about normal, then whiten; whiten-gaussianize, the curves after whitening;
        identity (the default), nothing.
    components
        Components of the base: 1 (the default) for a standard normal, more for a mixture of
        normal distributions, fitted to the training rows and trained with the flow.
    residual
        Add each hidden layer to the next of equal width.
    dropout
        Share of the hidden units that a training step leaves out (0).
    columns
        Columns to model; all columns of numbers if left out.
    exclude
        Columns to leave out, such as a target.
    context
        Columns that the density is conditioned on.
    where
        Train on the rows that meet a condition, such as: --where class=g
    against
        Score the rows that meet this condition too, and report how well log_prob tells them apart.
    condition_budget
        Keep the 95 % quantile of the condition number on held-out rows within this number: what
        that costs in likelihood is shown by kappaflow tradeoff.
    duplicates
        What to do with rows that repeat earlier ones: keep them, with all copies in one part of
        the split (the default); drop them; or weigh each row by the number of its copies.
    repair
        Go on where the data has no density: drop the rows or columns concerned, or jitter the
        columns. Or dequantize: add uniform noise to rounded columns, exactly as wide as a step
        of their values; each row gets its noise once, by its number and the column.
    jitter
        Columns to add Gaussian noise of 1e-3 of their spread to, such as one that nearly follows
        from others.
    bounds
        Domains of columns, in which all samples then lie, such as: --bounds mass=positive p=0,1
        x=2, angle=circular:0,360 (above 2; a circle of degrees; circular alone is one of radians).
    decimal
        Decimal sign of a text file, such as: --decimal , (recognised if left out; needed where
        1,234 can be 1.234 or 1234).
    missing
        Values that mean a missing one, such as: --missing -999 n.a. (rows with one are left out by
        --repair drop; none says that numbers such as -999 are measurements).
    on_disk
        Train on a table larger than memory: parquet, arrow, npy, csv or tsv, read a piece at a
        time. The rows to train on are in a file in the run folder for as long; 100,000 at most
        validate, and as many test.
    """

    partition: Literal["half", "alternating", "random", "random-half"] | None = None
    bins: Whole | None = None
    tail_bound: float | None = None
    linear: Literal["svd", "plain"] | None = None
    condition_number: float | None = None
    negative_slope: float | None = None
    smoothing: float | None = None
    start: Literal["identity", "whiten", "gaussianize", "whiten-gaussianize"] | None = None
    components: int | None = None
    residual: Annotated[bool | None, Parameter(negative=())] = None
    dropout: float | None = None
    columns: Names = None
    exclude: Names = None
    context: Names = None
    where: Names = None
    against: str | None = None
    condition_budget: float | None = None
    duplicates: Literal["keep", "drop", "weigh"] | None = None
    repair: Literal["drop", "jitter", "dequantize"] | None = None
    jitter: Names = None
    bounds: Names = None
    decimal: Literal[".", ","] | None = None
    missing: Names = None
    on_disk: Annotated[bool | None, Parameter(negative=())] = None


OF_SOURCE = (
    "columns",
    "exclude",
    "context",
    "where",
    "against",
    "duplicates",
    "repair",
    "jitter",
    "bounds",
    "decimal",
    "missing",
    "on_disk",
)
OF_TRAINING = ("condition_budget",)
OF_ANY = ("memory",)  # what may be said and leave the model open
ZUKO = tuple(
    f"zuko:{kind}" for kind in ("maf", "nsf", "naf", "sospf", "bpf", "gf", "cnf", "realnvp")
)
COUPLINGS = (
    *("depth", "hidden", "memory", "partition", "start", "components", "residual", "dropout"),
    *PADDING,
)
OF_MODELS = {
    "real_nvp": (*COUPLINGS, "scale_bound", "mixing", "condition_bound"),
    "nice": COUPLINGS,
    "spline": (*COUPLINGS, "bins", "tail_bound", "mixing", "condition_bound"),
    "planar": ("depth",),
    "radial": ("depth",),
    "invertible_network": (
        "depth",
        "linear",
        "condition_number",
        "negative_slope",
        "smoothing",
    ),
    **dict.fromkeys(ZUKO, ("depth", "hidden")),
    "zuko:nsf": ("depth", "hidden", "bins"),
    "zuko:cnf": ("hidden",),
}
DEFAULTS = {  # of couplings; other models take what their recipes do
    "depth": 16,
    "hidden": (128, 128),
    "partition": "random-half",
    "residual": False,
    "dropout": 0.0,
    "memory": "recompute",
}
DEFAULT = "real_nvp"
LEARNING_RATE = 5e-3  # as of `kappaflow.fit_auto`
