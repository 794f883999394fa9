"""KF405 and KF406: features that no network changes, and layers that do nothing."""

from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from kappaflow.conditioning import layers_of
from kappaflow.conditioning.round_trip import latent_points
from kappaflow.conditioning.spectrum import DENSE_UP_TO
from kappaflow.diagnosis.check import Symptom, check, measurement
from kappaflow.diagnosis.checks.state import moved_copy
from kappaflow.diagnosis.depth_gains import LayerLosses, layer_losses
from kappaflow.diagnosis.measurements import Measurements
from kappaflow.foreign import Wrapped
from kappaflow.rewrite.layers import is_linear

POINTS = 8
CONSTANT = 1e-5  # relative spread over the points of an entry that is constant
SHOWN = 5  # features and layers that a message names
DEEP = 64  # layers up to which each is left out in turn


@measurement("structure of the Jacobian")
def structure(m: Measurements) -> tuple[list[int], bool] | None:
    """Returns features whose latent is this feature with a constant scale and shift, and whether
    each latent depends on one feature alone, after a change of the parameters.

    Returns None without parameters, for one feature, or above 500.
    """
    n = m.standardized[0].numel()
    moved = moved_copy(m, None) if 1 < n <= DENSE_UP_TO else None
    if moved is None:
        return None
    context = None if m.context is None else m.context[:POINTS]
    z = latent_points(moved, POINTS if context is None else len(context), context)
    x = moved.core.inverse(z, context)[0]
    jacobian = moved.core.linearize(x, context).matrix(x)
    jacobian = jacobian[torch.isfinite(jacobian).all(dim=(1, 2))]
    if len(jacobian) < 2:
        return None
    used = (jacobian != 0).any(0)
    spread = jacobian.amax(0) - jacobian.amin(0)
    constant = (spread <= CONSTANT * jacobian.abs().amax(0)).all(1)
    alone = used.sum(1) == 1
    return used[alone & constant].nonzero()[:, 1].sort().values.tolist(), bool(alone.all())


@check(
    "KF405",
    "some features never change",
    severity="warning",
    cause="The masks, partitions or permutations leave them out in each layer, or the networks "
    "read nothing but constants.",
    fix="Alternate which features a layer changes, and check what reaches its network.",
)
def features_never_change(m: Measurements) -> Iterator[Symptom]:
    """The doctor moves the parameters a little and looks for zeros in the Jacobian at samples.
    If the latent of a feature is this feature with a constant scale and shift, no network changes
    it; if no latent depends on two features, no network reads any. It is a note for less than
    half of the features, as in autoregressive flows or with few random permutations, and for a
    single layer.

    Example:
        nets = [kf.nets.MLP(2, 4, (8,)) for _ in range(4)]
        couplings = [kf.AffineCoupling(kf.Partition.half(4), net) for net in nets]
        flow = kf.Flow(kf.StandardNormal(4), kf.Chain(couplings))
        x = torch.randn(64, 4)
    """
    result = structure(m)
    if result is None:
        return
    (fixed, separate), n = result, m.standardized[0].numel()
    if separate and m.context is None and _has_networks(m):
        yield Symptom(
            f"No latent depends on more than one of the {n} features: the networks read none.",
            {"features": n},
            cause="The networks read constants: their inputs are masked, detached or multiplied "
            "by zero.",
        )
    if fixed and not separate:
        names = ", ".join(map(str, fixed[:SHOWN])) + (", ..." if len(fixed) > SHOWN else "")
        functions = isinstance(m.flow, Wrapped) and m.flow.library == "functions"
        single = len(layers_of(m.flow.core)) == 1 and not functions
        yield Symptom(
            f"{len(fixed)} of {n} features only get a constant scale and shift, whatever the "
            f"parameters: {names}, counted from 0.",
            {"features": n, "fixed": len(fixed)},
            severity="note" if 2 * len(fixed) < n or single else None,
        )


def _has_networks(m: Measurements) -> bool:
    """Returns whether a flow has dense layers or convolutions, unlike one of elementwise maps."""
    return any(isinstance(module, nn.Linear | _ConvNd) for module in m.flow.modules())


@measurement("layers that are not needed")
def losses(m: Measurements) -> LayerLosses | None:
    """Returns what the flow loses without each layer; None for deep flows and large rows."""
    if m.rows is None or m.rows[0].numel() > DENSE_UP_TO or len(m.layers) > DEEP:
        return None
    return layer_losses(m.flow, m.layers, m.standardized, m.context)


@check(
    "KF406",
    "some layers do nothing",
    severity="note",
    cause="The flow is deeper than these rows need, or its training ended early.",
    fix="Remove them (`kappaflow prune` and `kappaflow.prune` do): fewer layers are faster and "
    "often better conditioned.",
)
def layers_do_nothing(m: Measurements) -> Iterator[Symptom]:
    """Each layer in turn is left out, and nothing is trained again. It is a note if the rows are
    as likely without a trained layer that is not linear, to 0.001 nats each, or without two
    neighbors that undo each other. A flow of which no layer does anything has none.

    Example:
        nets = [kf.nets.MLP(1, 2, (8,)) for _ in range(2)]
        for parameter in nets[0].parameters():
            torch.nn.init.normal_(parameter)
        couplings = [kf.AffineCoupling(kf.Partition.half(2), net) for net in nets]
        flow = kf.Flow(kf.StandardNormal(2), kf.Chain(couplings))
        x = flow.sample(64).detach()
    """
    result = losses(m)
    if result is None:
        return
    learned = [
        i
        for i, layer in enumerate(m.layers)
        if not is_linear(layer.bijection) and [*layer.bijection.parameters()]
    ]
    dead = [i for i in result.dead if i in learned]
    if dead and len(dead) < len(learned):
        yield Symptom(
            f"{len(dead)} of {len(learned)} trained layers change no likelihood: "
            f"{_names(m, dead)}.",
            {"dead": len(dead), "trained": len(learned)},
        )
    pairs = result.pairs()
    for i, j in pairs[:SHOWN]:
        yield Symptom(
            f"Layers {_names(m, (i, j))} undo each other: without both, nothing is lost.",
            {"loss_of_first": float(result.rows[i].mean())},
        )


def _names(m: Measurements, numbers: Sequence[int]) -> str:
    """Returns the names of layers for a message, the first few of many."""
    names = [m.layers[i].name for i in numbers[:SHOWN]]
    return ", ".join(names) + (", ..." if len(numbers) > SHOWN else "")
