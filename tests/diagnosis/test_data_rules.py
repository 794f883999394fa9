"""Checks of the rows: each on its planted fault, at a few seeds."""

import polars as pl
import pytest
import torch

import kappaflow as kf
from diagnosis.faulty import findings, points
from kappaflow.data import load_table
from kappaflow.data.statistics import tail_of
from kappaflow.diagnosis import data_findings

SEEDS = pytest.mark.parametrize("seed", range(2))


def found(x):
    """The findings on an identity flow by code, without those on its likelihood."""
    flow = kf.Flow(kf.StandardNormal(x.shape[1]), kf.bijections.ElementwiseAffine(x.shape[1]))
    by_code = findings(flow, x)
    return {code: by_code[code] for code in by_code if not code.startswith("KF5")}


def dependent(x, generator):
    """One column is a mean of others."""
    x[:, 4] = x[:, :4] @ torch.rand(4, generator=generator)


def doubled(x, generator):
    """Two columns are equal."""
    x[:, 1] = x[:, 3]


def constant(x, generator):
    """One column is constant."""
    x[:, 2] = torch.randn((), generator=generator)


def discrete(x, generator):
    """Integers."""
    x[:, 0] = torch.randint(-3, 4, (len(x),), generator=generator).float()


def again(x, generator):
    """One value in a fifth of the rows."""
    x[: len(x) // 5, 0] = 0.25


def repeated(x, generator):
    """Half of the rows are the other half."""
    x[len(x) // 2 :] = x[: len(x) // 2].clone()


@SEEDS
@pytest.mark.parametrize(
    ("fault", "code", "severity"),
    [
        (dependent, "KF601", "warning"),
        (doubled, "KF601", "warning"),
        (constant, "KF602", "warning"),
        (discrete, "KF603", "note"),
        (again, "KF603", "note"),
        (repeated, "KF604", "note"),
    ],
)
def test_each_fault_is_found_alone(fault, code, severity, seed):
    """With no other finding; the columns are named."""
    x = points(seed, 300, 5)
    fault(x, torch.Generator().manual_seed(seed))
    by_code = found(x)
    by_code.pop("KF216", None)  # encoded, such rows are not normal
    assert set(by_code) == {code} and by_code[code].severity == severity
    assert by_code[code].evidence["rows"] == len(x)


def test_values_that_float32_cannot_resolve_are_found():
    """Values around ten million, where float32 has a resolution of one."""
    assert found(points(0, 300, 5) + 1e7)["KF605"].severity == "warning"


def test_columns_with_the_same_problem_are_one_finding():
    """All columns are named; a table has column names."""
    x = points(0, 300, 5)
    x[:, 0], x[:, 3] = x[:, 0].round(), x[:, 3].round()
    finding = found(x)["KF603"]
    assert "the same holds for 'x3'" in finding.message and finding.evidence["columns"] == "x0, x3"
    frame = pl.DataFrame(x.numpy(), schema=["a", "b", "c", "d", "e"])
    (named,) = data_findings(load_table(frame))
    assert named.evidence["columns"] == "a, d"


def test_rows_in_bfloat16_are_checked():
    """Numpy has no such dtype."""
    flow = kf.real_nvp(5, depth=2, hidden=(4,)).bfloat16()
    assert kf.doctor(flow, points(0, 300, 5).bfloat16()).findings


@pytest.mark.slow
@SEEDS
def test_data_without_a_fault_is_silent(seed):
    """A few rows are not checked as data."""
    assert found(points(seed, 300, 5)) == {}
    assert found(torch.zeros(8, 3)) == {}


@SEEDS
def test_heavy_tails_are_found_and_others_are_not(seed):
    """KF606 for Student's t with 1.5 degrees of freedom, not for the Laplace distribution."""
    torch.manual_seed(seed)
    x = points(seed, 4000, 5)
    x[:, 1] = torch.distributions.Laplace(0, 1).sample((4000,))
    assert list(data_findings(x)) == []
    x[:, 3] = torch.distributions.StudentT(1.5).sample((4000,))
    (finding,) = data_findings(x)
    assert finding.code == "KF606" and finding.severity == "note"
    assert finding.evidence["columns"] == "x3"
    assert abs(finding.evidence["index"] - 1 / 1.5) < 4 * finding.evidence["standard_error"]
    tail = tail_of(torch.poisson(torch.full((4000,), 2.0)).double().numpy())
    assert tail is not None and not tail.is_heavy
