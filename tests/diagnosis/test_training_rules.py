"""Checks of gradients, rows far out and trainings, where the truth table plants no fault."""

import math

import pytest
import torch

import kappaflow as kf
from diagnosis.faulty import FEATURES, SEEDS, alone, findings, moved, points, with_layer
from kappaflow.diagnosis import training_findings, warning_findings
from kappaflow.diagnosis.checks.gradient import _direction, gradient
from kappaflow.diagnosis.checks.training import last_gain
from kappaflow.diagnosis.measurements import Measurements


def test_the_derivatives_are_those_of_log_prob():
    """Against autograd on the flow, along the same direction."""
    flow = moved(3)
    with torch.no_grad():
        result = gradient(Measurements(flow, points(3)))
    flow.double()
    value = flow.log_prob(points(3)[:16].double()).mean()
    gradients = torch.autograd.grad(value, list(flow.parameters()), allow_unused=True)
    along = [
        sum(
            (g * d).sum().item()
            for g, d in zip(gradients, _direction(flow, seed), strict=True)
            if g is not None
        )
        for seed in range(4)
    ]
    expected = min(along, key=lambda slope: abs(slope - result.in_float64.autograd))
    assert result.in_float64.autograd == pytest.approx(expected, rel=1e-9)
    assert result.in_float64.difference == pytest.approx(expected, rel=1e-5)
    assert result.autograd == pytest.approx(expected, rel=1e-3) and result.layer is None


def test_the_layer_without_gradient_is_named():
    """KF209, an error, in the second of three."""

    class Cut(kf.bijections.ElementwiseAffine):
        def forward(self, x, context=None):
            z, log_det = super().forward(x, context)
            return z, log_det.detach()

    affine = kf.bijections.ElementwiseAffine
    finding = findings(alone(affine(FEATURES), Cut(FEATURES), affine(FEATURES)))["KF209"]
    assert (finding.layer, finding.severity) == ("2 Cut", "error")


def test_a_backward_pass_that_loses_digits_is_a_warning():
    """Correct in float64, three times too large in float32."""

    class Rough(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * (3 if gradient.dtype == torch.float32 else 1)

    class Losing(kf.bijections.ElementwiseAffine):
        def forward(self, x, context=None):
            z, log_det = super().forward(x)
            return z - self.shift + Rough.apply(self.shift), log_det

    by_code = findings(with_layer(Losing(FEATURES, shift=[2.0] * FEATURES), at=9))
    assert set(by_code) == {"KF209"} and by_code["KF209"].severity == "warning"


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["store", "recompute", "invert"])
def test_the_gradients_of_each_memory_mode_are_right(memory):
    """Also by inversion."""
    flow = moved(1, memory=memory)
    assert findings(flow, points(1)) == {}
    with torch.no_grad():
        result = gradient(Measurements(flow.eval(), points(1)))
    assert result.autograd == pytest.approx(result.in_float64.difference, rel=1e-3)


@pytest.mark.slow
@SEEDS
def test_rows_far_out_that_dominate_the_mean_are_found(seed):
    """KF503 with their number and the worst row; none for samples, or if all rows are far out."""
    flow = moved(seed)
    x = flow.sample(1000, generator=torch.Generator().manual_seed(seed))
    assert "KF503" not in findings(flow, x)
    x[10:13] *= 30
    finding = findings(flow, x)["KF503"]
    assert finding.severity == "warning" and finding.evidence["far"] == 3
    assert finding.evidence["worst_row"] in (10, 11, 12)
    away = torch.arange(1000) > 12
    log_prob = flow.log_prob(x).detach().double()
    assert finding.evidence["mean"] == pytest.approx(log_prob.mean().item(), rel=1e-3)
    assert finding.evidence["mean_without"] == pytest.approx(
        log_prob[away | (torch.arange(1000) < 10)].mean().item(), rel=1e-3
    )
    assert "KF503" not in findings(flow, 30 * x)


def test_the_slope_that_heavy_tails_need_is_that_of_the_furthest_row():
    """The identity has slopes of 1; a row at 40 needs about 10."""
    x = points(0, 1000)
    x[17] = 20
    evidence = findings(alone(kf.bijections.ElementwiseAffine(FEATURES)), x)["KF503"].evidence
    assert evidence["slope_measured"] == pytest.approx(1)
    assert 6 < evidence["slope_needed"] < 10 and evidence["worst_row"] == 17


def epochs(nll, **more):
    """Figures of epochs with these validation NLLs and flat tails."""
    tails = {"p99": [3.0] * len(nll), "max": [5.0] * len(nll), **more}
    return [
        {
            "epoch": i + 1,
            "validation_nll": value,
            "validation_nll_standardized": value,
            "validation_bits_per_dimension": value,
            "validation_nll_p99": tails["p99"][i],
            "validation_nll_max": tails["max"][i],
        }
        for i, value in enumerate(nll)
    ]


@pytest.mark.parametrize("stopped", ["max_epochs", "max_time_s"])
def test_a_training_cut_short_by_a_limit_is_a_warning(stopped):
    """KF506: it still improved in its last epochs; the setting to raise is named."""
    (finding,) = training_findings(epochs([3.0, 2.5, 2.2]), stopped)
    assert finding.code == "KF506" and finding.severity == "warning"
    assert stopped in finding.fix and "the last 1 still gained 0.3 nats" in (finding.message)
    (finding,) = training_findings(epochs([3.0]), stopped)
    assert finding.message == f"Training stopped at {stopped} after 1 epoch."


def test_the_gain_is_that_of_the_last_epochs():
    """The best of the last ones against the best before; infinite without an epoch before."""
    nll = [5.0, 4.0, 3.0, 3.5, 3.2, 3.1, 3.0, 2.9, 2.8, 2.5]
    assert last_gain(nll) == (4, pytest.approx(0.5))
    assert last_gain(nll, 0.1) == (1, pytest.approx(0.3))
    assert last_gain(nll, 0.5) == (5, pytest.approx(0.5))
    assert last_gain([1.0, 2.0], 0.5) == (1, 0.0)
    assert last_gain([1.0], 0.5) == (1, math.inf)


def test_a_training_that_had_settled_is_not_cut_short():
    """The last gain is small, patience stopped it, or nothing was measured."""
    settled = [3.0, 2.0, *(1.5 - 0.007 * i for i in range(30))]  # the last 13 gain 0.09
    assert not list(training_findings(epochs(settled), "max_epochs"))
    assert not list(training_findings(epochs([3.0, 2.5, 2.2]), "patience"))
    assert not list(training_findings(epochs([None, None]), "max_epochs"))
    assert not list(training_findings([], "max_epochs"))


@pytest.mark.parametrize("stopped", ["max_epochs", "max_time_s", "patience"])
def test_a_learning_rate_that_did_not_fall_is_a_warning(stopped):
    """KF508: a limit ended the training at more than a tenth of the highest rate."""
    history = epochs([3.0, 2.99, 2.98])
    history[-1] |= {"learning_rate": 5e-3, "learning_rate_share": 1.0}
    findings = list(training_findings(history, stopped))
    if stopped == "patience":
        assert not findings
        return
    (finding,) = findings
    assert finding.code == "KF508" and stopped in finding.fix
    assert finding.message == (
        f"Training stopped at {stopped} with a learning rate of 0.005, 100 % of the highest."
    )
    history[-1] |= {"learning_rate": 5e-4, "learning_rate_share": 0.1}
    assert not list(training_findings(history, stopped))


def test_likelihoods_of_images_are_in_bits_per_dimension():
    """0.02 bits matter, and the unit is named."""
    (finding,) = training_findings(epochs([3.0, 2.98]), "max_epochs", of_images=True)
    assert "0.02 bits per dimension" in finding.message
    assert not list(training_findings(epochs([3.0, 2.999]), "max_epochs", of_images=True))


def test_tails_that_grow_while_the_mean_falls_are_a_warning():
    """KF507: by more than three nats in the 99 % quantile, or ten in the maximum."""
    mean = [3.0, 2.5, 2.4, 2.39, 2.6]
    (finding,) = training_findings(epochs(mean, p99=[6.0, 5.0, 6.0, 8.5, 9.0]), "patience")
    assert finding.code == "KF507"
    assert "From epoch 2 to 4 the 99 % quantile" in finding.message
    assert "rose from 5.00 to 8.50 nats while the mean fell by 0.11" in finding.message
    (finding,) = training_findings(epochs(mean, max=[9.0, 9.0, 30.0, 40.0, 9.0]), "patience")
    assert "the maximum of the validation NLL rose from 9.00 to 40.00" in finding.message
    assert not list(training_findings(epochs(mean, p99=[6.0, 5.0, 5.0, 7.9, 9.0]), "patience"))
    assert not list(training_findings(epochs(mean, p99=[6.0, 5.0, 5.0, None, 9.0]), "patience"))


def test_tails_of_few_rows_are_not_judged():
    """The 99 % quantile of 499 rows is that of five of them; 500 rows are enough."""
    history = epochs([3.0, 2.5, 2.4], p99=[6.0, 5.0, 9.0])
    assert not list(training_findings(history, "patience", held_out=499))
    (finding,) = training_findings(history, "patience", held_out=500)
    assert finding.code == "KF507"


def test_warnings_about_the_data_are_findings():
    """KF607, one sentence each."""
    (finding,) = warning_findings(["48 rows are left to train on"])
    assert (finding.code, finding.message) == ("KF607", "48 rows are left to train on.")
