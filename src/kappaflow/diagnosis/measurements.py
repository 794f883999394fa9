"""`Measurements`, the input of each check: a flow, rows, float64 copies, and what is measured."""

import functools
import math
import sys
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from kappaflow.conditioning import Layer, Profile, layers_of
from kappaflow.conditioning.profile import profile_at
from kappaflow.conditioning.round_trip import latent_points
from kappaflow.conditioning.spectrum import DENSE_UP_TO, MATRIX_FREE_ABOVE
from kappaflow.diagnosis.isolation import isolated_copy, why_no_copy
from kappaflow.diagnosis.tensors import lengths, shares_of
from kappaflow.energies import LogDensity
from kappaflow.errors import ArgumentError, one_line
from kappaflow.flows import Flow
from kappaflow.foreign import Wrapped

HUGE = 2000  # dimensions above which few points are measured
FEWER, FEWEST = 8, 16  # by what the number of points is divided above 500, and above 2,000
DEPTHS = 3  # at which the cumulative conditioning of large flows is searched
TOLERANCES = {False: 0.1, True: 1e-3}  # relative residual of these searches, by `thorough`
BATCH = 8  # least number of rows to compare a batch with parts of it
NEEDS_COPY = {  # what is not checked without a copy in the own dtype, or in float64
    None: "stale results, a step of training, random numbers in training mode, features that "
    "never change",
    torch.float64: "gradients, training mode, whether rounding causes an error",
}

T = TypeVar("T")


ShowStep = Callable[[str], None]  # gets the name of each measurement; an exception stops all


def quietly(text: str) -> None:
    """Shows nothing."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """The most that the doctor examines of a flow; the checks derive their limits from it."""

    points: int = 64  # rows at which a flow of few dimensions is measured
    samples: int = 4096  # of a flow of few dimensions, compared with its base
    budget: float = 1e6  # points times dimensions times layers of a large flow

    @property
    def thorough(self) -> bool:
        """Whether all rows, columns, dimensions and depths are examined."""
        return math.isinf(self.budget)

    def limit(self, most: int) -> int:
        """Returns the limit of a check, which a thorough examination does not have."""
        return sys.maxsize if self.thorough else most


DEFAULT_EFFORT = Effort()
THOROUGH = Effort(points=256, samples=16_384, budget=math.inf)


@dataclass(eq=False)
class Measurements:
    """A flow, the rows to examine it on, and everything measured so far.

    Checks read the attributes below, and the functions decorated with `measurement`, which run
    once for each flow. `rows` have the form that the bijection takes, (B, *event); without them,
    the flow is measured at its own samples.
    """

    flow: Flow  # an isolated copy in evaluation mode
    rows: Tensor | None = None
    contexts: Tensor | None = None  # of each row, (B, C)
    _: KW_ONLY
    weights: Tensor | None = None  # of each row, (B,); equal by default
    make: Callable[[], object] | None = None  # builds an untrained flow of the same kind
    log_density: LogDensity | None = None  # the unnormalized density that the flow was fitted to
    modes: dict[str, bool] = field(default_factory=dict)  # of modules: whether they were training
    effort: Effort = DEFAULT_EFFORT
    progress: ShowStep = quietly
    describe: Callable[[int], str] | None = None  # names a row in a message from its index
    not_checked: list[str] = field(default_factory=list)  # what a larger effort would examine
    left_out: dict[str, list[str]] = field(default_factory=dict)  # by the reason in the flow
    results: dict[Callable[..., Any], Any] = field(default_factory=dict)
    _raised: dict[Callable[..., Any], Exception] = field(default_factory=dict)
    _copyable: dict[torch.dtype | None, bool] = field(default_factory=dict)
    _stopped_by: Exception | None = None

    @functools.cached_property
    def _most(self) -> int:
        n, points = math.prod(self.flow.joint_shape), self.effort.points
        if n <= (DENSE_UP_TO if len(self.flow.joint_shape) == 1 else MATRIX_FREE_ABOVE):
            return points
        affordable = self.effort.budget / (n * len(layers_of(self.flow.core)))
        return max(1, int(min(points // (FEWER if n <= HUGE else FEWEST), affordable)))

    def announce(self, text: str) -> None:
        """Reports the name of a measurement; an exception stops the doctor."""
        try:
            self.progress(text)
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

    def copy(self, dtype: torch.dtype | None = None) -> Flow | None:
        """Returns a copy of the flow, in a dtype if one is given; None if no copy works."""
        if dtype not in self._copyable:
            why = why_no_copy(self.flow, self.points, self.context, dtype)
            self._copyable[dtype] = not why
            if why:
                self.left_out.setdefault(why, []).append(NEEDS_COPY[dtype])
        works = self._copyable[dtype]
        return isolated_copy(self.flow, self.points, self.context, dtype) if works else None

    @functools.cached_property
    def float64_copy(self) -> Flow | None:
        """A copy of the flow in float64; None if no copy works in float64."""
        return self.copy(torch.float64)

    def in_float64(
        self, call: Callable[[Flow, Tensor, Tensor | None], T], x: Tensor, context: Tensor | None
    ) -> T | None:
        """Returns the result of a call with a float64 copy; None if the flow has no other one."""
        if self.float64_copy is None or self.flow.dtype == torch.float64:
            return None
        try:
            return call(self.float64_copy, x.double(), to_float64(context))
        except Exception:  # a library that mixes float64 and float32
            return None

    def up_to(self, most: int, total: int, what: str) -> int:
        """Returns the smaller number, and notes what a larger effort would also examine.

        `what` is the text of the note, with {} for the number, such as "{} columns".
        """
        if total > most:
            self.not_checked.append(what.format(f"{total - most:,} of {total:,}"))
        return min(most, total)

    @functools.cached_property
    def points(self) -> Tensor:
        """The first rows, where the flow is measured, (n, *event); `context` is their context."""
        return self.samples if self.rows is None else self.rows[: self._most]

    @functools.cached_property
    def context(self) -> Tensor | None:
        return None if self.contexts is None else self.contexts[: self._most]

    @functools.cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers of the flow after its standardization, at the contexts of the points."""
        return layers_of(self.flow.core, self.context)

    def shares(self, rows: int) -> Tensor:
        """Returns the shares of the first rows in means, (rows,), by their weights."""
        return shares_of(None if self.weights is None else self.weights[:rows], rows)

    def first(self, rows: int) -> tuple[Tensor, Tensor | None]:
        """Returns the first points and their contexts."""
        return self.points[:rows], None if self.context is None else self.context[:rows]

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

    @property
    def profile(self) -> Profile:
        """The conditioning over depth at the points."""
        return self.once(profile_at, self._measure_profile)

    def _measure_profile(self) -> Profile:
        depths = None if self.effort.thorough else DEPTHS
        result = profile_at(
            self.flow,
            self.points,
            self.context,
            flow64=self.float64_copy,
            progress=lambda layer: self.announce(f"conditioning over depth, {layer}"),
            max_depths=depths,
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
        if self.rows is None:
            return f"sample {index}"
        return f"row {index}" if self.describe is None else self.describe(index)


def to_float64(context: Tensor | None) -> Tensor | None:
    """Returns a context in float64, or None without one."""
    return None if context is None else context.double()


def library_log_prob(flow: Flow, x: Tensor, context: Tensor | None) -> Tensor | None:
    """Returns log_prob as the library of the flow computes it; None if it has none of its own."""
    return flow.own_log_prob(x, context) if isinstance(flow, Wrapped) else None
