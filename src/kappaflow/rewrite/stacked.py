"""Runs of plain couplings as stacks, which are faster."""

from collections.abc import Sequence
from itertools import groupby

from kappaflow.bijection import Bijection
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow.rewrite.opened import is_coupling
from kappaflow.stack import CouplingStack


def stacked(parts: Sequence[Bijection], like: Flow) -> list[Bijection]:
    """Returns the same layers, neighbouring couplings of one kind and shape in stacks.

    Args:
        parts: The layers.
        like: A flow, whose stacks say what those of the new one keep for the backward pass;
            without any the couplings do.

    Returns:
        Fewer layers.
    """
    modes = {part.memory for part in like.modules() if isinstance(part, CouplingStack)}
    found: list[Bijection] = []
    for plain, group in groupby(parts, is_coupling):
        run = list(group)
        if plain and len(run) > 1:
            try:
                own: str = run[0].memory  # pyright: ignore[reportAssignmentType]
                memory = modes.copy().pop() if len(modes) == 1 else own
                found.append(CouplingStack.of(run, memory=memory))
                continue
            except ArgumentError:  # of two kinds, or other networks: they stay as they are
                pass
        found += run
    return found
