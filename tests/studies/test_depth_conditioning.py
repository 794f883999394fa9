"""`depth-conditioning`: the laws, the flows of other libraries, ideal layers, what is reported."""

import math
from itertools import pairwise

import polars as pl
import pytest
import torch

from kappaflow.testing import check_bijection
from kappaflow.testing.contract import jittered
from kappaflow_studies.depth_conditioning import DEPTH_CONDITIONING
from kappaflow_studies.depth_conditioning.distributions import Gaussian, distribution_named
from kappaflow_studies.depth_conditioning.measure import (
    ROTATIONS,
    SCHEMES,
    gradient_norms,
    in_float64,
    measure,
    train,
    whitened,
)
from kappaflow_studies.depth_conditioning.peers import LIBRARIES, flow_of, installed
from kappaflow_studies.engine.presets import settings_of
from kappaflow_studies.engine.study import frame_of

LAWS = {"Gaussian": 50.0, "sheet": 0.1}
TINY = """
libraries = ["kappaflow", "zuko"]
depths = [2, 4]
features = 4
hidden = [6]
condition_number = 20.0
thickness = 0.3
draws = 1
steps = 3
batch = 16
learning_rate = 0.01
points = 5
test_points = 50
whitening_draws = 3
whitening_layers = 6
"""


def seeded(seed=0):
    """Returns a generator with this seed."""
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def tiny(tmp_path):
    """Settings for a second."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return settings_of(DEPTH_CONDITIONING, "minutes", path)


@pytest.mark.parametrize("name", LAWS)
def test_a_law_has_the_density_of_its_exact_map(name):
    """Log p = log N(z) + log|det|, by automatic differentiation, at draws and away from them."""
    law = distribution_named(name, 8, LAWS[name], 3)
    x = law.sample(20, seeded()) + torch.randn(20, 8, dtype=torch.float64)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: law.whiten(row[None])[0]))(x)
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    expected = normal.log_prob(law.whiten(x)).sum(1) + torch.linalg.slogdet(jacobian)[1]
    torch.testing.assert_close(law.log_prob(x), expected)


@pytest.mark.parametrize("name", LAWS)
def test_draws_of_a_law_are_its_own(name):
    """The exact map makes them standard normal, and their features have variance 1."""
    law = distribution_named(name, 8, LAWS[name], 3)
    x = law.sample(20_000, seeded(1))
    z = law.whiten(x)
    assert (torch.cov(z.T) - torch.eye(8)).abs().max() < 0.06  # five standard errors
    assert z.mean(0).abs().max() < 0.036
    assert (x.var(0) - 1).abs().max() < 0.08


@pytest.mark.parametrize("library", LIBRARIES)
def test_each_library_is_a_bijection_of_ours(library):
    """Its layers keep the contract: log_det, inverse, products, rows."""
    if not installed(library):
        pytest.skip(f"{library} is not installed")
    torch.manual_seed(1)
    flow = jittered(flow_of(library, 4, 4, (5, 5))).double()
    x = torch.randn(4, 4, dtype=torch.float64)
    check_bijection(flow.bijection, x)
    layers = list(in_float64(flow).bijection)
    assert len(layers) == (2 if library == "FrEIA" else 4)


@pytest.mark.slow
@pytest.mark.parametrize("library", ["kappaflow", "normflows"])
def test_a_flow_learns_and_is_measured_as_it_is(library):
    """The loss falls, and the layers in float64 are the flow that was trained."""
    if not installed(library):
        pytest.skip(f"{library} is not installed")
    torch.manual_seed(0)
    law, flow = Gaussian(4, 30.0, 0), flow_of(library, 4, 2, (16,))
    x = law.sample(500, seeded(5))
    before = -flow.log_prob(x.float()).mean().item()
    settings = {"steps": 60, "batch": 128, "rate": 0.02}
    assert train(flow, law, generator=seeded(), **settings) is None
    after = -flow.log_prob(x.float()).mean()
    assert after.item() < before - 0.3
    double_flow = -in_float64(flow).log_prob(x).mean()
    assert double_flow.item() == pytest.approx(after.item(), rel=1e-5)


def test_a_training_that_breaks_says_when():
    """An infinite learning rate makes the second loss nan."""
    flow = flow_of("kappaflow", 4, 2, (8,))
    result = train(flow, Gaussian(4, 30.0, 0), steps=9, batch=8, rate=math.inf, generator=seeded())
    assert result == 1


def test_gradients_are_told_layer_by_layer():
    """As plain differentiation has them, in the order from the data on."""
    flow = in_float64(jittered(flow_of("kappaflow", 4, 3, (5,))))
    x = torch.randn(30, 4, dtype=torch.float64)
    result = gradient_norms(flow, x)
    (-flow.log_prob(x).mean()).backward()
    expected = [
        math.sqrt(sum(p.grad.square().sum().item() for p in layer.parameters()))
        for layer in flow.bijection
    ]
    assert result == pytest.approx(expected) and len(set(expected)) == 3


def test_binary_digits_whiten_in_as_many_layers():
    """ceil(log2 n), for each n, and not one earlier."""
    for n in (2, 4, 6, 8, 14, 16):
        needed = math.ceil(math.log2(n))
        losses = [row["loss"] for row in whitened("binary digits", n, 40.0, needed, 1)]
        assert losses[-1] < 1e-12 and (needed == 1 or losses[-2] > 1e-3)


@pytest.mark.slow
def test_other_schemes_do_as_the_page_says():
    """One partition stands still, the others never go up, and bounds hold on average."""
    for scheme in SCHEMES:
        losses = [row["loss"] for row in whitened(scheme, 6, 40.0, 8, 2)]
        assert all(b <= a + 1e-12 for a, b in pairwise(losses))
    stuck = [row["loss"] for row in whitened("one partition", 6, 40.0, 8, 2)]
    assert stuck[1] > 0.05 and stuck[1:] == pytest.approx([stuck[1]] * 8)
    runs = [whitened(ROTATIONS, 6, 40.0, 3, seed) for seed in range(200)]
    for layer in (1, 2, 3):
        mean = sum(run[layer]["loss"] for run in runs) / len(runs)
        assert mean < sum(run[layer]["expected"] for run in runs) / len(runs)
        assert all(run[layer]["loss"] <= run[layer - 1]["loss"] for run in runs)
        assert mean < sum(run[layer]["guaranteed"] for run in runs) / len(runs)


def test_a_measurement_holds_what_it_says(tiny):
    """At the start ours is the identity; the gap is a difference; products are bounds."""
    case = next(c for c in DEPTH_CONDITIONING.cases(tiny, 0) if c["what"] == "flow")
    start, trained = measure({**case, "library": "kappaflow", "law": "Gaussian", "steps": 30})
    assert start["condition_high"] == pytest.approx(1.0) and trained["condition_low"] > 1.0
    assert start["within_products"] == trained["within_products"] == 1.0
    for level in ("low", "median", "high"):
        assert trained[f"condition_product_{level}"] > trained[f"condition_{level}"]
        assert trained[f"product_max_{level}"] > trained[f"sigma_max_{level}"]
        assert trained[f"product_min_{level}"] < trained[f"sigma_min_{level}"]
    law = Gaussian(4, case["hardness"], case["seed"])
    assert start["gap"] == pytest.approx(law.loss, abs=5 * start["gap_error"])
    assert trained["gap"] < start["gap"]
    exact = torch.linalg.cond(law.covariance).sqrt().item()
    assert start["reference"] == pytest.approx(exact)
    assert len(trained["gradient_norms"]) == case["depth"]


def test_what_is_said_is_what_was_measured(tiny):
    """The charts, and a library that is missing is a note and no failure."""
    cases = [c for c in DEPTH_CONDITIONING.cases(tiny, 0) if c.get("library") != "zuko"]
    frame = frame_of([(case, measure(case), 0.0) for case in cases])
    findings = DEPTH_CONDITIONING.findings(frame, tiny)
    assert "on the Gaussian kappaflow 1.0;" in findings.found[1]
    assert "at every point" in findings.found[0]
    assert "after 2 layers for each Gaussian" in findings.found[-1]
    assert "Not installed, and so left out: zuko." in findings.differs[-1]
    charts = {chart.name: chart for chart in findings.charts}
    condition = charts["condition"].panels[1].series[0]
    rows = frame.filter((pl.col("law") == "Gaussian") & (pl.col("when") == "trained")).sort(
        "depth"
    )
    assert condition.x == [2.0, 4.0] and condition.y == rows["condition_median"].to_list()
    deepest = rows.filter(pl.col("depth") == 4)["gradient_norms"].to_list()[0]
    assert charts["gradients"].panels[1].series[0].y == pytest.approx(deepest)
