"""`Labels`: the distribution of columns of labels and counts, each given those before it."""

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kappaflow.mixed.heads import Head, LabelHead

HIDDEN = 64
BATCH, PATIENCE = 256, 6
EPOCHS, LEAST_EPOCHS, STEPS = 60, 3, 4_000  # of a training: so many epochs, or about so many steps
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 1e-3
SLOWER = 0.2  # times the learning rate after the first time that patience ends


class Labels(nn.Module):
    r"""The probability of labels and counts, as a product: p(a) p(b | a) p(c | a, b) ...

    The first column has one distribution. Each other one has a small network that reads the
    columns before it; it starts as one distribution too.

    Args:
        heads: The form of the distribution of each column; a number stands for so many labels.

    Shape:
        Codes are integers (N, L): the number of a label, from 0; that of a count from
        `heads.OFFSET`.

    Example:
        >>> labels = Labels([2, 3])
        >>> codes = torch.tensor([[0, 0], [0, 1], [1, 2], [1, 2]])
        >>> labels.fit(codes, codes).log_prob(codes).shape
        torch.Size([4])
    """

    def __init__(self, heads: Sequence[int | Head]) -> None:
        super().__init__()
        every = [LabelHead(h, has_gaps=False) if isinstance(h, int) else h for h in heads]
        self.heads = nn.ModuleList(every)
        widths = [head.features for head in every]
        self.networks = nn.ModuleList(
            _network(1 + sum(widths[:number]), head.outputs) for number, head in enumerate(every)
        )
        self.features = sum(widths)

    @property
    def _columns(self) -> list[tuple[int, Head, nn.Module]]:
        heads = [head for head in self.heads if isinstance(head, Head)]
        return [(i, *pair) for i, pair in enumerate(zip(heads, self.networks, strict=True))]

    def read(self, codes: Tensor) -> Tensor:
        """Returns the columns as numbers, (N, features), in float32: labels as 0 and 1."""
        return self._read(codes)[:, 1:]

    def _read(self, codes: Tensor) -> Tensor:
        """Returns what a network reads of the first columns, and a 1 before them."""
        columns = zip(codes.T, self._columns, strict=False)
        parts = [head.read(column) for column, (_, head, _) in columns]
        return torch.cat([torch.ones(len(codes), 1), *parts], dim=1)

    def each_log_prob(self, codes: Tensor) -> Tensor:
        """Returns log p of each value given those of the columns before it, (N, L)."""
        parts = [
            head.log_prob(network(self._read(codes[:, :i])), codes[:, i])
            for i, head, network in self._columns
        ]
        return torch.stack([torch.zeros(len(codes)), *parts], dim=1)[:, 1:]

    def log_prob(self, codes: Tensor) -> Tensor:
        """Returns log p of all values of each row, (N,), in nats."""
        return self.each_log_prob(codes).sum(1)

    @torch.no_grad()
    def filled(self, codes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns rows whose codes of -1 are drawn given those before, and log weights (N,).

        The weight of a row is the probability of all its values over that of the draws: the
        product over the values that were not drawn. It is given that no value is missing.
        """
        codes, weights = codes.clone(), torch.zeros(len(codes))
        for i, head, network in self._columns:
            output, column = network(self._read(codes[:, :i])), codes[:, i]
            present = head.log_prob(output, column, complete=True)
            weights += torch.where(column < 0, 0.0, present)
            codes[:, i] = torch.where(column < 0, head.sample(output, generator), column)
        return codes, weights

    def fit(
        self,
        codes: Tensor,
        validation: Tensor,
        weights: Tensor | None = None,
        seed: int = 0,
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
                self._train(codes, validation, shares, generator)
        return self.eval()

    def _train(
        self,
        codes: Tensor,
        validation: Tensor,
        shares: Tensor,
        generator: torch.Generator,
    ) -> None:
        """Trains the networks, and keeps the weights of the best epoch."""
        optimizer = torch.optim.AdamW(
            self.networks.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY
        )
        best, kept, worse = self._mean(validation), copy.deepcopy(self.state_dict()), 0
        steps = -(-len(codes) // BATCH)
        for _ in range(min(EPOCHS, max(LEAST_EPOCHS, STEPS // steps))):
            for index in torch.randperm(len(codes), generator=generator).split(BATCH):
                optimizer.zero_grad()
                loss = -(self.log_prob(codes[index]) * shares[index]).mean()
                loss.backward()
                optimizer.step()
            value = self._mean(validation)
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
    def _mean(self, codes: Tensor) -> float:
        return self.log_prob(codes).mean().item() if len(codes) else -math.inf


def _network(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, outputs))


def _reset(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        layer.reset_parameters()
