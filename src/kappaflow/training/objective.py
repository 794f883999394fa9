"""`Objective`: what a training minimizes, and how it measures what it has reached."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from torch import Tensor

from kappaflow.flows import Flow

if TYPE_CHECKING:
    from kappaflow.training.loop import Progress

Figures = dict[str, Any]
State = dict[str, Tensor]
Measured = tuple[Figures, State | None]  # other weights, if these are measured instead


class Loss(NamedTuple):
    """The loss of a step."""

    value: Tensor  # whose derivative is the gradient
    mean: Tensor  # of all ranks
    x: Tensor | None = None  # the samples of the flow that it was computed from, if any


class Averages(NamedTuple):
    """The mean loss over the rows of an epoch, and the mean gradient norm of its steps."""

    loss: float
    gradient_norm: float


class Objective(Protocol):
    """What a training minimizes. Its epochs may be intervals between two measurements."""

    flow: Flow
    unit: str
    limit: str  # the name of the setting for `steps`
    value: str  # the figure that decides which weights are the best
    causes: str  # likely ones of steps that are not finite
    compiled: bool  # whether torch compiles the steps
    steps_per_epoch: int
    steps: int  # of a training that nothing else stops
    patience: int
    margin: float  # a rise of the value that is no chance
    start: State  # more tensors of a checkpoint, if any
    rows: State  # that batches change, if any

    def follow(self, progress: "Progress") -> None:
        """Receives the progress of the training, at the beginning and when it is restored."""

    def batches(self, seed: int) -> Iterator[tuple[Any, int]]:
        """Yields what this rank uses in each step of an epoch, and the rows of all ranks."""
        ...

    def loss(self, batch: Any, done: float) -> Loss:
        """Returns the loss of a step after `done` steps, counted by the time if that is more."""
        ...

    def first_nonfinite(self, batch: Any, loss: Loss) -> str:
        """Returns as text the part of a step that first was not finite."""
        ...

    def measure(self, averages: Averages, share_done: float | None) -> Measured:
        """Returns the figures of an epoch; without conditioning if there is no `share_done`."""
        ...

    def is_best(self, figures: Figures) -> bool:
        """Returns whether the weights with these figures are better than all before."""
        ...

    def why_none(self, history: list[Figures]) -> str:
        """Returns the error message for a training that has no weights to keep."""
        ...
