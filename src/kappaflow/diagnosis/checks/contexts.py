"""KF210, KF306: the effect of the context on the density and on the conditioning."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kappaflow.conditioning import TRUSTED
from kappaflow.conditioning.profile import profile_at
from kappaflow.conditioning.spectrum import DENSE_UP_TO
from kappaflow.diagnosis.check import Symptom, check, measurement
from kappaflow.diagnosis.measurements import Measurements
from kappaflow.diagnosis.tensors import differ
from kappaflow.flows.rows import describe_column

COLUMNS = 32  # that are examined one by one
AT_ONCE = 256  # rows, to bound the memory
TIMES = 100.0  # ratio to the median from which a condition number is reported


@dataclass(frozen=True)
class Contexts:
    """The flow under the contexts of many rows.

    Attributes:
        matters: Whether the density of any row changes with its context.
        ignored: The examined columns of the context that change no density.
        constant: The columns of the context with a single value.
        condition_number: Condition number at the measured ones of the rows, (R,).
    """

    matters: bool
    ignored: tuple[int, ...]
    constant: tuple[int, ...]
    condition_number: Tensor
    rows: Tensor


@measurement("contexts", checked="contexts")
def contexts(m: Measurements) -> Contexts | None:
    """Measures rows spread over the data. Returns None for a flow without a context."""
    context, x = m.contexts, m.points if m.rows is None else m.rows
    if context is None:
        return None
    points = m.effort.points
    most = 4 * points if x[0].numel() <= DENSE_UP_TO else points // 16
    most = m.up_to(most, len(x), "the conditioning for the contexts of {} rows")
    rows = torch.linspace(0, len(x) - 1, most).round().long().unique()
    x, context = x[rows], context[rows]
    measured = len(x) if x[0].numel() <= DENSE_UP_TO else min(len(x), len(m.points))
    log_prob = m.flow.augmented_log_prob(x, context)
    is_constant = (context == context[:1]).all(0)
    others = context.roll(1, 0) + is_constant.to(context)
    matters = differ(log_prob, m.flow.augmented_log_prob(x, others))
    ignored = []
    width = context.shape[1]
    for column in range(
        m.up_to(m.effort.limit(COLUMNS), width, "the effect of {} columns of the context")
    ):
        moved = context.clone()
        moved[:, column] = others[:, column]
        if not differ(log_prob, m.flow.augmented_log_prob(x, moved)):
            ignored.append(column)
    return Contexts(
        matters,
        tuple(ignored),
        tuple(is_constant.nonzero().flatten().tolist()),
        _condition_numbers(m, x[:measured], context[:measured]),
        rows,
    )


def _condition_numbers(m: Measurements, x: Tensor, context: Tensor) -> Tensor:
    pairs = zip(x.split(AT_ONCE), context.split(AT_ONCE), strict=True)
    return torch.cat([profile_at(m.flow, *pair).condition_number[-1] for pair in pairs])


@check(
    "KF210",
    "the context has no effect",
    severity="note",
    cause="The flow is not trained, or the context does not reach its networks.",
    fix="Check that each layer receives the context, and train.",
)
def context_ignored(m: Measurements) -> Iterator[Symptom]:
    """No density changes if each row gets the context, or one of up to 32 columns of it, from the
    row before; a constant column is raised by one instead. This is normal before training, because
    the last layers of the networks start at zero. After training, the column is not passed on, or
    was constant.

    Example:
        flow = kf.real_nvp(2, depth=2, hidden=(8,), context_features=1)
        x, context = torch.randn(64, 2), torch.randn(64, 1)
    """
    result = contexts(m)
    if result is None:
        return
    if not result.matters:
        yield Symptom(
            "log_prob does not change with the context at any of the points.",
            {"rows": len(result.rows)},
        )
        return
    for columns, what in (
        ([*result.ignored], "has no effect on log_prob at any of the points"),
        (sorted(set(result.constant) - set(result.ignored)), "is constant"),
    ):
        if columns:
            name = describe_column(m.flow.context_columns, columns[0])
            also = f", like {len(columns) - 1} more," if len(columns) > 1 else ""
            yield Symptom(
                f"{name[:1].upper()}{name[1:]} of the context{also} {what}.",
                {"columns": len(columns), "rows": len(result.rows)},
            )


@check(
    "KF306",
    "the conditioning is much worse for some contexts",
    severity="warning",
    cause="The context is far from the training contexts, or scales follow it without bound.",
    fix="Standardize contexts, bound the log-scales, and look at the rows with this context.",
)
def context_ill_conditioned(m: Measurements) -> Iterator[Symptom]:
    """Over up to 256 rows, each with its own context, the worst condition number is more than 100
    times the median. The finding names the row.

    Example:
        def scale(context):
            return torch.cat((context, -context), 1)


        flow = (
            lambda x, context: (x * scale(context).exp(), torch.zeros(len(x))),
            lambda z, context: (z * (-scale(context)).exp(), torch.zeros(len(z))),
        )
        x, context = torch.randn(64, 2), torch.zeros(64, 1)
        context[-1] = 4
    """
    result = contexts(m)
    if result is None or not result.matters:
        return
    kappa = result.condition_number
    finite = kappa[torch.isfinite(kappa)]
    if not len(finite) or not finite.max() > TIMES * finite.median():
        return
    row = int(result.rows.to(kappa.device)[int(kappa.nan_to_num(0, posinf=0).argmax())])
    worst, median = finite.max().item(), finite.median().item()
    yield Symptom(
        f"The condition number is {worst:.1e} for the context of {m.name_row(row)}; the median "
        f"over contexts is {median:.1e}.",
        {"row": row, "condition_number": worst, "median": median},
        severity="warning" if worst * m.profile.eps > TRUSTED / 10 else "note",
    )
