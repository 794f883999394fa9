"""One case: all draws of an ensemble, fitted at one depth by one method."""

import torch
from torch import Tensor

from kappaflow.errors import KappaflowError
from kappaflow.factor import factor_linear
from kappaflow_studies import ensembles
from kappaflow_studies.engine.study import Case, Row
from kappaflow_studies.linear_depth.regression import Regression, by_adam, by_lbfgs


def measure(case: Case) -> list[Row]:
    """Returns a row for each draw: the best of its starts, its residual and conditioning."""
    maps = [
        torch.from_numpy(ensembles.draw(case["ensemble"], case["n"], case["seed"] * 1000 + draw))
        for draw in range(case["draws"])
    ]
    if case["method"] == "exact":
        return [{"draw": draw, **_exact(one, case["depth"])} for draw, one in enumerate(maps)]
    return _fitted(torch.stack(maps), case)


def _fitted(maps: Tensor, case: Case) -> list[Row]:
    restarts = case["restarts"]
    generator = torch.Generator().manual_seed(case["seed"])
    problem = Regression(maps.repeat_interleave(restarts, 0), case["depth"], generator)
    if case["method"] == "Adam":
        numbers = by_adam(problem, case["steps"], case["rate"])
    else:
        numbers = by_lbfgs(problem, case["steps"])
    residuals = problem.residuals(numbers).reshape(-1, restarts)
    largest = torch.stack([torch.linalg.cond(one) for one in problem.factors(numbers)]).amax(0)
    largest = largest.reshape(-1, restarts)
    rows = []
    for draw, (of_starts, conditions) in enumerate(zip(residuals, largest, strict=True)):
        best = of_starts.argmin()
        rows.append({
            "draw": draw,
            "residual": of_starts[best].item(),
            "median_residual": of_starts.median().item(),
            "condition_number": conditions[best].item(),
            "of_the_map": torch.linalg.cond(maps[draw]).item(),
        })
    return rows


def _exact(matrix: Tensor, couplings: int) -> Row:
    of_the_map = torch.linalg.cond(matrix).item()
    try:
        found = factor_linear(matrix, couplings=couplings)
    except KappaflowError as error:
        return {"of_the_map": of_the_map, "why_not": str(error)}
    return {
        "residual": found.residual,
        "condition_number": found.condition_number,
        "of_the_map": of_the_map,
        "couplings_used": len(found),
    }
