"""One case: the error and the singular values of one construction, or a picture of its draws."""

import torch
from torch import Tensor

from kappaflow_studies.engine.study import Case, Row
from kappaflow_studies.universal.approximation import approximate
from kappaflow_studies.universal.construction import universal_flow
from kappaflow_studies.universal.targets import TARGETS, Target

INVERTED = 200  # points that are taken to the data and back


def measure(case: Case) -> list[Row]:
    """Returns one row."""
    target = TARGETS[case["target"]]
    if case["what"] == "picture":
        return [{"counts": _counts(_draws(target, case), target.reach, case["bins"])}]
    found = approximate(
        target,
        case["epsilon"],
        samples=case["samples"],
        points=case["points"],
        draws=case["draws"],
        seed=case["seed"],
    )
    low, middle, high = found.sigma_min
    return [
        {
            "bound": found.error.bound,
            "standard_error": found.error.standard_error,
            "unseen": found.error.unseen**0.5,
            "two_sample_w2": found.two_sample_w2,
            "floor": found.floor,
            "sigma_min_low": low,
            "sigma_min": middle,
            "sigma_min_high": high,
            "sigma_max_low": found.sigma_max[0],
            "sigma_max": found.sigma_max[1],
            "sigma_max_high": found.sigma_max[2],
            "low_digits": found.scales.low_digits,
            "eta": found.scales.eta,
            "eta_prime": found.scales.eta_prime,
            "hidden_layers": 2 * found.scales.input_grid.digits,
            "round_trip": _round_trip(target, case),
        }
    ]


def _draws(target: Target, case: Case) -> Tensor:
    """Returns draws of the construction; an error of zero stands for the law itself."""
    generator = torch.Generator().manual_seed(case["seed"])
    if not case["epsilon"]:
        return target.sample(case["draws"], generator=generator)
    flow = universal_flow(target, case["epsilon"])
    return flow.sample(case["draws"], generator=generator)


def _counts(draws: Tensor, reach: float, bins: int) -> list[int]:
    """Returns how many draws are in each cell of a grid, row by row, the lowest first."""
    edges = torch.linspace(-1.1 * reach, 1.1 * reach, bins + 1, dtype=draws.dtype)
    counts = torch.histogramdd(draws.flip(1), [edges, edges]).hist  # rows are the second feature
    return counts.long().flatten().tolist()


@torch.no_grad()
def _round_trip(target: Target, case: Case) -> float:
    """Returns the median distance of normal draws from what they come back as."""
    flow = universal_flow(target, case["epsilon"])
    generator = torch.Generator().manual_seed(case["seed"])
    z = torch.randn(INVERTED, target.features, dtype=flow.dtype, generator=generator)
    back = flow.bijection(flow.bijection.inverse(z)[0])[0]
    return (back - z).norm(dim=1).median().item()
