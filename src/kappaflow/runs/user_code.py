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
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from kappaflow.data import Table, load_table
from kappaflow.data.naming import describe_values, require_finite
from kappaflow.data.raw import Decimal
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
from kappaflow.training.distributed import existing_device

MODULE_NAME = "_examined_by_kappaflow"
QUICK_S = 5.0  # code that takes longer, such as a training, is not run a second time


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
    decimal: Decimal | None = None,
    device: str | None = None,
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
    with redirect_stdout(sys.stderr):  # keep what the code prints out of the diagnosis
        place = None if device is None else existing_device(device)
        flow, x, given, make = _made(target)
        if place is not None:
            flow, x, given = _on(place, flow), _at(place, x), _at(place, given)
            make = None if make is None else partial(_remade_on, place, make)
    with _one_sentence_errors(target.rpartition(":")[0]):
        words = "points of the code" if x is not None else "samples of the flow"
        if data is not None:
            table = load_table(data, context=list(context), decimal=decimal)
            require_finite(table, data)
            x, given = torch.from_numpy(table.values).to(device=place), None
            if table.context is not None:
                given = torch.from_numpy(table.context).to(device=place)
            # In the dtype of the flow; a flow without parameters takes float32, as torch does.
            like = (None if value is None else value.float() for value in (x, given))
            wrapped = wrap(flow, *like)
            _refuse_other_width(table, data, math.prod(wrapped.event_shape))
            dtype = wrapped.dtype
            x, given = x.to(dtype), None if given is None else given.to(dtype)
            result = diagnose_flow(
                flow,
                x,
                given,
                make=make,
                thorough=thorough,
                progress=progress,
                compare=partial(comparisons_of, progress=progress, thorough=thorough),
                names=lambda i: describe_values(table, i),
            )
            return with_findings(result, data_findings(table)), f"rows of {data}"
        if context:
            raise ArgumentError("'context' names columns of DATA: give a table, or leave it out.")
        result = doctor(flow, x, given, make=make, thorough=thorough, progress=progress)
        return result, words


@contextmanager
def _one_sentence_errors(home: str) -> Iterator[None]:
    """Turns an exception from the user's code into an ArgumentError of one sentence.

    Yields:
        Nothing.
    """
    try:
        yield
    except KappaflowError:
        raise
    except Exception as error:
        file = _file_of(home)
        if any(frame.filename == file for frame in traceback.extract_tb(error.__traceback__)):
            raise _failure(home, error) from error
        raise


def _file_of(home: str) -> str:
    """Returns the path of a file, or the file of a module that is loaded."""
    module = None if home.endswith(".py") else sys.modules.get(home)
    return getattr(module, "__file__", None) or str(Path(home).resolve())


def _refuse_other_width(table: Table, data: str, features: int) -> None:
    """Raises an error for a table with another number of columns than the flow takes."""
    if len(table.columns) == features:
        return
    out = f", and without numbers {', '.join(map(repr, table.left_out))}" if table.left_out else ""
    raise ArgumentError(
        f"{data} should have {features} columns of numbers for this flow, in addition to those of "
        f"--context, and has {', '.join(map(repr, table.columns)) or 'none'}{out}."
    )


Maker = Callable[[], object]


def _made(target: str) -> tuple[object, Tensor | None, Tensor | None, Maker | None]:
    """Returns a flow, its points and its contexts, and a function that builds it again."""
    home, _, name = target.rpartition(":")
    module = _module(home)
    if not hasattr(module, name):
        raise ArgumentError(f"{home} has no {name!r}.")
    result, make = getattr(module, name), None
    if inspect.isfunction(result) or inspect.isclass(result):
        _refuse_arguments(target, result)
        start, function = time.monotonic(), result
        try:
            result = function()
        except (Exception, SystemExit) as error:
            raise _failure(home, error) from error
        if time.monotonic() - start < QUICK_S:
            make = _without_points(function)
    if not isinstance(result, tuple) or all(map(callable, result)):  # of encode and decode
        return result, None, None, make
    flow, *tensors = result
    if not 1 <= len(tensors) <= 2 or not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise ArgumentError(
            f"{target} should give a flow, (flow, x) or (flow, x, context) with tensors, got a "
            f"tuple of {', '.join(type(one).__name__ for one in result)}."
        )
    return flow, tensors[0], tensors[1] if len(tensors) == 2 else None, make


def _on(place: torch.device, flow: object) -> object:
    """Returns a flow that has been moved to a device, or raises an error for other objects."""
    if not isinstance(flow, nn.Module):
        raise ArgumentError(
            f"'device' should be left out for this flow: {type(flow).__name__} is no "
            "torch.nn.Module, so its own code chooses the device."
        )
    return flow.to(place)


def _remade_on(place: torch.device, make: Maker) -> object:
    return _on(place, make())


def _at(place: torch.device, tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.to(place)


def _refuse_arguments(target: str, function: Maker) -> None:
    """Raises an error for a function that needs arguments."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of some classes none is known
        return
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [
        repr(parameter.name)
        for parameter in parameters
        if parameter.default is inspect.Parameter.empty and parameter.kind not in variable
    ]
    if needed:
        raise ArgumentError(
            f"{target} should need no arguments, but it requires {', '.join(needed)}: write a "
            "function that passes them."
        )


def _without_points(function: Maker) -> Maker:
    """Returns a function that builds the flow alone, and prints to stderr."""

    def make() -> object:
        with redirect_stdout(sys.stderr):
            returned = function()
        return (
            returned[0]
            if isinstance(returned, tuple) and not all(map(callable, returned))
            else returned
        )

    return make


def _module(home: str) -> ModuleType:
    """Returns the module of a file or of a name."""
    if not home.endswith(".py"):
        try:
            return importlib.import_module(home)
        except (Exception, SystemExit) as error:
            raise _failure(home, error) from error
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
    except (Exception, SystemExit) as error:
        raise _failure(home, error) from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def _failure(home: str, error: BaseException) -> ArgumentError:
    """Returns what the code raised as one sentence, with the line of the file."""
    file, message = _file_of(home), str(error)
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    if isinstance(error, SyntaxError) and error.filename == file:
        lines, message = [error.lineno], error.msg
    where = f" in line {lines[-1]}" if lines else ""
    first = (message.splitlines() or [""])[0]
    return ArgumentError(f"{home} raised {type(error).__name__}{where}: {first}")
