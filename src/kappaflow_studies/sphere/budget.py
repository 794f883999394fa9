"""Flows of any depth with as many parameters as are asked for."""

from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow, real_nvp


def flow_of_budget(features: int, depth: int, parameters: int) -> Flow:
    """Returns a RealNVP of this depth whose two hidden layers are as wide as its budget allows.

    Args:
        features: d.
        depth: Couplings.
        parameters: Of all couplings together, at most.

    Returns:
        The flow, new.

    Raises:
        ArgumentError: Hidden layers of one unit have more parameters already.

    Example:
        >>> flow = flow_of_budget(8, 4, 16000)
        >>> sum(p.numel() for p in flow.parameters())
        15980
    """
    best, hidden = 0, (0, 0)
    for first in range(1, parameters):
        smallest = _parameters(features, depth, (first, max(1, first // 2)))
        if smallest > parameters:
            break
        for second in range(max(1, first // 2), 2 * first + 1):
            count = _parameters(features, depth, (first, second))
            if best < count <= parameters:
                best, hidden = count, (first, second)
    if not best:
        raise ArgumentError(
            f"'budgets' should be larger, got {parameters}: {depth} couplings of {features} "
            f"features have at least {_parameters(features, depth, (1, 1))} parameters."
        )
    return real_nvp(features, depth=depth, hidden=hidden)


def _parameters(features: int, depth: int, hidden: tuple[int, int]) -> int:
    """Returns how many a RealNVP has; the halves take turns in being read."""
    first, second = hidden
    inner = first * second + second
    total = 0
    for number in range(depth):
        smaller = features // 2
        kept = smaller if number % 2 == 0 else features - smaller
        changed = features - kept
        total += (kept + 1) * first + inner + (second + 1) * 2 * changed
    return total
