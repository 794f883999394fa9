"""What the fits came to: loss against depth, conditioning against depth, and where each ends."""

import polars as pl

from kappaflow.report.charts import Chart, Panel
from kappaflow.report.numbers import significant
from kappaflow_studies.engine.curves import quantile_series
from kappaflow_studies.engine.study_content import Findings, Table
from kappaflow_studies.linear_depth.cases import LinearDepthSettings

METHODS = {"exact": (2, "factorization"), "L-BFGS": (1, "L-BFGS"), "Adam": (0, "Adam")}
FITTED = 1e-6  # relative residual below which a fit is called one
FOUND_BY_ALL = 0.9  # of the draws, for "the first depth at which"


def findings(frame: pl.DataFrame, settings: LinearDepthSettings) -> Findings:
    """Returns the charts and what they say."""
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
            "determinant, by a proof: what is beyond six is the optimiser's doing.",
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
            f"The median over {settings.draws} maps, and quartiles as a band; for the optimisers "
            f"the best of {settings.restarts} starts for each. "
            + (
                "The exact factorization has no residual above rounding from the first count on "
                "that it can reach; a fit that stops above it has stopped, not reached a limit."
                if is_loss
                else "Of the couplings whose residual stands beside: a large number where the "
                "residual is small says that the fit was bought with it."
            )
        ),
        panels=panels,
        columns=2 if len(panels) == 4 else 3,
        share_y=True,
    )


def _share(frame: pl.DataFrame, method: str, depth: int, below: float = FITTED) -> float | None:
    """Returns the share of maps that a method fits at a depth; None where it was not tried."""
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
    """Returns how often Adam ends further away than the zero matrix is, at the largest depth."""
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
    said = []
    for depth, theory in ((4, "an open set of maps"), (5, "all but special maps")):
        exact, descent = (_share(frame, method, depth) for method in ("exact", "L-BFGS"))
        if exact is None or descent is None:
            continue
        said.append(
            f"{'Four' if depth == 4 else 'Five'} are enough for {theory}: the search for exact "
            f"ones finds them for {100 * exact:.0f} % of the maps, L-BFGS for "
            f"{100 * descent:.0f} %."
        )
    return said


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
