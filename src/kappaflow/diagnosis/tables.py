"""What was measured, point by point, as small tables of plain numbers: what a page draws."""

import torch
from torch import Tensor

from kappaflow.conditioning import Profile
from kappaflow.diagnosis.finding import Table, Tables
from kappaflow.diagnosis.measured import Measured

MOST = 64  # rows of a table of points or of singular values
DIGITS = 7


def tables_of(m: Measured) -> Tables:
    """Returns the numbers behind the findings, by name a table, by name a column.

    Args:
        m: What was measured.

    Returns:
        Only tables that there are numbers for. A rule of your own can add one: a page draws a
        table that it does not know as its columns over the first one.
    """
    found = {
        "depth": _over_depth(m.profile),
        "singular_values": _singular_values(m.log_dets.singular_values),
        "far_out": _far_out(m),
        "log_dets": _log_dets(m),
        "densities": _columns(
            layers=m.log_prob,
            again=m.paths.again,
            in_halves=m.paths.in_halves,
            library=m.paths.own,
        ),
        "sample_densities": _columns(layers=m.paths.drawn, with_samples=m.paths.drawn_said),
        "log_prob": _columns(data=m.log_prob, samples=m.drawn_log_prob) if m.given else {},
        "integral": _integral(m),
    }
    return {name: table for name, table in found.items() if len(table) > 1}


def _over_depth(profile: Profile) -> Table:
    own, total = profile.layer_condition_number, profile.condition_number
    table: Table = {"layer": list(profile.layers)}
    for name, values in (("layer_condition_number", own), ("condition_number", total)):
        table |= _quantiles(values, name + "_")
    return table


def _singular_values(values: Tensor | None) -> Table:
    """Returns quantiles over the points, the largest first; of many values some of all sizes."""
    if values is None:
        return {}
    count = values.shape[1]
    kept = torch.linspace(0, count - 1, min(MOST, count)).round().long()
    return {"number": (kept + 1).tolist(), **_quantiles(values[:, kept].T)}


def _far_out(m: Measured) -> Table:
    table: Table = {"sigma": list(m.tails.sigmas)}
    for side, missed in (("latent", m.tails.missed), ("data", m.tails.missed_data)):
        table |= _quantiles(missed, side + "_")
    return table


def _log_dets(m: Measured) -> Table:
    if m.log_dets.true is None:
        return _columns(forward=m.log_dets.forward, inverse=-m.log_dets.inverse)
    return _columns(
        jacobian=m.log_dets.true, forward=m.log_dets.forward, inverse=-m.log_dets.inverse
    )


def _integral(m: Measured) -> Table:
    found = m.integral
    if found is None:
        return {}
    return {
        "integral": [found.value],
        "standard_error": [found.standard_error],
        "effective_draws": [found.effective],
    }


def _columns(**values: Tensor | None) -> Table:
    return {name: _plain(column[:MOST]) for name, column in values.items() if column is not None}


def _quantiles(values: Tensor, prefix: str = "") -> Table:
    """Returns quantiles over the points of (S, B), those counted as infinite that are no number.

    A quantile between a finite number and an infinite one is infinite.
    """
    known = values.detach().double().nan_to_num(torch.inf, posinf=torch.inf)
    table: Table = {}
    for name, level in (("p05", 0.05), ("median", 0.5), ("p95", 0.95), ("max", 1.0)):
        at = known.quantile(level, dim=1, interpolation="higher")
        table[prefix + name] = _plain(at)
    return table


def _plain(values: Tensor) -> list[float | int | str | None]:
    """Returns numbers with as many digits as a figure shows."""
    return [float(f"{value:.{DIGITS}g}") for value in values.detach().cpu().double().tolist()]
