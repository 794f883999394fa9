"""Quantiles of a `Profile` over its points: what JSON, reports and charts have of it."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor

from kappaflow.conditioning.spectrum import Status
from kappaflow.results import Part

LEVELS = {"min": 0.0, "p05": 0.05, "median": 0.5, "p95": 0.95, "max": 1.0}


class Quantiles(Part):
    """A quantity over depth: quantiles over the points, one number per layer."""

    min: list[float]
    p05: list[float]
    median: list[float]
    p95: list[float]
    max: list[float]

    @property
    def band(self) -> tuple[list[float], list[float], list[float]]:
        """The middle 90 % of the points: 5 %, median, 95 %."""
        return self.p05, self.median, self.p95


class Spread(Part):
    """A quantity of the whole flow: quantiles over the points."""

    min: float
    p05: float
    median: float
    p95: float
    max: float


class ProfileQuantiles(Part):
    """Conditioning over the layers of a flow; `Profile` describes the quantities.

    A quantity that is added here appears in `Profile.to_dict` and in reports.
    """

    layers: Annotated[list[str], Field(min_length=1)]
    points: int
    eps: float
    status: Status
    worst_layer: int
    predicted_round_trip: Spread
    layer_condition_number: Quantiles
    layer_sigma_max: Quantiles
    layer_sigma_min: Quantiles
    layer_log_det: Quantiles
    layer_round_trip: Quantiles
    condition_number: Quantiles
    sigma_max: Quantiles
    sigma_min: Quantiles
    log_det: Quantiles
    round_trip_data: Quantiles
    round_trip_latent: Quantiles

    @model_validator(mode="after")
    def _fits_its_layers(self) -> "ProfileQuantiles":
        """Returns itself if each list has one number per layer and the worst layer exists."""
        count = len(self.layers)
        for name, values in self._lists():
            if len(values) != count:
                raise PydanticCustomError(
                    "length",
                    "{name} should hold {count} numbers, one per layer, got {got}",
                    {"name": name, "count": count, "got": len(values)},
                )
        if not 0 <= self.worst_layer < count:
            raise PydanticCustomError(
                "index",
                "worst_layer should be from 0 to {last}, got {got}",
                {"last": count - 1, "got": self.worst_layer},
            )
        return self

    def _lists(self) -> Iterator[tuple[str, list[float]]]:
        for name, quantity in self:
            if isinstance(quantity, Quantiles):
                for quantile, values in quantity:
                    yield f"{name}.{quantile}", values


def quantiles_by_layer(values: Tensor) -> dict[str, list[float]]:
    """Returns the quantiles of values (L, B) over the points."""
    return {name: values.quantile(level, dim=1).tolist() for name, level in LEVELS.items()}
