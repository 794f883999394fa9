"""`linear-depth`: how many couplings gradient descent needs to fit a linear map."""

from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import torch
from scipy.optimize import minimize
from torch import Tensor

from kappaflow.errors import KappaflowError
from kappaflow.factor import factor_linear
from kappaflow.report.charts import Chart
from kappaflow.report.numbers import significant
from kappaflow_studies import ensembles
from kappaflow_studies.engine.charts import groups, panel, quantile_series
from kappaflow_studies.engine.presets import Count, Counts, Ensemble, Even, NotEmpty, Positive
from kappaflow_studies.engine.report import StudyFindings, StudyTable
from kappaflow_studies.engine.study import Case, Row, Study, StudySettings
from kappaflow_studies.ensembles import has_size

EXACT_MIN, EXACT_MAX = 4, 16  # numbers of couplings for which the exact method runs


class LinearDepthSettings(StudySettings):
    """Settings of the maps and of the fits."""

    ensembles: Annotated[tuple[Ensemble, ...], NotEmpty]
    sizes: Annotated[tuple[Even, ...], NotEmpty]  # features; the three-cycle needs at least six
    depths: Counts  # numbers of couplings
    draws: Count  # number of maps of each kind and size
    restarts: Count  # number of starts for each map and optimizer
    adam_steps: Count
    adam_learning_rate: Positive  # the first one; it falls to zero
    lbfgs_steps: Count


def cases(settings: LinearDepthSettings, seed: int) -> list[Case]:
    """Returns a case for each ensemble, size, depth and method, deep and large ones first."""
    restarts, adam = {"restarts": settings.restarts}, settings.adam_learning_rate
    methods = (
        {"method": "Adam", **restarts, "steps": settings.adam_steps, "rate": adam},
        {"method": "L-BFGS", **restarts, "steps": settings.lbfgs_steps},
        {"method": "exact"},
    )
    sizes, depths = (sorted(v, reverse=True) for v in (settings.sizes, settings.depths))
    return [
        {"ensemble": name, "n": n, "depth": depth, "draws": settings.draws, "seed": seed, **method}
        for n, depth, name in product(sizes, depths, settings.ensembles)
        if has_size(name, n)
        for method in methods
        if method["method"] != "exact" or EXACT_MIN <= depth <= EXACT_MAX
    ]


START_DEVIATION = 0.3  # the standard deviation of the initial numbers is START_DEVIATION / sqrt(d)
MAX_LOG = 12.0  # bound on the logs of diagonals, so that no product of 48 couplings overflows


class Regression:
    """Alternating couplings [[I, 0], [A, diag(exp s)]] and [[diag(exp s), B], [0, I]].

    The targets are maps T, (B, n, n), float64, n even, each fitted separately. The first of
    `depth` couplings changes the second half. The generator draws the starts.
    """

    def __init__(self, targets: Tensor, depth: int, generator: torch.Generator) -> None:
        self.targets, self.depth = targets, depth
        count, n, _ = targets.shape
        self.half = n // 2
        self.norms = targets.flatten(1).norm(dim=1)
        self.shape = (count, depth, self.half, self.half + 1)
        normal = torch.randn(self.shape, generator=generator, dtype=torch.float64)
        self.start = START_DEVIATION / self.half**0.5 * normal

    def factors(self, numbers: Tensor) -> list[Tensor]:
        """Returns the couplings as matrices (B, n, n), in the order of the product."""
        couplings = []
        logs = numbers[..., -1].clamp(-MAX_LOG, MAX_LOG)
        eye = torch.eye(self.half, dtype=numbers.dtype).expand(len(numbers), -1, -1)
        none = torch.zeros_like(eye)
        for layer in range(self.depth):
            block = numbers[:, layer, :, :-1]
            scale = torch.diag_embed(logs[:, layer].exp())
            lower, upper = ((eye, none), (block, scale)), ((scale, block), (none, eye))
            rows = lower if layer % 2 == 0 else upper
            couplings.append(torch.cat([torch.cat(row, 2) for row in rows], 1))
        return couplings

    def residuals(self, numbers: Tensor) -> Tensor:
        """Returns the relative error |product - T| / |T| of each map, in Frobenius norms."""
        eye = torch.eye(2 * self.half, dtype=numbers.dtype).expand(len(numbers), -1, -1)
        first, second = eye.split(self.half, 2)
        blocks = numbers[..., :-1].unbind(1)
        scales = numbers[..., None, :, -1].clamp(-MAX_LOG, MAX_LOG).exp().unbind(1)
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
    solutions = []
    for number, target in enumerate(problem.targets):
        single = Regression(target[None], problem.depth, torch.Generator())

        def loss(flat: np.ndarray, single: Regression = single) -> tuple[float, np.ndarray]:
            numbers = torch.from_numpy(flat).reshape(single.shape).requires_grad_()
            value = (single.residuals(numbers) ** 2).sum()
            (slope,) = torch.autograd.grad(value, numbers)
            return value.item(), slope.flatten().numpy()

        options = {"maxiter": steps, "maxfun": 2 * steps, "maxcor": 30, "ftol": 0.0, "gtol": 1e-14}
        start = problem.start[number].flatten().numpy()
        result = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
        solutions.append(torch.from_numpy(result.x).reshape(single.shape[1:]))
    return torch.stack(solutions)


def measure(case: Case) -> list[Row]:
    """Returns a row for each map: the best of its starts, with residual and conditioning."""
    maps = [
        torch.from_numpy(ensembles.draw(case["ensemble"], case["n"], case["seed"] * 1000 + draw))
        for draw in range(case["draws"])
    ]
    if case["method"] == "exact":
        return [
            {"draw": draw, **_exact(matrix, case["depth"])} for draw, matrix in enumerate(maps)
        ]
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
    largest = torch.stack([*map(torch.linalg.cond, problem.factors(numbers))]).amax(0)
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
    row: Row = {"of_the_map": torch.linalg.cond(matrix).item()}
    try:
        factorization = factor_linear(matrix, couplings=couplings)
    except KappaflowError as error:
        return {**row, "why_not": str(error)}
    fit = {"residual": factorization.residual, "condition_number": factorization.condition_number}
    return {**fit, **row, "couplings_used": len(factorization)}


METHODS = {"exact": (2, "factorization"), "L-BFGS": (1, "L-BFGS"), "Adam": (0, "Adam")}
FITTED = 1e-6  # relative residual below which a map counts as fitted
ALMOST_ALL = 0.9  # share of the maps that counts as all of them


def findings(frame: pl.DataFrame, settings: LinearDepthSettings) -> StudyFindings:
    """Returns the charts, the table and the sentences on them."""
    *smaller, largest = sorted(settings.sizes)
    charts = [(largest, "residual"), (largest, "condition_number")]
    charts += [(n, "residual") for n in smaller]
    return StudyFindings(
        found=[
            _on_exact(frame),
            *(_on_descent(frame, method) for method in ("L-BFGS", "Adam")),
            *_on_divergence(frame, settings),
            *_on_few(frame),
        ],
        differs=[
            "The source fits samples by stochastic gradients, with settings that we do not know; "
            "our loss is the distance of the product from the map, in float64.",
            "The source proves that 47 couplings are enough, and its fits get better up to some "
            "16. Six are enough for every invertible map of positive determinant.",
        ],
        charts=[_chart(frame, settings, n, y) for n, y in charts],
        tables=[_first_depths(frame, settings)],
    )


RESIDUAL_NOTE = "A fit that stops above rounding stopped early: the representation is no limit."
CONDITION_NOTE = "A large condition number with a small residual: conditioning paid for the fit."


def _chart(frame: pl.DataFrame, settings: LinearDepthSettings, n: int, y: str) -> Chart:
    kind, label, caption = {
        "residual": ("Residual", "relative residual", RESIDUAL_NOTE),
        "condition_number": (
            "Conditioning",
            "largest condition number of a coupling",
            CONDITION_NOTE,
        ),
    }[y]
    panels = []
    for ensemble, table in groups(frame.filter(n=n), "ensemble", settings.ensembles).items():
        series = [
            quantile_series(rows, "depth", y, name=METHODS[method][1], tone=METHODS[method][0])
            for method, rows in groups(table, "method", METHODS).items()
            if rows["residual"].count()
        ]
        panels.append(panel(ensemble, "couplings", label, series, log="y"))
    return Chart(
        name=f"{kind.lower()}-{n}",
        title=f"{kind} against depth, {n} features",
        caption=f"Median and quartiles over {settings.draws} maps; optimizers: the best of "
        f"{settings.restarts} starts. {caption}",
        panels=panels,
        columns=2 if len(panels) == 4 else 3,
        share_y=True,
    )


def _share(frame: pl.DataFrame, method: str, depth: int) -> float | None:
    """Returns the share of maps that a method fits at a depth; None if it was not tried."""
    fits = frame.filter(method=method, depth=depth)
    if fits.is_empty():
        return None
    return fits.select((pl.col("residual").fill_null(float("inf")) < FITTED).mean()).item()


def _on_exact(frame: pl.DataFrame) -> str:
    six = frame.filter(method="exact", depth=6)
    factored = six.drop_nulls("residual")
    if factored.is_empty():
        return "No factorization into six couplings was tried."
    rotations = factored.filter(pl.col("ensemble").is_in(["orthogonal", "permutation"]))
    largest = rotations["condition_number"].max()
    bounded = "" if largest is None else (
        "; for rotations and permutations no coupling has a condition number above "
        f"{significant(largest)}"
    )  # fmt: skip
    return (
        f"Six couplings are enough: they fit {len(factored)} of {len(six)} maps exactly, with "
        f"residuals of at most {significant(factored['residual'].max(), 2)}{bounded}."
    )


def _on_descent(frame: pl.DataFrame, method: str) -> str:
    depths = sorted(frame.filter(method=method)["depth"].unique())
    shares = {depth: _share(frame, method, depth) or 0.0 for depth in depths}
    reached = [depth for depth, share in shares.items() if share >= ALMOST_ALL]
    six = f"{100 * shares[6]:.0f} % of the maps with six couplings, and " if 6 in shares else ""
    where = f"only from {reached[0]} on" if reached else f"at no depth up to {depths[-1]}"
    return f"{method} fits {six}nine maps in ten to {significant(FITTED, 1)} {where}."


def _on_divergence(frame: pl.DataFrame, settings: LinearDepthSettings) -> list[str]:
    """Returns how often Adam has a larger error than the zero matrix, at the largest depth."""
    adam = frame.filter(method="Adam")
    if adam.is_empty():
        return []
    deepest = adam.filter(pl.col("depth") == pl.col("depth").max())
    share = (deepest["residual"].fill_null(float("inf")) > 1).sum() / len(deepest)
    if not share:
        return []
    return [
        f"With {deepest['depth'][0]} couplings Adam diverges for {100 * share:.0f} % of the maps "
        f"(residuals above 1): its first learning rate, {settings.adam_learning_rate:g} at all "
        "depths, is too large there."
    ]


def _on_few(frame: pl.DataFrame) -> list[str]:
    """Returns what three, four and five couplings fit."""
    sentences = []
    three = frame.filter(pl.col("depth") == 3, pl.col("method") != "exact")
    if not three.is_empty():
        best = min(three["residual"].to_list())
        sentences.append(
            f"Three couplings fit no map: the smallest residual is {significant(best)}."
            if best > FITTED
            else f"Three couplings fit a map to {significant(best)}: a special one, by the theory."
        )
    theories = {4: "Four fit an open set of maps", 5: "Five fit all but special maps"}
    for depth, theory in theories.items():
        exact, descent = (_share(frame, method, depth) for method in ("exact", "L-BFGS"))
        if exact is not None and descent is not None:
            sentences.append(
                f"{theory}: the exact search fits {100 * exact:.0f} % of ours, L-BFGS "
                f"{100 * descent:.0f} %."
            )
    return sentences


def _first_depths(frame: pl.DataFrame, settings: LinearDepthSettings) -> StudyTable:
    rows = []
    for n in settings.sizes:
        for name, table in groups(frame.filter(n=n), "ensemble", settings.ensembles).items():
            depths = sorted(table["depth"].unique())
            fitted = [[d for d in depths if (_share(table, m, d) or 0) >= 0.5] for m in METHODS]
            rows.append([
                f"{name}, {n}",
                *(str(fitting[0]) if fitting else "none" for fitting in fitted),
            ])
    return StudyTable(
        title="The first depth at which half of the maps are fitted",
        columns=["maps", *(name for _, name in METHODS.values())],
        rows=rows,
        caption=f"Couplings for a relative residual below {significant(FITTED, 1)}.",
    )


LINEAR_DEPTH = Study(
    name="linear-depth",
    title="How many couplings a linear map needs",
    about="linear couplings of depth 1 to 48, fitted by descent, against the exact factorization",
    claim=(
        "Alternating affine couplings of a fixed partition represent every invertible linear map "
        "with at most 24 pairs of layers (47 layers) in any dimension, and some maps need at "
        "least 3 pairs (more than four layers); fits by gradient descent get better with up to "
        "some 16."
    ),
    settings=LinearDepthSettings,
    presets=Path(__file__).with_suffix(".toml"),
    cases=cases,
    measure=measure,
    findings=findings,
)
