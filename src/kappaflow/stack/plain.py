"""Conversion between plain couplings and stacks: modules, arguments and state dictionaries."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kappaflow.bijection import Bijection, Chain
from kappaflow.bijections import AdditiveCoupling, AffineCoupling, Permutation
from kappaflow.bijections.coupling import Coupling
from kappaflow.errors import ArgumentError
from kappaflow.nets import MLP, PairedMLP, ResidualMLP
from kappaflow.partition import Partition
from kappaflow.stack.shape import BlockShape, NetworkShape

if TYPE_CHECKING:
    from kappaflow.stack.block import Block

PlainCoupling = AffineCoupling | AdditiveCoupling
Network = MLP | ResidualMLP | PairedMLP
M = TypeVar("M", bound=nn.Module)


def network(shape: NetworkShape) -> Network:
    """Returns a new conditioner of a shape."""
    if shape.has_blocks:
        return ResidualMLP(
            shape.widths[0],
            shape.widths[-1],
            shape.widths[1],
            blocks=(len(shape.widths) - 3) // 2,
            context_features=shape.context_features,
        )
    if shape.is_paired:
        return PairedMLP(
            shape.widths[0],
            shape.widths[-1],
            shape.widths[1:-1],
            context_features=shape.context_features,
        )
    return MLP(
        shape.widths[0],
        shape.widths[-1],
        shape.widths[1:-1],
        context_features=shape.context_features,
        residual=shape.residual,
        dropout=shape.dropout,
    )


def coupling(shape: BlockShape, partition: Partition, conditioner: Network) -> PlainCoupling:
    """Returns a plain coupling."""
    context = shape.context_features
    if not shape.affine:
        return AdditiveCoupling(partition, conditioner, context_features=context)
    return AffineCoupling(
        partition,
        conditioner,
        scale_bound=shape.scale_bound,
        context_features=context,
        scale=shape.scale,
    )


def with_weights(network: Network, tensors: dict[str, Tensor]) -> Network:
    """Returns a copy of a network with tensors as its parameters, so that gradients reach them."""
    made = _shell(network)
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        setattr(made.get_submodule(path), leaf, tensor)
    return made


def _shell(module: M) -> M:
    """Returns a copy of a module without parameters, in a fraction of the time of making one."""
    made = object.__new__(type(module))
    made.__dict__ = module.__dict__ | {"_parameters": {}, "_buffers": dict(module._buffers)}
    made._modules = {name: child and _shell(child) for name, child in module._modules.items()}
    return made


class _SkipInit(TorchFunctionMode):
    """Skips initialization, because weights are replaced and `vmap` allows no random numbers."""

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401
        types: Any,  # noqa: ANN401
        args: Any = (),  # noqa: ANN401
        kwargs: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        if func in {nn.init.kaiming_uniform_, nn.init.uniform_, torch.Tensor.uniform_}:
            return None
        return func(*args, **(kwargs or {}))


def couplings(
    shape: BlockShape, partitions: Sequence[Partition], rows: Sequence[dict[str, Tensor]]
) -> Iterator[PlainCoupling]:
    """Yields plain couplings whose weights are the given tensors."""
    with torch.device("meta"), _SkipInit():
        empty = [network(each) for each in shape.networks]
    for partition, number, tensors in zip(partitions, shape.network_of, rows, strict=True):
        yield coupling(shape, partition, with_weights(empty[number], tensors))


WIRINGS = {MLP: "plain", ResidualMLP: "blocks", PairedMLP: "paired"}
KINDS = {AffineCoupling: "affine", AdditiveCoupling: "additive"}


def origin_of(bijections: Sequence[Bijection]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns the arguments and the state of the stack that equals plain couplings.

    Args:
        bijections: Couplings of one kind, with permutations between them.

    Returns:
        Keyword arguments of `CouplingStack`, and its state.

    Raises:
        ArgumentError: The couplings cannot be stacked; the message gives the reason.
    """
    found: list[Coupling] = []
    permutations: list[tuple[int, ...] | None] = []
    pending: tuple[int, ...] | None = None
    for place, part in enumerate(bijections):
        if type(part) is Permutation and pending is None:
            pending = tuple(part.index.tolist())
        elif type(part) in KINDS:
            found.append(part)  # pyright: ignore[reportArgumentType]
            permutations.append(pending)
            pending = None
        else:
            raise ArgumentError(
                "'bijections' should be affine or additive couplings with at most one permutation "
                f"before each, got {type(part).__name__} at place {place}."
            )
    if pending is not None or not found:
        raise ArgumentError("'bijections' should end with a coupling.")
    arguments = _common(found)
    arguments["partitions"] = [coupling.partition for coupling in found]
    arguments["permutations"] = permutations if any(p is not None for p in permutations) else None
    return arguments, Chain(bijections).state_dict()


def _common(couplings: Sequence[Coupling]) -> dict[str, Any]:
    """Returns the settings that all couplings share."""
    first, *others = map(_described, couplings)
    for place, other in enumerate(others, start=1):
        for key, value in other.items():
            if value != first[key]:
                raise ArgumentError(
                    f"'bijections' should be alike to be stacked, got {key}={first[key]!r} in "
                    f"coupling 0 and {value!r} in coupling {place}."
                )
    return first


def _described(coupling: Coupling) -> dict[str, Any]:
    net: Any = coupling.conditioner
    if any(part._forward_hooks or part._forward_pre_hooks for part in coupling.modules()):
        raise ArgumentError(
            "'bijections' should have no hooks to be stacked: a stack would not call them."
        )
    if type(net) not in WIRINGS:
        raise ArgumentError(
            f"'bijections' should have MLP conditioners to be stacked, got {type(net).__name__}: "
            "for others, Chain(..., memory=...) has the same memory modes."
        )
    if net.activation != "relu" or (isinstance(net, ResidualMLP) and net.gates is not None):
        what = "gates of the context" if net.activation == "relu" else net.activation
        raise ArgumentError(
            "'bijections' should have conditioners of linear layers and ReLU to be stacked, got "
            f"{what}: for others, Chain(..., memory=...) has the same memory modes."
        )
    if any(type(layer) is not nn.Linear for layer in net.layers):
        raise ArgumentError(
            "'bijections' should have MLP conditioners of plain linear layers to be stacked, got "
            f"{', '.join(type(layer).__name__ for layer in net.layers)}."
        )
    found: dict[str, Any] = {
        "kind": KINDS[type(coupling)],
        "hidden": tuple(layer.out_features for layer in net.layers[:-1]),  # pyright: ignore[reportAttributeAccessIssue]
        "context_features": coupling.context_features,
        "residual": isinstance(net, MLP) and net.residual,
        "dropout": net.dropout if isinstance(net, MLP) else 0.0,
        "wiring": WIRINGS[type(net)],
    }
    if isinstance(coupling, AffineCoupling):
        found["scale_bound"] = coupling.scale_bound
        found["scale"] = coupling.scale
    return found


State = dict[str, Any]


def use_plain_names(stack: nn.Module) -> None:
    """Gives a stack the state dictionary of the plain chain.

    State dictionaries then hold `bijections.3.conditioner.layers.0.weight`, a slice of a stacked
    parameter whose own name is `blocks.0.networks.0.weights.0`.
    """
    stack.register_state_dict_post_hook(_give_plain)
    stack.register_load_state_dict_pre_hook(_take_plain)


def _stacked_names(prefix: str, number: int, block: "Block") -> list[str]:
    """Returns the parameter names of the tensors that `block.tensors()` returns."""
    names = []
    for i, network in enumerate(block.shape.networks):
        start = f"{prefix}blocks.{number}.networks.{i}"
        names += [f"{start}.weights.{layer}" for layer in range(len(network.outputs))]
        names.append(f"{start}.biases")
    return names


def _places(prefix: str, blocks: "Iterable[Block]") -> "Iterator[tuple[Block, int, str, Any]]":
    """Yields the block of each coupling, its row there, its name, and its permutation."""
    place = 0
    for block in blocks:
        for row, permutation in enumerate(block.permutations):
            before = None
            if permutation is not None:
                before = f"{prefix}bijections.{place}.index", torch.tensor(permutation)
                place += 1
            yield block, row, f"{prefix}bijections.{place}.conditioner.", before
            place += 1


def _give_plain(stack: Any, state: State, prefix: str, _: Any) -> None:  # noqa: ANN401
    rows: dict[nn.Module, list[dict[str, Tensor]]] = {}
    for number, block in enumerate(stack.blocks):
        rows[block] = block.rows([state.pop(n) for n in _stacked_names(prefix, number, block)])
    for block, row, name, permutation in _places(prefix, stack.blocks):
        if permutation is not None:
            state[permutation[0]] = permutation[1]
        state.update({name + key: tensor for key, tensor in rows[block][row].items()})


def _take_plain(
    stack: Any,  # noqa: ANN401
    state: State,
    prefix: str,
    _metadata: Any,  # noqa: ANN401
    _strict: bool,
    missing: list[str],
    _unexpected: list[str],
    errors: list[str],
) -> None:
    """Replaces plain tensors by stacked ones; missing ones keep their values."""
    tensors = {block: [t.detach().clone() for t in block.tensors()] for block in stack.blocks}
    rows = {block: block.rows(tensors[block]) for block in stack.blocks}
    for block, row, name, permutation in _places(prefix, stack.blocks):
        if permutation is not None:
            given = state.pop(permutation[0], None)
            if given is None:
                missing.append(permutation[0])
            elif not torch.equal(given.cpu(), permutation[1]):
                errors.append(f"{permutation[0]} differs from the permutation of this stack.")
        for key, own in rows[block][row].items():
            given = state.pop(name + key, None)
            if given is None:
                missing.append(name + key)
            elif given.shape != own.shape:
                errors.append(
                    f"size mismatch for {name + key}: {tuple(given.shape)} given, "
                    f"{tuple(own.shape)} in this stack."
                )
            else:
                own.copy_(given)
    for number, block in enumerate(stack.blocks):
        state.update(zip(_stacked_names(prefix, number, block), tensors[block], strict=True))
