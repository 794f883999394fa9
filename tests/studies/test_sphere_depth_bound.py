"""The depth bound: its net against flows, its count against the family."""

from math import ceil, exp, log

import numpy as np
import pytest

from kappaflow.errors import ArgumentError
from kappaflow_studies.sphere.bounds import LayerClass, min_depth, min_parameters
from kappaflow_studies.sphere.packing import Packing, gaussian_norm, mixture_packing

FAMILY = mixture_packing(256, 64, distance=0.1)


@pytest.mark.parametrize("layers", [1, 2, 3, 7])
@pytest.mark.parametrize(("slope", "push"), [(1.0, 0.5), (1.2, 0.3), (0.6, 0.4)])
def test_the_sensitivity_is_attained(layers, slope, push):
    """By x -> slope |x| + push theta (1 + |x|) on the line, at theta = 1, differentiated."""
    z = abs(np.random.default_rng(0).standard_normal(1000))
    z *= gaussian_norm(1) / z.mean()  # so that the mean of |z| is exact

    def flow(theta):
        x = z
        for _ in range(layers):
            x = slope * abs(x) + push * theta * (1 + abs(x))
        return x

    moved = (flow(1.0) - flow(1 - 1e-7)).mean() / 1e-7
    layer = LayerClass(1, lipschitz=slope + push, parameter_lipschitz=push)
    assert exp(layer.log_sensitivity(layers, 1)) == pytest.approx(moved, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("layers", [1, 4, 9])
def test_no_flow_of_the_class_is_more_sensitive(layers):
    """Rotations by theta_1, stretched, and a shift by theta_2 of the plane: 200 pairs of flows."""
    rng = np.random.default_rng(1)
    z = rng.standard_normal((2000, 2))

    def flow(theta):
        x = z
        for angle, shift in theta:
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            x = 1.1 * x @ turn.T + np.array([1.1 * shift, 0.0])
        return x

    bound = exp(LayerClass(2, lipschitz=1.1, parameter_lipschitz=1.1).log_sensitivity(layers, 2))
    for _ in range(200):
        one, two = rng.uniform(-1, 1, (2, layers, 2))
        moved = np.linalg.norm(flow(one) - flow(two), axis=1).mean()
        assert moved <= 1.05 * bound * abs(one - two).max()


def test_a_bound_on_the_whole_replaces_the_power():
    """S for layers that stretch by 2 each, but no run of them by more than 3."""
    layer = LayerClass(1, lipschitz=2.0, parameter_lipschitz=0.5, whole_lipschitz=3.0)
    t, mean = [1, 2, 3, 3], gaussian_norm(5)
    n = [t[i] * mean + 0.5 * sum(t[:i]) for i in range(4)]
    by_hand = 0.5 * sum(t[3 - i] * (1 + n[i]) for i in range(4))
    assert exp(layer.log_sensitivity(4, 5)) == pytest.approx(by_hand)


def test_a_bound_on_the_whole_flow_alone_is_not_enough():
    """The flow x -> 10 (x/10 + theta) stretches nothing, but moves by 10 theta: all runs count."""
    moved, z = 10.0, gaussian_norm(1)
    slack = {"parameters": 1, "lipschitz": 10.0, "parameter_lipschitz": 1.0}
    one, runs = (LayerClass(**slack, whole_lipschitz=whole) for whole in (1.0, 10.0))
    assert exp(one.log_sensitivity(2, 1)) == pytest.approx(1 + z + 1 + z + 1)
    assert exp(one.log_sensitivity(2, 1)) < moved < exp(runs.log_sensitivity(2, 1))


def test_the_net_has_a_flow_for_each_cell():
    """At least the exact number of cells of edge w / S, at most one more a side."""
    layer = LayerClass(3, lipschitz=1.5, parameter_lipschitz=1.0)
    sensitivity = exp(layer.log_sensitivity(2, 4))
    found = exp(layer.log_net(2, 4, 0.5) / 6)
    assert ceil(2 * sensitivity / 0.5) <= found <= ceil(2 * sensitivity / 0.5) + 1


@pytest.mark.parametrize("parameters", [1, 5, 64])
@pytest.mark.parametrize("whole", [10.0, float("inf")])
def test_the_bound_is_where_the_net_outgrows_the_family(parameters, whole):
    """One layer less has a net that is too small for what stays a quarter away."""
    flows = LayerClass(parameters, lipschitz=2.0, parameter_lipschitz=1.0, whole_lipschitz=whole)
    bound = min_depth(FAMILY, flows, 64)
    assert bound.missed == FAMILY.distance / 4
    assert flows.log_net(bound.layers, 64, bound.missed) >= FAMILY.log_count
    assert bound.layers > 1
    assert flows.log_net(bound.layers - 1, 64, bound.missed) < FAMILY.log_count


def test_depth_is_inverse_to_the_parameters_of_a_layer_for_smooth_flows():
    """Up to the logarithm; where only layers are Lipschitz, to their root."""
    big = Packing(1e6, 0.1, 1e9, 0.5, 10)

    def depths(whole):
        return [min_depth(big, LayerClass(p, 2.0, 1.0, whole), 64).layers for p in (10, 1000)]

    smooth, rough = depths(10.0), depths(float("inf"))
    assert 50 < smooth[0] / smooth[1] < 100
    assert 7 < rough[0] / rough[1] < 14


def test_where_the_net_is_large_at_once_nothing_is_said():
    """A layer with as many parameters as the mixture has numbers may be enough."""
    bound = min_depth(FAMILY, LayerClass(256 * 64, 2.0, 1.0), 64)
    assert bound.layers == 1
    assert "as far as counting can tell" in str(bound)


def test_numbers_of_32_bits_name_that_many_flows():
    """2^(32 n) at least as many as the family has mixtures, without any other assumption."""
    numbers = min_parameters(FAMILY)
    assert 32 * log(2) * numbers == pytest.approx(FAMILY.log_count)
    assert min_parameters(FAMILY, bits=16) == pytest.approx(2 * numbers)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"parameters": 0}, "'parameters' should be at least 1"),
        ({"lipschitz": 0.5}, "'lipschitz' should be at least 1, got 0.5"),
        ({"lipschitz": float("inf")}, "'lipschitz' should be a finite number"),
        ({"whole_lipschitz": 0.9}, "'whole_lipschitz' should be at least 1, got 0.9"),
        ({"whole_lipschitz": float("nan")}, "'whole_lipschitz' should be at least 1, got nan"),
        ({"parameter_lipschitz": 0.0}, "'parameter_lipschitz' should be a finite number above 0"),
    ],
)
def test_constants_out_of_range_are_refused(arguments, match):
    """In one sentence."""
    given = {"parameters": 4, "lipschitz": 2.0, "parameter_lipschitz": 1.0} | arguments
    with pytest.raises(ArgumentError, match=match):
        LayerClass(**given)


def test_a_depth_beyond_all_depths_is_refused():
    """Rather than searched for."""
    with pytest.raises(ArgumentError, match="'family' is too large"):
        min_depth(Packing(1e12, 0.1, 1e9, 0.5, 10), LayerClass(1, 2.0, 1.0, 10.0), 64)
