"""The checked settings of trainings by likelihood, which config.json stores, and on energies."""

import math
from collections.abc import Sequence
from typing import Annotated, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kappaflow.errors import ArgumentError
from kappaflow.names import ARGUMENTS, did_you_mean
from kappaflow.options import Count, Positive, Share, TrainingOptions

Checked = TypeVar("Checked", bound=BaseModel)
# The length of a training without a limit.
LEAST_STEPS, MOST_STEPS, EPOCHS = 2_000, 12_000, 200
LEAST_BATCH, MOST_BATCH, STEPS_AN_EPOCH = 128, 512, 16
PATIENT_EPOCHS, PATIENT_STEPS = 30, 1_000
SHORTER = 3  # how many times fewer epochs trainings have of which only the differences matter
# Of flows of tables, as `kappaflow fit` trains them.
LEARNING_RATE = 5e-3
OVERFIT_DECAY = 1.0  # of a model of one normal base
OF_TABLES = {"learning_rate": LEARNING_RATE, "cooldown": True, "overfit_decay": OVERFIT_DECAY}
MEASUREMENTS = 40  # of the conditioning, over a whole training


class Settings(BaseModel, TrainingOptions):  # noqa: D101 - the docstring is the same
    __doc__ = TrainingOptions.__doc__

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    # Not stored: a run may be resumed with or without it, as on other devices.
    compile: Annotated[bool, Field(exclude=True)] = TrainingOptions.compile

    def rows_a_step(self, rows: int) -> int:
        """Returns the batch size for a number of training rows."""
        if self.batch_size is not None:
            return self.batch_size
        size = 2 ** int(math.log2(max(1, rows / STEPS_AN_EPOCH)))
        return max(LEAST_BATCH, min(MOST_BATCH, size))

    def epochs(self, steps_per_epoch: int) -> int:
        """Returns the number of epochs of a training that no other limit stops."""
        if self.max_epochs is not None:
            return self.max_epochs
        longer = 1 if self.max_time_s is None else 5
        steps = max(LEAST_STEPS, min(MOST_STEPS, EPOCHS * steps_per_epoch)) * longer
        return -(-steps // steps_per_epoch)

    def shorter(self, rows: int) -> "Settings":
        """Returns these settings with a third of the epochs."""
        epochs = self.epochs(-(-rows // self.rows_a_step(rows)))
        return self.model_copy(update={"max_epochs": max(1, epochs // SHORTER)})

    def epochs_of_patience(self, steps_per_epoch: int) -> int:
        """Returns the number of epochs without improvement after which training stops."""
        if self.patience is not None:
            return self.patience
        return max(PATIENT_EPOCHS, -(-PATIENT_STEPS // steps_per_epoch))


def checked_settings(also: Sequence[str] = (), **values: object) -> Settings:
    """Returns checked settings, or raises an error that names the invalid one.

    `also` has other arguments of the caller, one of which may be meant.
    """
    return checked_model(Settings, "a training", values, also)


def checked_model(
    model: type[Checked], what: str, values: dict[str, object], also: Sequence[str] = ()
) -> Checked:
    """Returns a model of these settings, or raises an error that names the invalid one."""
    try:
        plain = {key: v.item() if isinstance(v, np.generic) else v for key, v in values.items()}
        return model.model_validate(plain)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = ", ".join(model.model_fields)
            names = [*model.model_fields, *also]
            hint = did_you_mean(name, names, ARGUMENTS) or f"; there are {known}."
            raise ArgumentError(f"'{name}' is not a setting of {what}{hint}") from None
        message = first["msg"].removeprefix("Input should be ")
        raise ArgumentError(f"'{name}' should be {message}, got {first['input']!r}.") from None


class EnergySettings(BaseModel):
    """Settings of a training on an energy.

    Attributes:
        steps: Number of training steps, over which the learning rate falls to zero.
        max_time_s: Time limit in seconds, by the clock. The learning rate falls to zero, and the
            inverse temperature rises to 1, at whichever limit comes first.
        batch_size: Samples per step.
        learning_rate: Highest learning rate of Adam.
        warmup: Fraction of the steps in which the learning rate rises to its highest value.
        weight_decay: Decoupled weight decay (AdamW).
        clip_norm: Largest norm of the gradient of a step.
        average: Decay of the exponential moving average of the weights. The averaged weights are
            measured and kept; 0 switches averaging off.
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
    annealing: Share = 0.75
    inverse_temperature: Annotated[float, Field(gt=0, le=1)] = 0.05
    measure_every: Count = 100
    measured_draws: Annotated[int, Field(ge=25)] = 1024
    most_skipped: Count = 20
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    def inverse_temperature_at(self, step: float) -> float:
        """Returns the inverse temperature of a step: by equal factors up to 1."""
        rise = round(self.annealing * self.steps)
        return 1.0 if step >= rise else self.inverse_temperature ** (1 - step / rise)


def checked_energy_settings(**values: object) -> EnergySettings:
    """Returns checked settings; raises an ArgumentError that names a wrong argument."""
    return checked_model(EnergySettings, "a training on an energy", values)
