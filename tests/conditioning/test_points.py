"""What every measurement says about points and contexts that cannot be measured."""

import math

import pytest
import torch

import kappaflow as kf
from cases import affine
from kappaflow.conditioning import TRUSTED
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
    "nan in x": (
        plain,
        (spoiled(FEATURES, math.nan),),
        r"'x' should hold finite numbers only, got nan in row 2, counted from 0\.",
    ),
    "infinity in x": (
        plain,
        (spoiled(FEATURES, -math.inf),),
        r"'x' should hold finite numbers only, got -inf in row 2, counted from 0\.",
    ),
    "nan in context": (
        conditional,
        (torch.zeros(6, FEATURES), spoiled(WIDTH, math.nan)),
        "'context' should hold finite numbers only, got nan in row 2, counted from 0",
    ),
    "x elsewhere": (plain, (POINTS.to("meta"),), "'x' should be on the .* device cpu, got meta"),
    "no points": (plain, (POINTS[:0],), "'x' should hold at least one row, got none"),
    "narrow x": (plain, (POINTS[:, :2],), r"'x' should have shape \(batch, 3\), got \(5, 2\)"),
    "one point alone": (plain, (POINTS[0],), r"'x' should have shape \(batch,.*got \(3,\)"),
    "x as a list": (plain, (POINTS.tolist(),), "'x' should be a tensor, .*got list"),
    "context missing": (conditional, (POINTS,), "'context' should be given, with 2 columns"),
    "context as a list": (
        conditional,
        (POINTS, CONTEXT.tolist()),
        "'context' should be a tensor, .*got list",
    ),
    "fewer contexts": (
        conditional,
        (POINTS, CONTEXT[:4]),
        "'context' should have a row for each of the 5 rows of 'x', got 4",
    ),
    "more contexts": (
        conditional,
        (POINTS, CONTEXT.repeat(2, 1)),
        "'context' should have a row for each of the 5 rows of 'x', got 10",
    ),
    "wide context": (
        conditional,
        (POINTS, torch.zeros(5, 3)),
        r"'context' should have shape \(batch, 2\), got \(5, 3\)",
    ),
    "flat context": (
        conditional,
        (POINTS, torch.zeros(5)),
        r"'context' should have shape \(batch, 2\), got \(5,\)",
    ),
    "context elsewhere": (
        conditional,
        (POINTS, CONTEXT.to("meta")),
        "'context' should be on the .* device cpu, got meta",
    ),
}


@pytest.mark.boundary
@measurements
@pytest.mark.parametrize(("make", "given", "message"), WRONG.values(), ids=WRONG)
def test_points_that_cannot_be_measured_are_refused_in_one_sentence(make, given, message, measure):
    """The same sentence whatever is measured: the argument, what it should be, what it was."""
    with pytest.raises(kf.errors.ArgumentError, match=message) as caught:
        measure(make(), *given)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


@pytest.mark.boundary
@pytest.mark.parametrize("name", ["profile", "round_trip", "doctor"])
def test_a_context_that_a_flow_does_not_want_is_refused(name):
    """As `log_prob` does."""
    with pytest.raises(kf.errors.ArgumentError, match="'context' should be left out"):
        MEASUREMENTS[name](plain(), POINTS, CONTEXT)


def test_a_bijection_may_ignore_a_context():
    """A layer of a conditional chain is given the context whether or not it reads it."""
    found = kf.spectrum(kf.bijections.Permutation((1, 0)), torch.zeros(5, 2), context=CONTEXT)
    assert found.status == "exact"


def test_a_bijection_without_numbers_of_its_own_takes_points_of_any_type():
    """A permutation has no type that x could differ from."""
    for dtype in (torch.float32, torch.float64):
        assert kf.spectrum(
            kf.bijections.Permutation((1, 0)), torch.zeros(5, 2, dtype=dtype)
        ).status


def test_several_rows_that_are_not_finite_are_counted():
    """The first is named."""
    x = spoiled(FEATURES, math.nan)
    x[4] = math.inf
    with pytest.raises(
        kf.errors.ArgumentError, match="nan in row 2, counted from 0, the first of 2"
    ):
        kf.round_trip(plain(), x)


def test_a_row_beyond_those_that_the_doctor_examines_is_refused_too():
    """Whoever gives values that are not finite wants to know it."""
    with pytest.raises(kf.errors.ArgumentError, match="row 99"):
        kf.doctor(plain(), spoiled(FEATURES, math.nan, rows=100, row=99))


@pytest.mark.boundary
def test_contexts_without_points_are_checked_too():
    """The doctor may be given contexts alone."""
    for context, message in (
        (CONTEXT[:0], "'context' should hold at least one row, got none"),
        (torch.zeros(5, 3), r"'context' should have shape \(batch, 2\)"),
        (None, "'context' should be given, with 2 columns"),
    ):
        with pytest.raises(kf.errors.ArgumentError, match=message):
            kf.doctor(conditional(), context=context)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad], ids=["inference", "none"])
@pytest.mark.parametrize("features", [FEATURES, 501])
@measurements
def test_measuring_works_where_the_caller_keeps_no_gradients(measure, features, mode):
    """Inside `torch.inference_mode` too, with points made there, and by Lanczos iterations too."""
    flow = jittered(kf.real_nvp(features, depth=1, hidden=(4,), context_features=WIDTH))
    with mode():
        x, context = torch.zeros(5, features), torch.zeros(5, WIDTH)
        found = measure(flow, x, context)
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
        assert not torch.is_grad_enabled()
    assert getattr(found, "status", "exact") in ("exact", "converged")


@measurements
def test_a_flow_made_in_inference_mode_is_refused(measure):
    """Its parameters have no derivatives; the sentence says where to make it."""
    with torch.inference_mode():
        flow = plain()
        with pytest.raises(kf.errors.ArgumentError, match="should be made or loaded outside"):
            measure(flow, POINTS)


def test_the_limit_of_trust_is_said_once():
    """Eps times the condition number, above which rounding hides most digits."""
    assert TRUSTED == 1e-2


def test_spectra_of_a_conditional_coupling_ask_for_its_context():
    """A bijection that declares a width is held to it."""
    with pytest.raises(kf.errors.ArgumentError, match="'context' should be given, with 2 columns"):
        kf.spectrum(affine(kf.Partition.half(4), context=2), torch.zeros(2, 4))
