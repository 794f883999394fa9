"""The parameters of a module as few tensors, for optimizers.

A step over the stacked tensors of a `CouplingStack` takes less than half the time of a step over
its parameters, and results in the same numbers.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kappaflow.errors import ArgumentError
from kappaflow.stack.block import Block
from kappaflow.stack.couplings import CouplingStack
from kappaflow.stack.weights import StackedTensor, stacked_tensors


@dataclass
class _Joint:
    """A stacked tensor that shares its memory with parameters; its `grad` receives theirs."""

    layout: StackedTensor
    block: Block
    parameters: Sequence[nn.Parameter]
    tensor: Tensor

    def follow(self) -> None:
        """Uses the memory that the parameters have now."""
        if self.layout.view_of(self.parameters) is None:
            self.block.move_together()
        view = self.layout.view_of(self.parameters)
        if view is None:
            raise ArgumentError(
                "the parameters of a CouplingStack were replaced during training: change them in "
                "place, as parameter.copy_(values) does under torch.no_grad()."
            )
        self.tensor.data = view

    @property
    def can_join(self) -> bool:
        """Whether nobody sees if the tensor receives the gradients instead of the parameters."""
        return all(
            p.requires_grad and not p._backward_hooks and not p._post_accumulate_grad_hooks
            for p in self.parameters
        )

    def gather(self) -> None:
        """Adds the gradients of the parameters to that of the tensor; missing ones are zero."""
        gradients = [parameter.grad for parameter in self.parameters]
        if all(gradient is None for gradient in gradients):
            return
        pairs = zip(self.parameters, gradients, strict=True)
        filled = [torch.zeros_like(p) if g is None else g for p, g in pairs]
        stacked = self.layout.view_of(filled)
        if stacked is None:
            stacked = torch.cat([g.reshape(-1) for g in filled]).view(self.layout.size)
        self.tensor.grad = stacked if self.tensor.grad is None else self.tensor.grad + stacked
        for parameter in self.parameters:
            parameter.grad = None

    def scatter(self) -> None:
        """Sets the gradients of the parameters to the parts of that of the tensor."""
        if self.tensor.grad is not None:
            parts = self.layout.split(self.tensor.grad)
            for parameter, part in zip(self.parameters, parts, strict=True):
                parameter.grad = part


class JointParameters:
    """The parameters of a module; those of a stack are joined to its stacked tensors.

    Parameters of a stacked tensor that are partly frozen are not joined.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._joint: list[_Joint] = []
        self.tensors: dict[str, Tensor] = {}
        known: set[Tensor] = set()
        self._stacks: set[CouplingStack] = set()
        for name, tensor in self._named(module, ""):
            if tensor not in known:
                known.add(tensor)
                self.tensors[name] = tensor

    def follow(self) -> None:
        """Uses the memory that the parameters have now."""
        for joint in self._joint:
            joint.follow()

    @contextmanager
    def joined(self) -> Iterator[None]:
        """A context in which stacked tensors receive the gradients instead of the parameters.

        Autograd then handles few tensors. Blocks with a frozen parameter or a parameter with a
        hook stay as they are.
        """
        by_block: dict[Block, list[_Joint]] = {}
        for joint in self._joint:
            by_block.setdefault(joint.block, []).append(joint)
        blocks = []
        for block, joints in by_block.items():
            own = {joint.layout: joint.tensor.requires_grad_() for joint in joints}
            layouts = stacked_tensors(block.shape)
            if len(own) == len(layouts) and all(joint.can_join for joint in joints):
                block.joined = [own[layout] for layout in layouts]
                blocks.append(block)
        try:
            yield
        finally:
            for block in blocks:
                block.joined = None

    def scatter_gradients(self) -> None:
        """Sets the gradients of the parameters to the parts of those of the tensors."""
        for joint in self._joint:
            joint.scatter()

    def gather_gradients(self) -> None:
        """Sets the gradients of the tensors to those of the parameters."""
        for joint in self._joint:
            joint.gather()

    def zero_grad(self) -> None:
        """Uses the memory that the parameters have now, and sets all gradients to None."""
        self.follow()
        for joint in self._joint:
            joint.tensor.grad = None
            for parameter in joint.parameters:
                parameter.grad = None
        for tensor in self.tensors.values():
            tensor.grad = None

    def _named(self, module: nn.Module, prefix: str) -> Iterator[tuple[str, Tensor]]:
        if isinstance(module, CouplingStack):
            if module not in self._stacks:  # a stack may be in several places
                self._stacks.add(module)
                yield from self._stacked(module, prefix)
            return
        for name, parameter in module._parameters.items():
            if parameter is not None:
                yield prefix + name, parameter
        for name, child in module._modules.items():
            if child is not None:
                yield from self._named(child, f"{prefix}{name}.")

    def _stacked(self, stack: CouplingStack, prefix: str) -> Iterator[tuple[str, Tensor]]:
        names = {parameter: name for name, parameter in stack.named_parameters()}
        joined: set[nn.Parameter] = set()
        for number, block in enumerate(stack.blocks):
            for layout, parameters in _biases_first(block):
                if not set(parameters) <= names.keys():  # a layer was replaced
                    continue
                view = layout.view_of(parameters)
                trained = {parameter.requires_grad for parameter in parameters}
                if view is None or len(trained) > 1:
                    continue
                joined.update(parameters)
                self._joint.append(_Joint(layout, block, parameters, view))
                yield f"{prefix}blocks.{number}.{layout.name}", view
        for parameter, name in names.items():
            if parameter not in joined:
                yield prefix + name, parameter


def _biases_first(block: Block) -> Iterator[tuple[StackedTensor, Sequence[nn.Parameter]]]:
    """Yields the stacked tensors of a block in the order in which checkpoints number them."""
    weights = []
    for layout, parameters in block.tensors():
        if len(layout.size) == 3:
            weights.append((layout, parameters))
        else:
            yield layout, parameters
            yield from weights
            weights = []
