"""A block: at most 32 couplings, executed as one autograd node on stacked weights."""

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from operator import ne
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from kappaflow.autograd.fingerprints import LARGEST_ERROR, error_text, relative_error
from kappaflow.autograd.trace import differentiable_gradients
from kappaflow.bijection import Bijection, Chain, Inverse
from kappaflow.bijections.coupling import Coupling
from kappaflow.errors import ArgumentError, NumericalWarning
from kappaflow.nets.exact_type import is_exactly
from kappaflow.stack.block_pass import KEEP, POOL, BlockPass, ExecutionMode
from kappaflow.stack.shape import BlockShape
from kappaflow.stack.weights import (
    StackedTensor,
    Weights,
    grouped,
    separated,
    stacked_tensors,
    weights_of,
)

T = TypeVar("T", bound=Tensor)


class Watched:
    """Notices when layers no longer compute what a block executes."""

    def __init__(self, layers: Sequence[Bijection]) -> None:
        modules = [part for layer in layers for part in layer.modules()]
        self._kinds = [(part, type(part)) for part in modules]
        self._hooks = [
            hooks
            for part in modules
            for hooks in (part._forward_hooks, part._forward_pre_hooks)
            + (part._backward_hooks, part._backward_pre_hooks)
        ]
        self._attributes = [vars(part) for part in modules]
        self._children = [part._modules for part in modules]
        self._modes = [own for own in self._attributes if _READ.keys() & own.keys()]
        # Dictionaries with an entry that the layers read, by the name of the entry.
        self._entries: dict[str, list[dict[str, Any]]] = {}
        for part in modules:
            for owner, names in (
                (part._modules, part._modules),
                (part._buffers, part._buffers),
                (vars(part), _READ.keys() & vars(part).keys()),
            ):
                for name in names:
                    self._entries.setdefault(name, []).append(owner)
        self._values, self._numbers = self._current(), list(map(len, self._children))
        self._counts = list(map(len, self._attributes))

    def accept_buffers(self) -> None:
        """Accepts the present buffers, which a change of the device replaces."""
        for index, (name, owners) in enumerate(self._entries.items()):
            if name == "index":  # the one of a permutation
                self._values[index] = [owner[name] for owner in owners]

    def unchanged(self, *, training: bool) -> bool:
        """Returns whether the layers are the same, without hooks, and all in one mode."""
        modes = [own["training"] for own in self._modes]
        return not any(self._hooks) and modes.count(training) == len(modes) and not self.edited()

    def edited(self) -> bool:
        """Returns whether a part, an option or a method was replaced."""
        try:
            if self._current() != self._values:  # compares objects before their values
                return True
        except (KeyError, RuntimeError, ValueError):
            return True
        if list(map(len, self._children)) != self._numbers:
            return True
        if list(map(len, self._attributes)) != self._counts:
            if not all(is_exactly(part, kind) for part, kind in self._kinds):
                return True
            self._counts = list(map(len, self._attributes))  # by a name that no method reads
        return False

    def _current(self) -> list[list[Any]]:
        return [[owner[name] for owner in owners] for name, owners in self._entries.items()]


# What the methods of couplings and of their conditioners read.
_READ = dict.fromkeys(
    ("partition", "scale", "scale_bound", "context_features", "residual", "dropout")
    + ("activation", "_activate", "gates")
)


class Block:
    """Couplings, and the permutations before them, that run together on ordinary parameters.

    `first` is the number of couplings before this block. `recomputing` tells that memory mode
    "invert" stores states here, because they were not recovered accurately. `joined` are the
    stacked tensors if these receive the gradients, as in a step of `JointParameters`.
    """

    def __init__(self, shape: BlockShape, layers: Sequence[Bijection], first: int) -> None:
        self.shape, self.layers, self.first, self.recomputing = shape, tuple(layers), first, False
        self.joined: list[Tensor] | None = None
        self._couplings = [part for part in layers if isinstance(part, Coupling)]
        self._watched = Watched(layers)
        # The dictionaries of the parameters, and the name there, for each stacked tensor.
        self._owners = [
            (
                stacked.leaf,
                [
                    self._couplings[layer].conditioner.get_submodule(path)._parameters
                    for layer, path in stacked.parts
                ],
            )
            for stacked in stacked_tensors(shape)
        ]
        self.move_together()

    def weights(self, like: Tensor, *, training: bool) -> "Weights | None":
        """Returns the weights; None if a layer or a parameter is not what the block executes."""
        if not self._watched.unchanged(training=training):
            return None
        if self.joined is not None and self.joined[0].dtype == like.dtype:
            return Weights(self.joined, self.joined)
        try:
            parameters = self._parameters()
        except KeyError:  # a parametrization computes it
            return None
        if not set(map(type, parameters)) <= {nn.Parameter, Tensor}:
            return None
        weights = weights_of(self.shape, parameters)
        checked = parameters if weights.stacked is None else weights.stacked
        if any(tensor.dtype != like.dtype for tensor in checked):
            return None
        if weights.stacked is None:
            sizes = (size for entry in stacked_tensors(self.shape) for size in entry.sizes)
            if any(map(ne, (p.shape for p in parameters), sizes)):
                return None
        return weights

    def plain(self, parameters: Sequence[Tensor]) -> Chain:
        """Returns a chain of copies of the layers that read these tensors."""
        tensors = dict(zip(map(id, self._parameters()), parameters, strict=True))
        return copy.deepcopy(Chain(self.layers), tensors)

    def start(self, mode: ExecutionMode, x: Tensor) -> BlockPass:
        """Returns a pass for the batch x (B, features)."""
        seed = mode.seed if self.shape.dropout > 0 else None
        return BlockPass(
            self.shape,
            mode.direction,
            x,
            keep=KEEP[mode.memory],
            fingerprinted=mode.memory == "invert",
            product_dtype=mode.product_dtype,
            seed=None if seed is None else (seed + self.first) % 2**63,
        )

    @property
    def is_edited(self) -> bool:
        """Whether a part, an option or a method of a layer was replaced."""
        return self._watched.edited()

    def tensors(self) -> list[tuple[StackedTensor, Sequence[nn.Parameter]]]:
        """Returns the layout of each stacked tensor and its parameters; none if one is missing."""
        try:
            return self._grouped(self._parameters())
        except KeyError:  # a parametrization computes one
            return []

    def _grouped(self, tensors: Sequence[T]) -> list[tuple[StackedTensor, Sequence[T]]]:
        return list(zip(stacked_tensors(self.shape), grouped(self.shape, tensors), strict=True))

    def _parameters(self) -> list[nn.Parameter]:
        """Returns the parameters; other types may be among them if layers were changed."""
        named = self._owners
        return [owner[leaf] for leaf, owners in named for owner in owners]  # pyright: ignore[reportReturnType]

    @torch.no_grad()
    def move_together(self) -> None:
        """Moves the parameters of each stacked tensor side by side in memory, if they are not."""
        self._watched.accept_buffers()
        for stacked, parts in self.tensors():
            if any(type(p) is not nn.Parameter or p.is_inference() or p.is_meta for p in parts):
                continue
            first, sizes = parts[0], tuple(p.shape for p in parts)
            alike = len({(p.dtype, p.device) for p in parts}) == 1 and sizes == stacked.sizes
            if not alike or stacked.view_of(parts) is not None:
                continue
            memory = first.new_empty(stacked.size)
            for part, parameter in zip(stacked.split(memory), parts, strict=True):
                part.copy_(parameter)
                parameter.data = part


@contextmanager
def stacked(shape: BlockShape, weights: Weights) -> Iterator[list[Tensor]]:
    """Yields the stacked tensors of weights, in their own memory or in that of the pool."""
    if weights.stacked is not None:
        yield list(weights.stacked)
        return
    first, layout = weights.parameters[0].detach(), stacked_tensors(shape)
    # A tape is recorded for the memory that it reads, so copies need lasting memory.
    key = "weights", shape, first.dtype, first.device
    with torch.inference_mode(False):  # threads outside inference mode read these tensors
        tensors = POOL.take(key, 0, lambda: [first.new_empty(entry.size) for entry in layout])
    parts = grouped(shape, [parameter.detach() for parameter in weights.parameters])
    for tensor, own in zip(tensors, parts, strict=True):
        torch.cat([part.reshape(-1) for part in own], out=tensor.view(-1))
    yield tensors
    POOL.give(key, 0, tensors)


Gradients = tuple[Tensor, Tensor, list[Tensor]]


def run_block(
    block: Block, x: Tensor, context: Tensor, mode: ExecutionMode, weights: Weights
) -> tuple[Tensor, Tensor]:
    """Returns the output (B, features) and the log_det (B,) of a block at x (B, features)."""
    parameters = weights.parameters
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, context, *parameters)):
        if mode.memory == "invert" and block.recomputing:
            mode = replace(mode, memory="recompute")
        return BlockNode.apply(block, mode, weights, x, context, *parameters)  # pyright: ignore[reportReturnType]
    with stacked(block.shape, weights) as tensors:
        return block.start(replace(mode, memory="score"), x).forward(x, context, tensors)


class BlockNode(torch.autograd.Function):
    """A block as one autograd node."""

    @staticmethod
    def forward(
        ctx: Any,
        block: Block,
        mode: ExecutionMode,
        weights: Weights,
        x: Tensor,
        context: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.block, ctx.mode, ctx.joined = block, mode, weights.joined
        ctx.block_pass = block.start(mode, x)
        with stacked(block.shape, Weights(parameters, weights.stacked)) as tensors:
            z, log_det = ctx.block_pass.forward(x, context, tensors)
        ctx.save_for_backward(x, context, z if mode.memory == "invert" else None, *parameters)
        return z, log_det

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        gradients = cotangents[0], cotangents[1]
        x, context, z, *parameters = ctx.saved_tensors
        needed = ctx.needs_input_grad[3:]
        if torch.is_grad_enabled():
            computed = _differentiable(ctx, x, context, parameters, gradients)
            return None, None, None, *computed
        shape, computed = ctx.block.shape, None
        # The memory may be other than in the forward pass, as with `fully_shard`.
        own = Weights(parameters, parameters) if ctx.joined else weights_of(shape, parameters)
        with stacked(shape, own) as tensors:
            if ctx.mode.memory == "invert" and not ctx.block.recomputing and len(x):
                computed = _from_output(
                    ctx.block, ctx.block_pass, x, z, context, tensors, gradients
                )
            if computed is None:
                computed = _from_states(ctx.block_pass, x, context, tensors, gradients)
        of_x, of_context, of_tensors = computed
        computed = [
            of_x,
            of_context,
            *(of_tensors if ctx.joined else separated(shape, of_tensors)),
        ]
        if not all(needed):
            computed = [g if need else None for g, need in zip(computed, needed, strict=True)]
        return None, None, None, *computed


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
    computed = block_pass.backward(gradients, context, tensors, (z, recovered))
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
    return computed


def _too_large(block: Block, layer: int, error: float, direction: int) -> str:
    first, last = block.first + 1, block.first + block.shape.layers
    name = f"{first + layer} {'Affine' if block.shape.affine else 'Additive'}Coupling"
    return error_text(name, error, first, last, inverse=direction < 0)


def _differentiable(
    ctx: Any, x: Tensor, context: Tensor, parameters: Sequence[Tensor], gradients: Sequence[Tensor]
) -> list[Tensor | None]:
    """Returns gradients with a graph, from the plain couplings."""
    if ctx.block_pass.drops:
        raise ArgumentError(
            "couplings with dropout have no second derivatives in training mode: call "
            "flow.eval(), or build the flow with dropout=0."
        )

    def function(x: Tensor, context: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        parts = separated(ctx.block.shape, parameters) if ctx.joined else parameters
        plain = ctx.block.plain(parts).eval()  # without dropout, as in the forward pass
        return (plain if ctx.mode.direction > 0 else Inverse(plain))(x, context)

    return differentiable_gradients(function, (x, context, *parameters), gradients)
