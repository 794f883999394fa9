"""The log_det of each layer by itself, compared with its Jacobian or an estimate of it."""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from kappaflow.conditioning import layers_of
from kappaflow.conditioning.round_trip import distance, layer_by_layer
from kappaflow.conditioning.spectrum import DENSE_UP_TO
from kappaflow.diagnosis.check import measurement
from kappaflow.diagnosis.checks.state import moved_copy
from kappaflow.diagnosis.measurements import Measurements
from kappaflow.diagnosis.tensors import lengths
from kappaflow.flows import Flow
from kappaflow.linearization import Linearization

TOLERATED = 1e-3  # largest reconstruction error, as a share of |x|, that is invisible in results
WRONG = 2e-3  # nats, and share of the log_det, from which an error is no inaccuracy of a solver
MORE_PROBES = 64  # random vectors of the repetition of an estimate
STEPS = 16  # at most, Lanczos steps for each vector
SETTLED = 0.02  # change by a step, in standard errors, after which more steps change nothing
DOUBTFUL, SURE = 4.0, 7.0  # standard errors from which an estimate is repeated, and reported


class LayerError(NamedTuple):
    """The layer whose log_det is furthest from log|det| of its own Jacobian."""

    layer: str
    error: float  # in nats
    inverse: bool  # whether only the log_det of the inverse is wrong
    standard_error: float  # of an estimated log|det|; 0 if the Jacobian was formed
    moved: bool  # whether the error only appears after a small change of the parameters


@measurement("log_dets layer by layer")
def layer_log_dets(m: Measurements) -> list[LayerError]:
    """Returns the layer with the worst log_det, at the flow's parameters and at moved ones.

    Layers that start as the identity show a wrong log_det only after a change of their parameters,
    so those with a log_det of about zero are measured again.
    """
    is_large = math.prod(m.flow.joint_shape) > DENSE_UP_TO
    measure = functools.partial(_measured, probes=m.effort.points // 8)
    x, context = m.first(1 if is_large else m.effort.points // 32)
    in_copy = m.in_float64(measure, x, context)
    errors, hidden = measure(m.flow, x, context) if in_copy is None else in_copy
    dtype = None if in_copy is None else torch.float64
    moved = None if errors or not hidden else moved_copy(m, dtype)
    if moved is not None:
        context = None if context is None else context.to(dtype)
        errors = measure(moved, x.to(dtype), context, only=hidden)[0]
    return sorted(errors, key=lambda error: -abs(error.error))[:1]


def _measured(
    flow: Flow, x: Tensor, context: Tensor | None, probes: int, only: set[str] | None = None
) -> tuple[list[LayerError], set[str]]:
    """Returns the errors above the tolerance, and the layers whose log_det is below it.

    With `only`, the other layers are left out, and the parameters are moved ones.
    """
    errors, hidden = [], set[str]()
    layers, start = layers_of(flow.core, context), flow.standardization(x)[0]
    for layer, state, z, forward in layer_by_layer(layers, start):
        if only is None or layer.name in only:
            returned, back = layer.decode(z)
            # Elsewhere the log_det of the inverse belongs to another point.
            same = distance(returned, state) <= TOLERATED * lengths(state)
            linear, error = layer.linearize(state), 0.0
            if state[0].numel() <= DENSE_UP_TO:
                true = torch.linalg.slogdet(linear.matrix(state))[1]
            else:
                true, error = _estimate(linear, state, forward, probes)
            limit = WRONG * (1 + true.abs()) + SURE * error
            limit = limit + 1e3 * torch.finfo(state.dtype).eps * state[0].numel()
            if (true.abs() <= limit).any():
                hidden.add(layer.name)
            back_error = torch.where(same, -back.double() - true, 0)
            for off, inverse in ((forward.double() - true, False), (back_error, True)):
                wrong = torch.isfinite(true) & (off.abs() > limit)
                if wrong.any():
                    worst = off[wrong][off[wrong].abs().argmax()].item()
                    errors.append(LayerError(layer.name, worst, inverse, error, only is not None))
                    break
        if not torch.isfinite(z).all():
            break
    return errors, hidden


def _estimate(
    linear: Linearization, x: Tensor, log_det: Tensor, probes: int
) -> tuple[Tensor, float]:
    """Returns an estimate of log|det J| at a point, (1,), repeated if doubtful, and its error."""
    values = _log_dets(linear, x, probes, seed=0)
    if abs(values.mean() - log_det) > DOUBTFUL * _standard_error(values):
        values = _log_dets(linear, x, MORE_PROBES, seed=1)
    return values.mean()[None], _standard_error(values)


def _standard_error(values: Tensor) -> float:
    return values.std().item() / math.sqrt(len(values))


def _log_dets(linear: Linearization, x: Tensor, probes: int, *, seed: int) -> Tensor:
    """Returns independent estimates of log|det J| = tr log(J^T J) / 2, (probes,), in float64.

    For a random vector v of signs, v^T log(J^T J) v has this trace as its mean. Lanczos steps give
    it without the matrix.

    Source:
        Hutchinson 1990; Ubaru, Chen, Saad 2017, Fast estimation of tr(f(A)).
    """
    n = x[0].numel()
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (probes, n), generator=generator) * 2 - 1
    v = signs.double().to(x.device) / math.sqrt(n)
    shape = (probes, 1, *x.shape[1:])

    def product(vectors: Tensor) -> Tensor:
        forward = linear.jv(vectors.to(x.dtype).reshape(shape))
        return linear.vjp(forward).detach().double().reshape(probes, n)

    basis, diagonal, off_diagonal, values = [v], [], [], v.new_zeros(probes)
    for _ in range(min(STEPS, n)):
        w = product(basis[-1])
        diagonal.append((w * basis[-1]).sum(1))
        for _ in range(2):
            for vector in basis:  # full orthogonalization keeps the quadrature exact
                w = w - (w * vector).sum(1, keepdim=True) * vector
        before, values = values, _quadrature(diagonal, off_diagonal, n)
        length, change = w.norm(dim=1), (values - before).abs().mean().item()
        if len(basis) > 1 and change <= SETTLED * _standard_error(values) + 1e-9 * n:
            break
        if not (length > 1e-9 * diagonal[-1].abs()).any():
            break
        off_diagonal.append(length)
        basis.append(w / length.clamp_min(1e-300)[:, None])
    return values


def _quadrature(diagonal: list[Tensor], off_diagonal: list[Tensor], n: int) -> Tensor:
    """Returns the estimates of log|det J|, (probes,), from the Lanczos coefficients so far."""
    tridiagonal = torch.diag_embed(torch.stack(diagonal, 1))
    if off_diagonal:
        off = torch.diag_embed(torch.stack(off_diagonal, 1), offset=1)
        tridiagonal = tridiagonal + off + off.mT
    nodes, vectors = torch.linalg.eigh(tridiagonal)
    logs = nodes.clamp_min(1e-300).log()
    return 0.5 * n * (vectors[:, 0].square() * logs).sum(1)
