"""The training loop on an energy: intervals of steps, each measured at the same latents."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kappaflow.data.batches import Batch
from kappaflow.energies import ImportanceSamples, LogDensity, log_density_at, with_gradient
from kappaflow.errors import NumericalError
from kappaflow.flows import Flow
from kappaflow.storage import plain
from kappaflow.training.distributed import Engine
from kappaflow.training.loop import copied, epoch_seed
from kappaflow.training.measure import conditioning_figures
from kappaflow.training.nonfinite import first_nonfinite_layer_of_samples
from kappaflow.training.optimizer import AdamW, WeightEMA
from kappaflow.training.variational.objective import reverse_kl_loss
from kappaflow.training.variational.settings import EnergySettings

Figures = dict[str, Any]


class EnergyTraining:
    """The state of a training on an energy: the flow, its optimizer and the progress so far.

    The flow stays in evaluation mode. There is no data to overfit, so dropout is not needed, and
    the density must belong to the samples that were drawn.
    """

    def __init__(
        self, flow: Flow, log_density: LogDensity, settings: EnergySettings, engine: Engine
    ) -> None:
        self.flow, self.log_density = flow.eval(), log_density
        self.settings, self.engine = settings, engine
        self.optimizer = AdamW(flow, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self.average = WeightEMA(flow, settings.average)
        self.best = copied(flow.state_dict())
        self.best_epoch, self._best_at = 0, (0.0, float("inf"))
        self.step, self.updates = 0, 0
        self.skipped_steps, self.skipped_in_row = 0, 0
        self.blamed: str | None = None
        self.time_s = 0.0
        self.history: list[Figures] = []

    def run(self, after_interval: Callable[[Figures], None]) -> str:
        """Returns why training ended, "steps" or "max_time_s", after training the flow."""
        most = self.settings.max_time_s
        while self.step < self.settings.steps:
            if most is not None and self.time_s >= most:
                return "max_time_s"
            started = time.perf_counter()
            norms = self._interval()
            after_interval(self._measured(norms, started))
        return "steps"

    def load_best(self) -> None:
        self.flow.load_state_dict(self.best)

    def _interval(self) -> list[float]:
        """Returns the gradient norms of the steps of an interval, after taking these steps."""
        settings, norms = self.settings, []
        cuda = [self.flow.device] if self.flow.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(epoch_seed(settings.seed, len(self.history)))
            for _ in range(min(settings.measure_every, settings.steps - self.step)):
                norm = self._step(_latents(self.flow, settings.batch_size))
                if norm is not None:
                    norms.append(norm)
        return norms

    def _step(self, z: Tensor) -> float | None:
        """Returns the gradient norm of a step after taking it, or None if it was skipped."""
        settings = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate_at(self.step)
        beta = settings.inverse_temperature_at(self.step)
        self.step += 1
        self.optimizer.zero_grad()
        loss, x = reverse_kl_loss(
            self.flow,
            self.log_density,
            z,
            inverse_temperature=beta,
            gradient=settings.gradient,
        )
        value, norm = self.engine.clipped_step(
            self.optimizer, loss, loss.detach(), clip_norm=settings.clip_norm
        )
        if math.isfinite(value) and math.isfinite(norm):
            self.updates += 1
            self.average.update(self.updates)
            self.skipped_in_row = 0
            return norm
        self._skip(z, x)
        return None

    def _skip(self, z: Tensor, x: Tensor) -> None:
        """Counts a step that was not finite; raises an error after many in a row."""
        self.skipped_steps += 1
        self.skipped_in_row += 1
        self.blamed = self._blame(z, x)
        if self.skipped_in_row < self.settings.most_skipped:
            return
        self.load_best()
        raise NumericalError(
            f"training stopped at step {self.step}: {self.skipped_in_row} steps in a row were not "
            f"finite, starting at {self.blamed}. The flow has the weights of interval "
            f"{self.best_epoch}. Likely causes: (a) log_density overflows or is undefined at "
            "samples of the flow, bound it or smooth it there; (b) the learning rate is too high, "
            f"try learning_rate={self.settings.learning_rate / 10:.1g}; (c) the log-scales are "
            "too large, try a smaller scale_bound. kappaflow.doctor(flow) diagnoses the flow."
        )

    def _blame(self, z: Tensor, x: Tensor) -> str:
        """Returns the name of the first part of a step that is not finite."""
        if torch.isfinite(x).all():
            value, slope = with_gradient(self.log_density, x)
            if not torch.isfinite(value).all():
                return "log_density"
            if not torch.isfinite(slope).all():
                return "the gradient of log_density"
        return first_nonfinite_layer_of_samples(self.flow, z)

    @torch.no_grad()
    def _measured(self, norms: list[float], started: float) -> Figures:
        """Returns the metrics of an interval, and keeps the weights if they are the best so far.

        Weights of a lower temperature always replace weights of a higher one.
        """
        beta = self.settings.inverse_temperature_at(self.step - 1)
        with self.average.in_place():
            samples = samples_of(self.flow, self.log_density, self._test_latents())
            figures = {
                "epoch": len(self.history) + 1,
                "step": self.step,
                "inverse_temperature": beta,
                **figures_of(samples),
                "gradient_norm": sum(norms) / len(norms) if norms else float("nan"),
                **conditioning_figures(self.flow, Batch(samples.x, None)),
            }
            at = (-beta, figures["free_energy"])
            if at[1] < float("inf") and at < self._best_at:
                self._best_at, self.best_epoch = at, figures["epoch"]
                self.best = copied(self.flow.state_dict())
        self.time_s += time.perf_counter() - started
        figures |= {
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "skipped_steps": self.skipped_steps,
            "blamed": self.blamed,
            "time_s": self.time_s,
        }
        self.history.append(plain(figures))
        return self.history[-1]

    def _test_latents(self) -> Tensor:
        generator = torch.Generator().manual_seed(epoch_seed(self.settings.seed, -1))
        return _latents(self.flow, self.settings.measured_draws, generator)


def samples_of(flow: Flow, log_density: LogDensity, z: Tensor) -> ImportanceSamples:
    """Returns the samples of a flow for latents z, (n, *event), with both log-densities."""
    x, log_det = flow.bijection.inverse(z)
    log_prob = flow.base.log_prob(z) - log_det
    return ImportanceSamples(x, log_prob.double(), log_density_at(log_density, x).double())


def figures_of(samples: ImportanceSamples) -> dict[str, float]:
    """Returns the figures of a fit that are computed from importance weights."""
    return {
        name: getattr(samples, name)
        for name in (
            "free_energy",
            "reverse_kl",
            "effective_sample_size",
            "pareto_k",
            "log_normalizer",
            "log_normalizer_error",
        )
    }


def _latents(flow: Flow, n: int, generator: torch.Generator | None = None) -> Tensor:
    return flow.base.sample(n, dtype=flow.dtype, device=flow.device, generator=generator)
