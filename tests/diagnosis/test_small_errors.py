"""Errors above what rounding explains, dropout that is on, and densities with gaps."""

import pytest
import torch

import kappaflow as kf
from diagnosis import truth
from diagnosis.faulty import findings, points


@pytest.mark.parametrize(
    ("kind", "severities", "source"),
    [
        (truth.SlightlyOff, {"warning"}, "kappaflow"),
        (truth.HalfInside, {"warning"}, "torch.distributions"),
        (truth.Dropping, {"warning"}, "kappaflow"),
        (truth.NanOutside, {"warning", "error"}, "torch.distributions"),
    ],
)
def test_what_is_wrong_by_little_or_seldom_is_more_than_a_note(kind, severities, source):
    """In float32, in flows of several sources."""
    case = truth.planted(kind, source)
    assert findings(case.flow, case.x)[case.code].severity in severities


class Searching(truth.Plain):
    """Decode is off by a given share of the row, as searches for an inverse are."""

    off = 0.0

    def decode(self, z):
        x, log_det = super().decode(z)
        return x * (1 + self.off), log_det


@pytest.mark.parametrize(
    ("dtype", "off", "severity"),
    [
        (torch.float32, 0.0, None),
        (torch.float32, 2e-4, "warning"),
        (torch.float64, 0.0, None),
        (torch.float64, 2e-5, "note"),
        (torch.float64, 2e-4, "warning"),
        (torch.float64, 2e-3, "error"),
    ],
)
def test_the_severity_of_an_error_follows_its_size(dtype, off, severity):
    """Searches leave errors that rounding does not explain: up to 8e-5 they are a note."""
    torch.manual_seed(0)
    flow = Searching().to(dtype)
    flow.off = off
    finding = findings(flow, points().to(dtype)).get("KF201")
    assert (finding and finding.severity) == severity


def test_dropout_is_reported_in_training_mode_alone():
    """With its layer; a flow that fit returns is in evaluation mode."""
    flow = kf.real_nvp(4, depth=4, hidden=(8,), network={"dropout": 0.5})
    kf.fit(flow, torch.randn(200, 4), max_epochs=1, progress=False)
    assert "KF218" not in findings(flow, points())
    finding = findings(flow.train(), points())["KF218"]
    assert finding.layer is not None and "AffineCoupling" in finding.layer
    assert flow.training


class Normalized(torch.nn.Module):
    """Batch normalization as a flow, with its running statistics in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(4, affine=False, eps=1e-12)

    def variance(self, x):
        return x.var(0, correction=0) if self.training else self.norm.running_var

    def encode(self, x):
        return self.norm(x), -0.5 * self.variance(x).log().sum().expand(len(x))

    def decode(self, z):
        log_det = 0.5 * self.norm.running_var.log().sum().expand(len(z))
        return z * self.norm.running_var.sqrt() + self.norm.running_mean, log_det


def test_batch_statistics_in_training_mode_are_named():
    """KF218: log_prob then depends on the batch; in evaluation mode there is no finding."""
    flow, x = Normalized(), 3 * points() + 1
    flow.norm(x)
    assert "KF218" not in findings(flow.eval(), x)
    finding = findings(flow.train(), x)["KF218"]
    assert "evaluation mode" in finding.message and "statistics of the batch" in finding.cause


def test_a_gap_in_a_density_is_an_error_where_samples_reach_it():
    """The layer is named; far out it is a note, if the values are infinite."""

    def with_edge(edge):
        def encode(x):
            return x, torch.where(x.abs().amax(1) > edge, torch.nan, 0.0)

        return encode, lambda z: (z, torch.zeros(len(z)))

    inside = torch.rand(64, 2) - 0.5
    near, far = (findings(with_edge(edge), inside)["KF303"] for edge in (1.5, 5.0))
    assert (near.severity, near.layer) == ("error", "1 encode")
    assert far.severity == "warning" and "sigma beyond" in far.message
    assert "KF303" not in findings(with_edge(100.0), inside)
