"""What every measurement says about points and contexts that cannot be measured."""

import math

import pytest
import torch

import kappaflow as kf
from kappaflow.testing.contract import jittered

FEATURES, WIDTH = 3, 2


def plain():
    """A flow without context."""
    return jittered(kf.real_nvp(FEATURES, depth=2, hidden=(4,)))


def conditional():
    """A flow with a context of two columns."""
    return jittered(kf.real_nvp(FEATURES, depth=2, hidden=(4,), context_features=WIDTH))


def spectrum_of(flow, x, context=None):
    """The spectrum of a flow's bijection, called as the others are."""
    return kf.spectrum(flow.bijection, x, context=context)


MEASUREMENTS = {
    "profile": lambda flow, x, context=None: kf.profile(flow, x, context=context),
    "round_trip": lambda flow, x, context=None: kf.round_trip(flow, x, context=context),
    "spectrum": spectrum_of,
    "doctor": kf.doctor,
}
measurements = pytest.mark.parametrize("measure", MEASUREMENTS.values(), ids=MEASUREMENTS)


def spoiled(columns, value, rows=6, row=2):
    """Rows of ones, with one value in a later row."""
    x = torch.ones(rows, columns)
    x[row, -1] = value
    return x


POINTS = torch.zeros(5, FEATURES)
CONTEXT = torch.zeros(5, WIDTH)

WRONG = {
    "nan in x": (plain, (spoiled(FEATURES, math.nan),), "finite .*got nan in row 2, counted"),
    "infinity in x": (plain, (spoiled(FEATURES, -math.inf),), "got -inf in row 2, counted from 0"),
    "nan in context": (
        conditional, (torch.zeros(6, FEATURES), spoiled(WIDTH, math.nan)), "'context' .*got nan",
    ),
    "x elsewhere": (plain, (POINTS.to("meta"),), "'x' should be on the .* device cpu, got meta"),
    "no points": (plain, (POINTS[:0],), "'x' should hold at least one row, got none"),
    "narrow x": (plain, (POINTS[:, :2],), r"'x' should have shape \(batch, 3\), got \(5, 2\)"),
    "x as a list": (plain, (POINTS.tolist(),), "'x' should be a tensor, .*got list"),
    "context missing": (conditional, (POINTS,), "'context' should be given, with 2 columns"),
    "fewer contexts": (conditional, (POINTS, CONTEXT[:4]), "for each of the 5 rows of 'x', got 4"),
    "wide context": (conditional, (POINTS, torch.zeros(5, 3)), r", 2\), got \(5, 3\)"),
    "flat context": (conditional, (POINTS, torch.zeros(5)), r", 2\), got \(5,\)"),
    "context elsewhere": (conditional, (POINTS, CONTEXT.to("meta")), "'context' should be on the"),
}  # fmt: skip


@pytest.mark.boundary
@measurements
@pytest.mark.parametrize(("make", "arguments", "message"), WRONG.values(), ids=WRONG)
def test_points_that_cannot_be_measured_are_refused(make, arguments, message, measure):
    """By the same sentence for each measurement."""
    with pytest.raises(kf.errors.ArgumentError, match=message) as caught:
        measure(make(), *arguments)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


@pytest.mark.boundary
@pytest.mark.parametrize("name", ["profile", "round_trip", "doctor"])
def test_a_context_for_an_unconditional_flow_is_refused(name):
    """As `log_prob` does."""
    with pytest.raises(kf.errors.ArgumentError, match="'context' should be left out"):
        MEASUREMENTS[name](plain(), POINTS, CONTEXT)


def test_several_rows_that_are_not_finite_are_counted():
    """The first is named."""
    x = spoiled(FEATURES, math.nan)
    x[4] = math.inf
    with pytest.raises(
        kf.errors.ArgumentError, match="nan in row 2, counted from 0, the first of 2"
    ):
        kf.round_trip(plain(), x)


def test_a_row_beyond_those_that_the_doctor_examines_is_refused_too():
    """All rows are checked."""
    with pytest.raises(kf.errors.ArgumentError, match="row 99"):
        kf.doctor(plain(), spoiled(FEATURES, math.nan, rows=100, row=99))


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad], ids=["inference", "none"])
@pytest.mark.parametrize("features", [FEATURES, 501])
@measurements
def test_measuring_works_without_gradients(measure, features, mode):
    """Inside `torch.inference_mode` too, with points made there, and by Lanczos iterations too."""
    flow = jittered(kf.real_nvp(features, depth=1, hidden=(4,), context_features=WIDTH))
    with mode():
        x, context = torch.zeros(5, features), torch.zeros(5, WIDTH)
        result = measure(flow, x, context)
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
        assert not torch.is_grad_enabled()
    assert getattr(result, "status", "exact") in ("exact", "converged")


@measurements
def test_a_flow_made_in_inference_mode_is_refused(measure):
    """Its parameters have no derivatives."""
    with torch.inference_mode():
        flow = plain()
        with pytest.raises(kf.errors.ArgumentError, match="should be made or loaded outside"):
            measure(flow, POINTS)
