"""`ModelConfig`, the recipes by their names, and the options and defaults of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from kappaflow._checks import one_of
from kappaflow.data import Table
from kappaflow.data.dataset import kinds
from kappaflow.data.domains import Domains, bounds_of
from kappaflow.errors import ArgumentError
from kappaflow.flows import (
    Flow,
    autoregressive,
    invertible_network,
    nice,
    padding_of_kind,
    planar,
    radial,
    real_nvp,
    spline,
    zuko_flow,
)
from kappaflow.flows.recipe import flat_signature, from_options
from kappaflow.flows.zuko_flow import KINDS
from kappaflow.flows.zuko_flow import OPTIONS as ZUKO_OPTIONS

ZUKO = "zuko:"
DEFAULT_PADDING = "gaussian"  # the kind that a number alone means
PADDING_OPTIONS = ("padding_kind", "padding_scale")
Recipes = dict[str, Callable[..., Flow]]
COUPLINGS: Recipes = {"real_nvp": real_nvp, "nice": nice, "spline": spline}
CONDITIONAL: Recipes = {
    **COUPLINGS,
    "autoregressive": autoregressive,
    **{ZUKO + kind: partial(zuko_flow, kind=kind) for kind in KINDS},
}
RECIPES: Recipes = {
    **CONDITIONAL,
    "planar": planar,
    "radial": radial,
    "invertible_network": invertible_network,
}

# The defaults of `kappaflow fit`, `fit_auto` and the estimators that are not those of the recipes
# and of `Settings`.
DEFAULTS: dict[str, Any] = {"depth": 16, "partition": "random-half"}
NOT_OPTIONS = ("kind",)  # arguments of recipes that a run determines
NOT_IN_REPORTS = ("context_features", "values", "seed")  # facts of the data and of the training


@dataclass(frozen=True)
class ModelConfig:
    """A recipe and its arguments; the others have the defaults of the recipe."""

    recipe: str = "real_nvp"
    arguments: dict[str, Any] = field(default_factory=dict)


def recipes() -> Recipes:
    """Returns all recipes by name, those for other kinds of data than tables too."""
    others = (kind.models() for kind in kinds())
    return {name: recipe for models in (*others, RECIPES) for name, recipe in models.items()}


def options_of(model: str) -> dict[str, Any]:
    """Returns the options of a model and their defaults: the keyword arguments of its recipe.

    Recipes with `padding` also have `padding_kind` and `padding_scale`.
    """
    signature = flat_signature(recipes()[model])
    options = {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in NOT_OPTIONS
    }
    if "padding" in options:
        options.update(dict.fromkeys(PADDING_OPTIONS))
    if model.startswith(ZUKO):
        kind = model.removeprefix(ZUKO)
        options.update(dict.fromkeys(ZUKO_OPTIONS.get(kind, ())))
        if KINDS[kind][1] is None:
            del options["depth"]
    return options


def with_defaults(model: ModelConfig) -> ModelConfig:
    """Returns a model of a table with `DEFAULTS` where an argument is not given.

    Linear maps between couplings (`mixing`) mix the features, so that the partition stays fixed.
    """
    if model.recipe not in COUPLINGS:
        return model
    fixed = {"partition"} if model.arguments.get("mixing") is not None else set()
    defaults = {name: value for name, value in DEFAULTS.items() if name not in fixed}
    return replace(model, arguments={**defaults, **model.arguments})


def all_arguments(model: ModelConfig) -> dict[str, Any]:
    """Returns the arguments of a model for a report, with the defaults of its recipe."""
    used = {name: value for name, value in options_of(model.recipe).items() if value is not None}
    result = {**used, **model.arguments}
    return {name: value for name, value in result.items() if name not in NOT_IN_REPORTS}


def is_one_feature(model: ModelConfig, table: Table) -> bool:
    """Returns whether a flow of a table takes a single number."""
    return len(table.columns) == 1 and not model.arguments.get("padding")


def with_bounds(model: ModelConfig, domains: Domains, table: Table) -> ModelConfig:
    """Returns a model with the domains of the columns of a table as bounds."""
    bounds = bounds_of(domains, table.columns)
    return (
        model if bounds is None else replace(model, arguments=model.arguments | {"bounds": bounds})
    )


def build_flow(model: ModelConfig, table: Table, seed: int) -> Flow:
    """Returns a new flow for a table, initialized from the seed alone."""
    recipe = RECIPES[one_of("model", model.recipe, tuple(RECIPES))]
    arguments = with_padding(model.arguments, (len(table.columns),))
    if model.recipe in CONDITIONAL:
        arguments["context_features"] = len(table.context_columns)
    elif table.context_columns:
        raise ArgumentError(
            f"'context' should be left out for {model.recipe}, which reads none: "
            f"{', '.join(CONDITIONAL)} do."
        )
    if model.arguments.get("start") == "whiten" and is_one_feature(model, table):
        raise ArgumentError(
            f"'start' should be 'identity' for one column, {table.columns[0]!r}: whitening "
            "takes out what several have in common."
        )
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return from_options(recipe, len(table.columns), **arguments)
    except (RuntimeError, MemoryError) as error:
        raise ArgumentError(f"a model of this size cannot be built here: {error}") from None


def with_padding(arguments: dict[str, Any], event_shape: Sequence[int]) -> dict[str, Any]:
    """Returns the arguments of a recipe with one padding in place of its kind and scale."""
    kind, scale = (arguments.get(name) for name in PADDING_OPTIONS)
    own = {name: value for name, value in arguments.items() if name not in PADDING_OPTIONS}
    if kind is None and scale is None:
        return own
    features = own.get("padding")
    if not features:
        name = PADDING_OPTIONS[0] if kind is not None else PADDING_OPTIONS[1]
        raise ArgumentError(f"'{name}' should be left out where there is no padding.")
    if (kind or DEFAULT_PADDING) != DEFAULT_PADDING or scale is not None:
        own["padding"] = padding_of_kind(
            kind or DEFAULT_PADDING, features, event_shape, scale=scale
        )
    return own
