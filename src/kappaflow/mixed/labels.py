"""`Labels`: the distribution of columns of labels and counts, each given those before it."""

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kappaflow.mixed.heads import Head, LabelHead
from kappaflow.mixed.noise import Noise, uniform

HIDDEN = 64
BATCH, PATIENCE = 256, 6
EPOCHS, LEAST_EPOCHS, STEPS = 60, 3, 4_000  # of a training: so many epochs, or about so many steps
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 1e-3
SLOWER = 0.2  # times the learning rate after the first time that patience ends


class Labels(nn.Module):
    r"""The probability of labels and counts, as a product: p(a) p(b | a) p(c | a, b) ...

    Each column has a small network that reads the context and the columns before it. It starts as
    one distribution, and that of the first column stays one without a context.

    Args:
        heads: The form of the distribution of each column; a number stands for so many labels.
        context: Number of columns that all networks read, C.

    Shape:
        Codes are integers (N, L): the number of a label, from 0; that of a count from
        `heads.OFFSET`. The context is (N, C); it can be left out if C is 0.

    Example:
        >>> labels = Labels([2, 3])
        >>> codes = torch.tensor([[0, 0], [0, 1], [1, 2], [1, 2]])
        >>> labels.fit(codes, codes).log_prob(codes).shape
        torch.Size([4])
    """

    def __init__(self, heads: Sequence[int | Head], context: int = 0) -> None:
        super().__init__()
        every = [LabelHead(h, has_gaps=False) if isinstance(h, int) else h for h in heads]
        self.heads = nn.ModuleList(every)
        widths = [head.features for head in every]
        self.networks = nn.ModuleList(
            _network(1 + context + sum(widths[:number]), head.outputs)
            for number, head in enumerate(every)
        )
        self.features = context + sum(widths)

    @property
    def _columns(self) -> list[tuple[int, Head, nn.Module]]:
        heads = [head for head in self.heads if isinstance(head, Head)]
        return [(i, *pair) for i, pair in enumerate(zip(heads, self.networks, strict=True))]

    def read(self, codes: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns context and columns as numbers, (N, features), in float32: labels as 0 and 1."""
        return self._read(codes, context)[:, 1:]

    def _read(self, codes: Tensor, context: Tensor | None) -> Tensor:
        """Returns what a network reads of context and first columns, and a 1 before them."""
        columns = zip(codes.T, self._columns, strict=False)
        parts = [head.read(column) for column, (_, head, _) in columns]
        parts = parts if context is None else [context.float(), *parts]
        return torch.cat([torch.ones(len(codes), 1), *parts], dim=1)

    def each_log_prob(self, codes: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns log p of each value given those of the columns before it, (N, L)."""
        parts = [
            head.log_prob(network(self._read(codes[:, :i], context)), codes[:, i])
            for i, head, network in self._columns
        ]
        return torch.stack([torch.zeros(len(codes)), *parts], dim=1)[:, 1:]

    def log_prob(self, codes: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns log p of all values of each row, (N,), in nats."""
        return self.each_log_prob(codes, context).sum(1)

    @torch.no_grad()
    def filled(
        self, codes: Tensor, noise: Noise, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns rows whose codes of -1 are drawn given those before, and log weights (N,).

        The weight of a row is the probability of all its values over that of the draws: the
        product over the values that were not drawn. It is given that no value is missing.
        """
        codes, weights = codes.clone(), torch.zeros(len(codes))
        for i, head, network in self._columns:
            output, column = network(self._read(codes[:, :i], context)), codes[:, i]
            present = head.log_prob(output, column, complete=True)
            weights += torch.where(column < 0, 0.0, present)
            levels = uniform(noise, f"label {i}", torch.arange(len(codes)), 2)
            codes[:, i] = torch.where(column < 0, head.sample(output, levels), column)
        return codes, weights

    def fit(
        self,
        codes: Tensor,
        validation: Tensor,
        weights: Tensor | None = None,
        seed: int = 0,
        contexts: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> "Labels":
        """Returns the distribution, fitted to rows; validation rows decide when to stop."""
        generator = torch.Generator().manual_seed(seed)
        shares = torch.ones(len(codes)) if weights is None else (weights / weights.mean()).float()
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(seed)
            for i, head, network in self._columns:
                network.get_submodule("0").apply(_reset)
                nn.init.zeros_(network.get_parameter("2.weight"))
                with torch.no_grad():
                    network.get_parameter("2.bias").copy_(head.fit(codes[:, i], shares))
            if self.networks:
                self._train((codes, contexts[0]), (validation, contexts[1]), shares, generator)
        return self.eval()

    def _train(
        self,
        rows: tuple[Tensor, Tensor | None],
        validation: tuple[Tensor, Tensor | None],
        shares: Tensor,
        generator: torch.Generator,
    ) -> None:
        """Trains the networks, and keeps the weights of the best epoch."""
        codes, context = rows
        optimizer = torch.optim.AdamW(
            self.networks.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY
        )
        best, kept, worse = self._mean(*validation), copy.deepcopy(self.state_dict()), 0
        steps = -(-len(codes) // BATCH)
        for _ in range(min(EPOCHS, max(LEAST_EPOCHS, STEPS // steps))):
            for index in torch.randperm(len(codes), generator=generator).split(BATCH):
                optimizer.zero_grad()
                conditions = None if context is None else context[index]
                loss = -(self.log_prob(codes[index], conditions) * shares[index]).mean()
                loss.backward()
                optimizer.step()
            value = self._mean(*validation)
            worse = 0 if value > best else worse + 1
            if value > best:
                best, kept = value, copy.deepcopy(self.state_dict())
            if worse < PATIENCE:
                continue
            if optimizer.param_groups[0]["lr"] < LEARNING_RATE:
                break
            self.load_state_dict(kept)
            optimizer.param_groups[0]["lr"], worse = SLOWER * LEARNING_RATE, 0
        self.load_state_dict(kept)

    @torch.no_grad()
    def _mean(self, codes: Tensor, context: Tensor | None) -> float:
        return self.log_prob(codes, context).mean().item() if len(codes) else -math.inf


def _network(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, outputs))


def _reset(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        layer.reset_parameters()
