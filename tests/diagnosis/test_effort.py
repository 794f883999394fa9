"""What the default effort leaves out is named, and `thorough` examines it."""

import torch
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import AffineTransform

import kappaflow as kf
from diagnosis.faulty import codes, doctor
from kappaflow.cli.app import main
from kappaflow.diagnosis import diagnose_flow
from kappaflow.diagnosis.checks.conditioning import growth_of
from kappaflow.diagnosis.measurements import Measurements


def shift(context):
    """A shift by the context, of which column 35 is not read."""
    return 0.1 * torch.cat((context[:, :35], context[:, 36:]), 1).sum(1, keepdim=True)


CONDITIONAL = (
    lambda x, context: (x - shift(context), torch.zeros(len(x))),
    lambda z, context: (z + shift(context), torch.zeros(len(z))),
)


def both(flow, x, context=None):
    """The codes by default with what was left out, and the codes when thorough."""
    default = doctor(flow, x, context)
    thorough = doctor(flow, x, context, thorough=True)
    return codes(default), codes(thorough), default.measured["not_checked"]


def test_all_columns_of_a_context_are_examined():
    """By default the first 32."""
    few, thorough, left_out = both(CONDITIONAL, torch.randn(64, 2), torch.randn(64, 40))
    assert "KF210" not in few and "KF210" in thorough
    assert "8 of 40 columns of the context" in left_out and "--thorough" in left_out


class Unnormalized(Normal):
    """A normal distribution without its constant."""

    def log_prob(self, value):
        return -0.5 * value.square()


def test_a_base_of_any_dimension_is_integrated():
    """By default, of up to 128 dimensions."""
    base = Independent(Unnormalized(torch.zeros(130), torch.ones(130)), 1)
    flow = TransformedDistribution(base, [AffineTransform(torch.zeros(130), 2.0)])
    few, thorough, left_out = both(flow, 2 * torch.randn(32, 130))
    assert "KF215" not in few and "KF215" in thorough
    assert "the base of 130 dimensions" in left_out


def test_log_prob_of_all_rows_is_computed():
    """By default, of half a million numbers."""
    x = torch.randn(270_000, 2)
    x[269_000, 1] = 7.0

    def encode(x):
        return x, torch.where(x[:, 1] == 7, torch.nan, 0.0)

    flow = (encode, lambda z: (z, torch.zeros(len(z))))
    assert diagnose_flow(flow, x).ok
    assert "row 269000" in diagnose_flow(flow, x, thorough=True).findings[0].message


FLOW = """
import torch
def make():
    x = torch.randn(100, 2)
    return (lambda x: (x, torch.zeros(len(x))), lambda z: (z, torch.zeros(len(z)))), x
"""


def test_the_command_names_what_it_left_out(tmp_path, capsys):
    """And the option that includes it."""
    (tmp_path / "flows.py").write_text(FLOW)
    target = f"{tmp_path / 'flows.py'}:make"
    assert main(["doctor", target]) == 0
    assert "36 of 100 rows (thorough=True, --thorough)" in capsys.readouterr().out
    assert main(["doctor", target, "--thorough"]) == 0
    assert "not checked" not in capsys.readouterr().out


def test_few_depths_of_a_flow_of_many_dimensions_are_measured():
    """The others are interpolated, so that a single layer that stretches is still named."""
    scales = [torch.full((300,), 0.01 * i) for i in range(20)]
    scales[7][:2] = torch.tensor([6.0, -6.0])
    layers = [kf.bijections.ElementwiseAffine(300, log_scale=scale) for scale in scales]
    flow = kf.Flow(kf.StandardNormal(300), kf.Chain(layers))
    x = torch.randn(8, 300)
    m = Measurements(flow, x)
    assert m.profile.status == "converged"
    assert growth_of(m.profile)[0]["largest_factor_layer"] == "8 ElementwiseAffine"
    assert m.not_checked == ["conditioning at 17 of 20 depths (interpolated)"]
    full = kf.profile(flow, x).condition_number
    torch.testing.assert_close(m.profile.condition_number[-1], full[-1], rtol=2e-2, atol=0.0)
    torch.testing.assert_close(m.profile.condition_number[7], full[7], rtol=0.2, atol=0.0)
