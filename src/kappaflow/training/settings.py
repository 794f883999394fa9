"""The settings of a training: what `fit` takes, checks, and writes to config.json."""

import math
from typing import Annotated, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kappaflow.errors import ArgumentError

Checked = TypeVar("Checked", bound=BaseModel)
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
# How long a training is where nobody limits it.
LEAST_STEPS, MOST_STEPS, EPOCHS = 2_000, 12_000, 200
LEAST_BATCH, MOST_BATCH, STEPS_AN_EPOCH = 128, 512, 16
PATIENT_EPOCHS, PATIENT_STEPS = 30, 500
MEASUREMENTS = 40  # of the conditioning, over a whole training


class Settings(BaseModel):
    """How a flow is trained.

    Attributes:
        max_epochs: Passes over the training rows. If left out, as many as make at least 2,000
            steps and at most 12,000, 200 where both hold; with `max_time_s` five times as many.
        max_time_s: Wall time after which training stops, resumed time counted. The learning rate
            falls to zero at whichever limit comes first.
        batch_size: Rows a step, of all ranks together. If left out, 512, and down to 128 for
            tables of few rows, so that an epoch has at least 16 steps where it can.
        learning_rate: Highest learning rate of Adam.
        warmup: Share of all steps over which the learning rate rises to it.
        weight_decay: Decoupled weight decay (AdamW).
        clip_norm: Largest norm of the gradient of a step.
        average: Decay of the exponential moving average of the weights that is validated and kept;
            0 keeps the weights themselves.
        patience: Epochs without a better validation NLL after which training stops. If left out,
            30 epochs or 500 steps, whichever is more.
        conditioning_every: Epochs from one measurement of the conditioning to the next; the first
            and the last of `max_epochs` are measured too. If left out, about 40 measurements
            are spread over the training.
        most_skipped: Non-finite steps in a row after which training stops with a diagnosis.
        seed: Decides the order of the rows, and what random layers draw.
        precision: "full", or "bf16" or "fp16": the products of the conditioners in bfloat16 or
            float16 while training. Couplings, log_dets and weights stay as they are, and
            validation, scoring and sampling are always in full precision. The gradients of float16
            are scaled; a step at which they overflow is skipped, and the scale is halved.
        compile: Whether whole batches go through `torch.compile`: a first step that takes long,
            then shorter ones of splines and of planar maps. A `CouplingStack`, and what is
            inverted to save memory, run as they are. It needs a C++ compiler. Its gradients are
            compared with those without it, and the training stops where they differ. A run may go
            on with or without it.
        condition_budget: What the 95 % quantile of the condition number on held-out rows is to
            stay within, above 1; None for no such request. Tables only, and only the weights of
            epochs after which the conditioning is measured are kept. See `ConditionBudget`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    max_epochs: Count | None = None
    max_time_s: Positive | None = None
    batch_size: Count | None = None
    learning_rate: Positive = 2e-3
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-4
    clip_norm: Positive = 5.0
    average: Annotated[float, Field(ge=0, lt=1)] = 0.99
    patience: Count | None = None
    conditioning_every: Count | None = None
    most_skipped: Count = 20
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    precision: Literal["full", "bf16", "fp16"] = "full"
    # Kept nowhere: as with ranks and devices, a run may go on otherwise, up to rounding.
    compile: Annotated[bool, Field(exclude=True)] = False
    condition_budget: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None = None

    def rows_a_step(self, rows: int) -> int:
        """Returns the batch size for a number of training rows."""
        if self.batch_size is not None:
            return self.batch_size
        expected = 2 ** int(math.log2(max(1, rows / STEPS_AN_EPOCH)))
        return max(LEAST_BATCH, min(MOST_BATCH, expected))

    def epochs(self, steps_per_epoch: int) -> int:
        """Returns the number of epochs of a whole training, if no other limit ends it before."""
        if self.max_epochs is not None:
            return self.max_epochs
        longer = 1 if self.max_time_s is None else 5
        steps = max(LEAST_STEPS, min(MOST_STEPS, EPOCHS * steps_per_epoch)) * longer
        return -(-steps // steps_per_epoch)

    def epochs_of_patience(self, steps_per_epoch: int) -> int:
        """Returns after how many epochs without improvement training stops."""
        if self.patience is not None:
            return self.patience
        return max(PATIENT_EPOCHS, -(-PATIENT_STEPS // steps_per_epoch))


def checked_settings(**given: object) -> Settings:
    """Returns settings, or says in one sentence which argument is wrong."""
    return checked_model(Settings, "a training", given)


def checked_model(model: type[Checked], what: str, given: dict[str, object]) -> Checked:
    """Returns a model of given settings, or says in one sentence which of them is wrong."""
    try:
        plain = {key: v.item() if isinstance(v, np.generic) else v for key, v in given.items()}
        return model.model_validate(plain)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = ", ".join(model.model_fields)
            raise ArgumentError(f"'{name}' is no setting of {what}; there are {known}.") from None
        message = first["msg"].removeprefix("Input should be ")
        raise ArgumentError(f"'{name}' should be {message}, got {first['input']!r}.") from None
