"""The tables of the doctor, which the page draws, and its progress."""

import json
import math

import pytest
import torch

import kappaflow as kf
from diagnosis.faulty import alone, doctor, moved, points, stretching
from kappaflow.diagnosis import filter_findings


def jacobian(flow, x):
    """Returns dz/dx at one point, by reverse-mode differentiation of the whole."""
    return torch.autograd.functional.jacobian(lambda v: flow.bijection(v[None])[0][0], x)


@pytest.mark.slow
def test_log_dets_and_singular_values_are_those_of_the_jacobian():
    """By a dense Jacobian that shares no code with the doctor's."""
    flow, x = alone(moved().core).double(), points().double()
    tables = doctor(flow, x).tables
    matrices = torch.stack([jacobian(flow, row) for row in x])
    expected = torch.linalg.slogdet(matrices)[1].tolist()
    for column in ("jacobian", "forward", "inverse"):
        assert tables["log_dets"][column] == pytest.approx(expected, rel=1e-5, abs=1e-5)
    values = torch.linalg.svdvals(matrices[:16])
    for name, level in (("p05", 0.05), ("median", 0.5), ("max", 1.0)):
        quantiles = values.quantile(level, dim=0, interpolation="higher").tolist()
        assert tables["singular_values"][name] == pytest.approx(quantiles, rel=1e-5)
    assert tables["singular_values"]["number"] == [1, 2, 3, 4]
    kappa = torch.linalg.cond(matrices).max().item()
    assert tables["depth"]["condition_number_max"][-1] == pytest.approx(kappa, 1e-5)


def test_round_trips_far_out_are_those_of_the_flow():
    """Relative errors on both sides; here only beyond 4 in one direction."""

    def decode(z):
        return torch.where(z > 4, z + 0.5, z), torch.zeros(len(z))

    flow = (lambda x: (x, torch.zeros(len(x))), decode)
    table = doctor(flow, torch.rand(64, 2)).tables["far_out"]
    assert table["sigma"] == [0, 2, 4, 6, 8, 10]
    assert table["latent_max"][0] == 0 and 0.02 < table["latent_max"][-1] < 0.2
    assert 0.02 < table["data_max"][-1] < 0.2
    assert table["latent_median"][0] == table["data_median"][0] == 0


@pytest.mark.slow
def test_the_tables_have_each_density():
    """log_prob at the rows and at samples, and the one returned with samples."""
    flow, x = moved().double(), points().double()
    tables = doctor(flow, x).tables
    log_prob = flow.log_prob(x).tolist()
    assert tables["log_prob"]["data"] == pytest.approx(log_prob, rel=1e-6)
    assert tables["densities"]["layers"] == tables["log_prob"]["data"]
    drawn = tables["sample_densities"]
    assert drawn["layers"] == pytest.approx(drawn["with_samples"], abs=1e-5)
    assert "log_prob" not in kf.doctor(flow).tables  # without data there is nothing to compare


def test_tables_are_small_and_in_the_json():
    """A few numbers per row, with strings for values that are not finite; filtering keeps them."""
    diagnosis = doctor(alone(stretching(200.0)), points(n=500))

    def refuse(token):
        raise AssertionError(token)

    content = json.loads(diagnosis.to_json(), parse_constant=refuse)
    assert content["tables"]["depth"]["layer"] == list(diagnosis.profile.layers)
    rows = [len(column) for table in diagnosis.tables.values() for column in table.values()]
    assert max(rows) <= 64 and len(diagnosis.to_json()) < 60_000
    assert math.inf in diagnosis.tables["far_out"]["latent_max"]
    assert filter_findings(diagnosis, ["KF3"]).tables == diagnosis.tables


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scale", "dtype", "expected"),
    [
        (8.0, torch.float32, "float32 safe"),
        (10.0, torch.float32, "decode in float64"),
        (12.0, torch.float32, "unusable in float32"),
        (12.0, torch.float64, "float64 safe"),
        (31.0, torch.float64, "float64 with care"),
    ],
)
def test_the_dtype_to_use_is_named(scale, dtype, expected):
    """From eps times the condition number, with thresholds of 1e-3 and 1e-2."""
    diagnosis = doctor(alone(stretching(scale)).to(dtype), 1e-6 * points().to(dtype))
    assert diagnosis.measured["precision"] == expected


def test_progress_receives_each_layer_before_it_is_measured():
    """An exception of it stops the doctor, and the flow is unchanged."""
    flow, reported = moved().train(), []
    kf.doctor(flow, points(), progress=reported.append)
    layers = [text for text in reported if text.startswith("conditioning over depth")]
    assert layers == [f"conditioning over depth, layer {i} of 4" for i in range(1, 5)]
    assert reported[0] == "changes by calls"

    def stop(text):
        if "layer 2" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kf.doctor(flow, points(), progress=stop)
    assert flow.training
