"""`doctor`, which runs all checks on an isolated copy of a flow and writes the verdict."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kappaflow.conditioning import Profile
from kappaflow.conditioning.points import checked_context, checked_points, measuring
from kappaflow.data.naming import describe_values
from kappaflow.data.table import Table
from kappaflow.diagnosis.check import TABLES
from kappaflow.diagnosis.checks import checks_of_flows
from kappaflow.diagnosis.checks.conditioning import usable_dtype
from kappaflow.diagnosis.checks.data import data_findings
from kappaflow.diagnosis.checks.goodness import goodness_findings
from kappaflow.diagnosis.checks.likelihood import comparison_findings
from kappaflow.diagnosis.checks.state import state
from kappaflow.diagnosis.isolation import isolated
from kappaflow.diagnosis.measurements import (
    DEFAULT_EFFORT,
    THOROUGH,
    Measurements,
    ShowStep,
    quietly,
)
from kappaflow.diagnosis.references import Comparison, comparisons_of
from kappaflow.diagnosis.result import Diagnosis, Tables
from kappaflow.diagnosis.verdict import diagnosis_of, with_findings
from kappaflow.energies import LogDensity, check_target
from kappaflow.errors import ArgumentError, NumericalError, one_line
from kappaflow.finding import Evidence
from kappaflow.flows import Flow
from kappaflow.flows.rows import PLAIN, Data, plain_tensors, read_rows
from kappaflow.foreign import Wrapped
from kappaflow.foreign.wrapped import own_flow
from kappaflow.goodness import Goodness
from kappaflow.goodness.goodness import Match, matcher
from kappaflow.goodness.inputs import LEAST_ROWS, one_sentence_errors, train_rows
from kappaflow.goodness.scan import FloatArray

NUMBERS = (  # the figures of the conditioning
    "condition_number_median",
    "condition_number_p95",
    "condition_number_max",
    "round_trip_data_max",
    "round_trip_latent_max",
    "predicted_round_trip_max",
)
Compare = Callable[[Flow, Tensor, Tensor | None], tuple[Comparison, ...]]


def doctor(
    flow: object,
    x: Data = None,
    context: Data = None,
    *,
    train: Data | tuple[Data, Data] = None,
    make: Callable[[], object] | None = None,
    log_density: LogDensity | None = None,
    thorough: bool = False,
    progress: ShowStep = quietly,
) -> Diagnosis:
    """Finds problems of a flow, the layer that causes each, the cause and a fix.

    With rows of a table, samples are compared with them, as `kappaflow.two_sample` and, for a
    conditional flow, `kappaflow.calibration` do. The verdict and `level` say whether they match.

    The doctor examines a copy of the flow in evaluation mode, at rows of data and at samples of
    the base. Conditioning is measured without the standardization. The flow, its mode and the
    random generators stay unchanged.

    Args:
        flow: A flow of kappaflow, or anything that `kappaflow.wrap` takes.
        x: Rows of data, (B, *event), preferably held out: a tensor, an array, a data frame or a
            `Table`, with its columns selected by the names of the flow. The flow is measured at
            the first 64 (8 above 500 dimensions, 4 above 2000); checks of the data use all rows.
            Findings count the rows of a tensor or an array from 0, and name those of a frame by
            their index label.
            Without x, the result of a fit is measured at its validation rows, with its training
            rows as `train`. Otherwise the doctor uses samples of the flow. This reveals less,
            because a flow rarely fails where its own density is high.
        context: Context of each row, (B, C), for a conditional flow.
        train: Rows that the flow was trained on, in any form of `x`; for a conditional flow the
            pair (rows, context), or a `Table` with both. The doctor fits a Gaussian and a Gaussian
            mixture to them, and compares their likelihood with the flow's on `x`, which should be
            held-out rows; it also measures overfitting, and finds smaller deviations of the
            samples. Without train, and from 200 rows on, it fits both to a random half of `x` and
            compares on the other half; it then only concludes that the flow is worse.
        make: Builds a new flow of the same kind. The doctor loads the state_dict into it, to find
            state that the state_dict lacks.
        log_density: The unnormalized log-density that the flow was fitted to, from points
            (n, *event) to (n,), as for `kappaflow.fit_energy`.
        thorough: Also examine what takes long and is left out otherwise: more points, all rows,
            all columns of a context, bases of any dimension, more random vectors. Without it,
            `measured["not_checked"]` names what was left out of this flow.
        progress: Receives the name of each measurement before it starts.

    Returns:
        The findings, with a verdict and the conditioning profile.

    Raises:
        ArgumentError: flow is not a flow or has no layer; x, context or train does not fit it; or
            log_density is given for a conditional flow or one without an exact log_prob.

    Example:
        >>> import kappaflow as kf
        >>> kf.doctor(kf.real_nvp(4, depth=2, hidden=(8,)), torch.zeros(8, 4)).ok
        True
    """
    return diagnose_rows(
        flow, x, context, train=train, make=make, log_density=log_density, thorough=thorough,
        progress=progress,
    )  # fmt: skip


def diagnose_rows(
    flow: object,
    x: Data = None,
    context: Data = None,
    *,
    train: Data | tuple[Data, Data] = None,
    progress: ShowStep = quietly,
    thorough: bool = False,
    compares_samples: bool = True,
    **options: Any,
) -> Diagnosis:
    """Returns the diagnosis of `doctor`, optionally without comparing samples with the rows."""
    if x is None and train is None:
        x, train = getattr(flow, "rows_to_examine", (None, None))
    if train is not None and x is None:
        raise ArgumentError("'train' needs 'x', held-out rows to compare the likelihoods on.")
    own = own_flow(flow)
    named = own if isinstance(own, Flow) else None
    source = x if x is None or isinstance(x, PLAIN) else read_rows("x", x)
    table = source if isinstance(source, Table) else None
    names = None if table is None else partial(describe_values, table)
    columns, context_columns = (
        ((), ()) if named is None else (named.columns, named.context_columns)
    )
    if table is not None:
        columns, context_columns = (
            columns or table.columns,
            context_columns or table.context_columns,
        )
    if x is not None:
        x, context = plain_tensors(named, source, context)
    pair, train_weights = train_rows(named, train)
    weights = None if table is None else table.weights
    match = matcher(
        train=pair,
        weights=weights,
        train_weights=train_weights,
        columns=columns,
        context_columns=context_columns,
        grids=None if table is None else table.grids,
    )
    diagnosis = diagnose_flow(
        flow,
        x,
        context,
        thorough=thorough,
        progress=progress,
        compare=partial(
            comparisons_of,
            train=pair,
            weights=weights,
            train_weights=train_weights,
            progress=progress,
            thorough=thorough,
        ),
        match=match if compares_samples else None,
        names=names,
        weights=weights,
        **options,
    )
    if x is None:
        return diagnosis
    return with_findings(diagnosis, data_findings(x, columns, source, named))


def diagnose_flow(
    flow: object,
    x: Tensor | None = None,
    context: Tensor | None = None,
    *,
    make: Callable[[], object] | None = None,
    log_density: LogDensity | None = None,
    thorough: bool = False,
    progress: ShowStep = quietly,
    compare: Compare | None = None,
    match: Match | None = None,
    names: Callable[[int], str] | None = None,
    rows: int | None = None,
    weights: FloatArray | None = None,
) -> Diagnosis:
    """Returns the findings on a flow alone, without the checks on the rows as data.

    The arguments up to `progress` are those of `doctor`. `compare` compares the flow with
    references at the rows, and `match` its samples with the rows; None skips that. `names` returns
    the name of a row in a message from its index. `rows` is the number of rows that x was taken
    from, if it is not all of them. `weights`, (B,), are those of the rows.

    Raises:
        ArgumentError: As for `doctor`.
    """
    with torch.random.fork_rng(devices=[]), isolated(flow, x, context) as own:
        if log_density is not None:
            check_target(own, log_density)
        raw, prefix = x, "source" if isinstance(own, Wrapped) else ""
        modes = {
            name: part.training for name, part in own.named_modules() if name.startswith(prefix)
        }
        if x is None:
            context = checked_context(own, context)
        else:
            x, context = checked_points(own, x, context)
        with measuring(own), one_sentence_errors(own, context, "The doctor cannot diagnose"):
            m = Measurements(
                own,
                x,
                context,
                make=make,
                log_density=log_density,
                modes=modes,
                effort=THOROUGH if thorough else DEFAULT_EFFORT,
                progress=progress,
                describe=names,
                weights=None if weights is None else torch.from_numpy(weights),
            )
            # Must be first: it checks the first calls of the flow.
            if m.attempt("parameters and state", lambda: state(m), None) is None:
                own.bijection(m.points, m.context)  # raises again if rows cannot be encoded
            findings = [
                finding
                for check in checks_of_flows()
                for finding in m.attempt(check.code, lambda check=check: check(m), ())
            ]
            comparisons: tuple[Comparison, ...] = ()
            if compare is not None and raw is not None:
                comparisons = compare(own, raw.detach(), context)
                findings += comparison_findings(comparisons)
            goodness, not_compared = _goodness(m, match, raw, context)
            findings += goodness_findings(goodness)
            tables = _tables(m)
            profile = m.attempt("conditioning", lambda: m.profile, None)
            figures = _figures(m, profile, rows)
            figures["not_compared"] = not_compared
    diagnosis = diagnosis_of(findings, figures, profile, goodness)
    return dataclasses.replace(diagnosis, tables=tables)


def _goodness(
    m: Measurements, match: Match | None, x: Tensor | None, context: Tensor | None
) -> tuple[Goodness | None, str]:
    """Returns how well samples match rows, or None and the reason why it is not known."""
    if len(m.flow.event_shape) != 1:
        return None, "this is only possible for rows of a table"
    if x is None or match is None:
        return None, "there are no held-out rows" if x is None else "this was left out"
    if len(x) < LEAST_ROWS:
        return None, f"there are fewer than {LEAST_ROWS} held-out rows"
    m.announce("samples against held-out rows")
    try:
        return match(m.flow, x.detach().to(m.flow.device, m.flow.dtype), context), ""
    except NumericalError as error:
        return None, str(error).rstrip(".")
    except Exception as error:  # of another library, whose flow cannot sample
        if not isinstance(m.flow, Wrapped):
            raise
        return None, f"the flow raised {one_line(error)}"


def _tables(m: Measurements) -> Tables:
    """Returns the registered tables of measurements that have more than one column."""
    tables = {
        name: m.attempt(f"the table {name}", lambda make=make: make(m), {})
        for name, make in TABLES.items()
    }
    return {name: table for name, table in tables.items() if len(table) > 1}


def _figures(m: Measurements, profile: Profile | None, rows: int | None) -> Evidence:
    """Returns what was measured, and what was not."""
    dtype = str(m.flow.dtype).removeprefix("torch.")
    return {
        "library": m.flow.library if isinstance(m.flow, Wrapped) else "kappaflow",
        "points": len(m.points),
        "layers": len(m.layers),
        "dtype": dtype,
        **_of_profile(profile, dtype),
        "rows": 0 if m.rows is None else len(m.rows),
        "not_checked": _not_checked(m, rows),
    }


def _of_profile(profile: Profile | None, dtype: str) -> Evidence:
    """Returns the figures of the conditioning; nan where measuring it raised an error."""
    if profile is None:
        numbers = dict.fromkeys(NUMBERS, math.nan)
        missing = "not measured"
        return {"precision": missing, **numbers, "worst_layer": None, "status": missing}
    condition = profile.condition_number[-1]
    levels = (condition.quantile(level) for level in (0.5, 0.95))
    values = (condition, profile.round_trip_data[0], profile.round_trip_latent[-1])
    most = (value.max() for value in (*values, profile.predicted_round_trip))
    numbers = (value.item() for value in (*levels, *most))
    return {
        "precision": usable_dtype(profile, dtype),
        **dict(zip(NUMBERS, numbers, strict=True)),
        "worst_layer": profile.layers[profile.worst_layer],
        "status": profile.status,
    }


def _not_checked(m: Measurements, rows: int | None) -> str:
    """Returns what the effort leaves out, with the option that includes it, and the flow."""
    total = rows or (0 if m.rows is None else len(m.rows))
    m.up_to(len(m.points), total, "conditioning, Jacobians and gradients at {} rows")
    more = "" if m.effort.thorough or not m.not_checked else " (thorough=True, --thorough)"
    by_flow = [f"{', '.join(names)} ({why})" for why, names in m.left_out.items()]
    return "; ".join(filter(None, ("; ".join(m.not_checked) + more, *by_flow)))
