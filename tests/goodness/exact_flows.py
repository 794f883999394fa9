"""Flows in closed form, and rows drawn from them or from something else."""

import torch

import kappaflow as kf
from kappaflow.data.table import weighted


class Map(kf.Bijection):
    """z = (x - location) / scale, by numbers or by functions of the context."""

    def __init__(self, location, scale, context_features=0):
        super().__init__()
        self.location, self.scale, self.context_features = location, scale, context_features

    def moments(self, x, context):
        """Returns the location and the scale of each value."""
        parts = (self.location, self.scale)
        values = [part(context) if callable(part) else torch.tensor(part) for part in parts]
        return [value.to(x).expand_as(x) for value in values]

    def forward(self, x, context=None):
        """Returns z and the log-determinant."""
        location, scale = self.moments(x, context)
        return (x - location) / scale, -scale.abs().log().sum(1)

    def inverse(self, z, context=None):
        """Returns x and the log-determinant."""
        location, scale = self.moments(z, context)
        return z * scale + location, scale.abs().log().sum(1)


def normal(columns=1, location=0.0, scale=1.0, context_features=0):
    """Returns a flow of independent normals."""
    return kf.Flow(kf.StandardNormal(columns), Map(location, scale, context_features))


def uniform(low, high):
    """Returns a flow whose samples are uniform."""
    return kf.Flow(kf.flows.UniformBox(1, low=low, high=high), Map(0.0, 1.0))


def draws(seed, *shape):
    """Returns standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def kept(x, seed):
    """Returns rows kept with a probability that depends on the first column, and weights."""
    chance = torch.sigmoid(2 * x[:, 0])
    inside = torch.rand(len(x), generator=torch.Generator().manual_seed(seed)) < chance
    return x[inside], (1 / chance[inside]).double().numpy()


def table(x, weights, context=()):
    """Returns rows with weights as a table; some of the columns may be its context."""
    return weighted(kf.load_table(x.numpy(), context=context), weights)


def line(width, share=0.1, columns=1):
    """Returns a flow of a broad normal at 60, and a share in a line of some width at 50."""
    base = kf.flows.NormalMixture(columns, components=2)
    with torch.no_grad():
        base.logits.copy_(torch.tensor([1 - share, share]).log())
        base.means.zero_()
        base.means[:, 0] = torch.tensor([60.0, 50.0])
        base.factors.zero_()
        base.factors[:, 0, 0] = -torch.tensor([20.0, width]).log()
    return kf.Flow(base, Map(0.0, 1.0))
