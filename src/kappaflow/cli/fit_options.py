"""The options of `kappaflow fit` with their help: of models, training, tables and images.

Each dataclass is a group of options; None means not given.
Most options of models and of the training are declared elsewhere: `flags` makes fields of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, make_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from cyclopts import Group, Parameter

from kappaflow.cli.parameters import Flag, Integer, Integers, to_integer
from kappaflow.errors import ArgumentError
from kappaflow.extensions import load_by_name
from kappaflow.options import (
    AffineOptions,
    LinearKind,
    NetworkOptions,
    PaddingKind,
    PartitionName,
    SplineOptions,
    StartOptions,
    TrainingOptions,
    descriptions,
)
from kappaflow.table_options import TableOptions, TextFormat

# The order in which `kappaflow fit --help` shows the options.
COMMON = Group("Common options", sort_key=1)
MODEL = Group("Model", sort_key=2)
TRAINING = Group("Training", sort_key=3)
DATA = Group("Data", sort_key=4)
CONDITIONING = Group("Conditioning", sort_key=5)
IMAGES = Group("Images", sort_key=6)
OUTPUT = Group("Output", sort_key=7)
TEXT = Group("Text files", help="By default as the data of the run.", sort_key=8)

DEFAULT_MODEL = "real_nvp"  # for tables, if options of the model are given without its name
OF_ANY_MODEL = ("memory",)  # options of the model that leave its choice to the model search
OF_TABLES = {"condition_budget"}  # training options that images do not have
OF_IMAGES = load_by_name("image_options")
RENAMED = {"tail_bound": "bound"}  # options whose argument of the recipe has another name
# What the help of an option has before and after the text of its declaration.
NOTES = {
    "activation": ("", " For zuko: its own default."),
    "bins": ("spline, autoregressive, zuko:nsf: ", ""),
    "coupling": ("glow: ", ""),
    "dequantize": ("", " Default: uniform."),
    "memory": ("", " The default for images up to 32 x 32 is store."),
    "mixing": ("", " glow: the form of its 1x1 convolutions (lu)."),
    "tail_bound": ("spline, autoregressive: ", ""),
    "width": ("jet: ", " For images up to 16 x 16: 32."),
}

Fields = list[tuple[str, Any, None]]


def flags(declared: type, groups: Mapping[str, Group]) -> Fields:
    """Returns options for some fields of a dataclass, which has their types, texts and defaults.

    Args:
        declared: The dataclass. The bounds of its types are for others to check.
        groups: The options, each with its group in the help.
    """
    texts, hints = descriptions(declared), get_type_hints(declared)
    defaults = {name: getattr(declared, name, None) for name in hints}
    return [
        (option, _flag(option, hints[name], texts[name], defaults[name], group), None)
        for option, group in groups.items()
        if (name := RENAMED.get(option, option))
    ]


def _flag(option: str, hint: Any, text: str, default: object, group: Group) -> Any:  # noqa: ANN401
    """Returns the type of an option: the first one of its declaration, or None."""
    is_list = any(get_origin(part) is list for part in (hint, *get_args(hint)))
    kind = hint if isinstance(hint, type) or is_list else (get_args(hint) or (hint,))[0]
    kind = hint if isinstance(kind, str) else kind
    before, after = NOTES.get(option, ("", ""))
    text = text.replace("`", "").replace('"', "")
    if not ("Default:" in text or default is None or isinstance(default, bool)):
        text += f" Default: {str(default).removesuffix('.0')}."
    parameter = Parameter(
        group=group,
        negative=(),
        consume_multiple=is_list,
        converter=to_integer if kind is int else None,
        help=before + text + after,
    )
    return Annotated[kind | None, parameter]


def options_class(name: str, fields: Sequence[Fields], base: type = object) -> Any:  # noqa: ANN401
    """Returns a dataclass of options, besides those of a base."""
    every = [field for some in fields for field in some]
    options = make_dataclass(name, every, bases=(base,), eq=False, repr=False)
    options.__module__ = __name__
    return options


TrainingFlags = options_class(
    "TrainingFlags",
    [
        flags(
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
    ],
)


@dataclass(eq=False, repr=False)
class RecipeFlags:
    """Options of models that mean something else for each recipe.

    Parameters
    ----------
    depth
        Number of couplings (16; jet: 16, or 8 for images up to 16 x 16), of autoregressive layers
        (3), of planar or radial maps (8), of linear layers of an invertible_network (4), or of
        transforms of zuko (5 for maf and nsf, 3 for naf, sospf and bpf, 6 for gf, 8 for realnvp).
    hidden
        Widths of the hidden layers of the conditioners, such as --hidden 128 128 (the default).
        For images a single number of channels (64; 32 for images up to 16 x 16).
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
    linear
        invertible_network: svd (bounded condition numbers, the default) or plain.
    condition_number
        invertible_network: largest condition number of a linear layer (10).
    negative_slope
        invertible_network: slope of the leaky ReLU below zero (0.2).
    smoothing
        invertible_network: how much the corner of the leaky ReLU is rounded (0.3; 0: not at all).
    levels
        glow, real_nvp_image: number of scales (as often as the sides can be halved, at most 3).
    steps
        glow: steps in each level (8).
    patch
        jet: side of a patch (4, or less for small images).
    """

    depth: Integer | None = None
    hidden: Integers | None = None
    padding: Integer | None = None
    padding_kind: PaddingKind | None = None
    padding_scale: float | None = None
    partition: PartitionName | None = None
    linear: LinearKind | None = None
    condition_number: Annotated[float | None, Parameter(group=CONDITIONING)] = None
    negative_slope: float | None = None
    smoothing: float | None = None
    levels: Annotated[Integer | None, Parameter(group=IMAGES)] = None
    steps: Annotated[Integer | None, Parameter(group=IMAGES)] = None
    patch: Annotated[Integer | None, Parameter(group=IMAGES)] = None


ModelFlags = options_class(
    "ModelFlags",
    [
        flags(StartOptions, {"start": MODEL, "components": MODEL, "gaussianize_context": MODEL}),
        flags(SplineOptions, {"bins": MODEL, "tail_bound": MODEL, "mixing": MODEL}),
        flags(
            AffineOptions,
            {"scale_bound": CONDITIONING, "condition_bound": CONDITIONING, "memory": TRAINING},
        ),
        flags(NetworkOptions, {"residual": MODEL, "dropout": MODEL, "activation": MODEL}),
        flags(OF_IMAGES.GlowOptions, {"coupling": IMAGES}),
        flags(OF_IMAGES.PixelOptions, {"dequantize": IMAGES, "logit": IMAGES}),
        flags(OF_IMAGES.TransformerOptions, {"width": IMAGES}),
    ],
    RecipeFlags,
)


READ = ("columns", "exclude", "context", "where")
WRITTEN = tuple(get_type_hints(TextFormat))
LoadTable = options_class(
    "LoadTable",
    [
        flags(
            TableOptions,
            dict.fromkeys(READ, COMMON) | dict.fromkeys((*WRITTEN, "missing", "weights"), DATA),
        )
    ],
)
ReadText = options_class("ReadText", [flags(TableOptions, dict.fromkeys(WRITTEN, TEXT))])
ReadTable = options_class(
    "ReadTable",
    [flags(TableOptions, {"repair": COMMON, "bounds": COMMON})],
    LoadTable,
)
FIT = ("against", "duplicates", "jitter", "on_disk")
FitTable = options_class(
    "FitTable",
    [flags(TableOptions, {"kinds": COMMON} | dict.fromkeys(FIT, DATA))],
    ReadTable,
)


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
    skip_unreadable
        Leave out images of the folder that cannot be read, instead of an error.
    flip
        Mirror training images at random.
    by_class
        Fit a density given the class of an image, which is the name of its folder.
    """

    size: Integers | None = None
    gray: bool | None = None
    crop: bool | None = None
    skip_unreadable: Flag | None = None
    flip: Flag | None = None
    by_class: Flag | None = None


def given(options: object) -> dict[str, Any]:
    """Returns the options that were given, by name."""
    return without_none(vars(options))


def without_none(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def model_arguments(model: str, options: object) -> dict[str, Any]:
    """Returns the arguments of a model; an option of other models is an error that names them."""
    from kappaflow.runs.recipes import options_of, recipes

    arguments = {}
    for option, value in given(options).items():
        name = RENAMED.get(option, option)
        arguments[name] = value
        if name not in options_of(model):
            others = [other for other in recipes() if name in options_of(other)]
            raise ArgumentError(
                f"'{option}' should be left out for {model}: --{option.replace('_', '-')} is an "
                f"option of {' and '.join(others)}."
            )
    return arguments
