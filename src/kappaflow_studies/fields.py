"""What the fields of settings may hold, so that a wrong one is refused before anything runs."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from kappaflow.data import image_sets, shipped_names, toy_names
from kappaflow.errors import ArgumentError
from kappaflow_studies.ensembles import ENSEMBLES
from kappaflow_studies.sets import banana_features

Count = Annotated[int, Field(ge=1)]
Many = Annotated[int, Field(ge=2)]
Even = Annotated[int, Field(ge=2, multiple_of=2)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotEmpty = Field(min_length=1)
Counts = Annotated[tuple[Count, ...], NotEmpty]


def checked(read: Callable[[str], object]) -> Callable[[str], str]:
    """Returns a check of a name by a function that raises what is wrong with it."""

    def check(name: str) -> str:
        try:
            read(name)
        except ArgumentError as error:
            raise ValueError(str(error).rstrip(".")) from None
        return name

    return check


def one_of(what: str, known: Callable[[], Collection[str]]) -> AfterValidator:
    """Returns a check that a name is a known one, for `Annotated[str, ...]`."""

    def check(name: str) -> str:
        if name not in known():
            raise ValueError(f"there is no {what} {name!r}, choose from {', '.join(known())}")
        return name

    return AfterValidator(check)


def _table(name: str) -> None:
    known = (*shipped_names(), "bananas-N of N features")
    if banana_features(name) is None and name not in known and not Path(name).is_file():
        raise ArgumentError(
            f"there is no table {name!r}, choose from {', '.join(known)}, or name a file."
        )


def _images(name: str) -> None:
    known = [one.name for one in image_sets()]
    if name not in known and not Path(name).exists():
        raise ArgumentError(
            f"there are no images {name!r}, choose from {', '.join(known)}, or name a file or a "
            "folder."
        )


Ensemble = Annotated[str, one_of("ensemble", lambda: ENSEMBLES)]
PlanarSet = Annotated[str, one_of("planar set", toy_names)]
TableName = Annotated[str, AfterValidator(checked(_table))]
ImagesName = Annotated[str, AfterValidator(checked(_images))]
