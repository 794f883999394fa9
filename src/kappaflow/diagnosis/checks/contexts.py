"""KF210, KF306: the effect of the context on the density and on the conditioning."""

from collections.abc import Iterator
from typing import NamedTuple

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


class Contexts(NamedTuple):
    """The flow under the contexts of many rows."""

    matters: bool  # whether the density of any row changes with its context
    ignored: list[int]  # the examined columns of the context that change no density
    constant: list[int]  # the columns of the context with a single value
    rows: Tensor  # indices of the rows
    condition_number: Tensor  # at the measured ones of the rows, (R,)


@measurement("contexts", checked="contexts")
def contexts(m: Measurements) -> Contexts | None:
    """Measures rows spread over the data. Returns None for a flow without a context."""
    context, x = m.contexts, m.points if m.rows is None else m.rows
    if context is None:
        return None
    is_small = x[0].numel() <= DENSE_UP_TO
    most = 4 * m.effort.points if is_small else m.effort.points // 16
    most = m.up_to(most, len(x), "the conditioning for the contexts of {} rows")
    rows = torch.linspace(0, len(x) - 1, most).round().long().unique()
    x, context = x[rows], context[rows]
    log_prob = m.flow.augmented_log_prob(x, context)
    is_constant = (context == context[:1]).all(0)
    others = context.roll(1, 0) + is_constant.to(context)

    def matters(columns: int | slice) -> bool:
        moved = context.clone()
        moved[:, columns] = others[:, columns]
        return differ(log_prob, m.flow.augmented_log_prob(x, moved))

    most = m.effort.limit(COLUMNS)
    examined = m.up_to(most, context.shape[1], "the effect of {} columns of the context")
    measured = len(x) if is_small else min(len(x), len(m.points))
    pairs = zip(x[:measured].split(AT_ONCE), context[:measured].split(AT_ONCE), strict=True)
    return Contexts(
        matters(slice(None)),
        [column for column in range(examined) if not matters(column)],
        is_constant.nonzero().flatten().tolist(),
        rows,
        torch.cat([profile_at(m.flow, *pair).condition_number[-1] for pair in pairs]),
    )


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
        (result.ignored, "has no effect on log_prob at any of the points"),
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
