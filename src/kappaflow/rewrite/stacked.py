"""Runs of plain couplings as stacks, which are faster."""

from collections.abc import Sequence
from itertools import groupby

from kappaflow.bijection import Bijection
from kappaflow.errors import ArgumentError
from kappaflow.rewrite.opened import is_coupling
from kappaflow.stack import CouplingStack


def stacked(parts: Sequence[Bijection]) -> list[Bijection]:
    """Returns the same layers, neighbouring couplings of one kind and shape in stacks."""
    found: list[Bijection] = []
    for plain, group in groupby(parts, is_coupling):
        run = list(group)
        if plain and len(run) > 1:
            try:
                found.append(CouplingStack.of(run))
                continue
            except ArgumentError:  # of two kinds, or other networks: they stay as they are
                pass
        found += run
    return found
