"""The recipes that a run of a table can have, by the names of the command line."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from kappaflow._checks import one_of
from kappaflow.data import Table
from kappaflow.data.domains import Domains, bounds_of
from kappaflow.errors import ArgumentError
from kappaflow.flows import (
    Flow,
    invertible_network,
    nice,
    planar,
    radial,
    real_nvp,
    spline,
    zuko_flow,
)
from kappaflow.flows.zuko_flow import KINDS
from kappaflow.runs.padded import with_padding

ZUKO = "zuko:"
COUPLINGS: dict[str, Callable[..., Flow]] = {
    "real_nvp": real_nvp,
    "nice": nice,
    "spline": spline,
}
CONDITIONAL: dict[str, Callable[..., Flow]] = {
    **COUPLINGS,
    **{ZUKO + kind: partial(zuko_flow, kind=kind) for kind in KINDS},
}
RECIPES: dict[str, Callable[..., Flow]] = {
    **CONDITIONAL,
    "planar": planar,
    "radial": radial,
    "invertible_network": invertible_network,
}


@dataclass(frozen=True)
class Model:
    """Which recipe, with which arguments; what is left out takes the recipe's default."""

    recipe: str = "real_nvp"
    arguments: dict[str, Any] = field(default_factory=dict)


def named_recipe(name: str, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Returns the recipe of a description with its arguments; None where it is none of these.

    Args:
        name: What a model file says.
        arguments: Of it.
    """
    given = dict(arguments)
    if name == "zuko_flow":
        name = ZUKO + given.pop("kind")
    return (name, given) if name in RECIPES else None


def is_one_feature(model: Model, table: Table) -> bool:
    """Returns whether a flow of a table takes a single number."""
    return len(table.columns) == 1 and not model.arguments.get("padding")


def with_bounds(model: Model, domains: Domains, table: Table) -> Model:
    """Returns a model that knows the domains of the columns of a table."""
    bounds = bounds_of(domains, table.columns)
    return (
        model if bounds is None else replace(model, arguments=model.arguments | {"bounds": bounds})
    )


def build_flow(model: Model, table: Table, seed: int) -> Flow:
    """Returns a fresh flow for a table, initialised from the seed alone.

    Args:
        model: The recipe.
        table: Of the columns, and of the context if it has one.
        seed: Decides what the recipe draws.

    Returns:
        The flow.

    Raises:
        ArgumentError: There is no such recipe, it does not take an argument, it reads no context
            where there is one, or the flow is too large.
    """
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
            return recipe(len(table.columns), **arguments)
    except (RuntimeError, MemoryError) as error:
        raise ArgumentError(f"a model of this size cannot be built here: {error}") from None
