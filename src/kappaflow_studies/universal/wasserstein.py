"""How far two laws are apart in W2: a bound by two maps of one normal, a distance of samples."""

import math
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from kappaflow._checks import batch, natural_int, positive_int
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow_studies.universal.construction import FARTHEST, Scales
from kappaflow_studies.universal.targets import Target

AT_ONCE = 20_000  # points in memory


@dataclass(frozen=True)
class TransportError:
    r"""An upper bound on W2 between a flow g and a target: both take the same normal z.

    Attributes:
        bound: :math:`\sqrt{E |g(z) - \phi(z)|^2}`, with what is `unseen` in it.
        standard_error: Of the bound, by the number of samples.
        unseen: The part of the mean square that is not estimated but bounded: of the rare points
            on ramps and in tails, of which a sample holds next to none.
    """

    bound: float
    standard_error: float
    unseen: float


@torch.no_grad()
def transport_error(
    flow: Flow,
    target: Target,
    scales: Scales | None = None,
    *,
    samples: int = 100_000,
    seed: int = 0,
) -> TransportError:
    r"""Returns how far draws of a flow are from the target's, in the mean square, for the same z.

    Args:
        flow: Such as `universal_flow` makes, in float64.
        target: The law that it should have.
        scales: Of the construction: its `rare` points count with their bound in addition. None:
            only what the sample shows.
        samples: Normal draws, at least two.
        seed: Of these draws.

    Returns:
        The bound on W2, with its standard error.

    Raises:
        ArgumentError: The numbers of features differ, or `samples` is below two.

    Source:
        W2 is the least of this over all ways to couple the two laws; z couples them in one way.

    Example:
        >>> from kappaflow_studies.universal import UniformCube, universal_flow
        >>> error = transport_error(universal_flow(UniformCube(), 0.1), UniformCube())
        >>> 0.05 < error.bound < 0.1
        True
    """
    if flow.event_shape != (target.features,):
        raise ArgumentError(
            f"'flow' should have the target's {target.features} features, got events of shape "
            f"{flow.event_shape}."
        )
    if positive_int("samples", samples) < 2:
        raise ArgumentError(f"'samples' should be at least 2, got {samples}.")
    generator = torch.Generator().manual_seed(natural_int("seed", seed))
    squares = []
    for start in range(0, samples, AT_ONCE):
        shape = min(AT_ONCE, samples - start), target.features
        z = torch.randn(shape, dtype=flow.dtype, generator=generator)
        missed = flow.bijection.inverse(z)[0] - target.transport(z)
        squares.append(missed.square().sum(1))
    found = torch.cat(squares)
    unseen = 0.0
    if scales is not None:
        unseen = scales.rare * target.features * (FARTHEST * scales.output_bound) ** 2
    bound = math.sqrt(found.mean().item() + unseen)
    spread = found.std().item() / math.sqrt(samples)
    return TransportError(bound, spread / (2 * bound) if bound else 0.0, unseen)


def two_sample_w2(a: Tensor, b: Tensor) -> float:
    """Returns W2 between two equally large samples, each point of the same weight.

    Args:
        a: (B, n).
        b: (B, n).

    Returns:
        The root of the least mean square distance of points that are paired one to one. It is
        above zero for two samples of one law: compare it with that floor.

    Raises:
        ArgumentError: The shapes differ.

    Note:
        A matrix of B x B numbers, and about a second for 2,000 points.

    Source:
        The assignment problem, by `scipy.optimize.linear_sum_assignment`: an optimal transport
        plan between samples of equal weights is a pairing (Birkhoff).

    Example:
        >>> two_sample_w2(torch.tensor([[0.0], [1.0]]), torch.tensor([[4.0], [3.0]]))
        3.0
    """
    a, b = batch("a", a).double(), batch("b", b).double()
    if a.dim() != 2 or a.shape != b.shape:
        raise ArgumentError(
            f"'a' and 'b' should have one shape (batch, features), got {tuple(a.shape)} and "
            f"{tuple(b.shape)}."
        )
    costs = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square().numpy()
    rows, columns = linear_sum_assignment(costs)
    return math.sqrt(costs[rows, columns].mean())
