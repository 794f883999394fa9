"""Measures one case of `padding`: trains and evaluates a flow of the plane or of images."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from kappaflow.conditioning import spectrum
from kappaflow.data import toy, toy_log_prob, toy_sets
from kappaflow.errors import NumericalError
from kappaflow.flows import Flow, importance_weighted_log_prob, real_nvp
from kappaflow.images import Images, load_images, real_nvp_image, split_images
from kappaflow.images.batches import ImageBatches
from kappaflow_studies.engine.charts import cells
from kappaflow_studies.engine.study import Case, Row
from kappaflow_studies.padding.cases import spec_of
from kappaflow_studies.training import fitted
from kappaflow_studies.wasserstein import wasserstein

QUANTILES = {"p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}
CHUNK_SIZE = 500
FLAT = 1e-3  # nats by which a doubling of the draws changes a mean that is flat


def conditioning(flow: Flow, x: Tensor) -> Row:
    """Returns quantiles over points of the condition number, and medians of its two parts."""
    joined = flow.augmented(x, generator=seeded(0))
    singular_values = spectrum(flow.core, flow.standardization(joined)[0])
    kappa = singular_values.condition_number.double().nan_to_num(math.inf)
    levels = {f"kappa_{name}": kappa.quantile(level).item() for name, level in QUANTILES.items()}
    ends = {"sigma_max": singular_values.sigma_max, "sigma_min": singular_values.sigma_min}
    return levels | {name: value.median().item() for name, value in ends.items()}


def likelihood(
    flow: Flow, x: Tensor, draws: int, truth: Tensor | None = None, *, max_draws: int = 0
) -> Row:
    """Returns the mean NLL of held-out points in nats, importance-weighted if it is a bound.

    The number of draws doubles, up to `max_draws`, until the mean is flat.
    """
    generator = seeded(1)
    with torch.no_grad():
        parts = [flow.log_prob(part, generator=generator) for part in x.split(CHUNK_SIZE)]
    log_prob = torch.cat(parts).double()
    row: Row = {"likelihood": flow.likelihood, **_mean("nll", -log_prob)}
    if flow.likelihood == "joint":
        return row
    error = torch.zeros_like(log_prob)
    if flow.likelihood == "bound":
        log_prob, error, grown = _weighted(flow, x, draws, max_draws)
        row |= grown
    row["weighted_nll"] = -log_prob.mean().item()
    row["weighted_error"] = error.square().sum().sqrt().item() / len(error)
    if truth is not None:
        row |= _mean("kl", truth.double() - log_prob)
    return row


def _mean(name: str, values: Tensor) -> Row:
    error = values.std(correction=0).item() / math.sqrt(len(values))
    return {name: values.mean().item(), f"{name}_error": error}


def _weighted(flow: Flow, x: Tensor, draws: int, max_draws: int) -> tuple[Tensor, Tensor, Row]:
    """Returns estimates of log p, their errors, and how the mean depends on the draws."""
    generator = seeded(2)
    log_prob, error = _estimated(flow, x, draws, generator)
    row: Row = {"first_weighted_nll": -log_prob.mean().item()}
    flat = False
    while 2 * draws <= max_draws and not flat:
        more, more_error = _estimated(flow, x, draws, generator)
        doubled = torch.logaddexp(log_prob, more) - math.log(2)
        gain = doubled - (log_prob + more) / 2  # over half as many draws; never negative
        parts = [(log_prob - doubled).exp() * error, (more - doubled).exp() * more_error]
        log_prob, error, draws = doubled, torch.hypot(*parts) / 2, 2 * draws
        flat = is_flat(gain)
        row |= {"weighted_change": gain.mean().item(), "weighted_flat": flat}
    return log_prob, error, {**row, "weighted_draws": draws}


def is_flat(gain: Tensor) -> bool:
    """Returns whether a doubling of the draws gains next to nothing, or less than its error."""
    return gain.mean().item() < max(FLAT, gain.std().item() / math.sqrt(len(gain)))


def _estimated(
    flow: Flow, x: Tensor, draws: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Returns importance-weighted estimates of log p at points, and their errors."""
    pairs = [
        importance_weighted_log_prob(flow, part, draws, generator=generator)
        for part in x.split(CHUNK_SIZE)
    ]
    estimate, error = (torch.cat(part).double() for part in zip(*pairs, strict=True))
    return estimate, error


def distance(a: Tensor, b: Tensor) -> Row:
    """Returns W2 between two samples of equal size; nan if not finite."""
    finite = a.isfinite().all() and b.isfinite().all()
    return {"w2": wasserstein(a.flatten(1), b.flatten(1), order=2) if finite else math.nan}


def curve(history: Iterable[Mapping[str, Any]]) -> Row:
    """Returns the measured condition numbers over the training."""
    measured = [line for line in history if line["condition_number_median"] is not None]
    return {
        "epochs_measured": [line["epoch"] for line in measured],
        "kappa_over_training": [line["condition_number_median"] for line in measured],
        "kappa_p95_over_training": [line["condition_number_p95"] for line in measured],
    }


PARTS = ("train", "validation", "test", "other test")  # each has its own seed
HELD_OUT = 2000
PICTURE_POINTS, CELLS = 40_000, 48
MARGIN = 1.15


def trained_on_plane(case: Case) -> Row:
    """Returns the results of a flow of a planar set with a padding."""
    seed, name = case["seed"], case["set"]
    options = {"depth": case["depth"], "hidden": case["hidden"], "couplings": {"memory": "store"}}
    with _seeded_weights(seed):
        flow = real_nvp(2, padding=spec_of(case["padding"]).padding((2,)), **options)
    train, held_out = (
        table(name, case["rows"], seed, "train"),
        points(name, HELD_OUT, seed, "test"),
    )
    validation = table(name, HELD_OUT, seed, "validation")
    row = _results(
        flow,
        case,
        (train, validation, held_out),
        points(name, case["drawn"], seed, "test"),
        rate=case["learning_rate"],
        truth=truth(name, held_out),
    )
    if case["pictured"] and "error" not in row:
        row["picture"] = picture(name, flow.sample(PICTURE_POINTS, generator=seeded(seed + 1)))
    return row


def _results(
    flow: Flow,
    case: Case,
    data: tuple[Any, Any, Tensor],
    reference: Tensor,
    *,
    rate: float,
    prefix: str = "",
    unit: float = 1.0,
    truth: Tensor | None = None,
) -> Row:
    """Returns the measurements of a flow after its training, or why the training stopped."""
    train, validation, x = data
    seed = case["seed"]
    options = {name: case[f"{prefix}{name}"] for name in ("epochs", "batch_size")}
    options |= {"every": case[f"{prefix}measured_every"], "learning_rate": rate, "seed": seed}
    try:
        result = fitted(flow, train, validation, **options)
    except NumericalError as error:
        return {"error": str(error)}
    samples = flow.sample(len(reference), generator=seeded(seed))
    return {
        **curve(result.history),
        **conditioning(flow, x[: case[f"{prefix}points"]]),
        **likelihood(
            flow, x, case[f"{prefix}draws"], truth, max_draws=case.get(f"{prefix}max_draws", 0)
        ),
        **distance(samples / unit, reference),
        "best_epoch": result.best_epoch,
        "time_s": result.history[-1]["time_s"],
    }


def seeded(seed: int) -> torch.Generator:
    """Returns a random generator."""
    return torch.Generator().manual_seed(seed)


@contextmanager
def _seeded_weights(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def plane_floor(case: Case) -> Row:
    """Returns the distance between two independent samples of a set."""
    name, seed, count = case["set"], case["seed"], case["drawn"]
    first, second = (points(name, count, seed, part) for part in PARTS[2:])
    row = distance(first, second)
    if case["pictured"]:
        row["picture"] = picture(name, points(name, PICTURE_POINTS, seed, "other test"))
    return row


def table(name: str, count: int, seed: int, part: str) -> Tensor:
    """Returns points of a set for one purpose, in float64."""
    return torch.from_numpy(toy(name, count, seed=len(PARTS) * seed + PARTS.index(part)).values)


def points(name: str, count: int, seed: int, part: str) -> Tensor:
    """Returns the same in the dtype of a flow."""
    return table(name, count, seed, part).float()


def truth(name: str, x: Tensor) -> Tensor | None:
    """Returns the log-density of a set at points; None if it has no closed form."""
    closed = {toy_set.name for toy_set in toy_sets() if toy_set.log_prob is not None}
    return torch.from_numpy(toy_log_prob(name, x.double().numpy())) if name in closed else None


def span(name: str) -> float:
    """Returns the distance from the center to the edge of the pictures of a set."""
    return MARGIN * float(abs(toy(name, HELD_OUT, seed=0).values).max())


def picture(name: str, samples: Tensor) -> list[int]:
    """Returns the number of points in each cell of a grid, row by row from below."""
    return cells(samples, span(name), CELLS)


FRACTIONS = (0.7, 0.1, 0.2)
LEARNING_RATE = 2e-3


def trained_on_images(case: Case) -> Row:
    """Returns the results of a flow of an image set with a padding."""
    seed = case["seed"]
    train, validation, test = parts(case)
    options = {name: case[f"image_{name}"] for name in ("levels", "hidden", "blocks")}
    with _seeded_weights(seed):
        flow = real_nvp_image(
            train.shape,
            pixels={"dequantize": "uniform", "values": train.values},
            padding=spec_of(case["padding"]).padding(train.shape),
            couplings={"memory": "store"},
            **options,
        )
    x = ImageBatches(test, flow).at(slice(0, len(test))).x
    reference = _scaled(test, min(case["image_drawn"], len(test)))
    options = {"rate": LEARNING_RATE, "prefix": "image_", "unit": train.values - 1}
    return _results(flow, case, (train, validation, x), reference, **options)


def image_floor(case: Case) -> Row:
    """Returns the distance between held-out images and an equal number of training images."""
    train, _, test = parts(case)
    count = min(case["image_drawn"], len(test))
    return distance(_scaled(train, count), _scaled(test, count))


def parts(case: Case) -> tuple[Images, ...]:
    """Returns training, validation and test images."""
    images = load_images(case["set"], size=case["image_size"])
    return split_images(images, fractions=FRACTIONS, seed=case["seed"])


def _scaled(images: Images, count: int) -> Tensor:
    return images.batch(range(count)).float() / (images.values - 1)


def measure(case: Case) -> list[Row]:
    """Returns the row of a case."""
    trained = {"plane": trained_on_plane, "images": trained_on_images}
    floors = {"plane floor": plane_floor, "image floor": image_floor}
    return [(trained | floors)[case["kind"]](case)]
