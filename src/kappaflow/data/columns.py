"""Chooses the columns and rows of a source, with a sentence for each column that is left out."""

import difflib
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from kappaflow.data.naming import BoolArray
from kappaflow.data.raw import (
    DATES,
    Column,
    RawTable,
    Reading,
    identifiers,
    quoted,
    running,
    text_example,
)
from kappaflow.errors import ArgumentError, DataError
from kappaflow.options import COMMAND, PYTHON, kinds_option, option

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
    """Returns column, sign and unquoted value; the longest name wins, as it may contain a sign."""
    known = sorted((re.escape(name) for name in raw.columns if name), key=len, reverse=True)
    patterns = (f"(?P<column>{name})" for name in known)
    tries = (re.fullmatch(rf"\s*{p}{_REST}", text, re.DOTALL) for p in (*patterns, _ANY_NAME))
    result = next((match for match in tries if match), None)
    if result is None:
        raise ArgumentError(
            "'where' should compare a column with a value, as in 'class=g', 'class!=g' or "
            f"'length<45', got {text!r}."
        )
    value = result["value"]
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    return Condition(result["column"], result["sign"], value)


def matches(raw: RawTable, condition: Condition) -> BoolArray:
    """Returns a mask of the rows that meet the condition; a missing value never does."""
    column = find_column(raw, condition.column, "where")
    if column.is_number:
        return _matches_number(column, condition)
    if condition.sign not in {"=", "==", "!="}:
        raise ArgumentError(
            f"'where' compares column '{column.name}', which holds text, with "
            f"'{condition.sign}': use = or != on text."
        )
    is_equal = condition.sign != "!="
    texts = column.texts()
    met = [text is not None and (text == condition.value) == is_equal for text in texts]
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
    """Returns the named column; the error names similar columns, and lists all."""
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


ROW_NUMBERS = (
    "it is the index",
    "it counts the rows",
    "it has a different whole number in each row",
)
WEIGHTS = re.compile(r"w|(.*_|sample|event|survey)?(weights?|wts?|wgts?)(_.*)?", re.IGNORECASE)
SHOWN_EACH = 20  # columns that are left out for one reason, a sentence each; more share one


@dataclass(frozen=True)
class Choice:
    """The columns of a source by their role, and notes on how they were read or left out."""

    modeled: list[Column]
    context: list[Column]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]  # the notes that keep the verdict on a fit from being green


def choose_columns(raw: RawTable, reading: Reading, conditions: Sequence[Condition]) -> Choice:
    """Returns the columns to model and to condition on.

    If none are named, these are all columns of numbers, except booleans, the index of a data frame
    and a number that counts the rows; `reading.every` keeps those too.
    """
    columns = reading.columns
    conditioned = [_named_column(raw, name, "context") for name in reading.context]
    excluded = {find_column(raw, name, "exclude").name for name in reading.exclude}
    for condition in conditions:
        find_column(raw, condition.column, "where")
    named = None if columns is None else [_named_column(raw, name, "columns") for name in columns]
    refuse_clashes(
        columns=[column.name for column in named or []],
        context=[column.name for column in conditioned],
        exclude=list(excluded),
    )
    if named is not None:
        if not named:
            raise ArgumentError(
                "'columns' names no column: name one at least, or give None for all."
            )
        return Choice(named, conditioned, _read_notes(raw, [*named, *conditioned]), ())
    fixed = {condition.column for condition in conditions if condition.is_equality}
    idle = excluded | {column.name for column in conditioned} | fixed
    left = [column for name, column in raw.columns.items() if name not in idle]
    filtered = {condition.column for condition in conditions}
    for column in left:
        if column.name not in filtered:
            _refuse_unusable(column)
    reasons = {column.name: _reason(raw, column, every=reading.every) for column in left}
    modeled = [column for column in left if reasons[column.name] is None]
    gone = {name: reason for name, reason in reasons.items() if reason is not None}
    if not modeled:
        raise DataError(_no_column(raw, gone))
    possible = sum(not (reason or "").startswith(ROW_NUMBERS) for reason in reasons.values())
    warnings = _few_columns(len(modeled), possible)
    notes = (
        *_read_notes(raw, [*modeled, *conditioned]),
        *_sentences(gone),
        *_weight_question(modeled),
        *warnings,
    )
    return Choice(modeled, conditioned, notes, warnings)


def _named_column(raw: RawTable, name: str, argument: str) -> Column:
    """Returns a column that the user named; raises an error if it holds no numbers."""
    column = find_column(raw, name, argument)
    _refuse_unusable(column)
    if not column.is_number:
        raise ArgumentError(
            f"'{argument}' names column '{name}', which holds "
            f"{_what(raw, column).partition(', such as ')[0]}; only numbers "
            f"can be used there (rows can be chosen by text, as in where='{name}=...')."
        )
    return column


def _refuse_unusable(column: Column) -> None:
    if column.problem is not None:
        raise DataError(f"{column.problem}.")


def refuse_clashes(**roles: list[str]) -> None:
    """Raises ArgumentError where a column is named in two roles, or twice in one."""
    for argument, names in roles.items():
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if twice:
            raise ArgumentError(f"'{argument}' names {quoted(twice)} twice: name it once.")
    for first, other in combinations(roles, 2):
        both = set(roles[first]) & set(roles[other])
        if both:
            raise ArgumentError(
                f"'{first}' and '{other}' both name {quoted(sorted(both))}: a column has one role."
            )


def _reason(raw: RawTable, column: Column, *, every: bool) -> str | None:
    """Returns why a column is left out, None if it is modeled."""
    kinds = kinds_option()
    if not column.is_number:
        model = f"{kinds} can model it, and " if kinds else ""
        return f"it holds {_what(raw, column)}; {model}{option('where')} can choose rows by it"
    if every or column.origin == "array":
        return None
    if column.is_truth:
        model = f"{kinds} can model it, or " if kinds else ""
        return (
            f"it holds true and false, on which a density can grow without bound; {model}name it "
            f"in {option('columns')} to model it as 1 and 0, or in {option('context')}"
        )
    if column.is_index:
        return f"{ROW_NUMBERS[0]} of the rows; name it in {option('columns')} to model it"
    ends = column.ends
    if ends is None and column.can_count:
        ends = running([column.numbers()])
    if ends is not None:
        return (
            f"{ROW_NUMBERS[1]}, from {ends[0]:.10g} to {ends[1]:.10g}; name it in "
            f"{option('columns')} to model it"
        )
    ends = identifiers(column.numbers())
    if ends is not None:
        return (
            f"{ROW_NUMBERS[2]}, from {ends[0]:.10g} to {ends[1]:.10g}, as identifiers have; name "
            f"it in {option('columns')} to model it"
        )
    return None


def _weight_question(modeled: list[Column]) -> tuple[str, ...]:
    """Returns a question about each column with the name and the values of weights of rows."""
    named = [column for column in modeled if WEIGHTS.fullmatch(column.name)]
    names = [column.name for column in named if not (column.numbers() < 0).any()]
    return tuple(
        f"column '{name}' is named like a weight of rows, and is modeled like the others: if it "
        f"is one, say so ({option('weights', name)}); estimators take its values as "
        "sample_weight="
        for name in names
    )


def _what(raw: RawTable, column: Column) -> str:
    """Returns what a column without numbers holds, with the first value."""
    if column.what is not None:
        return column.what
    kind = DATES if column.series.dtype.is_temporal() else "text"
    present = (~column.series.is_null()).to_numpy()
    if not present.any():
        return kind
    row, count = int(present.argmax()), int(present.sum())
    return text_example(kind, column.series[row], raw.name_row(row), count)


def _no_column(raw: RawTable, gone: dict[str, str]) -> str:
    reasons = [f"'{name}': {reason.partition(';')[0]}" for name, reason in list(gone.items())[:3]]
    shown = f" ({'; '.join(reasons)})" if reasons else ""
    return (
        f"{raw.subject} has no numeric column to model: its columns are "
        f"{quoted(tuple(raw.columns))}, and text, context and excluded columns do not count"
        f"{shown}{_for_labels(raw, gone)}."
    )


def _for_labels(raw: RawTable, gone: dict[str, str]) -> str:
    """Returns a clause on how to model a table without numbers, where the caller can."""
    kinds, columns = kinds_option(), [raw.columns[name] for name in gone]
    if kinds is None or not columns:
        return ""
    if COMMAND.get() == PYTHON or any(column.holds_dates for column in columns):
        return f"; {kinds} can model them"
    return "; kappaflow.fit_table can model them, from Python"


def _read_notes(raw: RawTable, used: list[Column]) -> tuple[str, ...]:
    """Returns notes on how the values of columns were read, where that is not obvious."""
    return tuple(note for column in used for note in raw.columns[column.name].notes)


def _sentences(gone: dict[str, str]) -> tuple[str, ...]:
    """Returns a sentence for each column that is left out, or for many with one reason."""
    sorts: dict[str, list[str]] = {}
    for name, reason in gone.items():
        sorts.setdefault(reason.partition(",")[0], []).append(name)
    notes = []
    for names in sorts.values():
        shown = names if len(names) <= SHOWN_EACH else names[:1]
        notes += [f"column '{name}' is left out: {gone[name]}" for name in shown]
        if others := names[len(shown) :]:
            notes[-1] += f"; so are {quoted(others, len(others))}"
    return tuple(notes)


def _few_columns(modeled: int, possible: int) -> tuple[str, ...]:
    """Returns a warning if fewer than half of the columns are modeled."""
    if 2 * modeled >= possible:
        return ()
    kinds = kinds_option()
    others = f"{kinds} can model the others; or " if kinds else ""
    return (
        f"only {modeled} of {possible} columns {'is' if modeled == 1 else 'are'} modeled: {others}"
        f"name the columns to model in {option('columns')}, or leave out the others with "
        f"{option('exclude')}, if that is right",
    )
