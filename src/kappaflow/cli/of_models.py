"""Which options a model has."""

from collections.abc import Mapping, Sequence
from typing import Any

from kappaflow.errors import ArgumentError

PADDING = ("padding", "padding_kind", "padding_scale")


def given_of(
    model: str, options: Mapping[str, Any], of_models: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Returns the options that were given, or says which is none of the model's.

    Args:
        model: Its name.
        options: All of them by name, None for those left out.
        of_models: The options that each model has.

    Returns:
        Names and values.

    Raises:
        ArgumentError: An option belongs to other models.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in of_models[model]:
            others = [other for other, names in of_models.items() if name in names]
            raise ArgumentError(
                f"'{name}' should be left out for {model}: --{name.replace('_', '-')} is an "
                f"option of {' and '.join(others) or 'other data'}."
            )
    return given
