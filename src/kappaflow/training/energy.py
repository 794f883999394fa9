"""Training on an energy: the reverse KL divergence at samples of the flow."""

import sys
from collections.abc import Iterator

import torch
from torch import Tensor

from kappaflow.data.batches import Batch
from kappaflow.energies import ImportanceSamples, LogDensity, log_density_at, with_gradient
from kappaflow.errors import NumericalError
from kappaflow.flows import Flow
from kappaflow.training.loop import Progress, epoch_seed
from kappaflow.training.measure import conditioning_figures
from kappaflow.training.nonfinite import first_nonfinite_layer_of_samples
from kappaflow.training.objective import Averages, Figures, Loss, Measured, State
from kappaflow.training.settings import EnergySettings

FROM_WEIGHTS = (
    "free_energy",
    "reverse_kl",
    "effective_sample_size",
    "pareto_k",
    "log_normalizer",
    "log_normalizer_error",
)


class Energy:
    """The reverse KL divergence of a flow from an unnormalized density, flattened at first.

    The flow stays in evaluation mode. There is no data to overfit, so dropout is not needed, and
    the density must belong to the samples that were drawn.
    """

    unit, limit, value = "interval", "steps", "free_energy"
    patience, margin, compiled = sys.maxsize, 0.0, False

    def __init__(self, flow: Flow, log_density: LogDensity, settings: EnergySettings) -> None:
        self.flow, self.log_density, self.settings = flow.eval(), log_density, settings
        self.steps, self.steps_per_epoch = settings.steps, settings.measure_every
        self.start: State = {}
        self.rows: State = {}
        self._beta, self._beta_of_best = 0.0, 0.0  # of the last step, of the best weights
        self.causes = (
            "(a) log_density overflows or is undefined at samples of the flow, bound it or smooth "
            "it there; (b) the learning rate is too high, try "
            f"learning_rate={settings.learning_rate / 10:.1g}; (c) the log-scales are too large, "
            "try a smaller scale_bound. kappaflow.doctor(flow) diagnoses the flow."
        )

    def follow(self, progress: Progress) -> None:
        self.progress = progress

    def batches(self, seed: int) -> Iterator[tuple[Tensor, int]]:
        rows = self.settings.batch_size
        for _ in range(min(self.steps_per_epoch, self.steps - self.progress.step)):
            yield latents(self.flow, rows), rows

    def loss(self, batch: Tensor, done: float) -> Loss:
        self._beta = self.settings.inverse_temperature_at(done)
        return reverse_kl_loss(
            self.flow,
            self.log_density,
            batch,
            inverse_temperature=self._beta,
        )

    def first_nonfinite(self, batch: Tensor, loss: Loss) -> str:
        if loss.x is not None and torch.isfinite(loss.x).all():
            value, slope = with_gradient(self.log_density, loss.x)
            if not torch.isfinite(value).all():
                return "log_density"
            if not torch.isfinite(slope).all():
                return "the gradient of log_density"
        return first_nonfinite_layer_of_samples(self.flow, batch)

    @torch.no_grad()
    def measure(self, averages: Averages, share_done: float | None) -> Measured:
        z = latents(self.flow, self.settings.measured_draws, epoch_seed(self.settings.seed, -1))
        x, log_det = self.flow.bijection.inverse(z)
        log_prob = (self.flow.base.log_prob(z) - log_det).double()
        samples = ImportanceSamples(x, log_prob, log_density_at(self.log_density, x).double())
        return {
            "epoch": self.progress.epoch,
            "step": self.progress.step,
            "inverse_temperature": self._beta,
            **{name: getattr(samples, name) for name in FROM_WEIGHTS},
            "gradient_norm": averages.gradient_norm,
            **conditioning_figures(self.flow, Batch(x, None)),
        }, None

    def is_best(self, figures: Figures) -> bool:
        """Returns whether the free energy is lower, or that of a lower temperature."""
        colder = self._beta > self._beta_of_best
        if figures["free_energy"] < (float("inf") if colder else self.progress.best_nll):
            self._beta_of_best = self._beta
            return True
        return False

    def why_none(self, history: list[Figures]) -> str:
        progress, settings = self.progress, self.settings
        return (
            f"the free energy at {settings.measured_draws} samples was never finite in "
            f"{progress.step} steps, and {progress.skipped_steps} steps were skipped. The flow is "
            "unchanged. Look for points where log_density is not finite, and try a learning rate "
            f"far below {settings.learning_rate:g}."
        )


def latents(flow: Flow, n: int, seed: int | None = None) -> Tensor:
    """Returns base samples of a flow, (n, *event), by a seed or by torch's random numbers."""
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return flow.base.sample(n, dtype=flow.dtype, device=flow.device, generator=generator)


def reverse_kl_loss(
    flow: Flow, log_density: LogDensity, z: Tensor, *, inverse_temperature: float = 1.0
) -> Loss:
    """Returns the mean of log q(x) - beta log p(x) at samples x = x(z) of the flow q, in nats."""
    # The total derivative of log q(x(z)) is that through x, plus the score, whose mean is zero.
    # The path estimator leaves out the score: it has no noise where q equals the target.
    # Source: Roeder, Wu, Duvenaud 2017; for flows Vaitl, Nicoli, Nakajima, Kessel 2022.
    x, log_det = flow.bijection.inverse(z)
    log_q = flow.base.log_prob(z) - log_det
    at = x.detach()
    log_p, slope = with_gradient(log_density, at)
    slope = _slope_of_flow(flow, at) - inverse_temperature * slope
    through_x = (slope * x).flatten(1).sum(1).mean()
    value = (log_q.detach() - inverse_temperature * log_p).mean()
    value = value + (through_x - through_x.detach())
    return Loss(value, value.detach(), x)


def _slope_of_flow(flow: Flow, x: Tensor) -> Tensor:
    """Returns the gradient of log q by x, (n, *event), without a graph."""
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(flow.augmented_log_prob(x).sum(), x)
    return slope


def check_start(flow: Flow, log_density: LogDensity, z: Tensor) -> None:
    """Raises an error if a log-density has no gradient, or no finite value at base samples z."""
    with torch.no_grad():
        x = flow.bijection.inverse(z)[0]
    value, _ = with_gradient(log_density, x)
    if not torch.isfinite(value).any():
        raise NumericalError(
            f"'log_density' should be finite where training starts, got {value[0].item()} or "
            f"other non-finite numbers at all {len(x)} samples of the flow (mean "
            f"{x.mean().item():.3g}, standard deviation {x.std().item():.3g}). Shift and scale "
            "the energy so that its mass is near the origin."
        )
