"""The settings of `fit_energy` and their checks."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from kappaflow.options import Count, Positive, Share
from kappaflow.training.optimizer import learning_rate_at
from kappaflow.training.settings import checked_model


class EnergySettings(BaseModel):
    """Settings of a training on an energy.

    Attributes:
        steps: Number of training steps, over which the learning rate falls to zero.
        max_time_s: Wall time in seconds after which training stops at the end of an interval.
        batch_size: Samples per step.
        learning_rate: Highest learning rate of Adam.
        warmup: Fraction of the steps in which the learning rate rises to its highest value.
        weight_decay: Decoupled weight decay (AdamW).
        clip_norm: Largest norm of the gradient of a step.
        average: Decay of the exponential moving average of the weights. The averaged weights are
            measured and kept; 0 switches averaging off.
        gradient: Estimator of the gradient: "path" (sticking the landing), whose noise vanishes
            as the flow approaches the target, or "total".
        annealing: Fraction of the steps in which the inverse temperature of the target rises to
            1; 0 switches annealing off.
        inverse_temperature: First inverse temperature, above 0 and at most 1. Training starts on p
            to this power, which should be flat enough to connect all modes.
        measure_every: Steps per interval. The flow is measured after each interval.
        measured_draws: Samples per measurement; the latents are the same each time.
        most_skipped: Number of consecutive non-finite steps after which training stops with an
            error.
        seed: Seed of the random numbers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    steps: Count = 2000
    max_time_s: Positive | None = None
    batch_size: Annotated[int, Field(ge=2)] = 256
    learning_rate: Positive = 2e-3
    warmup: Share = 0.05
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip_norm: Positive = 5.0
    average: Share = 0.99
    gradient: Literal["path", "total"] = "path"
    annealing: Share = 0.75
    inverse_temperature: Annotated[float, Field(gt=0, le=1)] = 0.05
    measure_every: Count = 100
    measured_draws: Annotated[int, Field(ge=25)] = 1024
    most_skipped: Count = 20
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    def learning_rate_at(self, step: int) -> float:
        """Returns the learning rate of a step: a linear rise, then half a cosine to zero."""
        return learning_rate_at(step, self.steps, highest=self.learning_rate, warmup=self.warmup)

    def inverse_temperature_at(self, step: int) -> float:
        """Returns the inverse temperature of a step: by equal factors up to 1."""
        rise = round(self.annealing * self.steps)
        return 1.0 if step >= rise else self.inverse_temperature ** (1 - step / rise)


def checked_energy_settings(**given: object) -> EnergySettings:
    """Returns checked settings; raises an ArgumentError that names a wrong argument."""
    return checked_model(EnergySettings, "a training on an energy", given)
