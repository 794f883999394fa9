"""The compared paddings, and the cases of `padding`."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from kappaflow.errors import ArgumentError
from kappaflow.flows import padding_of_kind
from kappaflow.flows.padding import KINDS, Padding
from kappaflow_studies.engine.presets import (
    Count,
    Counts,
    ImagesName,
    PlanarSet,
    Positive,
    checked,
)
from kappaflow_studies.engine.study import Case, StudySettings

NONE = "none"
WORDS = {
    NONE: "no padding",
    "gaussian": "Gaussian",
    "uniform": "uniform",
    "zero": "zeros",
    "copy": "copies",
    "learned": "learned",
}
SINGULAR = {"zero": "zero", "copy": "copy"}


@dataclass(frozen=True)
class Spec:
    """A padding, as named in the settings: kind, features or channels, scale of the noise."""

    kind: str
    width: int = 0
    scale: float | None = None

    @property
    def description(self) -> str:
        """The name of the padding in a chart, such as "2 Gaussian of scale 0.3"."""
        if self.kind == NONE:
            return WORDS[NONE]
        scale = "" if self.scale is None else f" of scale {self.scale:g}"
        word = SINGULAR.get(self.kind, WORDS[self.kind]) if self.width == 1 else WORDS[self.kind]
        return f"{self.width} {word}{scale}"

    def padding(self, event_shape: tuple[int, ...]) -> Padding | None:
        """Returns the padding for points of a shape; None for no padding."""
        if self.kind == NONE:
            return None
        return padding_of_kind(self.kind, self.width, event_shape, scale=self.scale)


def spec_of(text: str) -> Spec:
    """Returns a padding by its name in the settings: "none", "zero:2", "gaussian:2:0.3", ..."""
    kind, *numbers = text.split(":")
    if kind == NONE and not numbers:
        return Spec(NONE)
    try:
        width = int(numbers[0])
        scale = float(numbers[1]) if len(numbers) > 1 else None
    except (IndexError, ValueError):
        kind, width, scale = "", 0, None
    if kind not in KINDS or width < 1 or len(numbers) > 2:
        kinds = f"with one of {', '.join(KINDS)} as the kind"
        raise ArgumentError(
            f"a padding should be none or KIND:WIDTH or KIND:WIDTH:SCALE, {kinds}, got {text!r}."
        )
    return Spec(kind, width, scale)


MAX_SEEDS = 1000  # largest number of seeds, so that different seeds of a study never overlap
Seeds = Annotated[int, Field(ge=1, le=MAX_SEEDS)]
PaddingName = Annotated[str, AfterValidator(checked(spec_of))]


EACH_SET = ("image_sizes", "image_epochs")  # settings with a number for each image set


class PaddingSettings(StudySettings):
    """Settings of the data, the trainings and the evaluation; widths of images count channels."""

    sets: tuple[PlanarSet, ...]
    compared: tuple[PaddingName, ...]  # trained with each of `seeds`
    others: tuple[PaddingName, ...]  # trained with the first `other_seeds` of these
    seeds: Seeds  # each seed has its own points and weights
    other_seeds: Count
    rows: Count  # number of training points
    epochs: Count
    batch_size: Count
    learning_rate: Positive  # the largest one, of a schedule
    depth: Count  # number of couplings of a `real_nvp`
    hidden: Counts  # widths of the hidden layers
    measured_every: Count  # epochs between two measurements of the conditioning
    points: Count  # held-out points for the conditioning at the end
    draws: Count  # least samples of the padding for the importance-weighted likelihood of a point
    max_draws: Count  # until a doubling changes the mean by little
    drawn: Count  # samples that are compared with an equal number of held-out points
    image_sets: tuple[ImagesName, ...]
    image_paddings: tuple[PaddingName, ...]
    image_seeds: Seeds
    image_sizes: tuple[Count, ...]  # pixels per side to bring each image set to
    image_epochs: tuple[Count, ...]  # for each image set
    image_batch_size: Count
    image_hidden: Count  # channels of the networks of a `real_nvp_image`
    image_levels: Count  # number of its scales
    image_blocks: Count  # residual blocks of each network
    image_points: Count
    image_draws: Count  # samples of noise and padding for the likelihood of an image
    image_drawn: Count  # largest number of samples that are compared with held-out images
    image_measured_every: Count

    @model_validator(mode="after")
    def _check(self) -> "PaddingSettings":
        for name in EACH_SET:
            if len(self.image_sets) != len(getattr(self, name)):
                raise ValueError(f"{name!r} should have a number for each of 'image_sets'")
        return self


def cases(settings: PaddingSettings, seed: int) -> list[Case]:
    """Returns a case for each training (images first) and one for each two-sample floor."""
    first = MAX_SEEDS * seed
    return [*_of_images(settings, first), *_of_planes(settings, first)]


NOT_SHARED = ("sets", "compared", "others", "seeds", "other_seeds", "image_sets",
              "image_paddings", "image_seeds", *EACH_SET)  # fmt: skip


def _of_images(settings: PaddingSettings, first: int) -> list[Case]:
    planned: list[Case] = []
    values = {key: v for key, v in settings if key.startswith("image_") and key not in NOT_SHARED}
    each_set = zip(settings.image_sets, settings.image_sizes, settings.image_epochs, strict=True)
    for name, size, epochs in each_set:
        shared = {"set": name, **values, "image_size": size, "image_epochs": epochs}
        for seed in range(first, first + settings.image_seeds):
            for padding in settings.image_paddings:
                planned.append({"kind": "images", "padding": padding, "seed": seed, **shared})
            floor = {"kind": "image floor", "set": name, "seed": seed, "image_size": size}
            planned.append(floor | {"image_drawn": settings.image_drawn})
    return planned


def _of_planes(settings: PaddingSettings, first: int) -> list[Case]:
    planned: list[Case] = []
    trained = [(padding, settings.seeds) for padding in settings.compared]
    trained += [(padding, settings.other_seeds) for padding in settings.others]
    plane_settings = {key: v for key, v in settings if not key.startswith("image")}
    values = {key: v for key, v in plane_settings.items() if key not in NOT_SHARED}
    values["hidden"] = list(settings.hidden)
    for seed in range(first, first + settings.seeds):
        for name in settings.sets:
            shared = {"set": name, "seed": seed, "pictured": seed == first}
            for padding, seeds in trained:
                if seed < first + seeds:
                    planned.append({"kind": "plane", "padding": padding, **shared, **values})
            planned.append({"kind": "plane floor", **shared, "drawn": settings.drawn})
    return planned
