"""Options of `kappaflow fit` that only tables or only images have, and which models take them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from kappaflow.cli.whole import Whole, Wholes
from kappaflow.errors import ArgumentError

PADDING = ("padding", "padding_kind", "padding_scale")
Flag = Parameter(negative=())
Names = Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())]

# The order in which `kappaflow fit --help` shows the options.
COMMON = Group("Common options", sort_key=1)
MODEL = Group("Model", sort_key=2)
TRAINING = Group("Training", sort_key=3)
DATA = Group("Data", sort_key=4)
CONDITIONING = Group("Conditioning", sort_key=5)
IMAGES = Group("Images", sort_key=6)
OUTPUT = Group("Output", sort_key=7)


@dataclass(frozen=True)
class TableOptions:
    """How to read a table, and options of models of tables.

    Parameters
    ----------
    partition
        Features that each coupling keeps: the first half (half), the even ones (alternating), a
        random half for each coupling (random), or a random half for each pair of couplings, which
        keep and change it in turn (random-half, the default). With --mixing the default is half.
    bins
        spline, zuko:nsf: number of bins of each spline (8).
    tail_bound
        spline: distance, in standard deviations, beyond which the spline is the identity (5).
    linear
        invertible_network: svd (bounded condition numbers, the default) or plain.
    condition_number
        invertible_network: largest condition number of a linear layer (10).
    negative_slope
        invertible_network: slope of the leaky ReLU below zero (0.2).
    smoothing
        invertible_network: how much the corner of the leaky ReLU is rounded (0.3; 0: not at all).
    start
        What is fitted to the training rows before the first step: identity (nothing, the
        default); whiten (six linear couplings that make the columns uncorrelated and keep
        learning); gaussianize (a curve for each column that makes it about normal, then whiten);
        whiten-gaussianize (whiten, then the curves).
    components
        Components of the base: 1 for a standard normal (the default), more for a mixture of
        normal distributions, fitted to the training rows and trained with the flow.
    residual
        Add each hidden layer to the next layer of the same width.
    dropout
        Share of the hidden units that each training step leaves out (0).
    columns
        Columns to model. Default: all numeric columns.
    exclude
        Columns to leave out, such as a target.
    context
        Columns that the density is conditioned on.
    where
        Train on rows that meet a condition, such as --where class=g.
    against
        Also score the rows that meet this condition, and report how well log_prob separates them.
    condition_budget
        Keep the 95 % quantile of the condition number on held-out rows below this number.
        kappaflow tradeoff shows what that costs in likelihood.
    duplicates
        Rows that repeat earlier ones: keep them, with all copies in one part of the split (the
        default), drop them, or weigh each row by the number of its copies.
    repair
        Fix data that has no density: drop the rows or columns concerned, jitter the columns, or
        dequantize rounded columns. dequantize adds uniform noise exactly as wide as one step of
        the values; the noise of a row follows from its number and the column.
    jitter
        Columns to add Gaussian noise to, 1e-3 of their spread, such as a column that nearly
        follows from others.
    bounds
        Domains of columns, which all samples respect, such as --bounds mass=positive p=0,1 x=2,
        angle=circular:0,360 (x above 2; angle in degrees; circular alone means radians).
    decimal
        Decimal sign of a text file, such as --decimal , for a comma. Default: detected; needed
        where 1,234 can be 1.234 or 1234.
    missing
        Values that mean "missing", such as --missing -999 n.a. Use --repair drop to leave such
        rows out. none says that numbers such as -999 are measurements.
    on_disk
        Train on a table larger than memory (parquet, arrow, npy, csv or tsv), read in chunks. The
        training rows are kept in a file in the run folder until training ends. At most 100,000
        rows are for validation, and as many for the test.
    """

    partition: Literal["half", "alternating", "random", "random-half"] | None = None
    bins: Whole | None = None
    tail_bound: float | None = None
    linear: Literal["svd", "plain"] | None = None
    condition_number: Annotated[float | None, Parameter(group=CONDITIONING)] = None
    negative_slope: float | None = None
    smoothing: float | None = None
    start: Literal["identity", "whiten", "gaussianize", "whiten-gaussianize"] | None = None
    components: int | None = None
    residual: Annotated[bool | None, Parameter(negative=())] = None
    dropout: float | None = None
    columns: Annotated[Names, Parameter(group=COMMON)] = None
    exclude: Annotated[Names, Parameter(group=COMMON)] = None
    context: Annotated[Names, Parameter(group=COMMON)] = None
    where: Annotated[Names, Parameter(group=COMMON)] = None
    against: Annotated[str | None, Parameter(group=DATA)] = None
    condition_budget: Annotated[float | None, Parameter(group=CONDITIONING)] = None
    duplicates: Annotated[Literal["keep", "drop", "weigh"] | None, Parameter(group=DATA)] = None
    repair: Annotated[Literal["drop", "jitter", "dequantize"] | None, Parameter(group=COMMON)] = (
        None
    )
    jitter: Annotated[Names, Parameter(group=DATA)] = None
    bounds: Annotated[Names, Parameter(group=COMMON)] = None
    decimal: Annotated[Literal[".", ","] | None, Parameter(group=DATA)] = None
    missing: Annotated[Names, Parameter(group=DATA)] = None
    on_disk: Annotated[bool | None, Parameter(negative=(), group=DATA)] = None


@dataclass(frozen=True)
class ImageOptions:
    """How to read images, and options of models of images.

    Parameters
    ----------
    size
        Resize all images to this height and width, such as --size 32 or --size 48 32.
    grey
        Convert to one channel; --no-grey converts to three. Default: the channels of the images.
    crop
        Crop images of another aspect ratio to their center before resizing; --no-crop squeezes
        them instead.
    flip
        Mirror training images at random.
    by_class
        Fit a density given the class of an image, which is the name of its folder.
    levels
        glow, real_nvp_image: number of scales (as often as the sides can be halved, at most 3).
    steps
        glow: steps in each level (8).
    coupling
        glow: affine or additive (affine).
    dequantize
        Noise between the values of a pixel: uniform (the default) or variational (learned).
    logit
        Apply a logit to the pixels first, with this margin, such as 0.05.
    patch
        jet: side of a patch (4, or less for small images).
    width
        jet: width of the transformers (64; 32 for images up to 16 x 16).
    """

    size: Wholes | None = None
    grey: bool | None = None
    crop: bool | None = None
    flip: Annotated[bool, Flag] = False
    by_class: Annotated[bool, Flag] = False
    levels: Whole | None = None
    steps: Whole | None = None
    coupling: Literal["affine", "additive"] | None = None
    dequantize: Literal["uniform", "variational"] | None = None
    logit: float | None = None
    patch: Whole | None = None
    width: Whole | None = None


TABLE_DATA = (
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
TABLE_TRAINING = ("condition_budget",)
OF_ANY_MODEL = ("memory",)  # options that leave the choice of the model open
ZUKO = tuple(
    f"zuko:{kind}" for kind in ("maf", "nsf", "naf", "sospf", "bpf", "gf", "cnf", "realnvp")
)
COUPLINGS = (
    *("depth", "hidden", "memory", "partition", "start", "components", "residual", "dropout"),
    *PADDING,
)
TABLE_MODELS = {
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
DEFAULTS = {  # of models of couplings; other models have the defaults of their recipes
    "depth": 16,
    "hidden": (128, 128),
    "partition": "random-half",
    "residual": False,
    "dropout": 0.0,
    "memory": "recompute",
}
DEFAULT_MODEL = "real_nvp"
LEARNING_RATE = 5e-3  # as of `kappaflow.fit_auto`
IMAGE_DATA = ("size", "grey", "crop", "flip", "by_class")
EVERY_MODEL = ("scale_bound", "memory", "dequantize", "logit", *PADDING)
IMAGE_MODELS = {
    "glow": (*EVERY_MODEL, "levels", "steps", "hidden", "mixing", "condition_bound", "coupling"),
    "real_nvp_image": (*EVERY_MODEL, "levels", "hidden"),
    "jet": (*EVERY_MODEL, "patch", "depth", "width"),
}


def given_of(
    model: str, options: Mapping[str, Any], of_models: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Returns the options that were given; an error for an option of other models.

    Args:
        model: The name of the model.
        options: All options by name; None for those left out.
        of_models: The options of each model.

    Returns:
        The given options by name.

    Raises:
        ArgumentError: An option belongs to other models.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in of_models[model]:
            others = [other for other, names in of_models.items() if name in names]
            raise ArgumentError(
                f"'{name}' should be left out for {model}: --{name.replace('_', '-')} is an "
                f"option of {' and '.join(others) or 'other data'}."
            )
    return given
