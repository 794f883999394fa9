"""Checks of a flow's samples, where the truth table plants no such fault."""

import pytest
import torch

import kappaflow as kf
from diagnosis.faulty import FEATURES, SEEDS, findings, moved, points
from interop.foreign import nflows_flow, zuko_flow
from kappaflow.diagnosis.checks import samples
from kappaflow.diagnosis.checks.samples import sample_distribution
from kappaflow.diagnosis.measurements import Measurements


@pytest.mark.parametrize("library", ["nflows", "zuko"])
def test_a_method_that_replaces_the_sampling_of_a_library_is_found(library, monkeypatch):
    """KF208: the library samples and scores in another method, which the doctor preferred."""
    if library == "nflows":
        flow = nflows_flow("RealNVP")
        correct = flow._sample
        monkeypatch.setattr(flow, "_sample", lambda n, context: 0.5 * correct(n, context))
    else:
        lazy = zuko_flow("NSF")
        kind = type(lazy())

        class Colder(kind):
            def rsample(self, shape=()):
                return 0.5 * super().rsample(shape)

        flow = Colder(lazy().transform, lazy().base)
    assert "KF208" in findings(flow, torch.randn(64, FEATURES, dtype=torch.float64))


class Forgetful(kf.StandardNormal):
    """A base that does not use the generator."""

    def sample(self, n, *, generator=None, **of):
        return super().sample(n, **of)


def test_a_base_that_ignores_the_generator_is_named():
    """KF704 of a flow of kappaflow, whose base alone has random numbers."""
    flow = kf.Flow(Forgetful(2), kf.bijections.ElementwiseAffine(2))
    assert findings(flow, torch.randn(64, 2))["KF704"].cause.startswith("The base does not use")


class Given(torch.nn.Module):
    """A conditional flow whose samples may belong to the contexts of other rows."""

    def __init__(self, seed, shuffled):
        super().__init__()
        self.flow, self.shuffled = moved(seed, context_features=1), shuffled

    def encode(self, x, context):
        z, log_det = self.flow.bijection(x, context)
        return z + 5 * context, log_det

    def decode(self, z, context):
        return self.flow.bijection.inverse(z - 5 * context, context)

    def sample(self, n, context):
        rows = context.flip(0) if self.shuffled else context
        return self.decode(torch.randn(n, FEATURES), rows)[0]


@pytest.mark.slow
@SEEDS
def test_samples_under_the_context_of_another_row_are_found(seed):
    """KF208; in the order of the rows there is no finding."""
    context = torch.linspace(-1, 1, 64)[:, None]
    assert set(findings(Given(seed, True), points(seed), context)) == {"KF208"}
    assert findings(Given(seed, False), points(seed), context) == {}


@SEEDS
def test_the_significance_is_that_of_equal_distributions(seed):
    """For correct samples it is far above the threshold."""
    with torch.no_grad():
        result = sample_distribution(Measurements(moved(seed).eval()))
    assert result.significance > 1e-4 and result.repeated == 0 and result.number == 4096


@pytest.mark.parametrize("features", [1, 64])
def test_correct_samples_give_no_finding_in_any_dimension(features):
    """At the same seeds."""
    flow = kf.Flow(kf.StandardNormal(features), kf.bijections.ElementwiseAffine(features))
    with torch.no_grad():
        assert sample_distribution(Measurements(flow)).significance > 1e-3


def test_a_rare_significance_is_tested_twice(monkeypatch):
    """The larger of two significances counts."""
    results = iter([(0.3, 1e-9), (0.1, 0.5)])
    monkeypatch.setattr(samples, "_distance_to_base", lambda *_: next(results))
    with torch.no_grad():
        assert sample_distribution(Measurements(moved(0).eval())).significance == 0.5
