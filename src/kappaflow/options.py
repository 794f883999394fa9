"""Declares, once, the options of models and of a training, and the values that they accept.

`COMMAND` is the command line that runs, which reports show. `option` writes an option as the user
gives it.

Recipes, estimators, `kappaflow.training.Settings` and the command line use these declarations.
This file does not import torch, so that the help of the command line starts quickly.
"""

import inspect
import re
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Annotated, Any, Literal, TypeVar

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


C = TypeVar("C", bound=type)
_SECTION = re.compile(r"^(Attributes|Source|Example):$", re.MULTILINE)


def described(text: str, *, default: Any = MISSING, **others: Any) -> Any:
    """Returns a field of a dataclass with the description of the option that it declares.

    Args:
        text: The description. The help of commands, the reference and the estimators show it.
        default: The default; none if left out.
        **others: `default_factory` or `kw_only`, as for `dataclasses.field`.
    """
    return field(default=default, metadata={"description": text}, **others)


def descriptions(cls: type) -> dict[str, str]:
    """Returns the descriptions of the options that a dataclass and its bases declare, by name."""
    classes = filter(is_dataclass, reversed(cls.__mro__))
    declared = [option for base in classes for option in fields(base)]
    return {o.name: o.metadata["description"] for o in declared if "description" in o.metadata}


def write_section(cls: type, title: str, texts: Mapping[str, str]) -> None:
    """Adds a section with descriptions to the docstring of a class, before its other sections."""
    doc = inspect.cleandoc(cls.__doc__ or "")
    entries = (
        textwrap.fill(f"{name}: {text}", 95, initial_indent=" " * 4, subsequent_indent=" " * 8)
        for name, text in texts.items()
    )
    other = _SECTION.search(doc)
    end = other.start() if other else len(doc)
    section = "\n".join((f"{title}:", *entries))
    cls.__doc__ = f"{doc[:end].rstrip()}\n\n{section}\n\n{doc[end:]}".rstrip() + "\n"


def documented(cls: C) -> C:
    """Returns a dataclass of options whose docstring describes them, inherited ones included."""
    write_section(cls, "Attributes", descriptions(cls))
    return cls


class OptionGroup:
    """Base class of the options that a recipe takes as one argument, an instance or a dict."""


@documented
@dataclass(frozen=True)
class StartOptions(OptionGroup):
    """What the first `kappaflow.fit` computes from the training rows."""

    start: StartName = described(
        "What precedes the couplings. identity: nothing. whiten: six linear couplings that make "
        "the rows uncorrelated; training changes them further. gaussianize: a curve for each "
        "feature that makes it about normal, then whiten. whiten-gaussianize: the curves after "
        "whitening.",
        default="identity",
    )
    components: int = described(
        "Number of components of the base: 1 for a standard normal; more for a `NormalMixture`, "
        "which is fitted to the latents and trained with the flow.",
        default=1,
    )
    gaussianize_context: bool = described(
        "Conditioners read each number of the context twice, standardized and made about normal "
        "by a curve. What is nearly linear in either is then easy to learn.",
        default=False,
    )


@documented
@dataclass(frozen=True, kw_only=True)
class NetworkOptions(OptionGroup):
    """The conditioners, and the network before them."""

    activation: ActivationName | Any = described(
        'Activation of the conditioners, such as "silu" or `torch.nn.SiLU()`; see `MLP`. real_nvp '
        "and nice train about half as fast with another one than relu, in a `Chain` in place of a "
        "`CouplingStack`.",
        default="relu",
    )
    residual: bool = described(
        "Add skip connections between hidden layers of equal width.", default=False
    )
    dropout: float = described(
        "Share of the conditioners' hidden units that a training step drops.", default=0.0
    )
    embedding: Any = described(
        "A network that embeds the context first, from (B, context_features) to rows of any "
        "width; None for none. To save the flow, register the class of the network, as for `MLP`.",
        default=None,
    )


@documented
@dataclass(frozen=True, kw_only=True)
class CouplingOptions(OptionGroup):
    """The couplings of `nice`."""

    memory: Memory = described(
        "What is stored for the backward pass. recompute: the half that each coupling reads. "
        "store: everything. invert: the input of every 32nd coupling, from which the others are "
        "recovered by inversion. See `CouplingStack` and `Chain`.",
        default="recompute",
    )
    seed: int = described(
        "Seed of the random partitions and of the initial rotations of linear maps.", default=0
    )


@documented
@dataclass(frozen=True, kw_only=True)
class MixingOptions(CouplingOptions):
    """Couplings, and learned linear maps before them."""

    mixing: Mixing | None = described(
        "Form of a learned linear map with a shift before each coupling, lu, plain, qr, svd or "
        "orthogonal, as in `InvertibleConv1x1`; None for none. All couplings then keep and change "
        "the same features: the partition is half, alternating or any `Partition`, such as "
        "`Partition(D, range(D - 1))`, which changes one feature. With one feature there are no "
        "such maps.",
        default=None,
    )
    condition_bound: float | None = described(
        "With mixing svd: the largest condition number of each of these maps.", default=None
    )


@documented
@dataclass(frozen=True, kw_only=True)
class AffineOptions(MixingOptions):
    """The couplings of `real_nvp`."""

    scale_bound: float = described(
        "Bound on the sum over depth of the log-scales. Each coupling gets an equal share, so "
        "that no feature is ever scaled by more than exp(scale_bound) or less than its "
        "reciprocal, whatever the depth.",
        default=12.0,
    )


@documented
@dataclass(frozen=True, kw_only=True)
class SplineOptions(MixingOptions):
    """The couplings of `spline`."""

    bins: int = described(
        "Number of bins of each spline, at least 2. A conditioner outputs 3 bins - 1 numbers for "
        "each changed feature.",
        default=8,
    )
    bound: float = described(
        "Half-width of the box on which the splines act, in standard deviations of the training "
        "rows. Beyond it a coupling is the identity.",
        default=5.0,
    )
    min_bin: float = described(
        "Smallest width and height of a bin, relative to bins of equal size.", default=0.4
    )
    min_slope: float = described(
        "Smallest slope at the knots; the largest is its reciprocal. min_bin and min_slope bound "
        "all slopes of a coupling, see `SplineCoupling`.",
        default=0.2,
    )


@documented
@dataclass(frozen=True, kw_only=True)
class AutoregressiveOptions(OptionGroup):
    """The layers of `autoregressive`."""

    bins: int = described("Number of bins of each spline, at least 2.", default=8)
    bound: float = described(
        "Half-width of the box on which the splines act, after the shift and the scale of their "
        "layer. Beyond it a spline is the identity.",
        default=5.0,
    )
    min_bin: float = described(
        "Smallest width and height of a bin, relative to bins of equal size.", default=0.1
    )
    min_slope: float = described(
        "Smallest slope of a spline at the knots; the largest is its reciprocal.", default=0.02
    )
    scale_bound: float = described(
        "Bound on the sum over depth of the log-scales. Each layer gets an equal share.",
        default=12.0,
    )
    seed: int = described("Seed of the random orders of the features.", default=0)


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


@documented
@dataclass(kw_only=True)
class TrainingOptions:
    """How a flow is trained."""

    max_epochs: Count | None = described(
        "Maximum number of passes over the training rows, model search included. Default: 200, "
        "but at least 2,000 and at most 12,000 steps, and five times as many with a time limit "
        "(kappaflow fit on images: 60).",
        default=None,
    )
    max_time_s: Positive | None = described(
        "Time limit in seconds, by the clock, of model search and training together. It counts "
        "the epochs before a resume, and not reading and preparing the data, an epoch that an "
        "interruption cut off, the training of labels (with kinds of columns, in at most about "
        "4,000 steps), or the measurements and the report after the training, which take about "
        "five seconds for most tables and more for a million rows. The learning rate falls to "
        "zero at whichever limit comes first.",
        default=None,
    )
    batch_size: Count | None = described(
        "Rows for each step, over all ranks. Default: 512, or down to 128 for "
        "tables of few rows, so that an epoch has 16 steps (kappaflow fit on images: 64).",
        default=None,
    )
    learning_rate: Positive = described(
        "Maximum learning rate of Adam. Default: 2e-3; for tables, kappaflow fit, fit_auto and "
        "the estimators use 5e-3, or the rate of the model that a search chose.",
        default=2e-3,
    )
    warmup: Share = described(
        "Share of all steps over which the learning rate rises to its maximum.", default=0.05
    )
    weight_decay: Annotated[float, Limits(ge=0)] = described(
        "Decoupled weight decay (AdamW). The model search trains autoregressive layers with 0.1 "
        "in place of the default.",
        default=1e-4,
    )
    overfit_decay: Annotated[float, Limits(ge=0)] | None = described(
        "Weight decay with which training resumes from the best weights, once, when the flow "
        "overfits: training rows become likelier and validation rows less likely. If it brings "
        "nothing within 10 epochs, training returns to the best weights without it. The model "
        "search uses 1. Default: training continues until patience ends it.",
        default=None,
    )
    clip_norm: Positive = described("Maximum norm of the gradient of a step.", default=5.0)
    average: Share = described(
        "Decay of the exponential moving average of the weights, which is validated and kept; 0 "
        "keeps the weights themselves.",
        default=0.99,
    )
    patience: Count | None = described(
        "Epochs without a better validation likelihood after which training stops. Default: 30, "
        "or 1,000 steps if that is more.",
        default=None,
    )
    cooldown: bool = described(
        "When patience ends, let the learning rate fall to zero before training stops, from the "
        "best weights, over as many epochs as there were. The model search does.",
        default=False,
    )
    conditioning_every: Count | None = described(
        "Epochs from one measurement of the conditioning to the next. The first epoch and the "
        "last are measured too. Default: about 40 measurements in a training.",
        default=None,
    )
    most_skipped: Count = described(
        "Non-finite steps in a row after which training stops with a diagnosis.", default=20
    )
    seed: Annotated[int, Limits(ge=0, lt=2**63)] = described(
        "Seed of the order of the rows and of random layers.", default=0
    )
    precision: Literal["full", "bf16", "fp16"] = described(
        "bf16 or fp16 compute the matrix products of the conditioners in bfloat16 or float16 "
        "during training; the gradients of fp16 are scaled, and steps that overflow are skipped. "
        "Scores, samples and reports always use full precision.",
        default="full",
    )
    compile: bool = described(
        "Compile training steps with torch.compile: the first step takes long, later ones are "
        "shorter, mostly for splines and planar flows. Needs a C++ compiler. Training stops if "
        "the compiled gradients differ from the plain ones. Stacks of couplings, and layers "
        "inverted to save memory, run uncompiled.",
        default=False,
    )
    condition_budget: Annotated[float, Limits(gt=1)] | None = described(
        "Keep the 95 % quantile of the condition number on held-out rows below this number. Only "
        "the weights of epochs at which it is measured are kept. Tables only.",
        default=None,
    )
