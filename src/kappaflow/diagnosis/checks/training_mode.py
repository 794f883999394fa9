"""KF217, KF218: the log_det and random numbers in training mode."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from kappaflow.conditioning import layers_of
from kappaflow.conditioning.points import Layer
from kappaflow.conditioning.round_trip import layer_by_layer
from kappaflow.diagnosis.check import Symptom, check
from kappaflow.diagnosis.checks.log_prob import log_prob_random
from kappaflow.diagnosis.measurements import Measurements, to_float64
from kappaflow.diagnosis.tensors import differ, largest_difference
from kappaflow.flows import Flow

T = TypeVar("T")
ROWS = 4  # whose Jacobian is formed
LEAST_ROWS = 32  # with fewer, statistics of a batch depend much on each row
STEP = 1e-5  # of the differences, in float64
WRONG, EACH = 0.1, 4.0  # nats that are wrong, and what each feature adds for statistics of a batch


@check(
    "KF217",
    "the log_det is wrong in training mode",
    severity="warning",
    cause="In training mode the layer computes other values than in evaluation mode, but not "
    "their log_det.",
    fix="Compute value and log_det from the same statistics, masks and weights.",
)
def wrong_in_training(m: Measurements) -> Iterator[Symptom]:
    """If training mode changes log_prob (dropout, batch statistics), the doctor compares the
    log_det of each layer with differences in float64, at the same random numbers, in up to 16
    dimensions. Training maximizes this log_prob.

    Example:
        class Training(kf.bijections.ElementwiseAffine):
            def forward(self, x, context=None):
                z, log_det = super().forward(x)
                return (z / 2 if self.training else z), log_det


        flow = kf.Flow(kf.StandardNormal(2), Training(2))
        x = torch.randn(64, 2)
    """
    own = m.copy(torch.float64)
    if own is None or len(m.points) < LEAST_ROWS:
        return
    x, context = m.points.double(), to_float64(m.context)
    before = own.augmented_log_prob(x, context)
    own.train()
    if not differ(_seeded(lambda: own.augmented_log_prob(x, context)), before):
        return
    n = x[0].numel()
    if m.up_to(m.effort.points // 4, n, f"log_dets in training mode, of {n} features") < n:
        return
    error, layer = max(_errors(own, x, context), default=(0.0, None))
    # What each feature adds explains the statistics of a batch.
    if error > WRONG + EACH * n / len(x):
        yield Symptom(
            f"In training mode, a log_det differs from log|det| of the Jacobian by up to "
            f"{error:.2g} nats.",
            {"worst_nats": error},
            layer=layer,
        )


@check(
    "KF218",
    "the flow is in training mode, which changes its log_prob",
    severity="warning",
    cause="Dropout or another layer draws random numbers: log_prob is random, and samples do not "
    "follow it.",
    fix="Call flow.eval() before log_prob and sample.",
)
def training_mode_matters(m: Measurements) -> Iterator[Symptom]:
    """All other checks examine the flow in evaluation mode. This one calls it in the mode in which
    it was given, twice, and compares log_prob, also with that in evaluation mode: the statistics
    of a batch differ from the running ones.

    Example:
        class Dropping(kf.bijections.ElementwiseAffine):
            def forward(self, x, context=None):
                z, log_det = super().forward(x)
                return torch.nn.functional.dropout(z, training=self.training), log_det


        flow = kf.Flow(kf.StandardNormal(2), Dropping(2))
        x = torch.randn(64, 2)
    """
    own = m.copy() if any(m.modes.values()) and not log_prob_random(m) else None
    if own is None:
        return
    for name, module in own.named_modules():
        module.training = m.modes.get(name, False)
    own.augmented_log_prob(m.points, m.context)  # initializes what waits for data
    values = [own.augmented_log_prob(m.points, m.context) for _ in range(2)]
    than, layer, cause = "from call to call", None, None
    if differ(*values):
        layers, start = layers_of(own.core, m.context), own.standardization(m.points)[0]
        calls = layer_by_layer(layers, start)
        layer = next(
            (layer.name for layer, x, *results in calls if _changes(layer, x, results)), None
        )
    else:
        own.eval()
        values[1] = own.augmented_log_prob(m.points, m.context)
        than = "compared with evaluation mode"
        cause = (
            "A layer computes other values in training mode, such as with the statistics of the "
            "batch instead of the running ones."
        )
    if differ(*values):
        worst = largest_difference(*values)
        yield Symptom(
            f"The flow was given in training mode, where log_prob changes by up to {worst:.2g} "
            f"nats {than}.",
            {"worst_nats": worst},
            layer=layer,
            cause=cause,
        )


def _changes(layer: Layer, x: Tensor, results: Sequence[Tensor]) -> bool:
    """Returns whether a second call of a layer has other results."""
    return any(differ(a, b) for a, b in zip(results, layer.encode(x), strict=True))


def _errors(flow: Flow, x: Tensor, context: Tensor | None) -> Iterator[tuple[float, str]]:
    """Yields the error of the log_det of each layer, in nats, and its name."""
    state = flow.standardization(x)[0]
    for layer in layers_of(flow.core, context):
        value, log_det = _call(layer, state)
        if value.shape != state.shape:
            return
        error = (log_det[:ROWS] - _log_det_by_differences(layer, state)).abs()
        yield error.nan_to_num(0.0, posinf=0.0).max().item(), layer.name
        state = value


def _log_det_by_differences(layer: Layer, x: Tensor) -> Tensor:
    """Returns log|det| of the Jacobian of the first rows, with the other rows of the batch."""
    matrices = torch.zeros(min(ROWS, len(x)), x[0].numel(), x[0].numel(), dtype=torch.float64)
    for row, feature in itertools.product(*map(range, matrices.shape[:2])):
        moved = torch.zeros_like(x)
        moved[row].view(-1)[feature] = STEP
        up, down = (_call(layer, x + sign * moved)[0][row].flatten() for sign in (1, -1))
        matrices[row, :, feature] = ((up - down) / (2 * STEP)).cpu()
    return torch.linalg.slogdet(matrices)[1]


def _call(layer: Layer, x: Tensor) -> tuple[Tensor, Tensor]:
    return _seeded(lambda: layer.encode(x))


def _seeded(call: Callable[[], T]) -> T:
    """Returns the result of a call with the same random numbers each time."""
    torch.manual_seed(0)  # the doctor restores the generator
    return call()
