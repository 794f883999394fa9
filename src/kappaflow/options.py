"""Declares, once, the options of models and of a training, and the values that they accept.

`COMMAND` is the command line that runs, which reports show. `option` writes an option as the user
gives it.

Recipes, estimators, `kappaflow.training.Settings` and the command line use these declarations.
This file does not import torch, so that the help of the command line starts quickly.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypedDict

TableModel = Literal[
    "real_nvp",
    "nice",
    "spline",
    "autoregressive",
    "planar",
    "radial",
    "invertible_network",
    "zuko:maf",
    "zuko:nsf",
    "zuko:naf",
    "zuko:sospf",
    "zuko:bpf",
    "zuko:gf",
    "zuko:cnf",
    "zuko:realnvp",
]
ImageModel = Literal["glow", "real_nvp_image", "jet"]
AnyModel = Literal[TableModel, ImageModel]

# Arguments of recipes, whose docstrings describe the values.
FixedPartition = Literal["half", "alternating"]
PartitionName = Literal[FixedPartition, "random", "random-half"]
StartName = Literal["identity", "whiten", "gaussianize", "whiten-gaussianize"]
Mixing = Literal["lu", "plain", "qr", "svd", "orthogonal"]
ActivationName = Literal[
    "relu",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "mish",
    "softplus",
    "tanh",
    "sigmoid",
]
LayerMemory = Literal["recompute", "store"]
Memory = Literal["recompute", "store", "invert"]
PaddingKind = Literal["gaussian", "uniform", "zero", "copy", "learned"]
LinearKind = Literal["svd", "plain"]
CouplingKind = Literal["affine", "additive"]
Dequantization = Literal["uniform", "variational"]

# What happens to rows that have no density, or that repeat earlier ones.
Repair = Literal["drop", "jitter", "dequantize", "keep"]
Duplicates = Literal["keep", "drop", "weigh"]

# Linear maps as couplings.
FactorMethod = Literal["auto", "rotation", "positive", "svd", "continuation"]

# Exported flows.
ExportFormat = Literal["torch", "onnx"]
ExportFunction = Literal["log_prob", "sample", "encode", "decode"]


# A described name in a docstring, and its text.
_ENTRY = re.compile(r"^ {8}(\w+): ((?:.+\n)(?: {12}.+\n)*)", re.MULTILINE)


def described(cls: type) -> dict[str, str]:
    """Returns the texts of arguments and attributes in the docstring of a class, by name."""
    return dict(_ENTRY.findall(cls.__doc__ or ""))


def write_descriptions(
    cls: type, section: str, names: Sequence[str] | None = None, others: Sequence[type] = ()
) -> None:
    """Writes a section of the docstring of a class, with what its bases and others describe.

    Its own descriptions win over those of its bases, and these over those of others. `names` are
    the names to describe, in their order; all by default.
    """
    texts: dict[str, str] = {}
    for source in (*others, *reversed(cls.__mro__)):
        texts |= described(source)
    heading = f"    {section}:\n"
    start, attributes_title, rest = (cls.__doc__ or "").partition(heading)
    if not attributes_title:
        start, attributes, rest = start.partition("    Attributes:\n")
        rest = f"\n{attributes}{rest}"
    while entry := _ENTRY.match(rest):
        rest = rest[entry.end() :]
    entries = "".join(f"        {name}: {texts[name]}" for name in names or texts)
    cls.__doc__ = f"{start}{heading}{entries}{rest}"


class OptionGroup:
    """Base class of the options that a recipe takes as one argument, an instance or a dict."""

    def __init_subclass__(cls) -> None:
        write_descriptions(cls, "Attributes")


@dataclass(frozen=True)
class StartOptions(OptionGroup):
    """What the first `kappaflow.fit` computes from the training rows.

    Attributes:
        start: What precedes the couplings. identity: nothing. whiten: six linear couplings that
            make the rows uncorrelated; training changes them further. gaussianize: a curve for
            each feature that makes it about normal, then whiten. whiten-gaussianize: the curves
            after whitening.
        components: Number of components of the base: 1 for a standard normal; more for a
            `NormalMixture`, which is fitted to the latents and trained with the flow.
        gaussianize_context: Conditioners read each number of the context twice, standardized and
            made about normal by a curve. What is nearly linear in either is then easy to learn.
    """

    start: StartName = "identity"
    components: int = 1
    gaussianize_context: bool = False


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(OptionGroup):
    """The conditioners, and the network before them.

    Attributes:
        activation: Activation of the conditioners, such as "silu" or `torch.nn.SiLU()`; see `MLP`.
            real_nvp and nice train about half as fast with another one than relu, in a `Chain` in
            place of a `CouplingStack`.
        residual: Add skip connections between hidden layers of equal width.
        dropout: Share of the conditioners' hidden units that a training step drops.
        embedding: A network that embeds the context first, from (B, context_features) to rows of
            any width; None for none. To save the flow, register the class of the network, as for
            `MLP`.
    """

    activation: ActivationName | Any = "relu"
    residual: bool = False
    dropout: float = 0.0
    embedding: Any = None


@dataclass(frozen=True, kw_only=True)
class CouplingOptions(OptionGroup):
    """The couplings of `nice`.

    Attributes:
        memory: What is stored for the backward pass. recompute: the half that each coupling reads.
            store: everything. invert: the input of every 32nd coupling, from which the others are
            recovered by inversion. See `CouplingStack` and `Chain`.
        seed: Seed of the random partitions and of the initial rotations of linear maps.
    """

    memory: Memory = "recompute"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class MixingOptions(CouplingOptions):
    """Couplings, and learned linear maps before them.

    Attributes:
        mixing: Form of a learned linear map with a shift before each coupling, lu, plain, qr, svd
            or orthogonal, as in `InvertibleConv1x1`; None for none. All couplings then keep and
            change the same features: the partition is half, alternating or any `Partition`, such
            as `Partition(D, range(D - 1))`, which changes one feature. With one feature there are
            no such maps.
        condition_bound: With mixing svd: the largest condition number of each of these maps.
    """

    mixing: Mixing | None = None
    condition_bound: float | None = None


@dataclass(frozen=True, kw_only=True)
class AffineOptions(MixingOptions):
    """The couplings of `real_nvp`.

    Attributes:
        scale_bound: Bound on the sum over depth of the log-scales. Each coupling gets an equal
            share, so that no feature is ever scaled by more than exp(scale_bound) or less than its
            reciprocal, whatever the depth.
    """

    scale_bound: float = 12.0


@dataclass(frozen=True, kw_only=True)
class SplineOptions(MixingOptions):
    """The couplings of `spline`.

    Attributes:
        bins: Number of bins of each spline, at least 2. A conditioner outputs 3 bins - 1 numbers
            for each changed feature.
        bound: Half-width of the box on which the splines act, in standard deviations of the
            training rows. Beyond it a coupling is the identity.
        min_bin: Smallest width and height of a bin, relative to bins of equal size.
        min_slope: Smallest slope at the knots; the largest is its reciprocal. min_bin and
            min_slope bound all slopes of a coupling, see `SplineCoupling`.
    """

    bins: int = 8
    bound: float = 5.0
    min_bin: float = 0.4
    min_slope: float = 0.2


@dataclass(frozen=True, kw_only=True)
class AutoregressiveOptions(OptionGroup):
    """The layers of `autoregressive`.

    Attributes:
        bins: Number of bins of each spline, at least 2.
        bound: Half-width of the box on which the splines act, after the shift and the scale of
            their layer. Beyond it a spline is the identity.
        min_bin: Smallest width and height of a bin, relative to bins of equal size.
        min_slope: Smallest slope of a spline at the knots; the largest is its reciprocal.
        scale_bound: Bound on the sum over depth of the log-scales. Each layer gets an equal share.
        seed: Seed of the random orders of the features.
    """

    bins: int = 8
    bound: float = 5.0
    min_bin: float = 0.1
    min_slope: float = 0.02
    scale_bound: float = 12.0
    seed: int = 0


PYTHON = "from Python"
COMMAND: ContextVar[str] = ContextVar("COMMAND", default=PYTHON)
_DASH = re.compile(r"-(?![\d.]*\d)")  # a value that a command line would take for an option


def option(name: str, value: str | Sequence[str] | Mapping[str, str] | None = None) -> str:
    """Returns an option as the user writes it: a flag in a command, else a keyword argument.

    Example:
        >>> option("exclude", ["id"]), option("repair", "drop"), option("columns")
        ("exclude=['id']", "repair='drop'", 'columns=')
    """
    if COMMAND.get() == PYTHON:
        return f"{name}=" if value is None else f"{name}={value!r}"
    flag = f"--{name.replace('_', '-')}"
    if value is None:
        return flag
    if isinstance(value, Mapping):
        value = [f"{key}={part}" for key, part in value.items()]
    words = [value] if isinstance(value, str) else value
    sign = "=" if words and _DASH.match(words[0]) else " "
    return f"{flag}{sign}{' '.join(map(shlex.quote, words))}"


def kinds_option() -> str | None:
    """Returns how to model columns of all kinds, where the caller can; None elsewhere.

    Example:
        >>> kinds_option()
        "kappaflow.fit_table or FlowDensity(kinds='auto')"
    """
    if COMMAND.get() == PYTHON:
        return "kappaflow.fit_table or FlowDensity(kinds='auto')"
    words = COMMAND.get().split()
    if words[1:2] != ["fit"] or any(word.startswith("--kinds") for word in words):
        return None
    return option("kinds", "auto")


class Limits:
    """Bounds of a number, which pydantic checks; its own `Field` would import pydantic here.

    Args:
        **limits: `gt`, `ge`, `lt` or `le`.
    """

    def __init__(self, **limits: float) -> None:
        self.limits = limits

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return {**handler(source), **self.limits}


Positive = Annotated[float, Limits(gt=0)]
Count = Annotated[int, Limits(ge=1)]
Share = Annotated[float, Limits(ge=0, lt=1)]


@dataclass(kw_only=True)
class TrainingOptions:
    """How a flow is trained.

    Attributes:
        max_epochs: Maximum number of passes over the training rows, model search included.
            Default: 200, but at least 2,000 and at most 12,000 steps, and five times as many with
            a time limit (kappaflow fit on images: 60).
        max_time_s: Time limit in seconds, by the clock, of model search and training together,
            resumed time included. The learning rate falls to zero at whichever limit comes first.
            With kinds of columns the labels are trained before that, in at most about 4,000 steps.
            kappaflow fit also reads the data before and writes a report after it, in about five
            seconds for most tables, and more on a busy machine.
        batch_size: Rows for each step, over all processes of torchrun. Default: 512, or down to
            128 for tables of few rows, so that an epoch has 16 steps (kappaflow fit on images:
            64).
        learning_rate: Maximum learning rate of Adam. Default: 2e-3; for tables, kappaflow fit,
            fit_auto and the estimators use 5e-3, or the rate of the model that a search chose.
        warmup: Share of all steps over which the learning rate rises to its maximum.
        weight_decay: Decoupled weight decay (AdamW). The model search trains autoregressive
            layers with 0.1 in place of the default.
        overfit_decay: Weight decay with which training resumes from the best weights, once, when
            the flow overfits: training rows become likelier and validation rows less likely. If
            it brings nothing within 10 epochs, training returns to the best weights without it.
            The model search uses 1. Default: training continues until patience ends it.
        clip_norm: Maximum norm of the gradient of a step.
        average: Decay of the exponential moving average of the weights, which is validated and
            kept; 0 keeps the weights themselves.
        patience: Epochs without a better validation likelihood after which training stops.
            Default: 30, or 1,000 steps if that is more.
        cooldown: When patience ends, let the learning rate fall to zero before training stops,
            from the best weights, over as many epochs as there were. The model search does.
        conditioning_every: Epochs from one measurement of the conditioning to the next. The first
            epoch and the last are measured too. Default: about 40 measurements in a training.
        most_skipped: Non-finite steps in a row after which training stops with a diagnosis.
        seed: Seed of the order of the rows and of random layers.
        precision: bf16 or fp16 compute the matrix products of the conditioners in bfloat16 or
            float16 during training; the gradients of fp16 are scaled, and steps that overflow are
            skipped. Scores, samples and reports always use full precision.
        compile: Compile training steps with torch.compile: the first step takes long, later ones
            are shorter, mostly for splines and planar flows. Needs a C++ compiler. Training stops
            if the compiled gradients differ from the plain ones. Stacks of couplings, and layers
            inverted to save memory, run uncompiled.
        condition_budget: Keep the 95 % quantile of the condition number on held-out rows below
            this number. Only the weights of epochs at which it is measured are kept. kappaflow
            tradeoff shows what that costs in likelihood. Tables only.
    """

    max_epochs: Count | None = None
    max_time_s: Positive | None = None
    batch_size: Count | None = None
    learning_rate: Positive = 2e-3
    warmup: Share = 0.05
    weight_decay: Annotated[float, Limits(ge=0)] = 1e-4
    overfit_decay: Annotated[float, Limits(ge=0)] | None = None
    clip_norm: Positive = 5.0
    average: Share = 0.99
    patience: Count | None = None
    cooldown: bool = False
    conditioning_every: Count | None = None
    most_skipped: Count = 20
    seed: Annotated[int, Limits(ge=0, lt=2**63)] = 0
    precision: Literal["full", "bf16", "fp16"] = "full"
    compile: bool = False
    condition_budget: Annotated[float, Limits(gt=1)] | None = None


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    r"""Which rows and columns of a table are used, and how.

    Attributes:
        columns: Columns to model, by name. Default: all columns of numbers.
        exclude: Columns to leave out, such as a target.
        context: Columns that the density is conditioned on, numbers or texts of 2 to 50 labels.
        where: Conditions that the rows to train on have to meet, such as class=g.
        weights: Column with the weight of each row, 0 or more, such as a number of events. It is
            not modeled; likelihood, metrics and charts count rows by it.
        repair: Fix data that has no density: drop the rows or columns concerned, jitter the
            columns, or dequantize rounded columns. dequantize adds uniform noise exactly as wide
            as one step of the values, also to rows to score: the likelihood is then a bound, and
            samples are rounded back. Default: dequantize columns of few values; keep adds none.
        decimal: Decimal sign of a text file, a point or a comma. Default: detected; needed where
            1,234 can be 1.234 or 1234.
        missing: Values that mean a missing one, such as -999 or n.a.; each repair leaves out such
            rows. none says that numbers such as -999 are measurements.
        separator: Sign between the fields of a text file, such as a semicolon or \t (a tab); a
            blank stands for any run of blanks. Default: detected.
        comment: Sign that starts a comment line at the top of a text file. Default: # or % in
            .dat, .txt and .ecsv files; a csv or tsv file has none.
        bounds: Domains of columns, which all samples respect, such as mass=positive p=0,1 x=2,
            angle=circular:0,360 (x above 2; angle in degrees; circular alone means radians).
            Circles need the model spline.
        kinds: Model columns of all kinds as one density: auto, or the kinds that are not
            recognized, such as region=category visits=integer. Kinds are continuous, positive,
            circular, integer, category, boolean, date and identifier. Labels get probabilities,
            numbers a density given the labels, and missing values are integrated out, in columns
            of the context read as such.
        against: A condition on other rows of the data, which are never trained on: report how
            well log_prob separates them.
        duplicates: Rows that repeat earlier ones: keep them, with all copies in one part of the
            split, drop them, or weigh each row by the number of its copies.
        jitter: Columns to add Gaussian noise to, 1e-3 of their spread, such as a column that
            nearly follows from others.
        on_disk: Train on a table larger than memory (parquet, arrow, npy, csv or tsv), read in
            chunks. The training rows are kept in a file in the run folder until training ends. At
            most 100,000 rows are for validation, and as many for the test.
    """

    columns: list[str] | None = None
    exclude: list[str] = field(default_factory=list)
    context: list[str] = field(default_factory=list)
    where: list[str] = field(default_factory=list)
    against: str | None = None
    weights: str | None = None
    repair: Repair | None = None
    jitter: list[str] | None = None
    bounds: list[str] | None = None
    kinds: list[str] | None = None
    on_disk: bool | None = None
    duplicates: Duplicates = "keep"
    decimal: Literal[".", ","] | None = None
    missing: list[str] = field(default_factory=list)
    separator: str | None = None
    comment: str | None = None


class TextFormat(TypedDict, total=False):
    """The options of `TableOptions` that say how a text file is written."""

    decimal: Literal[".", ","] | None
    separator: str | None
    comment: str | None
