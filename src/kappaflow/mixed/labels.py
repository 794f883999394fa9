"""`Labels`: the distribution of columns of labels, each given those before it."""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

HIDDEN = 64
BATCH, EPOCHS, PATIENCE = 256, 60, 6
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 1e-3
PSEUDO_COUNT = 0.5  # rows added to each label, so that a rare one has a finite score


class Labels(nn.Module):
    r"""The probability of labels, as a product over columns: p(a) p(b | a) p(c | a, b) ...

    The first column has the frequencies of its labels. Each other one has a small network that
    reads the columns before it; it starts as the frequencies too.

    Args:
        counts: The number of labels of each column, 1 or more.

    Shape:
        Codes are integers (N, L) from 0 to the number of labels - 1.

    Example:
        >>> labels = Labels([2, 3])
        >>> codes = torch.tensor([[0, 0], [0, 1], [1, 2], [1, 2]])
        >>> labels.fit(codes, codes).log_prob(codes).shape
        torch.Size([4])
    """

    def __init__(self, counts: list[int]) -> None:
        super().__init__()
        self.counts = list(counts)
        self.networks = nn.ModuleList(
            _network(1 + sum(counts[:number]), count) for number, count in enumerate(counts)
        )

    def one_hot(self, codes: Tensor) -> Tensor:
        """Returns 0 and 1 for each label of each column, (N, sum of counts), in float32."""
        return self._read(codes)[:, 1:]

    def _read(self, codes: Tensor) -> Tensor:
        """Returns what a network reads of the first columns of labels, and a 1 before them."""
        parts = [
            functional.one_hot(column, count)
            for column, count in zip(codes.T, self.counts, strict=False)
        ]
        return torch.cat([codes.new_ones(len(codes), 1), *parts], dim=1).float()

    def each_log_prob(self, codes: Tensor) -> Tensor:
        """Returns log p of each label given those of the columns before it, (N, L)."""
        parts = [
            network(self._read(codes[:, :number])).log_softmax(1).gather(1, codes[:, [number]])
            for number, network in enumerate(self.networks)
        ]
        return torch.cat([torch.zeros(len(codes), 0), *parts], dim=1)

    def log_prob(self, codes: Tensor) -> Tensor:
        """Returns log p of all labels of each row, (N,), in nats."""
        return self.each_log_prob(codes).sum(1)

    @torch.no_grad()
    def filled(
        self, codes: Tensor, possible: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Returns rows whose labels of -1 are drawn given those before, and log weights (N,).

        The weight of a row is the probability of all its labels over that of the draws: the
        product over the labels that were there. Labels that are not `possible`, (sum of counts,),
        have probability 0.
        """
        codes, weights, start = codes.clone(), torch.zeros(len(codes)), 0
        for number, (network, count) in enumerate(zip(self.networks, self.counts, strict=True)):
            logits = network(self._read(codes[:, :number]))
            logits = logits.masked_fill(~possible[start : start + count], -math.inf)
            log_p, column = logits.log_softmax(1), codes[:, number]
            drawn = torch.multinomial(log_p.exp(), 1, generator=generator)[:, 0]
            present = log_p.gather(1, column.clamp(min=0)[:, None])[:, 0]
            weights += torch.where(column < 0, 0.0, present)
            codes[:, number] = torch.where(column < 0, drawn, column)
            start += count
        return codes, weights

    def fit(
        self, codes: Tensor, validation: Tensor, weights: Tensor | None = None, seed: int = 0
    ) -> "Labels":
        """Returns the distribution, fitted to rows; validation rows decide when to stop."""
        generator = torch.Generator().manual_seed(seed)
        shares = torch.ones(len(codes)) if weights is None else (weights / weights.mean()).float()
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(seed)
            self._start(codes, shares)
            if len(self.counts) > 1:
                self._train(codes, validation, shares, generator)
        return self.eval()

    def _start(self, codes: Tensor, shares: Tensor) -> None:
        """Sets the probability of each label to its frequency, whatever the columns before are."""
        for network, column, count in zip(self.networks, codes.T, self.counts, strict=True):
            totals = torch.bincount(column, shares.double(), count).float() + PSEUDO_COUNT
            nn.init.zeros_(network.get_parameter("2.weight"))
            with torch.no_grad():
                network.get_parameter("2.bias").copy_(totals.log() - totals.sum().log())

    def _train(
        self, codes: Tensor, validation: Tensor, shares: Tensor, generator: torch.Generator
    ) -> None:
        """Trains the networks, and keeps the weights of the best epoch."""
        networks = [
            parameter for network in self.networks[1:] for parameter in network.parameters()
        ]
        optimizer = torch.optim.AdamW(networks, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        best, kept, worse = self._mean(validation), copy.deepcopy(self.state_dict()), 0
        for _ in range(EPOCHS):
            for index in torch.randperm(len(codes), generator=generator).split(BATCH):
                optimizer.zero_grad()
                loss = -(self.log_prob(codes[index]) * shares[index]).mean()
                loss.backward()
                optimizer.step()
            value = self._mean(validation)
            worse = 0 if value > best else worse + 1
            if value > best:
                best, kept = value, copy.deepcopy(self.state_dict())
            if worse >= PATIENCE:
                break
        self.load_state_dict(kept)

    @torch.no_grad()
    def _mean(self, codes: Tensor) -> float:
        return self.log_prob(codes).mean().item() if len(codes) else -math.inf


def _network(inputs: int, count: int) -> nn.Sequential:
    """Returns the logits of a column: one hidden layer, which reads a 1 and the labels before."""
    return nn.Sequential(nn.Linear(inputs, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, count))
