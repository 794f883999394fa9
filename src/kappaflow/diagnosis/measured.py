"""What is measured of a flow before any rule is asked."""

from dataclasses import dataclass

from torch import Tensor

from kappaflow.conditioning import Profile
from kappaflow.diagnosis.integral import Integral
from kappaflow.diagnosis.paths import Paths
from kappaflow.diagnosis.tails import Tails
from kappaflow.flows import Flow


@dataclass(frozen=True)
class LogDets:
    """The log-determinants of the core at the points, in nats and in float64.

    Attributes:
        forward: As `forward` says, (B,).
        inverse: As `inverse` says at the latent that `forward` returned, (B,).
        true: log|det| of the dense Jacobian, (B,); None where the dimension is too large.
        size: The square root of the number of layers, and a bound on the sum of |log s| over all
            singular values of all layers, (B,).
        singular_values: All of the core at some of the points, descending, (b, n); None where the
            dimension is too large.
    """

    forward: Tensor
    inverse: Tensor
    true: Tensor | None
    size: Tensor
    singular_values: Tensor | None = None


@dataclass(frozen=True)
class Measured:
    """What the rules look at.

    Attributes:
        flow: The flow.
        profile: Its conditioning over depth at the points.
        norm_data: |x| of the standardised points, (B,).
        norm_latent: |z| of the draws of the base, (B,).
        log_prob: log p at the points, (B,).
        log_dets: Those of both directions at the points.
        paths: Densities by other ways, at the points and at draws.
        tails: Round trips of latents that are further out than draws of the base.
        integral: Of the density, in few dimensions; None elsewhere.
        drawn: What the flow makes of draws of the base, in the units of the data.
        drawn_log_prob: log p there.
        given: Whether the points were given; if not they are samples themselves.
        fault_from_data: The layer that is first to make a value that is not finite on the way
            data, latent, data; None if all are finite.
        fault_from_latent: The same on the way latent, data, latent.
    """

    flow: Flow
    profile: Profile
    norm_data: Tensor
    norm_latent: Tensor
    log_prob: Tensor
    log_dets: LogDets
    paths: Paths
    tails: Tails
    integral: Integral | None
    drawn: Tensor
    drawn_log_prob: Tensor
    given: bool
    fault_from_data: str | None
    fault_from_latent: str | None
