"""The decorators of the doctor's checks (`@check`, `@measurement`, `@table`) and their inputs."""

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor

from kappaflow.conditioning import Profile, layers_of
from kappaflow.conditioning.profile import profile_at
from kappaflow.conditioning.round_trip import latent_points
from kappaflow.conditioning.spectrum import DENSE_UP_TO, MATRIX_FREE_ABOVE
from kappaflow.diagnosis.effort import DEFAULT_EFFORT, Effort
from kappaflow.diagnosis.finding import Table
from kappaflow.diagnosis.isolation import isolated_copy, one_line, why_no_copy
from kappaflow.energies import LogDensity
from kappaflow.errors import ArgumentError
from kappaflow.finding import Evidence, Finding, Severity
from kappaflow.flows import Flow

HUGE = 2000  # dimensions above which few points are measured
FEWER, FEWEST = 8, 16  # by what the number of points is divided above 500, and above 2,000
DEPTHS = 3  # at which the cumulative conditioning of large flows is searched
TOLERANCES = {False: 0.1, True: 1e-3}  # relative residual of these searches, by `thorough`
BATCH = 8  # least number of rows to compare a batch with parts of it
ROWS_AT_ONCE, NUMBERS_AT_ONCE = 2048, 2**21
TABLE_ROWS, DIGITS = 64, 7
NEEDS_COPY = {  # what is not checked without a copy in the own dtype, or in float64
    None: "stale results, a step of training, random numbers in training mode, features that "
    "never change",
    torch.float64: "gradients, training mode, whether rounding causes an error",
}

P = ParamSpec("P")
T = TypeVar("T")


class Progress(Protocol):
    """Receives the name of each measurement before it starts; an exception stops the doctor."""

    def __call__(self, text: str, /) -> None:
        """Shows a short text, such as "conditioning over depth, layer 3 of 32"."""


def quietly(text: str) -> None:
    """Shows nothing."""


class Measurements:
    """A flow, the rows to examine it on, and everything measured so far.

    Checks read the attributes below, and the functions decorated with `measurement`, which run
    once for each flow.

    Args:
        flow: An isolated copy in evaluation mode.
        rows: All rows in the form that the bijection takes, (B, *event); None to use samples of
            the flow.
        contexts: The context of each row, (B, C), or None.
        make: Builds an untrained flow of the same kind.
        log_density: The unnormalized density that the flow was fitted to.
        modes: Whether each module of the flow was in training mode, by name.
        effort: The most that is examined.
        progress: Receives the name of each measurement before it starts.
        describe: Returns the name of a row in a message from its index.
    """

    def __init__(
        self,
        flow: Flow,
        rows: Tensor | None = None,
        contexts: Tensor | None = None,
        *,
        make: Callable[[], object] | None = None,
        log_density: LogDensity | None = None,
        modes: dict[str, bool] | None = None,
        effort: Effort = DEFAULT_EFFORT,
        progress: Progress = quietly,
        describe: Callable[[int], str] | None = None,
    ) -> None:
        self.flow, self.rows, self.contexts = flow, rows, contexts
        self.make, self.log_density = make, log_density
        self.modes, self.effort, self.describe = modes or {}, effort, describe
        self.not_checked: list[str] = []  # what a larger effort would examine
        self.left_out: dict[str, list[str]] = {}  # what the flow does not allow, by the reason
        self._copyable: dict[torch.dtype | None, bool] = {}
        self._progress, self._stopped_by = progress, None
        self.context = None if contexts is None else contexts[: self._most]
        self.results: dict[Callable[..., Any], Any] = {}
        self._raised: dict[Callable[..., Any], Exception] = {}

    @functools.cached_property
    def _most(self) -> int:
        n, points = math.prod(self.flow.joint_shape), self.effort.points
        if n <= (DENSE_UP_TO if len(self.flow.joint_shape) == 1 else MATRIX_FREE_ABOVE):
            return points
        affordable = self.effort.budget / (n * len(layers_of(self.flow.core)))
        return max(1, int(min(points // (FEWER if n <= HUGE else FEWEST), affordable)))

    def progress(self, text: str) -> None:
        """Reports the name of a measurement; an exception stops the doctor."""
        try:
            self._progress(text)
        except Exception as error:
            self._stopped_by = error
            raise

    def attempt(self, name: str, call: Callable[[], T], default: T) -> T:
        """Returns the result of a call, or the default and a note if the flow raises an error."""
        try:
            return call()
        except Exception as error:
            refused = isinstance(error, ArgumentError) and self.log_density is not None
            if error is self._stopped_by or refused:
                raise
            self.left_out.setdefault(one_line(error), []).append(name)
            return default

    def once(self, key: Callable[..., Any], call: Callable[[], T]) -> T:
        """Returns the result of the first call with this key, or raises its error again."""
        if key in self._raised:
            raise self._raised[key]
        if key not in self.results:
            try:
                self.results[key] = call()
            except Exception as error:
                self._raised[key] = error
                raise
        return self.results[key]

    def copy(self, dtype: torch.dtype | None = None, *, at: Tensor | None = None) -> Flow | None:
        """Returns a copy of the flow, in a dtype if one is given; None if no copy works.

        `at` replaces the points whose shape and dtype it is made for.
        """
        at = self.points if at is None else at
        if dtype not in self._copyable:
            why = why_no_copy(self.flow, at, self.context, dtype)
            self._copyable[dtype] = not why
            if why:
                self.left_out.setdefault(why, []).append(NEEDS_COPY[dtype])
        works = self._copyable[dtype]
        return isolated_copy(self.flow, at, self.context, dtype) if works else None

    def up_to(self, most: int, total: int, what: str) -> int:
        """Returns the smaller number, and notes what a larger effort would also examine.

        `what` is the text of the note, with {} for the number, such as "{} columns".
        """
        if total > most:
            self.not_checked.append(what.format(f"{total - most:,} of {total:,}"))
        return min(most, total)

    @property
    def given(self) -> bool:
        """Whether the user gave rows; otherwise the points are samples of the flow."""
        return self.rows is not None

    @functools.cached_property
    def points(self) -> Tensor:
        """The first rows, where the flow is measured, (n, *event); `context` is their context."""
        return self.samples if self.rows is None else self.rows[: self._most]

    @functools.cached_property
    def batch(self) -> tuple[Tensor, Tensor | None]:
        """The points and their context; the first 8 rows or samples if there are fewer points."""
        if len(self.points) >= BATCH:
            return self.points, self.context
        context = None if self.contexts is None else self.contexts[:BATCH]
        if self.rows is not None:
            return self.rows[:BATCH], context
        n = BATCH if context is None else len(context)
        z = latent_points(self.flow, n, context)
        return self.flow.bijection.inverse(z, context)[0], context

    @functools.cached_property
    def sample_latents(self) -> Tensor:
        """Samples of the base, (n, *event)."""
        n = self._most if self.context is None else len(self.context)
        return latent_points(self.flow, n, self.context)

    @functools.cached_property
    def samples(self) -> Tensor:
        """The decoded samples of the base, in data units."""
        return self.flow.bijection.inverse(self.sample_latents, self.context)[0]

    @functools.cached_property
    def standardized(self) -> Tensor:
        """The points in standardized units, as input of the core of the flow."""
        return self.flow.standardization(self.points)[0]

    @functools.cached_property
    def latents(self) -> Tensor:
        """One sample of the base for each point."""
        return latent_points(self.flow, len(self.points), self.context)

    @functools.cached_property
    def wide(self) -> Flow | None:
        """A copy of the flow in float64; None if no copy works in float64."""
        return self.copy(torch.float64)

    @property
    def profile(self) -> Profile:
        """The conditioning over depth at the points."""
        return self.once(profile_at, self._measure_profile)

    def _measure_profile(self) -> Profile:
        def show(layer: str) -> None:
            self.progress(f"conditioning over depth, {layer}")

        depths = None if self.effort.thorough else DEPTHS
        result = profile_at(
            self.flow,
            self.points,
            self.context,
            wide=self.wide,
            progress=show,
            most_depths=depths,
            tolerance=TOLERANCES[self.effort.thorough],
        )
        if depths is not None and result.status != "exact":
            self.up_to(depths, len(result.layers), "conditioning at {} depths (interpolated)")
        return result

    @functools.cached_property
    def log_prob(self) -> Tensor:
        """Log-density at the points, (n,)."""
        return self.flow.augmented_log_prob(self.points, self.context)

    @functools.cached_property
    def sample_log_prob(self) -> Tensor:
        """Log-density at the samples, (n,)."""
        return self.flow.augmented_log_prob(self.samples, self.context)

    @property
    def data_errors(self) -> Tensor:
        """Reconstruction error of each point (data to latent to data), as a share of |x|."""
        return self.profile.round_trip_data[0] / lengths(self.standardized)

    @property
    def latent_errors(self) -> Tensor:
        """Reconstruction error of each latent (latent to data to latent), as a share of |z|."""
        return self.profile.round_trip_latent[-1] / lengths(self.latents)

    def name_row(self, index: int) -> str:
        """Returns a name for one of the points in a message."""
        if not self.given:
            return f"sample {index}"
        return f"row {index}" if self.describe is None else self.describe(index)


def measurement(
    shown: str, *, checked: str = ""
) -> Callable[[Callable[[Measurements], T]], Callable[[Measurements], T]]:
    """Returns a decorator that runs a function of `Measurements` only once for each flow.

    `shown` is the text of the progress line while it runs. `checked` is its name under "Checked"
    in the verdict; it is left out if empty, or if the function returns None because the flow does
    not allow it.
    """

    def decorate(function: Callable[[Measurements], T]) -> Callable[[Measurements], T]:
        @functools.wraps(function)
        def measured(m: Measurements) -> T:
            def run() -> T:
                m.progress(shown)
                return function(m)

            return m.once(measured, run)

        CHECKED[measured] = checked
        return measured

    return decorate


CHECKED: dict[Callable[..., Any], str] = {}


@dataclass(frozen=True)
class Symptom:
    """What a check observed on a flow, in one sentence with its numbers.

    `layer` causes the problem; None if it is not a single one. A severity, cause or fix replaces
    that of the check.
    """

    message: str
    evidence: Evidence = field(default_factory=dict)
    layer: str | None = None
    severity: Severity | None = None
    cause: str | None = None
    fix: str | None = None


Subject = Literal["flow", "data", "run"]


@dataclass(frozen=True)
class Check(Generic[P]):
    """A check with its texts, as for `check`. A call runs it and returns the findings.

    `observe` is the decorated function; its docstring documents the check. "flow" checks take
    `Measurements`, "data" checks `ExaminedData`, and "run" checks the recorded figures of a
    training.
    """

    code: str
    title: str
    observe: Callable[P, Iterable[Symptom]]
    severity: Severity
    cause: str
    fix: str
    subject: Subject = "flow"
    before: str = ""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> tuple[Finding, ...]:
        return tuple(map(self.finding, self.observe(*args, **kwargs)))

    def finding(self, symptom: Symptom) -> Finding:
        """Returns a finding from a symptom and the texts of this check."""
        return Finding(
            code=self.code,
            severity=symptom.severity or self.severity,
            layer=symptom.layer,
            message=symptom.message,
            cause=symptom.cause or self.cause,
            fix=symptom.fix or self.fix,
            evidence=symptom.evidence,
        )


CHECKS: dict[str, Check[...]] = {}


def check(
    code: str,
    title: str,
    *,
    severity: Severity = "error",
    cause: str,
    fix: str,
    subject: Subject = "flow",
    before: str = "",
) -> Callable[[Callable[P, Iterable[Symptom]]], Check[P]]:
    """Returns a decorator that registers a function that yields symptoms as the check of a code.

    The docstring of the function becomes the section of the code in docs/rules.md. Its "Example:"
    makes a `flow` and points `x` (and a `context`, `make` or `log_density` if the check needs one)
    on which the check fires; a test runs it.

    Args:
        code: Such as "KF204". A code is never reused.
        title: What the code means, in a few words.
        severity: "error", "warning" or "note"; a symptom may replace it.
        cause: The usual cause; a symptom may replace it.
        fix: What to do about it; a symptom may replace it.
        subject: What the function takes; see `Check`.
        before: The code of a check that this one must precede, because it explains that one.
    """

    def decorate(observe: Callable[P, Iterable[Symptom]]) -> Check[P]:
        made = Check(code, title, observe, severity, cause, fix, subject, before)
        CHECKS[code] = made
        return made

    return decorate


TABLES: dict[str, Callable[[Measurements], Table]] = {}


def table(name: str) -> Callable[[Callable[[Measurements], Table]], Callable[..., Table]]:
    """Returns the decorator of a function that makes a table for the report page."""

    def decorate(function: Callable[[Measurements], Table]) -> Callable[..., Table]:
        TABLES[name] = function
        return function

    return decorate


def in_chunks(
    call: Callable[[Tensor, Tensor | None], tuple[Tensor, ...]], x: Tensor, context: Tensor | None
) -> tuple[Tensor, ...]:
    """Returns the results of a call with all rows, in chunks that bound the memory."""
    at_once = max(1, min(ROWS_AT_ONCE, NUMBERS_AT_ONCE // x[0].numel()))
    contexts = [None] * len(x) if context is None else context.split(at_once)
    results = [call(*pair) for pair in zip(x.split(at_once), contexts, strict=False)]
    return tuple(map(torch.cat, zip(*results, strict=True)))


def columns(**values: Tensor | None) -> Table:
    """Returns a table with a column for each tensor, of 64 rows at most."""
    return {
        name: plain(column[:TABLE_ROWS]) for name, column in values.items() if column is not None
    }


def quantiles(values: Tensor, prefix: str = "") -> Table:
    """Returns quantiles over the points of values (S, B); nan counts as infinite.

    A quantile between a finite number and an infinite one is infinite.
    """
    known = values.detach().double().nan_to_num(torch.inf, posinf=torch.inf)
    levels = (("p05", 0.05), ("median", 0.5), ("p95", 0.95), ("max", 1.0))
    return {
        prefix + name: plain(known.quantile(level, dim=1, interpolation="higher"))
        for name, level in levels
    }


def plain(values: Tensor) -> list[float | int | str | None]:
    """Returns numbers, rounded to the digits that a figure shows."""
    return [float(f"{value:.{DIGITS}g}") for value in values.detach().cpu().double().tolist()]


def lengths(points: Tensor) -> Tensor:
    """Returns the length of each point, at least 1, (B,) in float64."""
    return points.flatten(1).double().norm(dim=1).clamp_min(1)


def largest(values: Tensor) -> float:
    """Returns the largest finite value; nan if there is none."""
    finite = values[torch.isfinite(values)]
    return finite.max().item() if len(finite) else math.nan


def count_not_finite(values: Tensor) -> tuple[int, int]:
    """Returns the number of points with a value that is not finite, and the number of points."""
    finite = torch.isfinite(values.reshape(len(values), -1)).all(dim=1)
    return int((~finite).sum()), len(finite)


def differ(a: Tensor, b: Tensor) -> bool:
    """Returns whether two results differ by more than the order of summation explains."""
    eps = torch.finfo(a.dtype).eps
    size = 1 + torch.maximum(a.abs(), b.abs()).nan_to_num(0, posinf=0)
    return bool(((a - b).abs().nan_to_num(0) > 1e3 * eps * size).any())


def largest_difference(a: Tensor, b: Tensor) -> float:
    """Returns the largest difference where both are finite; 0 if they are finite nowhere."""
    difference = (a.double() - b.double()).abs()
    finite = difference[torch.isfinite(difference)]
    return finite.max().item() if len(finite) else 0.0
