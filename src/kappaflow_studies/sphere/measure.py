"""The cases of `sphere`, and their measurement."""

from itertools import product
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from kappaflow.conditioning import spectrum
from kappaflow.errors import ArgumentError, NumericalError
from kappaflow.flows import Flow, real_nvp
from kappaflow_studies.engine.presets import Count, Counts, Many, NotEmpty, Positive
from kappaflow_studies.engine.study import Case, Row, StudySettings
from kappaflow_studies.sphere.bounds import (
    LayerClass,
    min_depth,
    min_parameters,
    tearing_bound,
    volume_bound,
)
from kappaflow_studies.sphere.generator import MixtureGenerator
from kappaflow_studies.sphere.mixture import SphereMixture, random_family, wasserstein_bounds
from kappaflow_studies.sphere.packing import mixture_packing
from kappaflow_studies.training import fitted
from kappaflow_studies.wasserstein import wasserstein

MAX_SEEDS = 1000  # largest number of seeds, so that different seeds of a study never overlap


class SphereSettings(StudySettings):
    """Settings of the trained flows, the generators and the bounds."""

    mixtures: Annotated[tuple[tuple[Many, Many], ...], NotEmpty]  # (k, d), for flows
    budgets: Counts  # numbers of parameters of a flow, over all of its couplings
    depths: Counts  # numbers of couplings
    seeds: Annotated[int, Field(ge=1, le=MAX_SEEDS)]  # each has its own mixture
    steps: Count  # of each training
    batch_size: Count  # samples of the mixture in each step
    learning_rate: Positive  # the first one, of Adam
    sigma: Positive  # of the components, on a sphere of radius 1
    points: Count  # size of each of two samples that are compared
    components: Annotated[tuple[Many, ...], NotEmpty]  # k of the generators
    features: Annotated[tuple[Many, ...], NotEmpty]  # d of the generators and of the families
    family_components: Annotated[tuple[Many, ...], NotEmpty]
    tuples: Many  # sets of means in a family
    accuracy: Annotated[float, Field(gt=0, lt=0.5)]  # probability of a ramp of the generators
    bound_components: Annotated[tuple[Many, ...], NotEmpty]
    bound_features: Annotated[tuple[Many, ...], NotEmpty]
    distance: Positive  # W1 between any two mixtures of the family of the depth bound
    layer_parameters: Counts  # p of the depth bound
    layer_lipschitz: Annotated[float, Field(ge=1, allow_inf_nan=False)]  # in input and parameters
    whole_lipschitz: Annotated[float, Field(ge=1)]  # W of the whole flow


def cases(settings: SphereSettings, seed: int) -> list[Case]:
    """Returns the cases; deep flows with many parameters come first."""
    families = product(sorted(settings.family_components, reverse=True), settings.features)
    mixtures = {*product(settings.components, settings.features), *settings.mixtures}
    seeds = [{"seed": seed * MAX_SEEDS + draw} for draw in range(settings.seeds)]
    flow = settings.model_dump(include={"steps", "batch_size", "learning_rate", "points"})
    bound = settings.model_dump(include={"distance", "layer_lipschitz", "whole_lipschitz"})
    bound["layer_parameters"] = list(settings.layer_parameters)
    generator = {"accuracy": settings.accuracy, "points": settings.points}

    def case(kind: str, k: int, d: int) -> Case:
        return {"kind": kind, "components": k, "features": d, "sigma": settings.sigma}

    return [
        *(
            case("flow", k, d) | {"depth": depth, "budget": budget} | seeded | flow
            for depth in sorted(settings.depths, reverse=True)
            for budget in sorted(settings.budgets, reverse=True)
            for k, d in settings.mixtures
            for seeded in seeds
        ),
        *(case("family", k, d) | {"tuples": settings.tuples, "seed": seed} for k, d in families),
        *(
            case("generator", k, d) | generator | seeded
            for k, d in sorted(mixtures, reverse=True)
            for seeded in seeds
        ),
        *(
            case("bound", k, d) | bound
            for k, d in product(settings.bound_components, settings.bound_features)
        ),
    ]


def flow_of_budget(features: int, depth: int, parameters: int) -> Flow:
    """Returns a RealNVP of a given depth, with hidden layers as wide as the budget allows."""
    best, hidden = 0, (0, 0)
    for first in range(1, parameters):
        smallest = _parameters(features, depth, (first, max(1, first // 2)))
        if smallest > parameters:
            break
        for second in range(max(1, first // 2), 2 * first + 1):
            count = _parameters(features, depth, (first, second))
            if best < count <= parameters:
                best, hidden = count, (first, second)
    if not best:
        raise ArgumentError(
            f"'budgets' should be larger, got {parameters}: {depth} couplings of {features} "
            f"features have at least {_parameters(features, depth, (1, 1))} parameters."
        )
    return real_nvp(features, depth=depth, hidden=hidden)


def _parameters(features: int, depth: int, hidden: tuple[int, int]) -> int:
    """Returns the number of parameters of a RealNVP whose couplings alternate their halves."""
    (first, second), smaller, total = hidden, features // 2, 0
    for number in range(depth):
        kept = smaller if number % 2 == 0 else features - smaller
        total += (kept + 1) * first + (first + 1) * second + (second + 1) * 2 * (features - kept)
    return total


HELD_OUT = 4096  # number of samples for divergences
VALIDATION_SAMPLES = 1024  # number of samples for the choice of the best weights
EPOCH_STEPS = 300  # approximate number of steps between two validations
STRETCH_POINTS = 512  # number of points at which the Jacobian is measured
TEST_SEED = 2**32  # added to seeds, so that test samples differ from training samples


def measure(case: Case) -> list[Row]:
    """Returns the rows of a case, according to its kind."""
    return {"flow": _flow, "generator": _generator, "family": _family, "bound": _bound}[
        case["kind"]
    ](case)


def _mixture(case: Case) -> SphereMixture:
    return SphereMixture.random(
        case["components"], case["features"], sigma=case["sigma"], seed=case["seed"]
    )


def _flow(case: Case) -> list[Row]:
    mixture = _mixture(case)
    with torch.random.fork_rng():
        torch.manual_seed(case["seed"])  # initial weights
        flow = flow_of_budget(case["features"], case["depth"], case["budget"])
    row: Row = {"parameters": sum(p.numel() for p in flow.parameters())}
    try:
        _train(flow, mixture, case)
    except NumericalError as error:
        return [{**row, "failed": str(error)}]
    generator = torch.Generator().manual_seed(TEST_SEED + case["seed"])
    with torch.no_grad():
        row |= _divergences(flow, mixture, generator)
        row |= _compared(mixture, flow.sample(case["points"], generator=generator), generator)
    return [row | _steepness(flow, mixture, generator)]


def _train(flow: Flow, mixture: SphereMixture, case: Case) -> None:
    """Trains on many samples, a few times each, and keeps the weights of the best validation."""
    generator = torch.Generator().manual_seed(case["seed"])
    epochs, steps = passes(case["steps"])
    rows = mixture.sample(case["batch_size"] * steps, generator=generator)
    fitted(
        flow,
        rows.float(),
        mixture.sample(VALIDATION_SAMPLES, generator=generator).float(),
        epochs=epochs,
        every=epochs,
        **{name: case[name] for name in ("batch_size", "learning_rate", "seed")},
    )


def passes(steps: int) -> tuple[int, int]:
    """Returns the number of passes over all samples, and the steps of each pass."""
    epochs = max(1, steps // EPOCH_STEPS)
    return epochs, round(steps / epochs)


def _divergences(flow: Flow, mixture: SphereMixture, generator: torch.Generator) -> Row:
    """Returns KL(mixture, flow) and the total variation, from exact densities at samples."""
    x = mixture.sample(HELD_OUT, generator=generator)
    ratio = flow.log_prob(x.float()).double() - mixture.log_prob(x)
    row: Row = {}
    for name, values in (("divergence", -ratio), ("total_variation", (1 - ratio.exp()).clamp(0))):
        error = values.std().item() / HELD_OUT**0.5
        row |= {name: values.mean().item(), f"{name}_error": error}
    return row


def _compared(mixture: SphereMixture, samples: Tensor, generator: torch.Generator) -> Row:
    """Returns W1 of two samples, and the floor: W1 of two samples of the mixture itself."""
    first, second = (mixture.sample(len(samples), generator=generator) for _ in range(2))
    two_sample, floor = (wasserstein(first, other, order=1) for other in (samples, second))
    return {"two_sample": two_sample, "floor": floor}


def _steepness(flow: Flow, mixture: SphereMixture, generator: torch.Generator) -> Row:
    """Returns the largest stretching in both directions at points of the flow, with the bounds."""
    with torch.no_grad():
        x = flow.sample(STRETCH_POINTS, generator=generator)
    singular_values = spectrum(flow.bijection, x)
    to_data = (1 / singular_values.sigma_min).max().item()
    to_latent = singular_values.sigma_max.max().item()
    return {
        "stretch_to_data": to_data,
        "stretch_to_latent": to_latent,
        "condition_number_median": singular_values.condition_number.median().item(),
        "tearing_bound": tearing_bound(mixture, to_data),
        "volume_bound": volume_bound(mixture, to_latent),
    }


def _generator(case: Case) -> list[Row]:
    mixture = _mixture(case)
    network = MixtureGenerator(mixture, accuracy=case["accuracy"])
    generator = torch.Generator().manual_seed(TEST_SEED + case["seed"])
    row: Row = {
        "numbers": network.numbers,
        "hidden_units": network.hidden_units,
        "wasserstein_bound": network.wasserstein_bound(),
        "mean_distance": mixture.mean_distance(),
    }
    row |= _compared(mixture, network.sample(case["points"], generator=generator), generator)
    z = torch.randn(case["points"], case["features"] + 1, generator=generator)
    with torch.no_grad():
        exact = network(z.double())
        row["float32_gap"] = (network.float()(z) - exact).norm(dim=1).mean().item()
    return [row]


def _family(case: Case) -> list[Row]:
    first = case["seed"] * case["tuples"]
    k, d, n = case["components"], case["features"], case["tuples"]
    mixtures = [
        SphereMixture.random(k, d, sigma=case["sigma"], seed=first + draw) for draw in range(n)
    ]
    pairs = [wasserstein_bounds(a, b) for i, a in enumerate(mixtures) for b in mixtures[:i]]
    least, most = torch.tensor(pairs, dtype=torch.float64).T
    nearest, predicted = random_family(k, d, n)
    row = {"smallest": most.min().item(), "mean": most.mean().item()}
    row |= {"smallest_of_mixtures": least.min().item(), "nearest": nearest}
    return [row | {"predicted": predicted}]


def _bound(case: Case) -> list[Row]:
    k, d, distance = case["components"], case["features"], case["distance"]
    try:
        family = mixture_packing(k, d, distance=distance, sigma=case["sigma"])
    except ArgumentError:
        return []
    rows, lipschitz = [], case["layer_lipschitz"]
    for p in case["layer_parameters"]:
        layers = LayerClass(p, lipschitz, lipschitz, whole_lipschitz=case["whole_lipschitz"])
        rows.append({
            "layer_size": p,
            "min_depth": min_depth(family, layers, d),
            "min_parameters": min_parameters(family),
            "log_count": family.log_count,
            "generator_numbers": (k - 1) * (d + 4) + 7 * d,  # as in `MixtureGenerator`
        })
    return rows
