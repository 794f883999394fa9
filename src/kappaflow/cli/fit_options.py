"""The options of `kappaflow fit`, with their help: of training, models, tables and images.

Each dataclass is a group of options; None means not given. `kappaflow tradeoff` uses some of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, make_dataclass
from typing import Annotated, Any, Literal, get_args, get_type_hints

from cyclopts import Group, Parameter

from kappaflow.cli.whole import Whole, Wholes, to_whole
from kappaflow.errors import ArgumentError
from kappaflow.options import (
    ActivationName,
    CouplingKind,
    Dequantization,
    Duplicates,
    LinearKind,
    Memory,
    Mixing,
    PaddingKind,
    PartitionName,
    Repair,
    StartName,
    TrainingOptions,
)

Flag = Parameter(negative=())
Device = Annotated[
    str | None, Parameter(help="Where to compute: cpu (the default), cuda, or cuda:1.")
]
Names = Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())]

# The order in which `kappaflow fit --help` shows the options.
COMMON = Group("Common options", sort_key=1)
MODEL = Group("Model", sort_key=2)
TRAINING = Group("Training", sort_key=3)
DATA = Group("Data", sort_key=4)
CONDITIONING = Group("Conditioning", sort_key=5)
IMAGES = Group("Images", sort_key=6)
OUTPUT = Group("Output", sort_key=7)

DEFAULT_MODEL = "real_nvp"  # for tables, if options of the model are given without its name
DEFAULT_IMAGE_MODEL = "glow"
OF_ANY_MODEL = ("memory",)  # options of the model that leave its choice to the model search
OF_TABLES = {"condition_budget"}  # training options that images do not have
RENAMED = {"tail_bound": "bound"}  # options whose argument of the recipe has another name


def optional_fields(declared: type, groups: Mapping[str, Group]) -> Any:  # noqa: ANN401
    """Returns a dataclass with some fields of another one as options; None means not given.

    Args:
        declared: The other dataclass, which has the types and the help texts.
        groups: The names of the fields, each with its group in the help.
    """
    hints = get_type_hints(declared)  # without bounds, which `Settings` checks

    def parameter(name: str) -> Parameter:
        whole = int in (hints[name], *get_args(hints[name]))
        return Parameter(group=groups[name], negative=(), converter=to_whole if whole else None)

    fields = [(name, Annotated[hints[name] | None, parameter(name)], None) for name in groups]
    made = make_dataclass("Flags", fields, eq=False, repr=False)
    made.__doc__ = declared.__doc__
    made.__module__, made.__qualname__ = declared.__module__, declared.__qualname__  # its source
    return made


TrainingFlags = optional_fields(
    TrainingOptions,
    {
        "max_epochs": COMMON,
        "max_time_s": COMMON,
        "batch_size": TRAINING,
        "learning_rate": TRAINING,
        "patience": TRAINING,
        "precision": TRAINING,
        "compile": TRAINING,
        "condition_budget": CONDITIONING,
    },
)


@dataclass(eq=False, repr=False)
class ModelFlags:
    """Options of models of tables and of images.

    Parameters
    ----------
    depth
        Number of couplings (16; jet: 16, or 8 for images up to 16 x 16), of planar or radial maps
        (8), of linear layers of an invertible_network (4), or of transforms of zuko (5 for maf
        and nsf, 3 for naf, sospf and bpf, 6 for gf, 8 for realnvp).
    hidden
        Widths of the hidden layers of the conditioners, such as --hidden 128 128 (the default).
        For images a single number of channels (64; 32 for images up to 16 x 16).
    scale_bound
        Bound on the sum of the log-scales over depth.
    mixing
        Form of the 1x1 convolutions of glow (lu), or of linear maps before the couplings of
        real_nvp or spline (none).
    condition_bound
        With --mixing svd: the largest condition number of each of these maps.
    memory
        What is stored for the backward pass: the half that each coupling reads (recompute, the
        default), everything (store, the default for images up to 32 x 32), or the input of every
        32nd coupling, from which the others are recomputed by inversion (invert).
    padding
        Number of features, for images channels, added to the data. The likelihood is then a bound.
    padding_kind
        Distribution of the padding: gaussian, N(0, 1) (the default); uniform on [-1, 1]; zero,
        which leaves no likelihood; copy, a noisy copy of the standardized data; learned, a normal
        distribution given the data.
    padding_scale
        Standard deviation for gaussian (1) and for the noise of copy (0.1; with 0 there is no
        likelihood), half the width for uniform (1).
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
    activation
        Activation of the networks of real_nvp, nice, spline (relu) or zuko. The first two train
        about half as fast with another one than relu.
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

    depth: Whole | None = None
    hidden: Wholes | None = None
    scale_bound: Annotated[float | None, Parameter(group=CONDITIONING)] = None
    mixing: Mixing | None = None
    condition_bound: Annotated[float | None, Parameter(group=CONDITIONING)] = None
    memory: Annotated[Memory | None, Parameter(group=TRAINING)] = None
    padding: Whole | None = None
    padding_kind: PaddingKind | None = None
    padding_scale: float | None = None
    partition: PartitionName | None = None
    bins: Whole | None = None
    tail_bound: float | None = None
    linear: LinearKind | None = None
    condition_number: Annotated[float | None, Parameter(group=CONDITIONING)] = None
    negative_slope: float | None = None
    smoothing: float | None = None
    start: StartName | None = None
    components: Whole | None = None
    residual: Annotated[bool | None, Flag] = None
    dropout: float | None = None
    activation: ActivationName | None = None
    levels: Annotated[Whole | None, Parameter(group=IMAGES)] = None
    steps: Annotated[Whole | None, Parameter(group=IMAGES)] = None
    coupling: Annotated[CouplingKind | None, Parameter(group=IMAGES)] = None
    dequantize: Annotated[Dequantization | None, Parameter(group=IMAGES)] = None
    logit: Annotated[float | None, Parameter(group=IMAGES)] = None
    patch: Annotated[Whole | None, Parameter(group=IMAGES)] = None
    width: Annotated[Whole | None, Parameter(group=IMAGES)] = None


@dataclass(eq=False, repr=False)
class ReadTable:
    """Which rows and columns to read; the same for all commands that train on a table.

    Parameters
    ----------
    columns
        Columns to model. Default: all numeric columns.
    exclude
        Columns to leave out, such as a target.
    context
        Columns that the density is conditioned on.
    where
        Train on rows that meet a condition, such as --where class=g.
    repair
        Fix data that has no density: drop the rows or columns concerned, jitter the columns, or
        dequantize rounded columns. dequantize adds uniform noise exactly as wide as one step of
        the values; the noise of a row follows from its number and the column.
    decimal
        Decimal sign of a text file, such as --decimal , for a comma. Default: detected; needed
        where 1,234 can be 1.234 or 1234.
    missing
        Values that mean "missing", such as --missing -999 n.a. Use --repair drop to leave such
        rows out. none says that numbers such as -999 are measurements.
    """

    columns: Names = None
    exclude: Names = None
    context: Names = None
    where: Names = None
    repair: Repair | None = None
    decimal: Annotated[Literal[".", ","] | None, Parameter(group=DATA)] = None
    missing: Annotated[Names, Parameter(group=DATA)] = None


@dataclass(eq=False, repr=False)
class FitTable(ReadTable):
    """More options of `kappaflow fit` for tables.

    Parameters
    ----------
    bounds
        Domains of columns, which all samples respect, such as --bounds mass=positive p=0,1 x=2,
        angle=circular:0,360 (x above 2; angle in degrees; circular alone means radians). Circles
        need the model spline.
    against
        Also score the rows that meet this condition, and report how well log_prob separates them.
    duplicates
        Rows that repeat earlier ones: keep them, with all copies in one part of the split (the
        default), drop them, or weigh each row by the number of its copies.
    jitter
        Columns to add Gaussian noise to, 1e-3 of their spread, such as a column that nearly
        follows from others.
    on_disk
        Train on a table larger than memory (parquet, arrow, npy, csv or tsv), read in chunks. The
        training rows are kept in a file in the run folder until training ends. At most 100,000
        rows are for validation, and as many for the test.
    """

    bounds: Names = None
    against: Annotated[str | None, Parameter(group=DATA)] = None
    duplicates: Annotated[Duplicates | None, Parameter(group=DATA)] = None
    jitter: Annotated[Names, Parameter(group=DATA)] = None
    on_disk: Annotated[bool | None, Parameter(negative=(), group=DATA)] = None


@dataclass(eq=False, repr=False)
class FitImages:
    """How to read images.

    Parameters
    ----------
    size
        Resize all images to this height and width, such as --size 32 or --size 48 32.
    gray
        Convert to one channel; --no-gray converts to three. Default: the channels of the images.
    crop
        Crop images of another aspect ratio to their center before resizing; --no-crop squeezes
        them instead.
    flip
        Mirror training images at random.
    by_class
        Fit a density given the class of an image, which is the name of its folder.
    """

    size: Wholes | None = None
    gray: bool | None = None
    crop: bool | None = None
    flip: Annotated[bool | None, Flag] = None
    by_class: Annotated[bool | None, Flag] = None


def given(options: object) -> dict[str, Any]:
    """Returns the options that were given, by name."""
    return without_none(vars(options))


def without_none(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def model_arguments(model: str, options: ModelFlags, models: tuple[str, ...]) -> dict[str, Any]:
    """Returns the arguments of a model.

    Args:
        model: The name of the model.
        options: The options on the command line.
        models: The models for this kind of data, which an error names.

    Raises:
        ArgumentError: An option belongs to other models.
    """
    from kappaflow.runs.recipes import options_of

    arguments = {}
    for option, value in given(options).items():
        name = RENAMED.get(option, option)
        arguments[name] = value
        if name not in options_of(model):
            others = [other for other in models if name in options_of(other)]
            raise ArgumentError(
                f"'{option}' should be left out for {model}: --{option.replace('_', '-')} is an "
                f"option of {' and '.join(others)}."
            )
    return arguments
