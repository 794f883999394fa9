"""Results as JSON and back: each is a typed class, and JSON has its fields as they are."""

import json
import math
from functools import cache
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    StrictFloat,
    StrictInt,
    StrictStr,
    TypeAdapter,
)

# Without unknown keys, so that a misspelled one is an error; nan and infinity stored as text.
STORED = ConfigDict(
    extra="forbid", frozen=True, ser_json_inf_nan="strings", arbitrary_types_allowed=True
)


class Part(BaseModel):
    """Base class of results that are read back from JSON, checked field by field."""

    model_config = STORED


def to_plain(result: object) -> Any:
    """Returns a result as values for JSON: nan is "NaN", or {"number": "NaN"} in a `Value`."""
    return json.loads(_adapter(type(result)).dump_json((result,)))[0]


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    """Returns what reads and writes a class; only around it, the class takes its settings."""
    return TypeAdapter(tuple[kind], config=STORED)  # pyright: ignore[reportInvalidTypeForm]


def _tagged(value: object) -> object:
    """Returns nan or infinity as {"number": "NaN"}: JSON has neither, and "NaN" is a string."""
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return {"number": "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}


def _untagged(value: object) -> object:
    """Returns the number that `_tagged` wrote, and anything else unchanged."""
    return next((n for n in _NOT_FINITE if value == _tagged(n)), value)


_NOT_FINITE = (math.nan, math.inf, -math.inf)

# A number or a text, with strict types, so that digits in a string stay a string.
Value = Annotated[
    StrictInt | StrictFloat | StrictStr | None,
    BeforeValidator(_untagged),
    PlainSerializer(_tagged, when_used="json"),
]
