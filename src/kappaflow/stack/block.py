"""A block: at most 32 couplings with stacked weights, executed as one autograd node."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kappaflow.autograd.fingerprints import LARGEST_ERROR, error_text, relative_error
from kappaflow.bijection import Bijection, Chain, Inverse
from kappaflow.bijections import Permutation
from kappaflow.errors import ArgumentError, NumericalWarning
from kappaflow.partition import Partition
from kappaflow.stack.block_pass import KEEP, BlockPass, ExecutionMode
from kappaflow.stack.plain import couplings
from kappaflow.stack.shape import BlockShape, NetworkShape, Order
from kappaflow.stack.weights import StackedNetworks, layer_rows


class Block(nn.Module):
    """Couplings with stacked weights.

    Args:
        shape: Shape of the couplings.
        partitions: The partition of each coupling.
        permutations: The permutation before each coupling, or None.
        first: Number of couplings of the stack before this block.

    Attributes:
        recomputing: Whether this block recomputes in memory mode "invert", because states were
            not recovered accurately from the output.
    """

    def __init__(
        self,
        shape: BlockShape,
        partitions: Sequence[Partition],
        permutations: Sequence[Order | None],
        first: int,
    ) -> None:
        super().__init__()
        self.shape, self.first, self.recomputing = shape, first, False
        self.partitions, self.permutations = tuple(partitions), tuple(permutations)
        self.networks = nn.ModuleList(
            StackedNetworks(shape.network_of.count(i), network)
            for i, network in enumerate(shape.networks)
        )

    def tensors(self) -> list[Tensor]:
        """Returns the weights and the biases of each network."""
        return [tensor for network in self._stacked() for tensor in network.tensors()]

    def start_from(self, make: Callable[[NetworkShape], nn.Module]) -> None:
        """Copies the initial weights of new conditioners, made in the order of the couplings."""
        for number, row in zip(self.shape.network_of, self.shape.row_of, strict=True):
            self._stacked()[number].take(row, make(self.shape.networks[number]))

    def rows(self, tensors: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Returns the weights of each coupling, slices of `tensors`, by their plain names."""
        return layer_rows(self.shape, tensors)

    def plain(self, tensors: Sequence[Tensor] | None = None) -> list[Bijection]:
        """Returns permutations and plain couplings that read these stacked tensors."""
        rows = self.rows(self.tensors() if tensors is None else tensors)
        parts: list[Bijection] = []
        made = couplings(self.shape, self.partitions, rows)
        for permutation, coupling in zip(self.permutations, made, strict=True):
            if permutation is not None:
                device = rows[0]["layers.0.weight"].device
                parts.append(Permutation(permutation).to(device, non_blocking=True))
            parts.append(coupling.train(self.training))
        return parts

    def start(self, mode: ExecutionMode, x: Tensor) -> BlockPass:
        """Returns a pass for the batch x (B, features)."""
        seed = mode.seed if self.training and self.shape.dropout > 0 else None
        return BlockPass(
            self.shape,
            mode.direction,
            x,
            keep=KEEP[mode.memory],
            fingerprinted=mode.memory == "invert",
            product_dtype=mode.product_dtype,
            seed=None if seed is None else (seed + self.first) % 2**63,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state for copies and pickles, without `recomputing`."""
        return {**self.__dict__, "recomputing": False}

    def layer_names(self) -> list[str]:
        """Returns the names of the couplings: number in the stack, from 1, and class."""
        name = "AffineCoupling" if self.shape.affine else "AdditiveCoupling"
        return [f"{self.first + i} {name}" for i in range(1, self.shape.layers + 1)]

    def _stacked(self) -> list[StackedNetworks]:
        return list(self.networks)  # pyright: ignore[reportReturnType]

    def extra_repr(self) -> str:
        layers = f"layers {self.first + 1} to {self.first + self.shape.layers}"
        return layers + (", recomputing" if self.recomputing else "")


Gradients = tuple[Tensor, Tensor, list[Tensor]]


def run_block(
    block: Block, x: Tensor, context: Tensor, mode: ExecutionMode
) -> tuple[Tensor, Tensor]:
    """Returns the output (B, features) and the log_det (B,) of a block at x (B, features).

    Args:
        block: The couplings.
        x: The batch, (B, features).
        context: Context rows, (B, C), where C = 0 for none.
        mode: Direction, memory mode, product dtype and dropout seed.

    Returns:
        The output and the log_det, with a graph if gradients are enabled.
    """
    tensors = block.tensors()
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, context, *tensors)):
        if mode.memory == "invert" and block.recomputing:
            mode = replace(mode, memory="recompute")
        return _Node.apply(block, mode, x, context, *tensors)  # pyright: ignore[reportReturnType]
    return block.start(replace(mode, memory="score"), x).forward(x, context, tensors)


class _Node(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        block: Block,
        mode: ExecutionMode,
        x: Tensor,
        context: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.block, ctx.mode = block, mode
        ctx.block_pass = block.start(mode, x)
        z, log_det = ctx.block_pass.forward(x, context, tensors)
        ctx.save_for_backward(x, context, z if mode.memory == "invert" else None, *tensors)
        return z, log_det

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:  # noqa: ANN401
        gradients = cotangents[0], cotangents[1]
        x, context, z, *tensors = ctx.saved_tensors
        needed = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            return None, None, *_differentiable(ctx, x, context, tensors, gradients, needed)
        found = None
        if ctx.mode.memory == "invert" and not ctx.block.recomputing and len(x):
            found = _from_output(ctx.block, ctx.block_pass, x, z, context, tensors, gradients)
        if found is None:
            found = _from_states(ctx.block_pass, x, context, tensors, gradients)
        of_x, of_context, of_tensors = found
        given = zip((of_x, of_context, *of_tensors), needed, strict=True)
        return None, None, *(gradient if need else None for gradient, need in given)


def _from_states(
    block_pass: BlockPass,
    x: Tensor,
    context: Tensor,
    tensors: Sequence[Tensor],
    gradients: tuple[Tensor, Tensor],
) -> Gradients:
    """Returns gradients from the saved states, which are recomputed from x if missing."""
    if block_pass.keep == "nothing" or not block_pass.ready:
        block_pass = block_pass.again("states")
        block_pass.forward(x, context, tensors)
    return block_pass.backward(gradients, context, tensors)


def _from_output(
    block: Block,
    block_pass: BlockPass,
    x: Tensor,
    z: Tensor,
    context: Tensor,
    tensors: Sequence[Tensor],
    gradients: tuple[Tensor, Tensor],
) -> Gradients | None:
    """Returns gradients from states recomputed from z; None if those are inaccurate."""
    recovered = x.new_empty(x.shape)
    found = block_pass.backward(gradients, context, tensors, (z, recovered))
    errors = block_pass.errors()
    last = next(reversed(errors))
    error = float(relative_error(recovered, x))
    if not error <= errors[last]:  # true for NaN too
        errors[last] = error
    for layer, error in errors.items():
        if not error <= LARGEST_ERROR:  # true for NaN too
            if not torch.isfinite(z).all():
                return None  # an output that is not finite says nothing about the block
            block.recomputing = True
            text = _too_large(block, layer, error, block_pass.direction)
            warnings.warn(text, NumericalWarning, stacklevel=2)
            return None
    return found


def _too_large(block: Block, layer: int, error: float, direction: int) -> str:
    names = block.layer_names()
    first = block.first + 1
    return error_text(names[layer], error, first, block.first + len(names), inverse=direction < 0)


def _differentiable(
    ctx: Any,  # noqa: ANN401
    x: Tensor,
    context: Tensor,
    tensors: Sequence[Tensor],
    gradients: Sequence[Tensor],
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """Returns gradients with a graph, from the plain couplings."""
    if ctx.block_pass.drops:
        raise ArgumentError(
            "couplings with dropout have no second derivatives in training mode: call "
            "flow.eval(), or build the flow with dropout=0."
        )
    inputs = [x, context, *tensors]
    targets = [t for t, w in zip(inputs, needed, strict=True) if w]
    plain = Chain(ctx.block.plain(tensors)).eval()  # without dropout, as in the forward pass
    values = (plain if ctx.mode.direction > 0 else Inverse(plain))(x, context)
    pairs = [(v, g) for v, g in zip(values, gradients, strict=True) if v.requires_grad]
    made, theirs = zip(*pairs, strict=True)  # the log_det of additive couplings is a constant
    found = iter(torch.autograd.grad(made, targets, theirs, create_graph=True, allow_unused=True))
    return [next(found) if w else None for w in needed]
