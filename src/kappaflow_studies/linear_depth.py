"""`linear-depth`: how many couplings gradient descent needs to fit a linear map."""

from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import torch
from scipy.optimize import minimize
from torch import Tensor

from kappaflow.errors import KappaflowError
from kappaflow.factor import factor_linear
from kappaflow.report.charts import Chart, Panel
from kappaflow.report.numbers import significant
from kappaflow_studies import ensembles
from kappaflow_studies.engine.presets import Count, Counts, Ensemble, Even, NotEmpty, Positive
from kappaflow_studies.engine.report import Findings, Table, quantile_series
from kappaflow_studies.engine.study import Case, Row, Study, StudySettings
from kappaflow_studies.ensembles import has_size

EXACT_FROM, EXACT_TO = 4, 16  # numbers of couplings for which the exact method runs


class LinearDepthSettings(StudySettings):
    """Settings of the maps and of the fits.

    Attributes:
        ensembles: Names of `kappaflow_studies.ensembles`.
        sizes: Numbers of features of the maps, even; the three-cycle needs at least six.
        depths: Numbers of couplings.
        draws: Number of maps of each kind and size.
        restarts: Number of starts for each map and optimizer.
        adam_steps: Number of steps of Adam, with a learning rate that falls to zero.
        adam_learning_rate: Initial learning rate of Adam.
        lbfgs_steps: Largest number of steps of L-BFGS.
    """

    ensembles: Annotated[tuple[Ensemble, ...], NotEmpty]
    sizes: Annotated[tuple[Even, ...], NotEmpty]
    depths: Counts
    draws: Count
    restarts: Count
    adam_steps: Count
    adam_learning_rate: Positive
    lbfgs_steps: Count


def cases(settings: LinearDepthSettings, seed: int) -> list[Case]:
    """Returns a case for each ensemble, size, depth and method, deep and large ones first."""
    found: list[Case] = []
    for n in sorted(settings.sizes, reverse=True):
        for depth in sorted(settings.depths, reverse=True):
            for ensemble in settings.ensembles:
                if not has_size(ensemble, n):
                    continue
                case = {"ensemble": ensemble, "n": n, "depth": depth, "draws": settings.draws}
                case["seed"] = seed
                adam = {"steps": settings.adam_steps, "rate": settings.adam_learning_rate}
                starts = {"restarts": settings.restarts}
                found.append({**case, "method": "Adam", **starts, **adam})
                lbfgs = {"steps": settings.lbfgs_steps}
                found.append({**case, "method": "L-BFGS", **starts, **lbfgs})
                if EXACT_FROM <= depth <= EXACT_TO:
                    found.append({**case, "method": "exact"})
    return found


START = 0.3  # the standard deviation of the initial numbers is START / sqrt(d)
LARGEST_LOG = 12.0  # bound on the logs of diagonals, so that no product of 48 couplings overflows


class Regression:
    """Alternating couplings [[I, 0], [A, diag(exp s)]] and [[diag(exp s), B], [0, I]].

    Args:
        targets: Maps T, (B, n, n), float64, n even; each is fitted separately.
        depth: Number of couplings; the first one changes the second half.
        generator: Random generator of the starts.
    """

    def __init__(self, targets: Tensor, depth: int, generator: torch.Generator) -> None:
        self.targets, self.depth = targets, depth
        count, n, _ = targets.shape
        self.half = n // 2
        self.norms = targets.flatten(1).norm(dim=1)
        self.shape = (count, depth, self.half, self.half + 1)
        drawn = torch.randn(self.shape, generator=generator, dtype=torch.float64)
        self.start = START / self.half**0.5 * drawn

    def factors(self, numbers: Tensor) -> list[Tensor]:
        """Returns the couplings as matrices (B, n, n), in the order of the product."""
        found = []
        logs = numbers[..., -1].clamp(-LARGEST_LOG, LARGEST_LOG)
        eye = torch.eye(self.half, dtype=numbers.dtype).expand(len(numbers), -1, -1)
        none = torch.zeros_like(eye)
        for layer in range(self.depth):
            block = numbers[:, layer, :, :-1]
            scale = torch.diag_embed(logs[:, layer].exp())
            lower, upper = ((eye, none), (block, scale)), ((scale, block), (none, eye))
            rows = lower if layer % 2 == 0 else upper
            found.append(torch.cat([torch.cat(row, 2) for row in rows], 1))
        return found

    def residuals(self, numbers: Tensor) -> Tensor:
        """Returns the relative error |product - T| / |T| of each map, in Frobenius norms.

        The product is built from the left, as its two halves of columns. A coupling scales one of
        them, and adds a multiple of its old value to the other.
        """
        eye = torch.eye(2 * self.half, dtype=numbers.dtype).expand(len(numbers), -1, -1)
        first, second = eye.split(self.half, 2)
        blocks = numbers[..., :-1].unbind(1)
        scales = numbers[..., None, :, -1].clamp(-LARGEST_LOG, LARGEST_LOG).exp().unbind(1)
        for layer, (block, scale) in enumerate(zip(blocks, scales, strict=True)):
            if layer % 2 == 0:
                first, second = torch.baddbmm(first, second, block), second * scale
            else:
                first, second = first * scale, torch.baddbmm(second, first, block)
        product = torch.cat((first, second), 2)
        return (product - self.targets).flatten(1).norm(dim=1) / self.norms


def by_adam(problem: Regression, steps: int, rate: float) -> Tensor:
    """Returns the final numbers of Adam; all maps run in parallel, but independently."""
    numbers = problem.start.clone().requires_grad_()
    optimizer = torch.optim.Adam([numbers], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        (problem.residuals(numbers) ** 2).sum().backward()
        optimizer.step()
        schedule.step()
    return numbers.detach()


def by_lbfgs(problem: Regression, steps: int) -> Tensor:
    """Returns the final numbers of L-BFGS, map by map."""
    found = []
    for number, target in enumerate(problem.targets):
        one = Regression(target[None], problem.depth, torch.Generator())

        def loss(flat: np.ndarray, one: Regression = one) -> tuple[float, np.ndarray]:
            numbers = torch.from_numpy(flat).reshape(one.shape).requires_grad_()
            value = (one.residuals(numbers) ** 2).sum()
            (slope,) = torch.autograd.grad(value, numbers)
            return value.item(), slope.flatten().numpy()

        options = {"maxiter": steps, "maxfun": 2 * steps, "maxcor": 30, "ftol": 0.0, "gtol": 1e-14}
        start = problem.start[number].flatten().numpy()
        done = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
        found.append(torch.from_numpy(done.x).reshape(one.shape[1:]))
    return torch.stack(found)


def measure(case: Case) -> list[Row]:
    """Returns a row for each map: the best of its starts, with residual and conditioning."""
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


METHODS = {"exact": (2, "factorization"), "L-BFGS": (1, "L-BFGS"), "Adam": (0, "Adam")}
FITTED = 1e-6  # relative residual below which a map counts as fitted
FOUND_BY_ALL = 0.9  # share of the maps that counts as all of them


def findings(frame: pl.DataFrame, settings: LinearDepthSettings) -> Findings:
    """Returns the charts, the table and the sentences on them."""
    largest = max(settings.sizes)
    return Findings(
        found=[
            _on_exact(frame),
            *(_on_descent(frame, method) for method in ("L-BFGS", "Adam")),
            *_on_divergence(frame, settings),
            _on_three(frame),
            *_on_four_and_five(frame),
        ],
        differs=[
            "The source fits by stochastic gradients on samples; here the loss is the distance "
            "of the product from the map, in float64, so that no noise sets a floor. Its "
            "diagonals, starts and numbers of steps are not known to us.",
            "The source bounds the number of couplings by 47, and its figure shows fits that get "
            "better up to some 16. Six are enough for each invertible map of positive "
            "determinant, by a proof: what is beyond six is the optimizer's doing.",
        ],
        charts=[
            _chart(frame, settings, largest, "residual"),
            _chart(frame, settings, largest, "condition_number"),
            *(
                _chart(frame, settings, n, "residual")
                for n in sorted(settings.sizes)
                if n != largest
            ),
        ],
        tables=[_first_depths(frame, settings)],
    )


def _chart(frame: pl.DataFrame, settings: LinearDepthSettings, n: int, y: str) -> Chart:
    of_size = frame.filter(pl.col("n") == n)
    is_loss = y == "residual"
    label = "relative residual" if is_loss else "largest condition number of a coupling"
    panels = []
    for ensemble in settings.ensembles:
        here = of_size.filter(pl.col("ensemble") == ensemble)
        if here.is_empty():
            continue
        series = [
            quantile_series(
                here.filter(pl.col("method") == method), "depth", y, name=name, tone=tone
            )
            for method, (tone, name) in METHODS.items()
            if not here.filter(pl.col("method") == method)["residual"].drop_nulls().is_empty()
        ]
        panels.append(Panel(title=ensemble, x="couplings", y=label, y_log=True, series=series))
    kind = "Residual" if is_loss else "Conditioning"
    return Chart(
        name=f"{kind.lower()}-{n}",
        title=f"{kind} against depth, {n} features",
        caption=(
            f"The median over {settings.draws} maps, and quartiles as a band; for the optimizers "
            f"the best of {settings.restarts} starts for each. "
            + (
                "The exact factorization has no residual above rounding from the first count on "
                "that it can reach; a fit that stops above it has stopped, not reached a limit."
                if is_loss
                else "Condition numbers of the couplings in the other chart: a large one "
                "with a small residual means that conditioning paid for the fit."
            )
        ),
        panels=panels,
        columns=2 if len(panels) == 4 else 3,
        share_y=True,
    )


def _share(frame: pl.DataFrame, method: str, depth: int, below: float = FITTED) -> float | None:
    """Returns the share of maps that a method fits at a depth; None if it was not tried."""
    here = frame.filter((pl.col("method") == method) & (pl.col("depth") == depth))
    if here.is_empty():
        return None
    return here.select((pl.col("residual").fill_null(float("inf")) < below).mean()).item()


def _on_exact(frame: pl.DataFrame) -> str:
    six = frame.filter((pl.col("method") == "exact") & (pl.col("depth") == 6))
    found = six.drop_nulls("residual")
    if found.is_empty():
        return "No factorization into six couplings was tried."
    rotations = found.filter(pl.col("ensemble").is_in(["orthogonal", "permutation"]))
    bounded = ""
    if not rotations.is_empty():
        bounded = (
            f"; of rotations and permutations no coupling has a condition number above "
            f"{significant(rotations['condition_number'].max())}"
        )
    return (
        f"Six couplings make {len(found)} of {len(six)} maps exactly, with residuals of at most "
        f"{significant(found['residual'].max(), 2)}{bounded}."
    )


def _on_descent(frame: pl.DataFrame, method: str) -> str:
    depths = sorted(frame.filter(pl.col("method") == method)["depth"].unique())
    shares = {depth: _share(frame, method, depth) for depth in depths}
    reached = [d for d, share in shares.items() if share is not None and share >= FOUND_BY_ALL]
    six = shares.get(6)
    at_six = f"{method} "
    if six is not None:
        at_six += f"fits {100 * six:.0f} % of the maps with six couplings and "
    limit = significant(FITTED, 1)
    if reached:
        return f"{at_six}comes below {limit} for nine maps in ten only from {reached[0]} on."
    return f"{at_six}fits nine maps in ten to {limit} at no depth up to {depths[-1]}."


def _on_divergence(frame: pl.DataFrame, settings: LinearDepthSettings) -> list[str]:
    """Returns how often Adam has a larger error than the zero matrix, at the largest depth."""
    adam = frame.filter(pl.col("method") == "Adam")
    if adam.is_empty():
        return []
    depth = max(adam["depth"].to_list())
    ends = adam.filter(pl.col("depth") == depth)["residual"].fill_null(float("inf")).to_list()
    share = sum(one > 1 for one in ends) / len(ends)
    if not share:
        return []
    return [
        f"With {depth} couplings Adam diverges for {100 * share:.0f} % of the maps (residuals "
        f"above 1): its first learning rate, {settings.adam_learning_rate:g} at all depths, is "
        "too large there."
    ]


def _on_three(frame: pl.DataFrame) -> str:
    three = frame.filter((pl.col("depth") == 3) & (pl.col("method") != "exact"))
    if three.is_empty():
        return "Three couplings were not tried."
    best = min(three["residual"].to_list())
    return (
        f"Three couplings fit none of the maps: the smallest residual is {significant(best)}."
        if best > FITTED
        else f"Three couplings fit a map to {significant(best)}, which the theory excludes for "
        "all but special ones."
    )


def _on_four_and_five(frame: pl.DataFrame) -> list[str]:
    sentences = []
    for depth, theory in ((4, "an open set of maps"), (5, "all but special maps")):
        exact, descent = (_share(frame, method, depth) for method in ("exact", "L-BFGS"))
        if exact is None or descent is None:
            continue
        sentences.append(
            f"{'Four' if depth == 4 else 'Five'} are enough for {theory}: the search for exact "
            f"ones finds them for {100 * exact:.0f} % of the maps, L-BFGS for "
            f"{100 * descent:.0f} %."
        )
    return sentences


def _first_depths(frame: pl.DataFrame, settings: LinearDepthSettings) -> Table:
    """Returns the first depth at which half of the maps are fitted."""
    rows = []
    for n in settings.sizes:
        for ensemble in settings.ensembles:
            here = frame.filter((pl.col("n") == n) & (pl.col("ensemble") == ensemble))
            if here.is_empty():
                continue
            cells = []
            for method in METHODS:
                depths = sorted(here.filter(pl.col("method") == method)["depth"].unique())
                fitted = [d for d in depths if (_share(here, method, d) or 0) >= 0.5]
                cells.append(str(fitted[0]) if fitted else "none")
            rows.append([f"{ensemble}, {n}", *cells])
    return Table(
        title="The first depth at which half of the maps are fitted",
        columns=["maps", *(name for _, name in METHODS.values())],
        rows=rows,
        caption=f"Couplings for a relative residual below {significant(FITTED, 1)}.",
    )


LINEAR_DEPTH = Study(
    name="linear-depth",
    title="How many couplings a linear map takes",
    about="linear couplings of depth 1 to 48, fitted by descent, against the exact factorization",
    claim=(
        "Alternating affine couplings of a fixed partition represent every invertible linear map "
        "with a constant number of layers, at most 47 whatever the dimension, and some maps need "
        "more than four; fits by gradient descent get better with up to some 16."
    ),
    settings=LinearDepthSettings,
    presets=Path(__file__).with_suffix(".toml"),
    cases=cases,
    measure=measure,
    findings=findings,
)
