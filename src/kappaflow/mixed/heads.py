"""Distributions of one column of codes, given the output of a network: labels, or counts."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, one_hot, softplus

from kappaflow.mixed.curves import KNOTS, interpolated, knots_of, normal_scores

PSEUDO_COUNT = 0.5  # rows added to each label, so that a rare one has a finite score
COMPONENTS = 6  # of the mixture of a count
FIRST_SCALE, LEAST_SCALE = 0.3, 1e-3  # of its components, on normal scores
OFFSET = 2**20  # code of the least count among the fitted rows
MISSING = -1  # code of a value that is not there


class Head(nn.Module, ABC):
    """The distribution of a column of codes (N,), given the output (N, outputs) of a network.

    `features` is the number of columns that represent a code for other networks.
    """

    features: int
    outputs: int

    @abstractmethod
    def fit(self, codes: Tensor, shares: Tensor) -> Tensor:
        """Returns the output for which this is the distribution of rows with weights (N,)."""

    @abstractmethod
    def read(self, codes: Tensor) -> Tensor:
        """Returns codes for other networks, (N, features), in float32."""

    @abstractmethod
    def log_prob(self, output: Tensor, codes: Tensor, *, complete: bool = False) -> Tensor:
        """Returns log p of codes, (N,); `complete` is given that no value is missing."""

    @abstractmethod
    def sample(self, output: Tensor, levels: Tensor) -> Tensor:
        """Returns codes (N,) of values that are not missing, by uniform numbers (N, 2)."""


class LabelHead(Head):
    """Probabilities of labels, by a softmax.

    Args:
        count: Number of labels.
        has_gaps: Whether the last label stands for missing values.
    """

    def __init__(self, count: int, *, has_gaps: bool) -> None:
        super().__init__()
        self.features = self.outputs = self.count = count
        self.has_gaps = has_gaps

    def fit(self, codes: Tensor, shares: Tensor) -> Tensor:
        totals = torch.bincount(codes, shares.double(), self.count).float() + PSEUDO_COUNT
        return totals.log() - totals.sum().log()

    def read(self, codes: Tensor) -> Tensor:
        return one_hot(codes, self.count).float()

    def log_prob(self, output: Tensor, codes: Tensor, *, complete: bool = False) -> Tensor:
        logits = self._present(output) if complete else output
        return logits.log_softmax(1).gather(1, codes.clamp(min=0)[:, None])[:, 0]

    def sample(self, output: Tensor, levels: Tensor) -> Tensor:
        return _chosen(self._present(output).double().softmax(1), levels[:, 0])

    def _present(self, logits: Tensor) -> Tensor:
        """Returns logits without a missing value."""
        if not self.has_gaps:
            return logits
        return torch.cat([logits[:, :-1], torch.full_like(logits[:, -1:], -math.inf)], dim=1)


class CountHead(Head):
    r"""Probabilities of whole numbers k: differences of the distribution function at k ± 1/2.

    The distribution is a mixture of logistic ones on normal scores, to which a curve through
    quantiles maps the counts.

    Args:
        has_gaps: Whether values are missing; a column of 0 and 1 then says which.
        ends: Whether there is no value below the least one, as for counts from 0.

    Source:
        Salimans, Karpathy, Chen, Kingma 2017.
    """

    knots: Tensor
    last: Tensor

    def __init__(self, *, has_gaps: bool, ends: bool) -> None:
        super().__init__()
        self.features, self.outputs = 1 + has_gaps, 3 * COMPONENTS
        self.has_gaps, self.ends = has_gaps, ends
        self.register_buffer("knots", torch.arange(KNOTS, dtype=torch.float64))
        self.register_buffer("last", torch.tensor(OFFSET))

    def fit(self, codes: Tensor, shares: Tensor) -> Tensor:  # noqa: ARG002
        present = codes[codes != MISSING]
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(len(present), dtype=torch.float64, generator=generator) - 0.5
        self.knots.copy_(torch.from_numpy(knots_of((present - OFFSET + noise).numpy())))
        self.last.copy_(present.max() if len(present) else torch.tensor(OFFSET))
        centers = torch.special.ndtri((torch.arange(COMPONENTS) + 0.5) / COMPONENTS)
        scale = math.log(math.expm1(FIRST_SCALE))  # of softplus
        return torch.cat([torch.zeros(COMPONENTS), centers, torch.full((COMPONENTS,), scale)])

    def _scores(self, codes: Tensor) -> Tensor:
        """Returns normal scores of codes, which need not be whole, in float64."""
        return interpolated((codes - OFFSET).double(), self.knots, normal_scores())[0]

    def read(self, codes: Tensor) -> Tensor:
        gone = codes == MISSING
        scores = torch.where(gone, 0.0, self._scores(codes)).float()
        return torch.stack([scores, gone.float()][: self.features], dim=1)

    def log_prob(self, output: Tensor, codes: Tensor, *, complete: bool = False) -> Tensor:  # noqa: ARG002
        shares, centers, scales = self._mixture(output)
        low, high = (
            (self._scores(codes + side)[:, None] - centers) / scales for side in (-0.5, 0.5)
        )
        # F(high) - F(low) of the logistic function, without cancellation
        both = logsigmoid(high) + logsigmoid(-low) + torch.log(-torch.expm1(low - high))
        if self.ends:
            both = torch.where((codes <= OFFSET)[:, None], logsigmoid(high), both)
        log_p = (shares + both).logsumexp(1)
        if self.ends:
            log_p = torch.where((codes < OFFSET) & (codes != MISSING), -math.inf, log_p)
        return torch.where(codes == MISSING, 0.0, log_p).float()

    def sample(self, output: Tensor, levels: Tensor) -> Tensor:
        shares, centers, scales = self._mixture(output)
        chosen, level = _chosen(shares.exp(), levels[:, 0])[:, None], levels[:, 1:].logit(1e-12)
        scores = (centers.gather(1, chosen) + scales.gather(1, chosen) * level)[:, 0]
        steps = interpolated(scores, normal_scores(), self.knots)[0].round().long()
        least = 0 if self.ends else int(self.knots[0].floor())
        return steps.clamp(least, int(self.last) - OFFSET) + OFFSET

    def _mixture(self, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns log shares, centers and scales (N, components), in float64."""
        shares, centers, scales = output.double().chunk(3, dim=1)
        return shares.log_softmax(1), centers, softplus(scales) + LEAST_SCALE


def _chosen(shares: Tensor, levels: Tensor) -> Tensor:
    """Returns the numbers (N,) at which the sums of shares (N, K) first exceed levels (N,)."""
    sums = shares.cumsum(1)
    return (sums <= sums[:, -1:] * levels.clamp(max=1 - 1e-12)[:, None]).sum(1)
