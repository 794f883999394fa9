"""Curves of columns: right to a few thousandths of a nat, and no knots without a reason."""

import numpy as np
import pytest
import torch
from benchmarks.columns import COLUMNS, measured

import kappaflow as kf
from kappaflow.bijections import Gaussianize
from kappaflow.bijections.column_curve import fit_curve
from kappaflow.files import read_config, write_weights


@pytest.mark.parametrize("name", COLUMNS)
def test_the_curve_of_a_column_is_its_distribution(name):
    """Up to 0.01 nats; by quantiles at 24 equal scores, 0.15 for a spike and 1.6 for Cauchy."""
    result, mixed = measured(name, 20_000, seed=0), len(COLUMNS[name]) > 1
    assert result["kl"] < (0.01 if mixed else 0.005)
    assert result["bins"] <= (32 if mixed else 20)


@pytest.mark.parametrize("rows", [500, 20_000])
def test_normal_rows_keep_the_identity(rows):
    """Also among others, which then have as many bins as they need."""
    x = torch.randn(rows, 2, generator=torch.Generator().manual_seed(1))
    x[:, 1] = x[:, 1].sinh()
    x = (x - x.mean(0)) / x.std(0)
    curves = Gaussianize(2)
    curves.fit(x)
    torch.testing.assert_close(curves(x)[0][:, 0], x[:, 0])
    assert (curves(x)[0][:, 1] - x[:, 1]).abs().max() > 0.5


def test_before_couplings_the_gaps_between_modes_stay():
    """Five modes in 3 columns, 10 epochs: 0.31 nats with narrow gaps, 0.16 with these."""
    x = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0)) / 4
    x[::2] += 2
    curve, kept = Gaussianize(1), Gaussianize(1, keep_gaps=True)
    for part in (curve, kept):
        part.fit(x)
    gaps = [part(torch.tensor([[0.7], [1.3]]))[0].diff(dim=0).item() for part in (curve, kept)]
    assert gaps[0] < 0.25 < 0.5 < gaps[1]
    flows = [kf.spline(features, start="gaussianize") for features in (1, 2)]
    parts = [part for flow in flows for part in flow.chain() if isinstance(part, Gaussianize)]
    assert [part.keep_gaps for part in parts] == [False, True]


RNG = np.random.default_rng(0)
NORMALS = RNG.normal(size=5000)
AWKWARD = {
    "a third is zero": np.where(RNG.random(5000) < 1 / 3, 0, NORMALS),
    "rounded": np.round(NORMALS, 1),
    "counts": RNG.poisson(3, 5000).astype(float),
    "clusters far apart": np.repeat(np.arange(5.0), 1000) + 1e-4 * NORMALS,
    "an outlier": np.append(NORMALS, 1e6),
    "few values": np.repeat([0.0, 1.0, 3.0], 9),
    "constant": np.ones(50),
    "one row": np.ones(1),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", AWKWARD)
def test_curves_of_awkward_columns_are_finite_increasing_and_invertible(name, dtype):
    """A value that repeats gets no bin that is as narrow as it."""
    x = torch.from_numpy(AWKWARD[name])
    x = ((x - x.mean()) / (x.std(correction=0) or 1)).to(dtype)[:, None]
    curve = Gaussianize(1).to(dtype)
    curve.fit(x)
    points = torch.cat([x, torch.linspace(-30, 30, 2001, dtype=dtype)[:, None]]).sort(0).values
    z, log_det = curve(points)
    assert z.isfinite().all() and log_det.isfinite().all() and (z.diff(dim=0) >= 0).all()
    steps = points.abs() + (1 + z.abs()) / log_det.exp()[:, None]  # what a rounded z changes x by
    assert ((curve.inverse(z)[0] - points).abs() < 30 * torch.finfo(dtype).eps * steps).all()
    repeats = name in ("a third is zero", "rounded", "counts")
    assert log_det.max() < 5 or not repeats


def test_changed_curves_are_smooth_and_invertible():
    """Bins that no column uses have knots in one place, where the slope must not jump."""
    rng = np.random.default_rng(0)
    line = np.concatenate([rng.uniform(-3, 3, 4000), rng.normal(1, 0.001, 400)])
    curves = Gaussianize(3, padding=1).double()
    curves.fit(torch.from_numpy(np.column_stack([line, rng.normal(size=4400), line])))
    before = curves(torch.zeros(1, 3).double())[0]
    with torch.no_grad():
        curves.changes.copy_(3 * torch.randn(2, 65, generator=torch.Generator().manual_seed(0)))
    knots = curves.knots[0].unique()[:, None].expand(-1, 3)
    x = torch.cat([knots - 1e-9, knots + 1e-9, torch.linspace(-9, 9, 500)[:, None].expand(-1, 3)])
    x.requires_grad_()
    z, log_det = curves(x)
    (slopes,) = torch.autograd.grad(z.sum(), x)
    torch.testing.assert_close(slopes.log().sum(1), log_det)
    torch.testing.assert_close(curves.inverse(z)[0], x, atol=1e-8, rtol=0)
    left, right = slopes[: len(knots)], slopes[len(knots) : 2 * len(knots)]
    torch.testing.assert_close(left, right, rtol=1e-3, atol=0)
    assert torch.equal(z[:, 2], x[:, 2])  # padding
    assert not torch.allclose(curves(torch.zeros(1, 3).double())[0][:, :2], before[:, :2])


def test_training_gives_a_line_its_share():
    """A curve that was fitted to other rows moves: 2 % of the rows in a line become 10 %."""
    rng = np.random.default_rng(0)

    def rows(share):
        line = rng.normal(1, 0.001, round(4000 * share))
        return torch.from_numpy(np.append(rng.uniform(-3, 3, 4000 - len(line)), line)[:, None])

    flow = kf.spline(1, start="gaussianize")
    flow.standardization.fit(rows(0.02).float())
    x = rows(0.1).float()
    flow = kf.fit(flow, x, max_epochs=15, learning_rate=0.02, progress=False).flow
    share = ((flow.sample(20_000) - 1).abs() < 0.004).float().mean()
    assert abs(share - ((x - 1).abs() < 0.004).float().mean()) < 0.02


def test_uneven_weights_are_worth_few_rows():
    """Weights of a wide log-normal: 20,000 rows say as much as about 400."""
    rows, mass = np.sort(RNG.normal(size=20_000)), np.exp(2 * RNG.normal(size=20_000))
    assert len(fit_curve(rows, mass, 64).knots) < 12


def test_files_with_fewer_bins_load_with_the_same_scores(tmp_path):
    """Such as those from when a curve had 24 bins; a flow from such a file can be saved again."""
    torch.manual_seed(0)
    flow = kf.spline(2, depth=2, hidden=(4,), start={"start": "gaussianize"}).eval()
    x = torch.randn(400, 2).exp()
    flow.standardization.fit(x)
    kf.save(flow, tmp_path / "model")
    knots = torch.linspace(-2, 2, 25).repeat(2, 1)
    old = {"knots": knots, "scores": knots.sinh(), "slopes": knots.cosh()}
    state = flow.state_dict()
    state |= {name: old[name.split(".")[-1]] for name in state if name.split(".")[-1] in old}
    state = {name: tensor for name, tensor in state.items() if not name.endswith("changes")}
    config = read_config(tmp_path / "model" / "config.json")
    write_weights(tmp_path / "model" / "model.safetensors", state, config)
    loaded = kf.load(tmp_path / "model")
    curve = next(part for part in loaded.chain() if isinstance(part, Gaussianize))
    torch.testing.assert_close(curve(knots.T)[0], knots.sinh().T)
    kf.save(loaded, tmp_path / "again")
    assert torch.equal(kf.load(tmp_path / "again").log_prob(x), loaded.log_prob(x))
