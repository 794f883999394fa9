"""The readable definition of a block: plain couplings that read the stacked weights."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kappaflow.bijections import AdditiveCoupling, AffineCoupling
from kappaflow.nets import MLP, ResidualMLP, TwinMLP
from kappaflow.partition import Partition
from kappaflow.stack.shape import BlockShape, NetworkShape

Coupling = AffineCoupling | AdditiveCoupling
Network = MLP | ResidualMLP | TwinMLP


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
    if shape.has_twins:
        return TwinMLP(
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


def coupling(
    shape: BlockShape, partition: Partition, conditioner: Network, memory: str
) -> Coupling:
    """Returns a plain coupling."""
    context = shape.context_features
    if not shape.affine:
        return AdditiveCoupling(partition, conditioner, context_features=context, memory=memory)
    return AffineCoupling(
        partition,
        conditioner,
        scale_bound=shape.scale_bound,
        context_features=context,
        memory=memory,
        scale=shape.scale,
    )


def reading(conditioner: Network, tensors: dict[str, Tensor]) -> Network:
    """Returns the conditioner with tensors in place of its parameters, graph and all."""
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        module = conditioner.get_submodule(path)
        delattr(module, leaf)
        setattr(module, leaf, tensor)
    return conditioner


class _Undrawn(TorchFunctionMode):
    """Leaves new weights as they are: they are replaced, and `vmap` refuses to draw any."""

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
) -> Iterator[Coupling]:
    """Yields plain couplings whose weights are the given tensors."""
    for partition, number, tensors in zip(partitions, shape.network_of, rows, strict=True):
        with torch.device("meta"), _Undrawn():
            empty = network(shape.networks[number])
        yield coupling(shape, partition, reading(empty, tensors), "store")
