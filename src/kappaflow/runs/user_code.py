"""Diagnoses a flow that the user's Python code makes: FILE.py:NAME or MODULE:NAME."""

import importlib
import importlib.util
import inspect
import math
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from kappaflow.data import Table, load_table
from kappaflow.data.naming import describe_values, require_finite
from kappaflow.diagnosis import (
    Diagnosis,
    ShowStep,
    comparisons_of,
    data_findings,
    diagnose_flow,
    doctor,
    quietly,
    with_findings,
)
from kappaflow.errors import ArgumentError, KappaflowError
from kappaflow.foreign import wrap
from kappaflow.goodness.goodness import matcher
from kappaflow.table_options import TextFormat
from kappaflow.training.distributed import existing_device

MODULE_NAME = "_examined_by_kappaflow"
QUICK_S = 5.0  # code that takes longer, such as a training, is not run a second time
Maker = Callable[[], object]


def is_code(target: str) -> bool:
    """Returns whether a target names something in Python code, and not a run folder.

    Example:
        >>> is_code("flows.py:make"), is_code("package.module:make"), is_code("runs/magic")
        (True, True, False)
    """
    home, colon, name = target.rpartition(":")
    named = bool(colon) and name.isidentifier() and not Path(target).exists()
    return named and (home.endswith(".py") or all(part.isidentifier() for part in home.split(".")))


def diagnose_code(
    target: str,
    data: str | None = None,
    context: tuple[str, ...] = (),
    *,
    thorough: bool = False,
    progress: ShowStep = quietly,
    device: str | None = None,
    **text: Unpack[TextFormat],
) -> tuple[Diagnosis, str]:
    """Returns the diagnosis of a flow that code makes, and a description of the points.

    The doctor runs the code, so only use it on code that you trust. The target is FILE.py:NAME or
    MODULE:NAME, where NAME is a flow, as `kappaflow.wrap` takes it, or a function without
    arguments that returns one; or one with points, (flow, x), or with points and contexts, (flow,
    x, context). `data` is a table to take the points from instead, on the scale that the flow
    expects, and `context` its columns that are the context. The flow and the points are moved to a
    device, "cpu" or "cuda", if one is named.

    Raises:
        ArgumentError: The code fails, lacks the name, or makes no flow; or the device does not
            exist.
    """
    options: dict[str, Any] = {"thorough": thorough, "progress": progress}
    with redirect_stdout(sys.stderr):  # keep what the code prints out of the diagnosis
        home, _, name = target.rpartition(":")
        to = None if device is None else existing_device(device)
        with _one_sentence_errors(home, always=True):
            subject = _subject(target, _module(home), name)
        with _one_sentence_errors(home):
            subject = subject.on(to)
            if data is not None:
                table = load_table(data, context=list(context), **text)
                require_finite(table, data)
                return _at_rows(subject, table, to, options), f"rows of {data}"
            if context:
                raise ArgumentError(
                    "'context' names columns of DATA: give a table, or leave it out."
                )
            points = "samples of the flow" if subject.x is None else "points of the code"
            flow, x, context_rows = subject.flow, subject.x, subject.context
            return doctor(flow, x, context_rows, make=subject.again, **options), points


@dataclass(frozen=True)
class _Subject:
    """What code makes: a flow, points and contexts; `again` builds the flow once more."""

    flow: object
    x: Tensor | None = None
    context: Tensor | None = None
    again: Maker | None = None

    def on(self, device: torch.device | None) -> "_Subject":
        """Returns a copy on a device, or itself if there is none."""
        if device is None:
            return self
        x, context = (None if t is None else t.to(device) for t in (self.x, self.context))
        again = self.again
        moved = None if again is None else lambda: _moved(again(), device)
        return _Subject(_moved(self.flow, device), x, context, moved)


def _moved(flow: object, device: torch.device) -> object:
    if not isinstance(flow, nn.Module):
        raise ArgumentError(
            f"'device' should be left out for this flow: {type(flow).__name__} is no "
            "torch.nn.Module, so its own code chooses the device."
        )
    return flow.to(device)


def _at_rows(
    subject: _Subject, table: Table, device: torch.device | None, options: dict[str, Any]
) -> Diagnosis:
    """Returns the diagnosis of a flow at the rows of a table, in the dtype of the flow."""
    parts = (table.values, table.context)
    rows = [None if part is None else torch.from_numpy(part).to(device) for part in parts]
    # A flow without parameters takes float32, as torch does.
    wrapped = wrap(subject.flow, *(None if part is None else part.float() for part in rows))
    features = math.prod(wrapped.event_shape)
    if len(table.columns) != features:
        text = ", ".join(map(repr, table.left_out))
        raise ArgumentError(
            f"{table.source} should have {features} columns of numbers for this flow, in addition "
            f"to those of --context, and has {', '.join(map(repr, table.columns)) or 'none'}"
            f"{f', and without numbers {text}' if text else ''}."
        )
    x, context = (None if part is None else part.to(wrapped.dtype) for part in rows)
    result = diagnose_flow(
        subject.flow,
        x,
        context,
        make=subject.again,
        compare=partial(comparisons_of, **options),
        match=matcher(columns=table.columns, context_columns=table.context_columns),
        names=partial(describe_values, table),
        **options,
    )
    return with_findings(result, data_findings(table, flow=wrapped))


def _subject(target: str, module: ModuleType, name: str) -> _Subject:
    """Returns what a name stands for: a flow with its points, or a function that returns them."""
    if not hasattr(module, name):
        raise ArgumentError(f"{target.rpartition(':')[0]} has no {name!r}.")
    result, again = getattr(module, name), None
    if inspect.isfunction(result) or inspect.isclass(result):
        start, function = time.monotonic(), result
        result = function()
        if time.monotonic() - start < QUICK_S:
            again = partial(_flow_of, function)
    if not isinstance(result, tuple) or not _has_points(result):
        return _Subject(result, again=again)
    flow, *tensors = result
    if not 1 <= len(tensors) <= 2 or not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise ArgumentError(
            f"{target} should give a flow, (flow, x) or (flow, x, context) with tensors, got a "
            f"tuple of {', '.join(type(part).__name__ for part in result)}."
        )
    return _Subject(flow, tensors[0], tensors[1] if len(tensors) == 2 else None, again)


def _has_points(result: object) -> bool:
    """Returns whether code returned more than a flow; (encode, decode) is a flow."""
    return isinstance(result, tuple) and not all(map(callable, result))


def _flow_of(function: Callable[[], object]) -> object:
    """Returns the flow alone of what a function returns; what the function prints is no result."""
    with redirect_stdout(sys.stderr):
        result: object = function()
    return result[0] if isinstance(result, tuple) and _has_points(result) else result


def _module(home: str) -> ModuleType:
    """Returns the module of a file or of a name."""
    if not home.endswith(".py"):
        return importlib.import_module(home)
    path = Path(home).resolve()
    if not path.is_file():
        raise ArgumentError(f"{home} does not exist.")
    spec = importlib.util.spec_from_file_location(MODULE_NAME, path)
    if spec is None or spec.loader is None:
        raise ArgumentError(f"{home} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE_NAME] = module
    sys.path.insert(0, str(path.parent))  # as `python FILE.py` has it
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


@contextmanager
def _one_sentence_errors(home: str, *, always: bool = False) -> Iterator[None]:
    """Turns an exception from the user's code into one sentence, with the line of the file.

    An exception from elsewhere stays, unless `always`.
    """
    try:
        yield
    except KappaflowError:
        raise
    except (Exception, SystemExit) as error:
        module = None if home.endswith(".py") else sys.modules.get(home)
        file = getattr(module, "__file__", None) or str(Path(home).resolve())
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == file]
        message = str(error)
        if isinstance(error, SyntaxError) and error.filename == file:
            lines, message = [error.lineno], error.msg
        if not (lines or always):
            raise
        line = f" in line {lines[-1]}" if lines else ""
        first = (message.splitlines() or [""])[0]
        text = f"{home} raised {type(error).__name__}{line}: {first}"
        raise ArgumentError(text) from error
