"""Linear couplings fitted by descent: products, gradients, and their findings."""

import numpy as np
import polars as pl
import pytest
import torch

import kappaflow as kf
from kappaflow_studies import ensembles
from kappaflow_studies.engine.presets import settings_of
from kappaflow_studies.linear_depth import LINEAR_DEPTH, Regression, by_adam, by_lbfgs, measure

CASE = {"ensemble": "orthogonal", "n": 6, "draws": 2, "seed": 0}


def problem(depth, count=2, n=6):
    """Returns a regression on rotations."""
    maps = [torch.from_numpy(ensembles.draw("orthogonal", n, i)) for i in range(count)]
    return Regression(torch.stack(maps), depth, torch.Generator().manual_seed(0))


def test_the_factors_are_couplings_that_take_turns():
    """The product of the library's own linear couplings is the same map."""
    regression = problem(3)
    numbers = regression.start
    factors = regression.factors(numbers)
    for layer, factor in enumerate(factors):
        kept = slice(0, 3) if layer % 2 == 0 else slice(3, 6)
        changed = slice(3, 6) if layer % 2 == 0 else slice(0, 3)
        coupling = kf.factor.LinearCoupling(
            kf.Partition(6, tuple(range(6))[kept]),
            numbers[0, layer, :, :-1],
            numbers[0, layer, :, -1].exp(),
        )
        assert torch.allclose(coupling.matrix(), factor[0])
        assert (factor[:, kept, kept] == torch.eye(3, dtype=torch.float64)).all()
        assert (factor[:, kept, changed] == 0).all()


def test_the_residual_is_that_of_the_product():
    """Relative to the map, in the norm of Frobenius."""
    regression = problem(4)
    product = np.linalg.multi_dot([
        factor[1].numpy() for factor in regression.factors(regression.start)
    ])
    target = regression.targets[1].numpy()
    expected = np.linalg.norm(product - target) / np.linalg.norm(target)
    assert regression.residuals(regression.start)[1].item() == pytest.approx(expected, rel=1e-12)


def test_adam_treats_each_map_as_if_alone():
    """Side by side is the same as one after the other."""
    both = problem(4)
    numbers = by_adam(both, 40, 0.02)
    alone = Regression(both.targets[1:], 4, torch.Generator())
    alone.start = both.start[1:]
    assert torch.allclose(numbers[1:], by_adam(alone, 40, 0.02), atol=1e-12)
    assert (both.residuals(numbers) < both.residuals(both.start)).all()


def test_lbfgs_fits_what_adam_does_not():
    """Eight couplings make a rotation of six features."""
    regression = problem(8, count=1)
    assert regression.residuals(by_lbfgs(regression, 400)).item() < 1e-6


@pytest.mark.slow
def test_a_case_keeps_the_best_of_its_starts():
    """And measures the conditioning of that one."""
    case = {**CASE, "depth": 5, "method": "L-BFGS", "restarts": 3, "steps": 60}
    rows = measure(case)
    assert [row["draw"] for row in rows] == [0, 1]
    for row in rows:
        assert row["residual"] <= row["median_residual"]
        assert row["condition_number"] > 1 and row["of_the_map"] == pytest.approx(1)


def test_the_exact_factorization_says_why_it_cannot():
    """Six make every map; the three-cycle is no product of five."""
    case = {**CASE, "ensemble": "three-cycle", "method": "exact"}
    assert all(row["residual"] < 1e-12 for row in measure({**case, "depth": 6}))
    assert all("residual" not in row and row["why_not"] for row in measure({**case, "depth": 5}))


def rows_of(method, depth, residuals, ensemble="orthogonal", condition=5.0):
    """Returns rows as they are measured."""
    shared = {"ensemble": ensemble, "n": 6, "depth": depth, "method": method}
    shared |= {"condition_number": condition}
    return [{**shared, "draw": i, "residual": residual} for i, residual in enumerate(residuals)]


def test_what_is_said_follows_the_numbers():
    """Where each method begins to fit, and that three never do."""
    settings = settings_of(LINEAR_DEPTH, "minutes", None)
    settings = settings.model_copy(update={"ensembles": ("orthogonal",), "sizes": (6,)})
    frame = pl.DataFrame(
        [
            *rows_of("exact", 5, [None, 1e-15]),
            *rows_of("exact", 6, [1e-15, 2e-15], condition=6.1),
            *rows_of("Adam", 3, [0.3, 0.4]),
            *rows_of("Adam", 6, [0.2, 1e-9]),
            *rows_of("L-BFGS", 6, [0.1, 1e-9]),
            *rows_of("L-BFGS", 5, [0.1, 0.1]),
            *rows_of("L-BFGS", 8, [1e-9, 1e-8]),
        ],
        infer_schema_length=None,
    )
    result = LINEAR_DEPTH.findings(frame, settings)
    message = " ".join(result.found).replace("\xa0", " ")
    assert "they fit 2 of 2 maps exactly, with residuals of at most 2.0 × 10⁻¹⁵" in message
    assert "no coupling has a condition number above 6.10" in message
    assert (
        "L-BFGS fits 50 % of the maps with six couplings" in message
        and "only from 8 on" in message
    )
    assert "Adam fits 50 %" in message and "at no depth up to 6" in message
    assert "the smallest residual is 0.300" in message
    assert "the exact search fits 50 % of ours, L-BFGS 0 %" in message
    (table,) = result.tables
    assert table.rows == [["orthogonal, 6", "5", "6", "6"]]
    (residual, conditioning) = result.charts
    names = [series.name for series in residual.panels[0].series]
    assert names == ["factorization", "L-BFGS", "Adam"] and len(conditioning.panels) == 1


@pytest.mark.parametrize("preset", ["minutes", "full"])
def test_the_presets_make_cases_that_differ(preset):
    """Each is one of a kind; five couplings and more are factored too."""
    cases = LINEAR_DEPTH.cases(settings_of(LINEAR_DEPTH, preset, None), 0)
    assert len({str(case) for case in cases}) == len(cases)
    exact = {case["depth"] for case in cases if case["method"] == "exact"}
    assert min(exact) == 4 and 6 in exact and max(exact) <= 16
