"""The layers that one autograd node runs, and where each finds its tensors."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from kappaflow.trace import Map, Trace


@dataclass(frozen=True)
class Step:
    """One layer in the direction of the run.

    Attributes:
        number: Its place in the chain, from 1 at the data.
        module: What it draws on.
        run: x, context to z, log_det.
        trace: x, context to the trace of `run` at x.
        rewind: z, context to the trace of `run` at the x that z comes from.
        inverse: Whether `run` goes from latent to data.
    """

    number: int
    module: nn.Module
    run: Map
    trace: Callable[[Tensor, Tensor | None], Trace]
    rewind: Callable[[Tensor, Tensor | None], Trace]
    inverse: bool = False

    @property
    def name(self) -> str:
        """The name under which a profile shows the layer."""
        return f"{self.number} {type(self.module).__name__}"


class Run:
    """Steps that one autograd node runs, each of whose modules is looked through once.

    Args:
        steps: At least one.
        contexts: One a step.

    Attributes:
        steps: As given.
        key: Whether it is of the inverse, and its first and last layer.
        tensors: All contexts and parameters, each once; given up to the node.
        contexts: Where the context of each step is among them.
        parameters: Where the parameters of each step are.
        owners: The parts of each step whose buffers a call may change.
    """

    def __init__(self, steps: Sequence[Step], contexts: Sequence[Tensor | None]) -> None:
        self.steps = steps
        numbers = [step.number for step in steps]
        self.key = (steps[0].inverse, min(numbers), max(numbers))
        tensors: dict[int, Tensor] = {}
        places: dict[int, int] = {}

        def place_of(tensor: Tensor) -> int:
            tensors[id(tensor)] = tensor
            return places.setdefault(id(tensor), len(places))

        self.contexts = [None if c is None else place_of(c) for c in contexts]
        self.parameters, self.owners = [], []
        self._slots: list[tuple[dict[str, nn.Parameter | None], str, int]] = []
        for step in steps:
            own: dict[int, None] = {}
            owners = []
            for part in _parts_of(step.module):
                if part.training and part._buffers:
                    owners.append(part)
                for name, parameter in part._parameters.items():
                    if parameter is not None:
                        place = place_of(parameter)
                        own[place] = None
                        self._slots.append((part._parameters, name, place))
            self.parameters.append(list(own))
            self.owners.append(owners)
        self.tensors = list(tensors.values())

    def is_of(self, tensors: Sequence[Tensor]) -> bool:
        """Returns whether the parameters are still these: `functional_call` exchanges them."""
        return all(slots.get(name) is tensors[place] for slots, name, place in self._slots)

    def own(self, i: int, tensors: Sequence[Tensor]) -> dict[int, Tensor]:
        """Returns those that step i reads, by their place."""
        context = self.contexts[i]
        places = self.parameters[i] if context is None else [*self.parameters[i], context]
        return {place: tensors[place] for place in places}

    def context(self, i: int, tensors: Sequence[Tensor]) -> Tensor | None:
        """Returns the context of step i among them."""
        place = self.contexts[i]
        return None if place is None else tensors[place]

    def leaves(self, tensors: Sequence[Tensor], needed: Sequence[bool]) -> list[Tensor]:
        """Returns the tensors, contexts cut off from what they were made of."""
        leaves = list(tensors)
        for place in {place for place in self.contexts if place is not None}:
            leaves[place] = leaves[place].detach().requires_grad_(needed[place])
        return leaves


def _parts_of(module: nn.Module) -> Iterator[nn.Module]:
    """Yields what `module.modules()` does, in that order, in a third of the time."""
    seen, waiting = set(), [module]
    while waiting:
        part = waiting.pop()
        if part not in seen:
            seen.add(part)
            yield part
            waiting += [each for each in reversed(part._modules.values()) if each is not None]
