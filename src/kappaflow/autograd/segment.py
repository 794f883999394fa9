"""The layers of one autograd node, the tensors they read, and the record of earlier calls."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from kappaflow.autograd.trace import Map, Trace


@dataclass(frozen=True)
class LayerCall:
    """One layer of a chain, in the direction of the call."""

    number: int  # in the chain, counted from 1 at the data
    module: nn.Module
    run: Map
    trace_from_output: Callable[[Tensor, Tensor | None], Trace]  # at the inverse of z
    inverse: bool = False  # whether `run` goes from latent to data

    @property
    def name(self) -> str:
        """The name of the layer, as in a profile."""
        return f"{self.number} {type(self.module).__name__}"


SegmentKey = tuple[bool, int, int]


class Segment:
    """Consecutive layers that one autograd node runs, with all tensors that they read.

    `tensors` are all contexts and parameters, without repetition; the node takes them over.
    `contexts` and `parameters` are the indices of those of each layer, and `owners` its submodules
    whose buffers a call may change.
    """

    def __init__(self, steps: Sequence[LayerCall], contexts: Sequence[Tensor | None]) -> None:
        self.steps = steps
        numbers = [step.number for step in steps]
        self.key: SegmentKey = (steps[0].inverse, min(numbers), max(numbers))
        tensors: dict[int, Tensor] = {}
        index_of: dict[int, int] = {}

        def place_of(tensor: Tensor) -> int:
            tensors[id(tensor)] = tensor
            return index_of.setdefault(id(tensor), len(index_of))

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
                        index = place_of(parameter)
                        own[index] = None
                        self._slots.append((part._parameters, name, index))
            self.parameters.append(list(own))
            self.owners.append(owners)
        self.tensors = list(tensors.values())

    def is_of(self, tensors: Sequence[Tensor]) -> bool:
        """Returns whether these are still the parameters; `functional_call` exchanges them."""
        return all(slots.get(name) is tensors[index] for slots, name, index in self._slots)

    def pieces(self, longest: int) -> Iterator[range]:
        """Yields the numbers of consecutive steps, at most so many together.

        A layer that has a memory mode is not joined with others, since it holds many layers.
        """
        first = 0
        for i, step in enumerate(self.steps):
            alone = hasattr(step.module, "memory")
            if alone and i > first:
                yield range(first, i)
                first = i
            if alone or i + 1 - first == longest or i + 1 == len(self.steps):
                yield range(first, i + 1)
                first = i + 1

    def run(
        self, numbers: range, x: Tensor, log_det: Tensor, tensors: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Returns the value after some steps, and log_det plus their log-determinants."""
        for i in numbers:
            x, part = self.steps[i].run(x, self.context(i, tensors))
            log_det = log_det + part
        return x, log_det

    def owners_of(self, numbers: range) -> list[nn.Module]:
        """Returns the submodules of some steps whose buffers a call may change."""
        return [owner for i in numbers for owner in self.owners[i]]

    def own(self, numbers: range, tensors: Sequence[Tensor]) -> dict[int, Tensor]:
        """Returns the tensors that some steps read, by index."""
        indices: dict[int, None] = {}
        for i in numbers:
            indices |= dict.fromkeys(self.parameters[i])
            context = self.contexts[i]
            if context is not None:
                indices[context] = None
        return {index: tensors[index] for index in indices}

    def context(self, i: int, tensors: Sequence[Tensor]) -> Tensor | None:
        """Returns the context of step i."""
        index = self.contexts[i]
        return None if index is None else tensors[index]

    def leaves(self, tensors: Sequence[Tensor], needed: Sequence[bool]) -> list[Tensor]:
        """Returns the tensors, with contexts detached from their graph."""
        leaves = list(tensors)
        for index in {index for index in self.contexts if index is not None}:
            leaves[index] = leaves[index].detach().requires_grad_(needed[index])
        return leaves


class SegmentRecord:
    """What a chain knows about its segments from earlier calls; a copy starts without it."""

    def __init__(self) -> None:
        self.inaccurate: set[SegmentKey] = set()  # store inputs although the mode is "invert"
        self.closed: set[SegmentKey] = set()  # read nothing but their parameters and contexts

    def __deepcopy__(self, _: object) -> "SegmentRecord":
        return SegmentRecord()

    def as_text(self) -> str:
        """Returns the part of the chain's `repr`; empty if no segment is inaccurate."""
        text = ""
        for inverse, suffix in ((False, ""), (True, " of the inverse")):
            keys = sorted(key for key in self.inaccurate if key[0] == inverse)
            names = ", ".join(f"{first}-{last}" for _, first, last in keys)
            text += f", recomputing layers {names}{suffix}" if names else ""
        return text


def _parts_of(module: nn.Module) -> Iterator[nn.Module]:
    """Yields the same as `module.modules()`, in a third of the time."""
    seen, pending = set(), [module]
    while pending:
        part = pending.pop()
        if part not in seen:
            seen.add(part)
            yield part
            pending += [each for each in reversed(part._modules.values()) if each is not None]
