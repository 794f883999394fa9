"""KF210, KF301, KF302, KF304 to KF306: the conditioning, of layers and for contexts."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from kappaflow.conditioning import TRUSTED, Profile
from kappaflow.conditioning.profile import profile_at
from kappaflow.conditioning.round_trip import states_of
from kappaflow.conditioning.spectrum import DENSE_UP_TO
from kappaflow.diagnosis.advice import bound_scales, in_float64
from kappaflow.diagnosis.check import Symptom, check, measurement, table
from kappaflow.diagnosis.checks.log_dets import log_dets
from kappaflow.diagnosis.measurements import Measurements
from kappaflow.diagnosis.result import Columns
from kappaflow.diagnosis.tensors import differ, largest, quantiles, spread_of
from kappaflow.finding import Evidence
from kappaflow.flows.rows import describe_column

NOTHING = 1e-3  # growth of the log condition number that still counts as none
MOST = 0.5  # share of the log growth that counts as most of it
COLLAPSED = math.log(1e-3)  # log of the width covered by the flow / width of the data, per feature
SINGULAR = 1e-3  # eps times the condition number of a nearly singular layer
CONSTANT = 1e-3  # relative spread of a layer's condition number over the points
FAR = 30.0  # distance at which a layer is tried
LINEAR = 1e-3  # relative change of slope that a linear layer does not exceed
SPREAD_ROWS = 32  # least number of rows for a standard deviation
# Of contexts
COLUMNS = 32  # that are examined one by one
AT_ONCE = 256  # rows, to bound the memory
TIMES = 100.0  # ratio to the median from which a condition number is reported
WIDER = {"float16": "float32", "bfloat16": "float32", "float32": "float64"}


def usable_dtype(profile: Profile, dtype: str) -> str:
    """Returns advice such as "decode in float64", by eps times the worst condition number."""
    lost = profile.eps * profile.condition_number[-1].max().item()
    if math.isnan(lost) or lost > TRUSTED:
        return f"unusable in {dtype}"
    if lost <= TRUSTED / 10:
        return f"{dtype} safe"
    return f"decode in {WIDER[dtype]}" if dtype in WIDER else f"{dtype} with care"


@table("depth")
def over_depth(m: Measurements) -> Columns:
    """Returns quantiles of the condition numbers, for each layer and cumulatively."""
    return {
        "layer": list(m.profile.layers),
        **quantiles(m.profile.layer_condition_number, "layer_condition_number_"),
        **quantiles(m.profile.condition_number, "condition_number_"),
    }


def growth_of(profile: Profile, name_row: Callable[[int], str] = str) -> tuple[Evidence, str]:
    """Returns where the condition number of the worst row grows, as evidence and as a sentence."""
    numbers = profile.condition_number
    point = int(numbers[-1].nan_to_num(0.0, posinf=0.0).argmax())
    logs = numbers[:, point].log()
    steps = logs.diff(prepend=logs.new_zeros(1)).nan_to_num(0.0, posinf=0.0, neginf=0.0)
    worst, up = int(steps.argmax()), steps.clamp_min(0)
    growing, layer = int((steps > NOTHING).sum()), profile.layers[worst]
    mean, factor = (logs[-1] / len(steps)).exp().item(), steps[worst].exp().item()
    sentence = f"At {name_row(point)}, the worst, "
    if up[worst] >= MOST * up.sum():
        sentence += f"most of the growth is in layer {layer}: a factor of {factor:.3g}."
    else:
        sentence += (
            f"the condition number grows by {mean:.2g} per layer: in {growing} of {len(steps)} "
            "layers."
        )
    return {
        "worst_point": point,
        "layers_growing": growing,
        "factor_a_layer": mean,
        "largest_factor": factor,
        "largest_factor_layer": layer,
    }, sentence


@check(
    "KF301",
    "the condition number is too large for the dtype",
    cause="Some directions are stretched and others squeezed.",
    fix="Score and sample in float64, and train with bounded log-scales.",
)
def ill_conditioned(m: Measurements) -> Iterator[Symptom]:
    """It is an error if rounding times the condition number exceeds 0.01, and a warning from
    0.001. The cause names the worst row, counted from 0, and where the condition number grows: by
    a factor per layer, or in one layer.

    Example:
        scales = kf.bijections.ElementwiseAffine(2, log_scale=[12.0, -2.0])
        flow = kf.Flow(kf.StandardNormal(2), scales)
        x = 1e-6 * torch.randn(64, 2)
    """
    kappa = largest(m.profile.condition_number[-1])
    lost = m.profile.eps * kappa
    if not math.isfinite(kappa) or lost <= TRUSTED / 10:
        return
    digits = max(0, round(-math.log10(lost)))
    left = ("no digit", "about 1 digit")[digits] if digits < 2 else f"about {digits} digits"
    growth, sentence = growth_of(m.profile, m.name_row)
    is_lost = lost > TRUSTED
    yield Symptom(
        f"The condition number reaches {kappa:.1e}, which leaves {left} of a result at the worst "
        "point.",
        {"condition_number_max": kappa, "eps_times_it": lost, **growth},
        layer=m.profile.layers[m.profile.worst_layer],
        severity="error" if is_lost else "warning",
        cause=f"Some directions are stretched and others squeezed. {sentence}",
        fix=f"Score and sample in float64: {in_float64(m.flow)}. Train with bounded log-scales: "
        f"{bound_scales(m.flow)}."
        if is_lost
        else "Watch it during training, because it can be worse far from the data. float64 has "
        f"room: {in_float64(m.flow)}. To bound the log-scales, {bound_scales(m.flow)}.",
    )


@check(
    "KF302",
    "one layer is much worse conditioned than the others",
    severity="warning",
    cause="It alone makes a change of scale that several layers could share.",
    fix="Bound its log-scales, or standardize the data before it.",
)
def one_layer_dominates(m: Measurements) -> Iterator[Symptom]:
    """The condition number of the layer is more than 100 times the median of the others.

    Example:
        log_scales = [[0.1, 0.0], [6.0, 0.0], [0.1, 0.0]]
        layers = [kf.bijections.ElementwiseAffine(2, log_scale=each) for each in log_scales]
        flow = kf.Flow(kf.StandardNormal(2), kf.Chain(layers))
        x = torch.randn(64, 2)
    """
    each = m.profile.layer_condition_number.median(dim=1).values
    worst = m.profile.worst_layer
    others = torch.cat((each[:worst], each[worst + 1 :]))
    if len(others) < 2 or not each[worst] > 1e2 * others.median():
        return
    yield Symptom(
        f"One layer has a condition number of {each[worst].item():.1e}; the median of the others "
        f"is {others.median().item():.1e}.",
        {"layer": each[worst].item(), "others_median": others.median().item()},
        layer=m.profile.layers[worst],
        severity="note" if each[worst] * m.profile.eps < 1e-4 else "warning",
        fix=f"Standardize the data before it, or bound its log-scales: {bound_scales(m.flow)}.",
    )


@check(
    "KF304",
    "the flow covers almost none of the data's volume",
    severity="warning",
    cause="The data lies near a surface, or the flow memorized single rows: the likelihood grows "
    "without bound as the volume shrinks.",
    fix="Look for dependent columns, add noise of a known width, or stop training earlier.",
)
def volume_collapses(m: Measurements) -> Iterator[Symptom]:
    """The singular values of the map from latent to data are below a thousandth of the data's
    width (the geometric mean over directions, the median over points).

    Example:
        scales = kf.bijections.ElementwiseAffine(2, log_scale=[8.0, 8.0])
        flow = kf.Flow(kf.StandardNormal(2), scales)
        x = torch.randn(64, 2)
    """
    log_det = log_dets(m).forward - log_dets(m).units
    side = (-log_det / m.standardized[0].numel()).median().item() - _log_spread(m)
    if math.isfinite(side) and side < COLLAPSED:
        yield Symptom(
            f"Around a point, the flow covers {math.exp(side):.1e} of the width of the data "
            "(geometric mean over all directions).",
            {"share_of_width": math.exp(side), "nats_a_dimension": side},
        )


def _log_spread(m: Measurements) -> float:
    """Returns the mean log standard deviation of the standardized columns; nan for few rows."""
    if m.rows is None or len(m.rows) < SPREAD_ROWS:
        return math.nan
    columns = m.flow.standardization(m.rows)[0].flatten(1).double()
    return (
        spread_of(columns, m.shares(len(columns)))
        .clamp_min(torch.finfo(torch.float64).tiny)
        .log()
        .mean()
        .item()
    )


@check(
    "KF305",
    "a linear layer is nearly singular",
    severity="warning",
    cause="Its matrix is unconstrained, and training has squeezed one direction.",
    fix="Use a bounded form (svd or orthogonal), or penalize its singular values.",
)
def linear_layer_singular(m: Measurements) -> Iterator[Symptom]:
    """A layer with the same slopes at the points, opposite to them and far out has a condition
    number that leaves three digits or fewer of its dtype.

    Example:
        scales = kf.bijections.ElementwiseAffine(2, log_scale=[6.0, -6.0])
        flow = kf.Flow(kf.StandardNormal(2), scales)
        x = torch.randn(64, 2)
    """
    each = m.profile.layer_condition_number
    low, high = each.amin(dim=1), each.amax(dim=1)
    constant = (high - low) <= CONSTANT * low
    bad = constant & (m.profile.eps * low > SINGULAR)
    linear = [i for i, is_bad in enumerate(bad.tolist()) if is_bad and _is_linear(m, i)]
    if not linear:
        return
    layer = max(linear, key=lambda i: high[i].item())
    kappa = high[layer].item()
    yield Symptom(
        f"A linear layer is nearly singular: its condition number is {kappa:.1e}.",
        {"condition_number": kappa},
        layer=m.profile.layers[layer],
    )


def _is_linear(m: Measurements, number: int) -> bool:
    """Returns whether a layer has the same slopes at the points, opposite to them and far out.

    A coupling with saturated scales has the same slopes at all points alone.
    """
    layer, state = m.layers[number], states_of(m.layers[:number], m.standardized)[0][-1]
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(state.shape, generator=generator, dtype=torch.float64).to(state)
    far = FAR * (1 + state.abs().mean()) * v
    slopes = [
        layer.linearize(at).jv(v[None])[0].double()
        for at in (state, -state, far, torch.zeros_like(state))
    ]
    size = slopes[0].flatten(1).norm(dim=1).max()
    return all(
        bool((slope - slopes[0]).flatten(1).norm(dim=1).max() <= LINEAR * size)
        for slope in slopes[1:]
    )


class Contexts(NamedTuple):
    """The flow under the contexts of many rows."""

    matters: bool  # whether the density of any row changes with its context
    ignored: list[int]  # the examined columns of the context that change no density
    constant: list[int]  # the columns of the context with a single value
    rows: Tensor  # indices of the rows
    condition_number: Tensor  # at the measured ones of the rows, (R,)


@measurement("contexts")
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
