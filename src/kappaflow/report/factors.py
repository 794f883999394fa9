"""The page of a factorization: the map, its factors, and what more couplings would buy."""

from collections.abc import Sequence

import numpy as np

from kappaflow.factor import Factorization, LinearCoupling
from kappaflow.factor.trade_off import Trial
from kappaflow.report.document import document
from kappaflow.report.figures.factors import (
    MOST_FACTORS,
    Reference,
    condition_bars,
    factor_matrices,
    heat_map_of_the_map,
    heat_maps_of_factors,
    largest_entry,
    tile_of,
    trade_off_curve,
)
from kappaflow.report.headline import KeyFigure
from kappaflow.report.numbers import significant

WRITTEN_OUT = 8  # features of a list before it is cut short


def render_factors(
    found: Factorization,
    source: str,
    *,
    trials: Sequence[Trial] = (),
    reference: Reference | None = None,
) -> str:
    """Returns the page of a factorization.

    Args:
        found: The map and its couplings.
        source: Where the matrix came from, as the page calls it.
        trials: What was found for other counts; without any there is no curve.
        reference: The curve of other maps, to compare with.

    Returns:
        One HTML document that makes no request.
    """
    curve = trade_off_curve(found, trials, reference)
    return document(
        "factors.html.jinja",
        {
            "map": [heat_map_of_the_map(found)],
            "factors": heat_maps_of_factors(found),
            "bars": [condition_bars(found)] if len(found) else [],
            "curve": [] if curve is None else [curve],
        },
        found=found,
        source=source,
        trials=trials,
        key_figures=_key_figures(found),
        rows=[
            (number, changes(found, number), coupling.condition_number, _diagonal(coupling))
            for number, coupling in enumerate(found.couplings, start=1)
        ],
        map_scale=largest_entry([found.matrix.numpy()]),
        factor_scale=largest_entry(factor_matrices(found)),
        tile=tile_of(len(found.matrix)),
        MOST_FACTORS=MOST_FACTORS,
    )


def changes(found: Factorization, number: int) -> str:
    """Returns which features a coupling changes, in words.

    Args:
        found: The factorization.
        number: Of the coupling, from 1.

    Returns:
        "features 2 to 5", or a list, counted from 0.

    Example:
        >>> import torch, kappaflow as kf
        >>> changes(kf.factor_linear(torch.eye(4)[[1, 2, 0, 3]]), 1)
        'features 2 to 3'
    """
    features = found.couplings[number - 1].partition.changed
    if len(features) == 1:
        return f"feature {features[0]}"
    if features == tuple(range(features[0], features[-1] + 1)):
        return f"features {features[0]} to {features[-1]}"
    listed = ", ".join(map(str, features[:WRITTEN_OUT]))
    more = f", ... ({len(features)})" if len(features) > WRITTEN_OUT else ""
    return f"features {listed}{more}"


def _key_figures(found: Factorization) -> list[KeyFigure]:
    own = float(np.linalg.cond(found.matrix.numpy()))
    return [
        KeyFigure("Couplings", str(len(found)), "", f"by {found.method}"),
        KeyFigure(
            "Largest condition number",
            significant(found.condition_number),
            "",
            f"of a factor; {significant(own ** (1 / max(1, len(found))))} is the least for so "
            "many",
        ),
        KeyFigure("Condition number of T", significant(own), "", "1 is perfect"),
        KeyFigure(
            "Residual",
            significant(found.residual, 2),
            "",
            "of the product of the couplings, relative to T",
        ),
        KeyFigure("Features", str(len(found.matrix)), "", "rows and columns of T"),
        KeyFigure(
            "Sign",
            "none" if found.flipped is None else f"in coupling {found.flipped + 1}",
            "",
            "a negative entry in a diagonal, where det T is negative",
        ),
    ]


def _diagonal(coupling: LinearCoupling) -> str:
    """Returns the entries of a diagonal, or their range."""
    values = coupling.diagonal.detach()
    low, high = significant(values.min().item()), significant(values.max().item())
    return low if low == high else f"{low} to {high}"
