"""One case: a trained flow, a generator, a family of tuples, or the depth bound."""

import torch
from torch import Tensor

from kappaflow.conditioning import spectrum
from kappaflow.errors import ArgumentError, NumericalError
from kappaflow.flows import Flow
from kappaflow.training import fit
from kappaflow_studies.engine.study import Case, Row
from kappaflow_studies.sphere.budget import flow_of_budget
from kappaflow_studies.sphere.depth_bound import LayerClass, least_depth, least_numbers
from kappaflow_studies.sphere.distances import matching_distance, random_family, wasserstein_bounds
from kappaflow_studies.sphere.generator import MixtureGenerator
from kappaflow_studies.sphere.lipschitz_bounds import tearing_bound, volume_bound
from kappaflow_studies.sphere.mixture import SphereMixture
from kappaflow_studies.sphere.monte_carlo import Estimate
from kappaflow_studies.sphere.packing import mixtures_far_apart

HELD_OUT = 4096  # draws for divergences
VALIDATED = 1024  # draws that decide which weights are kept
EPOCH = 300  # steps between two validations, about
STRETCHED = 512  # points at which the Jacobian is looked at
TEST_SEED = 2**32  # added to seeds, so that no draw of a training is one of its test


def measure(case: Case) -> list[Row]:
    """Returns the rows of a case, by its kind."""
    return {"flow": _flow, "generator": _generator, "family": _family, "bound": _bound}[
        case["kind"]
    ](case)


def _mixture(case: Case) -> SphereMixture:
    return SphereMixture.random(
        case["components"], case["features"], sigma=case["sigma"], seed=case["seed"]
    )


def _flow(case: Case) -> list[Row]:
    """Returns one row: how far the trained flow is from the mixture, and how steep it is."""
    mixture = _mixture(case)
    with torch.random.fork_rng():
        torch.manual_seed(case["seed"])  # for the weights
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
    """Trains on many draws, a few times each; the weights that validate best are kept."""
    generator = torch.Generator().manual_seed(case["seed"])
    epochs, steps = passes(case["steps"])
    rows = mixture.sample(case["batch_size"] * steps, generator=generator)
    fit(
        flow,
        rows.float(),
        validation=mixture.sample(VALIDATED, generator=generator).float(),
        max_epochs=epochs,
        patience=epochs,
        conditioning_every=epochs,
        batch_size=case["batch_size"],
        learning_rate=case["learning_rate"],
        seed=case["seed"],
        progress=False,
    )


def passes(steps: int) -> tuple[int, int]:
    """Returns how often all draws are gone through, and the steps of each time.

    Example:
        >>> passes(700), passes(3000), passes(5)
        ((2, 350), (10, 300), (1, 5))
    """
    epochs = max(1, steps // EPOCH)
    return epochs, round(steps / epochs)


def _divergences(flow: Flow, mixture: SphereMixture, generator: torch.Generator) -> Row:
    """Returns KL(mixture, flow) and the total variation, both by exact densities at draws."""
    x = mixture.sample(HELD_OUT, generator=generator)
    ratio = flow.log_prob(x.float()).double() - mixture.log_prob(x)
    divergence, variation = Estimate.of(-ratio), Estimate.of((1 - ratio.exp()).clamp(min=0))
    return {
        "divergence": divergence.value,
        "divergence_error": divergence.standard_error,
        "total_variation": variation.value,
        "total_variation_error": variation.standard_error,
    }


def _compared(mixture: SphereMixture, drawn: Tensor, generator: torch.Generator) -> Row:
    """Returns W1 of two samples, and of two samples of the mixture itself: the floor."""
    n = len(drawn)
    fresh = [mixture.sample(n, generator=generator) for _ in range(2)]
    return {
        "two_sample": matching_distance(fresh[0], drawn.double()),
        "floor": matching_distance(*fresh),
    }


def _steepness(flow: Flow, mixture: SphereMixture, generator: torch.Generator) -> Row:
    """Returns the largest stretching both ways at points of the flow, and what it implies."""
    with torch.no_grad():
        x = flow.sample(STRETCHED, generator=generator)
    found = spectrum(flow.bijection, x)
    to_data, to_latent = (1 / found.sigma_min).max().item(), found.sigma_max.max().item()
    return {
        "stretch_to_data": to_data,
        "stretch_to_latent": to_latent,
        "condition_number_median": found.condition_number.median().item(),
        "tearing_bound": tearing_bound(mixture, to_data),
        "volume_bound": volume_bound(mixture, to_latent),
    }


def _generator(case: Case) -> list[Row]:
    """Returns one row: the bound, the distance of samples, and what float32 changes."""
    mixture = _mixture(case)
    made = MixtureGenerator(mixture, accuracy=case["accuracy"])
    generator = torch.Generator().manual_seed(TEST_SEED + case["seed"])
    row: Row = {
        "numbers": made.numbers,
        "hidden_units": made.hidden_units,
        "wasserstein_bound": made.wasserstein_bound(),
        "mean_distance": mixture.mean_distance(),
    }
    row |= _compared(mixture, made.sample(case["points"], generator=generator), generator)
    z = torch.randn(case["points"], case["features"] + 1, generator=generator)
    with torch.no_grad():
        exact = made(z.double())
        row["float32_gap"] = (made.float()(z) - exact).norm(dim=1).mean().item()
    return [row]


def _family(case: Case) -> list[Row]:
    """Returns one row: the distances of all pairs of tuples, and what was predicted."""
    first = case["seed"] * case["tuples"]
    k, d, n = case["components"], case["features"], case["tuples"]
    mixtures = [
        SphereMixture.random(k, d, sigma=case["sigma"], seed=first + one) for one in range(n)
    ]
    pairs = [wasserstein_bounds(a, b) for i, a in enumerate(mixtures) for b in mixtures[:i]]
    least, most = torch.tensor(pairs, dtype=torch.float64).T
    predicted = random_family(k, d, n)
    return [
        {
            "smallest": most.min().item(),
            "mean": most.mean().item(),
            "smallest_of_mixtures": least.min().item(),
            "nearest": predicted.nearest,
            "predicted": predicted.smallest,
        }
    ]


def _bound(case: Case) -> list[Row]:
    """Returns a row for each p: the depth that the counting asks for, if it asks for any."""
    k, d, distance = case["components"], case["features"], case["distance"]
    try:
        family = mixtures_far_apart(k, d, distance=distance, sigma=case["sigma"])
    except ArgumentError:
        return []
    rows = []
    for p in case["layer_parameters"]:
        layers = LayerClass(
            p,
            lipschitz=case["layer_lipschitz"],
            parameter_lipschitz=case["layer_lipschitz"],
            whole_lipschitz=case["whole_lipschitz"],
        )
        bound = least_depth(family, layers, d)
        rows.append({
            "layer_size": p,
            "least_depth": bound.layers,
            "missed": bound.missed,
            "least_numbers": least_numbers(family),
            "log_count": family.log_count,
            "generator_numbers": (k - 1) * (d + 4) + 7 * d,  # of `MixtureGenerator`, as if made
        })
    return rows
