"""What is measured of a flow before any rule is asked."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from kappaflow.conditioning import Profile
from kappaflow.diagnosis.measures.contexts import Contexts
from kappaflow.diagnosis.measures.draws import Draws
from kappaflow.diagnosis.measures.energies import Energy
from kappaflow.diagnosis.measures.gradient import Gradient
from kappaflow.diagnosis.measures.integral import Integral
from kappaflow.diagnosis.measures.log_dets import LogDets
from kappaflow.diagnosis.measures.outliers import Outliers
from kappaflow.diagnosis.measures.paths import Paths
from kappaflow.diagnosis.measures.precision import Precision
from kappaflow.diagnosis.measures.references import Comparison
from kappaflow.diagnosis.measures.state import State
from kappaflow.diagnosis.measures.tails import Tails
from kappaflow.flows import Flow


@dataclass(frozen=True)
class Measured:
    """What the rules look at.

    Attributes:
        flow: The flow.
        profile: Its conditioning over depth at the points.
        norm_data: |x| of the standardised points, (B,).
        norm_latent: |z| of the draws of the base, (B,).
        dimensions: Of one point.
        log_spread: Mean of the logarithms of the deviations of the standardised columns, over all
            points that were given; nan for fewer than 32.
        log_prob: log p at the points, (B,).
        log_dets: Those of both directions at the points.
        paths: Densities by other ways, at the points and at draws.
        tails: Round trips of latents that are further out than draws of the base.
        integral: Of the density, in few dimensions; None elsewhere.
        state: What calls do to the flow, and what follows its parameters.
        gradient: The derivatives of log_prob; None where they cannot be compared.
        draws: The flow's own draws; None where it makes none itself.
        contexts: What contexts do; None for a flow without.
        precision: The types that layers answer in.
        outliers: The points that are far out; None where none were given.
        energy: An unnormalized density beside the flow; None where none was given.
        drawn: What the flow makes of draws of the base, in the units of the data.
        drawn_log_prob: log p there.
        given: Whether the points were given; if not they are samples themselves.
        fault_from_data: The layer that is first to make a value that is not finite on the way
            data, latent, data; None if all are finite.
        fault_from_latent: The same on the way latent, data, latent.
        comparisons: With a Gaussian and a Gaussian mixture, at rows that neither was fitted to;
            none where the rows are too few or no table.
        names: Names a row in a message, by its index; None for "row" and the index.
    """

    flow: Flow
    profile: Profile
    norm_data: Tensor
    norm_latent: Tensor
    dimensions: int
    log_spread: float
    log_prob: Tensor
    log_dets: LogDets
    paths: Paths
    tails: Tails
    integral: Integral | None
    state: State
    gradient: Gradient | None
    draws: Draws | None
    contexts: Contexts | None
    precision: Precision
    outliers: Outliers | None
    energy: Energy | None
    drawn: Tensor
    drawn_log_prob: Tensor
    given: bool
    fault_from_data: str | None
    fault_from_latent: str | None
    comparisons: tuple[Comparison, ...] = ()
    names: Callable[[int], str] | None = None

    def name_row(self, index: int) -> str:
        """Returns a name for one of the rows in a message."""
        if not self.given:
            return f"draw {index}"
        return f"row {index}" if self.names is None else self.names(index)
