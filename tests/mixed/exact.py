"""A table model whose density is known in closed form: labels, and normal numbers given them."""

import itertools
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import polars as pl
import torch
from scipy.stats import multivariate_normal, norm

import kappaflow as kf
from kappaflow.data.load import read_source
from kappaflow.data.raw import Reading
from kappaflow.mixed import Encoding, TableModel, detect_kinds
from kappaflow.mixed.saved import new_parts

MEANS = np.array([[0.0, 1.0, 25.0, 50.0]] * 5)  # a row for each label: a, b, none; other, 0
MEANS += np.outer([1, -1, 0, 0.5, -0.5], [1.0, -0.5, 3.0, 5.0])
MEANS /= 2  # a row has two labels
ROOT = np.array([[1.0, 0, 0, 0], [0.8, 0.6, 0, 0], [1.5, -1.0, 3.0, 0], [2.0, 1.0, -3.0, 8.0]])
COVARIANCE = ROOT @ ROOT.T
NUMBERS = ("x", "y", "n", "gain")


class Normal(kf.Bijection):
    """Whitens normal rows, whose mean is a sum over the labels of their context."""

    def __init__(self, root, means):
        super().__init__()
        self.register_buffer("root", torch.as_tensor(root, dtype=torch.float64))
        self.register_buffer("means", torch.as_tensor(means, dtype=torch.float64))
        self.context_features = len(means)

    def _mean(self, context):
        return 0.0 if context is None else context @ self.means

    def _log_det(self, x):
        return self.root.diagonal().log().sum().expand(len(x))

    def forward(self, x, context=None):
        centered = (x - self._mean(context)).T
        z = torch.linalg.solve_triangular(self.root, centered, upper=False).T
        return z, -self._log_det(x)

    def inverse(self, z, context=None):
        return z @ self.root.T + self._mean(context), self._log_det(z)


def normal_flow(root, means):
    """Returns the flow of normal rows, in float64."""
    return kf.Flow(kf.StandardNormal(len(root)), Normal(root, means)).double().eval()


@dataclass
class ExactModel:
    """A model, the complete rows that its parts were fitted to, and its log-density."""

    model: TableModel
    frame: pl.DataFrame

    def label_shares(self):
        """Yields labels of complete rows, as text, with the columns of 0 and 1, and log p."""
        codes = torch.tensor(list(itertools.product(range(3), range(2))))
        with torch.no_grad():
            each = self.model.labels.each_log_prob(codes)
            first = each[[0, 2, 4], 0].double()
        for (group, gain), values in zip(codes.tolist(), each.tolist(), strict=True):
            if group < 2:  # the third label is that of a missing value
                one_hot = self.model.labels.read(torch.tensor([[group, gain]]))[0].double()
                log_p = first[group].item() - math.log1p(-math.exp(first[2].item())) + values[1]
                yield "ab"[group], gain == 1, one_hot.numpy(), log_p

    def log_prob(self, group=None, x=None, y=None, n=None, gain=None):
        """Returns the log-density of a row, of the values that are there."""
        total = 0.0
        for name, is_zero, one_hot, log_p in self.label_shares():
            if group not in {None, name} or (gain is not None and (gain == 0) != is_zero):
                continue
            values = [x, y, None, None if gain == 0 else gain]
            total += math.exp(log_p) * normal_density(values, n, one_hot @ MEANS)
        return math.log(total)


def normal_density(values, whole, mean):
    """Returns the density of the numbers that are there, and the probability of a whole one."""
    known = [i for i, value in enumerate(values) if value is not None]
    shift = np.array([values[i] for i in known]) - mean[known]
    own = COVARIANCE[np.ix_(known, known)]
    density = multivariate_normal(cov=own).pdf(shift) if known else 1.0
    if whole is None:
        return density
    slopes = COVARIANCE[2, known] @ np.linalg.inv(own) if known else np.zeros(0)
    deviation = math.sqrt(COVARIANCE[2, 2] - slopes @ COVARIANCE[known, 2])
    ends = (whole + np.array([-0.5, 0.5]) - mean[2] - slopes @ shift) / deviation
    return density * np.diff(norm.cdf(ends))[0]


def conditional(known, values, wanted, one_hot):
    """Returns mean and covariance of some numbers given others and the labels."""
    mean = one_hot @ MEANS
    known, wanted = [NUMBERS.index(k) for k in known], [NUMBERS.index(w) for w in wanted]
    across = COVARIANCE[np.ix_(wanted, known)]
    slopes = across @ np.linalg.inv(COVARIANCE[np.ix_(known, known)])
    center = mean[wanted] + slopes @ (np.array(values) - mean[known])
    return center, COVARIANCE[np.ix_(wanted, wanted)] - slopes @ across.T


@cache
def exact_model():
    """Returns the model; its proposals are fitted to 800 rows of the same distribution."""
    generator = np.random.default_rng(0)
    group, zero = generator.integers(0, 2, 800), generator.random(800) < 0.5
    one_hot = np.c_[group == 0, group == 1, np.zeros(800), ~zero, zero].astype(float)
    numbers = one_hot @ MEANS + generator.normal(size=(800, 4)) @ ROOT.T
    frame = pl.DataFrame({
        "group": np.array(["a", "b"])[group],
        "x": numbers[:, 0],
        "y": numbers[:, 1],
        "n": np.rint(numbers[:, 2]),
        "gain": np.where(zero, 0.0, numbers[:, 3]),
    })
    gone = pl.Series(np.arange(800) % 10 == 0)
    with_gaps = frame.with_columns(group=pl.when(gone).then(None).otherwise(pl.col("group")))
    raw = read_source(with_gaps, Reading())
    encoding = Encoding.fit(raw, detect_kinds(raw, {"n": "continuous"}))
    assert encoding.numbers == NUMBERS and encoding.steps == (0, 0, 1, 0)
    assert encoding.labels == (("a", "b", None), ("other", "0"))
    labels, proposals = new_parts(encoding)
    torch.manual_seed(1)
    for parameter in labels.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    encoded = encoding.encode(raw)
    codes = torch.from_numpy(encoded.codes)
    proposals.fit(encoded.numbers, labels.read(codes).double().numpy())
    flow = normal_flow(ROOT, MEANS)
    return ExactModel(TableModel(encoding, labels.eval(), proposals, flow), frame)


def gaps(frame, share=0.3, seed=0):
    """Returns a frame of which some values are missing."""
    generator = np.random.default_rng(seed)
    return frame.with_columns(
        pl.when(pl.Series(generator.random(len(frame)) < share)).then(None).otherwise(c).alias(n)
        for n, c in ((name, pl.col(name)) for name in frame.columns)
    )
