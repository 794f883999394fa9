"""The models that a model search tries for a table."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kappaflow._checks import finite_float
from kappaflow.data import Table
from kappaflow.data.domains import Bounds, Domains, domains_of
from kappaflow.data.raw import Reading
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow.flows.mixture_fit import best_components
from kappaflow.runs.recipes import DEFAULTS, ModelConfig, build_flow, options_of, with_bounds
from kappaflow.training import Settings, loop
from kappaflow.training.rows import as_table
from kappaflow.training.settings import LEARNING_RATE, OVERFIT_DECAY

SLOWER = 1e-3  # maximum learning rate with a mixture as the base: its components are narrow
DECAY = 0.1  # weight decay of autoregressive layers before they overfit
CONTEXT_BINS = 16  # of autoregressive splines with a context, which may have several branches
MOST_GAUSSIANIZED = 30  # columns of a context; twice as many inputs would be fitted to noise
ROWS_A_COLUMN = 3  # fewest rows per column to fit a start to
DROPOUT = ((300, 0.3), (700, 0.1), (5_000, 0.05), (math.inf, 0.0))  # by training rows a column
MIXTURE_S = 12.0  # time to choose the number of components


class Candidate(NamedTuple):
    """A model that a search may try.

    Attributes:
        recipe: Name of the recipe, such as "spline".
        arguments: Arguments of the recipe.
        learning_rate: Its highest learning rate.
    """

    recipe: str
    arguments: dict[str, Any]
    learning_rate: float

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of `kappaflow.fit` with which a search trains it."""
        settings: dict[str, Any] = {"learning_rate": self.learning_rate, "cooldown": True}
        # Weight decay would move the components of a mixture, too.
        if self.arguments.get("components", 1) == 1:
            settings["overfit_decay"] = OVERFIT_DECAY
        if self.recipe == "autoregressive":
            settings["weight_decay"] = DECAY
        return settings

    def settings_over(self, base: Settings) -> Settings:
        """Returns its settings with those of `base`, whose weight decays count if chosen."""
        chosen = {
            name
            for name in ("overfit_decay", "weight_decay")
            if getattr(base, name) != Settings.model_fields[name].default
        }
        update = {name: value for name, value in self.settings.items() if name not in chosen}
        return base.model_copy(update=update)

    def build(self, data: Any, bounds: Bounds | None = None, seed: int = 0) -> Flow:
        """Returns a new flow for a table, which `bounds` gives the domains of its columns."""
        table = as_table(data)
        model = ModelConfig(self.recipe, dict(self.arguments))
        return build_flow(with_bounds(model, domains_of(bounds, table), table), table, seed)


@dataclass(frozen=True)
class ModelSearch:
    """How to choose a model: arguments for all recipes, and a time limit."""

    arguments: dict[str, Any] = field(default_factory=dict)
    seconds: float = 60.0  # 0 is no search
    learning_rate: float | None = None  # that of each model if None

    def __post_init__(self) -> None:
        if finite_float("search_time", self.seconds) < 0:
            raise ArgumentError(
                f"'search_time' should be 0 or more seconds, got {self.seconds:g}."
            )


def candidates(
    data: Any,
    *,
    weights: Any = None,
    bounds: Bounds | None = None,
    context: str | Iterable[str] = (),
) -> list[Candidate]:
    """Returns the models that a search tries for a table, the most promising first.

    For a search of your own, such as one of hours on many machines; `kappaflow.fit_auto` compares
    them itself.

    Args:
        data: A tensor, array, data frame, `Table`, path or shipped name, as for `kappaflow.fit`.
        weights: As for `kappaflow.fit`.
        bounds: Domains of columns by name, such as {"mass": "positive"}.
        context: Columns that the density is conditioned on.

    Returns:
        The models. `build` makes a flow of one, and `settings` are those of its training.

    Raises:
        ArgumentError: An argument is wrong.
        DataError: The data is no table of numbers.

    Example:
        >>> import torch
        >>> import kappaflow as kf
        >>> x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
        >>> model = kf.candidates(x)[0]
        >>> model.recipe, model.learning_rate
        ('spline', 0.005)
        >>> result = kf.fit(model.build(x), x, max_epochs=2, **model.settings)
    """
    table = as_table(data, Reading.of(context=context), weights)
    domains = domains_of(bounds, table)
    return candidates_of(table, ModelSearch(), domains=domains, seconds=MIXTURE_S)


def candidates_of(
    table: Table,
    search: ModelSearch,
    *,
    domains: Domains | None = None,
    plain: bool = False,
    seconds: float = math.inf,
) -> list[Candidate]:
    """Returns the models that race for a table, the most promising first.

    Without a context, one of them has a mixture of normals as its base, if that fits better than a
    single normal: other flows separate clusters late. With circular columns splines alone race:
    they keep a circle whole. The arguments and the learning rate of the search replace those of
    the models. With `plain` there is only a spline without a start, which begins within any
    condition budget. Tables of very few rows get it too, since a start would be fitted to noise.
    `seconds` is about the time to choose the number of components. Where a domain or a start
    bends the columns, conditioners read the context bent as well as straight.
    """
    circles = [domain.circular for domain in (domains or {}).values()]
    columns = table.columns
    rows = len(table) / len(columns)
    dropout = next(share for below, share in DROPOUT if rows < below)
    bins = {"bins": CONTEXT_BINS} if table.context_columns else {}
    layers = {"depth": 3, "hidden": (96, 96), "activation": "silu", **bins}
    smooth = {**layers, "depth": 1, "start": "identity", "dropout": 0.0}
    common = {"partition": DEFAULTS["partition"], "memory": "store"}
    few = 0 < len(table.context_columns) <= MOST_GAUSSIANIZED
    bent = {"gaussianize_context": True} if few else {}
    affine = {"depth": 8, "hidden": (96, 96), "activation": "silu", **common}
    spline = {"depth": 8, "hidden": (64, 64), **common}
    single = len(columns) == 1
    linear = "identity" if single else "whiten"  # a single column leaves nothing to whiten
    sharp = {**layers, "activation": "relu"} if single else layers
    whitened = linear if table.context_columns else "whiten-gaussianize"
    splines = Candidate("spline", {**spline, "start": "gaussianize"}, LEARNING_RATE)
    masked = Candidate("autoregressive", {**layers, "start": "gaussianize"}, LEARNING_RATE)
    white_splines = Candidate("spline", {**spline, "start": "whiten-gaussianize"}, LEARNING_RATE)
    white_masked = Candidate("autoregressive", {**sharp, "start": whitened}, LEARNING_RATE)
    couplings = Candidate("real_nvp", {**affine, "start": linear}, LEARNING_RATE)
    one_layer = Candidate("autoregressive", smooth, LEARNING_RATE)
    if not table.context_columns:
        results = [splines, masked, white_masked, white_splines, couplings, one_layer]
    elif single:  # the only coupling would be part of an autoregressive layer
        results = [masked, white_masked, one_layer]
    else:  # each kind before a second start of one
        results = [masked, one_layer, splines, couplings, white_masked, white_splines]
    if any(circles):
        results = [splines, white_splines]
    if plain or sum(circles) == len(columns) or len(table) < ROWS_A_COLUMN * len(columns):
        results = [Candidate("spline", {**spline, "start": "identity"}, LEARNING_RATE)]
    elif not any(circles) and not table.context_columns and seconds > 0:
        components = best_components(table.values, seconds, table.weights, clock=loop.clock)
        if components > 1:
            of_mixture = {**spline, "start": "identity", "components": components}
            results.insert(4, Candidate("spline", of_mixture, SLOWER))
    return [
        Candidate(
            recipe,
            {"dropout": dropout, **own}
            | (bent if domains or "gaussianize" in own["start"] else {})
            | {k: v for k, v in search.arguments.items() if k in options_of(recipe)},
            search.learning_rate or rate,
        )
        for recipe, own, rate in results
    ]
