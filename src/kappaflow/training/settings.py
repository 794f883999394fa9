"""`Settings`: the checked options of a training, which config.json stores."""

import math
from collections.abc import Sequence
from typing import Annotated, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kappaflow.errors import ArgumentError
from kappaflow.names import ARGUMENTS, did_you_mean
from kappaflow.options import TrainingOptions

Checked = TypeVar("Checked", bound=BaseModel)
# The length of a training without a limit.
LEAST_STEPS, MOST_STEPS, EPOCHS = 2_000, 12_000, 200
LEAST_BATCH, MOST_BATCH, STEPS_AN_EPOCH = 128, 512, 16
PATIENT_EPOCHS, PATIENT_STEPS = 30, 500
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

    def epochs_of_patience(self, steps_per_epoch: int) -> int:
        """Returns the number of epochs without improvement after which training stops."""
        if self.patience is not None:
            return self.patience
        return max(PATIENT_EPOCHS, -(-PATIENT_STEPS // steps_per_epoch))


def checked_settings(also: Sequence[str] = (), **given: object) -> Settings:
    """Returns checked settings, or raises an error that names the invalid one.

    `also` has other arguments of the caller, one of which may be meant.
    """
    return checked_model(Settings, "a training", given, also)


def checked_model(
    model: type[Checked], what: str, given: dict[str, object], also: Sequence[str] = ()
) -> Checked:
    """Returns a model of these settings, or raises an error that names the invalid one."""
    try:
        plain = {key: v.item() if isinstance(v, np.generic) else v for key, v in given.items()}
        return model.model_validate(plain)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = ", ".join(model.model_fields)
            names = [*model.model_fields, *also]
            hint = did_you_mean(name, names, ARGUMENTS) or f"; there are {known}."
            raise ArgumentError(f"'{name}' is no setting of {what}{hint}") from None
        message = first["msg"].removeprefix("Input should be ")
        raise ArgumentError(f"'{name}' should be {message}, got {first['input']!r}.") from None
