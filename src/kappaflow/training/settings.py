"""The settings of a training: what `fit` takes, checks, and writes to config.json."""

from typing import Annotated, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kappaflow.errors import ArgumentError
from kappaflow.training.stepping import learning_rate_at

Checked = TypeVar("Checked", bound=BaseModel)
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """How a flow is trained.

    Attributes:
        max_epochs: Passes over the training rows; the learning rate falls to zero over these.
        max_time_s: Wall time after which training stops at the end of an epoch, resumed time
            counted.
        batch_size: Rows a step, of all ranks together.
        learning_rate: Highest learning rate of Adam.
        warmup: Share of all steps over which the learning rate rises to it.
        weight_decay: Decoupled weight decay (AdamW).
        clip_norm: Largest norm of the gradient of a step.
        average: Decay of the exponential moving average of the weights that is validated and kept;
            0 keeps the weights themselves.
        patience: Epochs without a better validation NLL after which training stops.
        conditioning_every: Epochs from one measurement of the conditioning to the next; the first
            and the last of `max_epochs` are measured too. Of few, large images it takes longer
            than an epoch.
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

    max_epochs: Count = 200
    max_time_s: Positive | None = None
    batch_size: Count = 512
    learning_rate: Positive = 2e-3
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-4
    clip_norm: Positive = 5.0
    average: Annotated[float, Field(ge=0, lt=1)] = 0.99
    patience: Count = 30
    conditioning_every: Count = 1
    most_skipped: Count = 20
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    precision: Literal["full", "bf16", "fp16"] = "full"
    # Kept nowhere: as with ranks and devices, a run may go on otherwise, up to rounding.
    compile: Annotated[bool, Field(exclude=True)] = False
    condition_budget: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None = None

    def measures_conditioning(self, epoch: int) -> bool:
        """Returns whether the conditioning is measured after an epoch, counted from 1."""
        return epoch in (1, self.max_epochs) or epoch % self.conditioning_every == 0

    def learning_rate_at(self, step: int, steps: int) -> float:
        """Returns the learning rate of a step: a linear rise, then half a cosine to zero."""
        return learning_rate_at(step, steps, highest=self.learning_rate, warmup=self.warmup)


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
