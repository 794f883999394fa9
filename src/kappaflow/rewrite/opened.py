"""The layers of a flow as independent copies, nested chains and stacks opened."""

import copy
from collections.abc import Iterable, Iterator

from torch import nn

from kappaflow.bijection import Bijection, Chain, Inverse
from kappaflow.bijections import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    ElementwiseAffine,
    Permutation,
    Standardize,
)
from kappaflow.errors import ArgumentError
from kappaflow.factor import Whiten
from kappaflow.flows import Flow
from kappaflow.nets.exact_type import has_hooks, is_exact
from kappaflow.rewrite.mixed import SandwichCoupling
from kappaflow.stack import CouplingStack

STARTS = ("initialized", "fitted")  # flags of a start from data
OPENED = (Chain, CouplingStack, Inverse, SandwichCoupling, Whiten)
ELEMENTWISE = (ActNorm, ElementwiseAffine, Standardize)


def opened(bijection: Bijection, *, stacks: bool = False) -> list[Bijection]:
    """Returns copies of the layers of a bijection in their order, in evaluation mode.

    A coupling with linear ends is opened too: the ends are linear layers again. What has a hook
    stays closed, since nothing would call the hook any more.

    Args:
        bijection: Any.
        stacks: Leave stacks as they are.
    """
    return list(_walk(copy.deepcopy(bijection).eval(), stacks))


def flow_of(flow: Flow, parts: list[Bijection]) -> Flow:
    """Returns a flow of other parts, with all else that this one has: base, embedding, memory.

    Args:
        flow: The one.
        parts: Of one floating-point type.

    Returns:
        A flow of that type, in the mode and on the device of the one.
    """
    chain = flow.bijection if isinstance(flow.bijection, Chain) else Chain([])
    embedding = copy.deepcopy(chain.embedding)
    width = None if embedding is None else chain.context_features
    made = Chain(parts, embedding=embedding, context_features=width, memory=chain.memory)
    base, augment = copy.deepcopy(flow.base), copy.deepcopy(flow.augment)
    return Flow(base, made, augment).to(flow.device).train(flow.training)


def parts_of(flow: Flow, *, stacks: bool = False) -> list[Bijection]:
    """Returns copies of the layers of a flow.

    Args:
        flow: The flow.
        stacks: Leave stacks as they are.

    Raises:
        ArgumentError: It is no flow, its chain has a hook, or a chain inside it has an
            embedding of the context of its own.
    """
    if not isinstance(flow, Flow):
        raise ArgumentError(f"'flow' should be a Flow, got {type(flow).__name__}.")
    chain = flow.bijection
    if isinstance(chain, Chain) and has_hooks(chain):
        raise ArgumentError(
            "'flow' should have no hook on its chain: the new flow has another one, which "
            "would not call it. Remove the hook first, and register it again on the new chain."
        )
    return opened(Chain(list(chain)) if isinstance(chain, Chain) else chain, stacks=stacks)


def is_elementwise(part: Bijection) -> bool:
    """Returns whether a layer is linear and treats each feature by itself."""
    return isinstance(_inner(part), ELEMENTWISE)


def is_linear(part: Bijection) -> bool:
    """Returns whether a layer is a linear map and a shift; one that waits for data is not yet."""
    inner = _inner(part)
    return inner.is_linear and all(bool(getattr(inner, name, True)) for name in STARTS)


def is_coupling(part: Bijection) -> bool:
    """Returns whether a layer is a nonlinear coupling as this package defines them."""
    return is_exact(part, AffineCoupling) or is_exact(part, AdditiveCoupling)


def is_inverse_coupling(part: Bijection) -> bool:
    """Returns whether a layer is such a coupling with its directions exchanged."""
    return isinstance(part, Inverse) and not has_hooks(part) and is_coupling(_inner(part))


def is_frozen(parts: Iterable[nn.Module]) -> bool:
    """Returns whether layers have parameters, none of which is to be trained."""
    trained = [parameter.requires_grad for part in parts for parameter in part.parameters()]
    return bool(trained) and not any(trained)


def is_permutation(part: Bijection) -> bool:
    """Returns whether a layer moves features and does nothing else."""
    return is_exact(_inner(part), Permutation)


def _inner(part: Bijection) -> Bijection:
    return _inner(part.bijection) if isinstance(part, Inverse) else part


def _walk(part: Bijection, stacks: bool) -> Iterator[Bijection]:
    if has_hooks(part):
        yield part
        return
    if isinstance(part, CouplingStack) and not stacks:
        part = part.to_chain().eval()
    if isinstance(part, Whiten) and part.fitted:
        part = part.couplings
    if isinstance(part, Chain):
        if part.embedding is not None:
            raise ArgumentError(
                "'flow' should not have a chain with an embedding of its own inside its chain."
            )
        for inner in part:
            yield from _walk(inner, stacks)
    elif isinstance(part, SandwichCoupling):
        yield from part.parts()
    elif isinstance(part, Inverse) and isinstance(part.bijection, OPENED):
        yield from (_inverse(inner) for inner in reversed(list(_walk(part.bijection, stacks))))
    else:
        yield part


def _inverse(part: Bijection) -> Bijection:
    return part.bijection if isinstance(part, Inverse) else Inverse(part)
