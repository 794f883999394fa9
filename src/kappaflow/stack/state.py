"""The state of a stack under the names that its couplings have in a plain chain."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from kappaflow.stack.block import Block

State = dict[str, Any]


def use_plain_names(stack: nn.Module) -> None:
    """Makes a module with `blocks` give and take the state of the plain chain.

    State dictionaries then hold `bijections.3.conditioner.layers.0.weight`, a slice of a stacked
    parameter whose own name is `blocks.0.networks.0.weights.0`.
    """
    stack.register_state_dict_post_hook(_give_plain)
    stack.register_load_state_dict_pre_hook(_take_plain)


def _stacked_names(prefix: str, number: int, block: Block) -> list[str]:
    """Returns the own names of what `block.tensors()` returns."""
    names = []
    for i, network in enumerate(block.shape.networks):
        start = f"{prefix}blocks.{number}.networks.{i}"
        names += [f"{start}.weights.{layer}" for layer in range(len(network.outputs))]
        names.append(f"{start}.biases")
    return names


def _places(prefix: str, blocks: Iterable[Block]) -> Iterator[tuple[Block, int, str, Any]]:
    """Yields the block of each coupling, its place there, its name, and its permutation's."""
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
    rows: dict[Block, list[dict[str, Tensor]]] = {}
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
    """Puts stacked tensors in place of plain ones; what is missing stays as it is."""
    tensors = {block: [t.detach().clone() for t in block.tensors()] for block in stack.blocks}
    rows = {block: block.rows(tensors[block]) for block in stack.blocks}
    for block, row, name, permutation in _places(prefix, stack.blocks):
        if permutation is not None:
            given = state.pop(permutation[0], None)
            if given is None:
                missing.append(permutation[0])
            elif not torch.equal(given.cpu(), permutation[1]):
                errors.append(f"{permutation[0]} is another permutation than that of this stack.")
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
