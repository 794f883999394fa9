"""What is measured: the settings of the experiment, and the cases that they come to."""

from itertools import product
from typing import Annotated

from pydantic import Field

from kappaflow_studies.engine.study import Case, StudySettings
from kappaflow_studies.fields import Count, Counts, Many, NotEmpty, Positive

MOST_SEEDS = 1000  # of one seed of the experiment, so that those of another are different ones


class SphereSettings(StudySettings):
    """What is trained, made and counted.

    Attributes:
        mixtures: (k, d) of the mixtures that flows are trained to.
        budgets: Parameters of a flow, all of its couplings together.
        depths: Numbers of couplings.
        seeds: Of each training; each has a mixture of its own.
        steps: Of each training.
        batch_size: Draws from the mixture in each step.
        learning_rate: Of Adam, where it starts.
        sigma: Standard deviation of the components, on a sphere of radius 1.
        points: Of each of two samples that are compared.
        components: k of the generators.
        features: d of the generators and of the families.
        family_components: k of the families.
        tuples: Sets of means in a family.
        accuracy: Of the generators: probability of a ramp.
        bound_components: k of the depth bound.
        bound_features: d of the depth bound.
        distance: W1 between any two mixtures of its family.
        layer_parameters: p of its layers.
        layer_lipschitz: Their L, in the input and in the parameters.
        whole_lipschitz: W, of the whole flow.
    """

    mixtures: Annotated[tuple[tuple[Many, Many], ...], NotEmpty]
    budgets: Counts
    depths: Counts
    seeds: Annotated[int, Field(ge=1, le=MOST_SEEDS)]
    steps: Count
    batch_size: Count
    learning_rate: Positive
    sigma: Positive
    points: Count
    components: Annotated[tuple[Many, ...], NotEmpty]
    features: Annotated[tuple[Many, ...], NotEmpty]
    family_components: Annotated[tuple[Many, ...], NotEmpty]
    tuples: Many
    accuracy: Annotated[float, Field(gt=0, lt=0.5)]
    bound_components: Annotated[tuple[Many, ...], NotEmpty]
    bound_features: Annotated[tuple[Many, ...], NotEmpty]
    distance: Positive
    layer_parameters: Counts
    layer_lipschitz: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    whole_lipschitz: Annotated[float, Field(ge=1)]


def cases(settings: SphereSettings, seed: int) -> list[Case]:
    """Returns the cases, deep flows of many parameters first."""
    return [
        *_flows(settings, seed),
        *_families(settings, seed),
        *_generators(settings, seed),
        *_bounds(settings),
    ]


def _flows(settings: SphereSettings, seed: int) -> list[Case]:
    how = {
        "steps": settings.steps,
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "points": settings.points,
    }
    return [
        {
            "kind": "flow",
            "components": k,
            "features": d,
            "sigma": settings.sigma,
            "depth": depth,
            "budget": budget,
            "seed": seed * MOST_SEEDS + one,
            **how,
        }
        for depth in sorted(settings.depths, reverse=True)
        for budget in sorted(settings.budgets, reverse=True)
        for k, d in settings.mixtures
        for one in range(settings.seeds)
    ]


def _families(settings: SphereSettings, seed: int) -> list[Case]:
    return [
        {
            "kind": "family",
            "components": k,
            "features": d,
            "sigma": settings.sigma,
            "tuples": settings.tuples,
            "seed": seed,
        }
        for k, d in product(sorted(settings.family_components, reverse=True), settings.features)
    ]


def _generators(settings: SphereSettings, seed: int) -> list[Case]:
    made = {*product(settings.components, settings.features), *settings.mixtures}
    return [
        {
            "kind": "generator",
            "components": k,
            "features": d,
            "sigma": settings.sigma,
            "accuracy": settings.accuracy,
            "points": settings.points,
            "seed": seed * MOST_SEEDS + one,
        }
        for k, d in sorted(made, reverse=True)
        for one in range(settings.seeds)
    ]


def _bounds(settings: SphereSettings) -> list[Case]:
    return [
        {
            "kind": "bound",
            "components": k,
            "features": d,
            "sigma": settings.sigma,
            "distance": settings.distance,
            "layer_parameters": list(settings.layer_parameters),
            "layer_lipschitz": settings.layer_lipschitz,
            "whole_lipschitz": settings.whole_lipschitz,
        }
        for k, d in product(settings.bound_components, settings.bound_features)
    ]
