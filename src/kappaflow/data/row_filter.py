"""The row filter `where`: a column compared with a value, as in class=g or fAlpha<45."""

import difflib
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kappaflow.data.raw import Column, RawTable, quoted
from kappaflow.data.table import BoolArray
from kappaflow.errors import ArgumentError

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
_ANY_NAME = "(?P<column>.+?)"
_REST = r"\s*(?P<sign>!=|<=|>=|==|=|<|>)\s*(?P<value>.*?)\s*"


@dataclass(frozen=True)
class Condition:
    """A comparison that rows have to meet."""

    column: str
    sign: str
    value: str

    @property
    def is_equality(self) -> bool:
        """Whether all rows that remain hold the same value."""
        return self.sign in {"=", "=="}


def parse_condition(text: str, raw: RawTable) -> Condition:
    """Returns the column, the sign and the value, the latter without quotes around it.

    The longest name that the source has wins, so that a name may hold a sign itself.

    Raises:
        ArgumentError: If there is no sign, or nothing before it.
    """
    known = sorted((re.escape(name) for name in raw.columns if name), key=len, reverse=True)
    patterns = (f"(?P<column>{name})" for name in known)
    tries = (re.fullmatch(rf"\s*{p}{_REST}", text, re.DOTALL) for p in (*patterns, _ANY_NAME))
    found = next((match for match in tries if match), None)
    if found is None:
        raise ArgumentError(
            "'where' should compare a column with a value, as in 'class=g', 'class!=g' or "
            f"'length<45', got {text!r}."
        )
    value = found["value"]
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    return Condition(found["column"], found["sign"], value)


def matches(raw: RawTable, condition: Condition) -> BoolArray:
    """Returns which rows meet the condition; a missing value never does."""
    column = find_column(raw, condition.column, "where")
    if column.is_number:
        return _matches_number(column, condition)
    if condition.sign not in {"=", "==", "!="}:
        raise ArgumentError(
            f"'where' compares column '{column.name}', which holds text, with "
            f"'{condition.sign}': use = or != on text."
        )
    wanted_equal = condition.sign != "!="
    texts = column.texts()
    met = [text is not None and (text == condition.value) == wanted_equal for text in texts]
    return np.array(met, dtype=np.bool_)


def _matches_number(column: Column, condition: Condition) -> BoolArray:
    truth = {"true": 1.0, "false": 0.0}
    try:
        value = truth.get(condition.value.lower(), None)
        value = float(condition.value) if value is None else value
    except ValueError:
        raise ArgumentError(
            f"'where' compares column '{column.name}', which holds numbers, with "
            f"{condition.value!r}: give a number."
        ) from None
    if column.is_single:
        value = float(np.float32(value))
    numbers = column.numbers()
    return _COMPARE[condition.sign](numbers, value) & ~np.isnan(numbers)


def find_column(raw: RawTable, name: str, argument: str) -> Column:
    """Returns the named column, or says which name may have been meant and lists all."""
    if name in raw.columns:
        return raw.columns[name]
    names = list(raw.columns)
    close = difflib.get_close_matches(name, names, n=1) or [
        other for other in names if other.lower() == name.lower()
    ]
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    raise ArgumentError(
        f"'{argument}' names column '{name}', which {raw.subject} does not have{hint}: its "
        f"columns are {quoted(names)}."
    )
