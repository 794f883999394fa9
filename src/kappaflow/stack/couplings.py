"""`CouplingStack`: consecutive couplings of one shape that run fast and use little memory."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self, overload

import torch
from torch import Tensor, nn

from kappaflow._checks import batch, layer_widths, natural_int, one_of, positive_float, share
from kappaflow.autograd.checkpoint import MEMORY_MODES, call_eagerly, is_traced, is_transformed
from kappaflow.autograd.replay import has_autocast
from kappaflow.bijection import Bijection, Chain, Inverse, layer_at, zero_log_det
from kappaflow.bijections import Permutation
from kappaflow.bijections.coupling import check_something_to_read
from kappaflow.bijections.log_scales import SCALES
from kappaflow.errors import ArgumentError
from kappaflow.linearization import Linearization
from kappaflow.nets.exact_type import has_hooks
from kappaflow.partition import Partition
from kappaflow.registry import register
from kappaflow.stack.block import Block, run_block
from kappaflow.stack.block_pass import ExecutionMode
from kappaflow.stack.plain import check_permutations, coupling, settings_of
from kappaflow.stack.shape import Order, block_shape
from kappaflow.stack.weights import Weights

LARGEST_BLOCK = 32  # largest number of couplings in a block


@register("CouplingStack")
class CouplingStack(Bijection):
    """Consecutive couplings of one kind, with fully connected conditioners of one shape.

    It holds the layers of a `Chain` of `AffineCoupling` or `AdditiveCoupling` with `MLP`
    conditioners, computes the same function, and has the same parameters. As in a `Chain`,
    layers can be indexed, sliced, iterated, frozen and hooked. Every 32 couplings run as one
    autograd node, on weights that are side by side in memory. Higher derivatives, forward-mode
    AD, `torch.func`, and stacks with hooks or with a replaced part run layer by layer.

    Args:
        partitions: The partition of each coupling.
        hidden: Widths of the conditioners' hidden layers.
        kind: The kind of couplings, "affine" or "additive".
        scale_bound: Bound on the log-scale of each coupling.
        context_features: Width of the context; 0 for none.
        residual: Whether to add each hidden layer to the next one of equal width.
        dropout: Share of the conditioners' hidden units that a training step drops. Torch's seed
            and the number of threads decide which ones.
        memory: The memory mode of the backward pass. "recompute" stores the half that each
            coupling reads and runs its conditioner again. "store" stores everything. "invert"
            stores the points at every 32nd coupling and recovers the others by inversion. If a
            recovered point has a relative error above 1e-4, these 32 couplings use "recompute"
            from then on, and a warning names the layer.
        permutations: A permutation of the features before each coupling, z[:, i] =
            x[:, index[i]], or None for none.
        scale: The curve of the log-scales, as in `AffineCoupling`.
        wiring: The kind of conditioners: "plain" for an `MLP`, "blocks" for a `ResidualMLP`, or
            "paired" for a `PairedMLP`. The hidden layers of a `ResidualMLP` have one width: a
            first layer, and two layers for each block.

    Example:
        >>> half = Partition.half(4)
        >>> stack = CouplingStack([half, half.swapped()], (8,))
        >>> stack(torch.ones(3, 4))[1].detach()
        tensor([0., 0., 0.])
    """

    def __init__(
        self,
        partitions: Sequence[Partition],
        hidden: Sequence[int] = (128, 128),
        *,
        kind: str = "affine",
        scale_bound: float = 2.0,
        context_features: int = 0,
        residual: bool = False,
        dropout: float = 0.0,
        memory: str = "recompute",
        permutations: Sequence[Sequence[int] | None] | None = None,
        scale: str = "tanh",
        wiring: str = "plain",
    ) -> None:
        super().__init__()
        # Checked here because equal arguments share a shape, and (8.0,) equals (8,).
        hidden = layer_widths(hidden)
        dropout = share("dropout", dropout)
        _check_wiring(wiring, hidden, plainly=not residual and not dropout)
        self.partitions = _checked_partitions(partitions)
        self.permutations = _checked_permutations(permutations, self.partitions)
        self.kind = one_of("kind", kind, ("affine", "additive"))
        self.scale = one_of("scale", scale, SCALES)
        self.context_features = natural_int("context_features", context_features)
        self.memory = memory
        for partition in self.partitions:
            check_something_to_read(partition, self.context_features)
        positive_float("scale_bound", scale_bound)
        parts: list[Bijection] = []
        for partition, permutation in zip(self.partitions, self.permutations, strict=True):
            if permutation is not None:
                parts.append(Permutation(permutation))
            parts.append(
                coupling(
                    partition,
                    kind=kind,
                    hidden=hidden,
                    scale_bound=scale_bound,
                    context_features=self.context_features,
                    residual=bool(residual),
                    dropout=dropout,
                    scale=self.scale,
                    wiring=wiring,
                )
            )
        self.bijections = nn.ModuleList(parts)
        self._set_blocks()
        self.register_load_state_dict_pre_hook(check_permutations)

    @classmethod
    def of(cls, bijections: Iterable[Bijection], *, memory: str = "recompute") -> "CouplingStack":
        """Returns a stack that computes the same as plain couplings, with a copy of their weights.

        Args:
            bijections: A chain or a list of affine or of additive couplings, with optional
                permutations before them.
            memory: The memory mode of the backward pass.

        Returns:
            The stack, with the device and dtype of the couplings.

        Raises:
            ArgumentError: The couplings are not of one kind, or their conditioners are not MLPs or
                not of one shape.

        Example:
            >>> from kappaflow import AffineCoupling
            >>> from kappaflow.nets import MLP
            >>> half = Partition.half(2)
            >>> plain = [AffineCoupling(p, MLP(1, 2, (4,))) for p in (half, half.swapped())]
            >>> len(CouplingStack.of(plain))
            2
        """
        if isinstance(bijections, Chain) and bijections.embedding is not None:
            raise ArgumentError(
                "'bijections' should not have an embedding of the context to be stacked: pass its "
                "parts, list(chain), and put the stack in a chain with the embedding."
            )
        parts = list(bijections)
        if any(has_hooks(module) for part in parts for module in part.modules()):
            raise ArgumentError(
                "'bijections' should have no hooks to be stacked: register them on the layers of "
                "the stack."
            )
        stack = cls(**settings_of(parts), memory=memory)
        plain = Chain(parts)
        first = next(plain.parameters())
        stack.to(first.device, first.dtype).load_state_dict(plain.state_dict())
        theirs = dict(plain.named_parameters(remove_duplicate=False))
        for name, parameter in stack.named_parameters():
            parameter.requires_grad_(theirs[name].requires_grad)
        return stack.train(parts[0].training)

    def to_chain(self) -> Chain:
        """Returns a chain of plain couplings with a copy of the weights."""
        return Chain(copy.deepcopy(list(self)), memory=self.memory).train(self.training)

    @property
    def memory(self) -> str:
        """The memory mode of the backward pass."""
        return self._memory

    @memory.setter
    def memory(self, value: str) -> None:
        self._memory = one_of("memory", value, MEMORY_MODES)

    def __len__(self) -> int:
        return len(self.bijections)

    def __iter__(self) -> Iterator[Bijection]:
        return iter(self.bijections)  # pyright: ignore[reportReturnType]

    @overload
    def __getitem__(self, part: int) -> Bijection: ...

    @overload
    def __getitem__(self, part: slice) -> Chain: ...

    def __getitem__(self, part: int | slice) -> Bijection | Chain:
        if isinstance(part, slice):
            return Chain(list(self)[part], memory=self.memory)
        return layer_at(self, part)

    def plain(self) -> Chain:
        """Returns the readable definition: a chain of the stack's own layers."""
        return Chain(self)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, context = self._checked("x", x, context)
        if self._only_readable(x, context):
            return self.plain()(x, context)
        # Not compiled, because a compiler would split the blocks into more operations.
        return call_eagerly(self._through, x, context, 1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, context = self._checked("z", z, context)
        if self._only_readable(z, context):
            return self.plain().inverse(z, context)
        return call_eagerly(self._through, z, context, -1)

    def linearize(self, x: Tensor, context: Tensor | None = None) -> Linearization:
        x, context = self._checked("x", x, context)
        return self.plain().linearize(x, context)

    def _through(self, x: Tensor, context: Tensor | None, direction: int) -> tuple[Tensor, Tensor]:
        weights = self._weights(x)
        if not weights:
            return (self.plain() if direction > 0 else Inverse(self.plain()))(x, context)
        # One number per call, so that both directions drop the same units for the same seed.
        drops = self.training and self.blocks[0].shape.dropout > 0
        seed = int(torch.randint(2**62, ())) if drops else None
        mode = ExecutionMode(direction, self.memory, self._kind_of_products(x, direction), seed)
        log_det = zero_log_det(x)
        context = x.new_empty(len(x), 0) if context is None else context
        for block, own in list(zip(self.blocks, weights, strict=True))[::direction]:
            x, part = run_block(block, x, context, mode, own)
            log_det = log_det + part
        return x, log_det

    def _weights(self, x: Tensor) -> list[Weights]:
        """Returns the weights of each block; none if the layers have to run one by one."""
        weights: list[Weights] = []
        if self._is_rearranged():
            return weights
        for block in self.blocks:
            own = block.weights(x, training=self.training)
            if own is None:
                return []
            weights.append(own)
        return weights

    def _is_rearranged(self) -> bool:
        """Returns whether a layer was replaced, added or removed."""
        own = self._modules["bijections"]
        return own is None or list(own._modules.values()) != self._executed

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        for block in self.blocks:
            block.move_together()
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in vars(self).items()
            if name not in ("blocks", "_executed")
        }

    def _set_blocks(self) -> None:
        self.blocks = _blocks_of(list(self))
        self._executed = [layer for block in self.blocks for layer in block.layers]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._set_blocks()

    def _kind_of_products(self, x: Tensor, direction: int) -> torch.dtype:
        """Returns the dtype of the conditioners' products, narrow only in training with autocast.

        A rounding to bfloat16 can differ between the two directions; see `Coupling`.
        """
        device = x.device.type
        narrow = has_autocast(device) and x.dtype == torch.float32
        if narrow and direction > 0 and self.training and torch.is_grad_enabled():
            return torch.get_autocast_dtype(device)
        return x.dtype

    def _checked(
        self, name: str, x: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        batch(name, x, (self.partitions[0].features,))
        if not self.context_features:
            return x, None
        if context is None:
            raise ArgumentError(
                f"'context' should be given, of shape (batch, {self.context_features})."
            )
        batch("context", context, (self.context_features,))
        if context.shape[0] != x.shape[0]:  # slices of rows would not notice
            raise ArgumentError(
                f"'context' should have {len(x)} rows like '{name}', got {len(context)}."
            )
        return x, context

    def _only_readable(self, x: Tensor, context: Tensor | None) -> bool:
        """Returns whether these inputs need the plain couplings."""
        like = next(self.parameters())
        return (
            x.dtype not in {torch.float32, torch.float64}
            or any(
                t.dtype != x.dtype or t.device != x.device
                for t in (like, context)
                if t is not None
            )
            or x.is_meta
            or is_transformed()
            or is_traced(x)
        )

    def __repr__(self) -> str:
        edited = self._is_rearranged() or any(block.is_edited for block in self.blocks)
        return super().__repr__() if edited else f"{type(self).__name__}({self.extra_repr()})"

    def extra_repr(self) -> str:
        if not self.blocks:
            return f"memory={self.memory!r}"
        shape = self.blocks[0].shape
        network = shape.networks[0]
        parts = [
            f"{len(self.partitions)} {self.kind} couplings of {shape.features} features",
            f"hidden={network.widths[1:-1]}",
            f"memory={self.memory!r}",
        ]
        if shape.affine:
            parts.append(f"scale_bound={shape.scale_bound:.4g}")
        if network.wiring != "plain":
            parts.append(f"wiring={network.wiring!r}")
        if shape.affine and shape.scale != "tanh":
            parts.append(f"scale={shape.scale!r}")
        for name in ("context_features", "residual", "dropout"):
            if value := getattr(network, name):
                parts.append(f"{name}={value}")
        for block in self.blocks:
            if block.recomputing:
                layers = block.first + 1, block.first + block.shape.layers
                parts.append(f"recomputing layers {layers[0]}-{layers[1]}")
        return ", ".join(parts)


def _blocks_of(layers: Sequence[Bijection]) -> list[Block]:
    """Returns the blocks of layers; none if they are not couplings that a block can execute."""
    try:
        settings = settings_of(layers)
        partitions = _checked_partitions(settings.pop("partitions"))
    except ArgumentError:
        return []
    permutations = settings.pop("permutations") or (None,) * len(partitions)
    affine = settings.pop("kind") == "affine"
    ends = [i for i, layer in enumerate(layers, start=1) if not isinstance(layer, Permutation)]
    blocks, start = [], 0
    for first in range(0, len(partitions), LARGEST_BLOCK):
        part = slice(first, first + LARGEST_BLOCK)
        shape = block_shape(partitions[part], tuple(permutations[part]), affine=affine, **settings)
        end = ends[part][-1]
        blocks.append(Block(shape, layers[start:end], first))
        start = end
    return blocks


def _check_wiring(wiring: str, hidden: tuple[int, ...], *, plainly: bool) -> None:
    """Raises an error for hidden layers that a kind of conditioner cannot have."""
    one_of("wiring", wiring, ("plain", "blocks", "paired"))
    if wiring != "plain" and not plainly:
        raise ArgumentError(
            f"'residual' and 'dropout' should be left out for wiring={wiring!r}: only an MLP has "
            "them."
        )
    if wiring == "blocks" and (len(hidden) % 2 == 0 or len(set(hidden)) > 1):
        raise ArgumentError(
            "'hidden' should be an odd number of equal widths for wiring='blocks', got "
            f"{hidden}: a first layer, and two for each block."
        )
    if wiring == "paired" and any(width % 2 for width in hidden):
        raise ArgumentError(
            f"'hidden' should be even widths for wiring='paired', got {hidden}: each of the two "
            "networks has half."
        )


def _checked_partitions(partitions: Sequence[Partition]) -> tuple[Partition, ...]:
    if not isinstance(partitions, Iterable):
        raise ArgumentError(
            "'partitions' should be a sequence of partitions, one per coupling, "
            f"got {type(partitions).__name__}."
        )
    unique = tuple(partitions)
    for partition in unique:
        if not isinstance(partition, Partition):
            raise ArgumentError(
                f"'partitions' should hold partitions, got {type(partition).__name__}."
            )
        if partition.features != unique[0].features:
            raise ArgumentError(
                "'partitions' should all have the same number of features, got "
                f"{unique[0].features} and {partition.features}."
            )
    if not unique:
        raise ArgumentError("'partitions' should hold at least one partition, got none.")
    return unique


def _checked_permutations(
    permutations: Sequence[Sequence[int] | None] | None, partitions: tuple[Partition, ...]
) -> tuple[Order | None, ...]:
    if permutations is None:
        return (None,) * len(partitions)
    if not hasattr(permutations, "__len__"):
        raise ArgumentError(
            "'permutations' should be a sequence with one entry per coupling, "
            f"got {type(permutations).__name__}."
        )
    if len(permutations) != len(partitions):
        raise ArgumentError(
            f"'permutations' should have one entry for each of the {len(partitions)} couplings, "
            f"got {len(permutations)}."
        )
    orders: list[Order | None] = []
    for permutation in permutations:
        index = None if permutation is None else tuple(Permutation(permutation).index.tolist())
        if index is not None and len(index) != partitions[0].features:
            raise ArgumentError(
                f"'permutations' should have {partitions[0].features} features, got {len(index)}."
            )
        orders.append(index)
    return tuple(orders)
