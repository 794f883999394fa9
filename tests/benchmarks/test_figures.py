"""What decides a published figure: differences, goals, references and the split of tables."""

import hashlib
import importlib.util
import math
import shutil

import numpy as np
import pytest
import scipy.stats
import torch

import kappaflow as kf
from kappaflow.conditioning import layers_of
from kappaflow.testing.contract import dense_jacobian

BEST = "zuko NSF, fair"
DEVELOPMENT = (
    *("segment", "firms", "stocks", "magic", "patches", "prison"),
    *("cities", "forbes", "crime", "heat", "colors", "glucose"),
)


@pytest.fixture
def report(benchmark):
    """Returns the module that compares results on tables."""
    return benchmark("tables_suite.report")


def result_of(model, test, *, seed=0, condition=10.0):
    """Returns a result, as the command appends it."""
    times = {"seconds": 60.0, "test_error": 0.1}
    line = {"table": "magic", "model": model, "seed": seed, "test": test}
    return {**line, **times, "condition_p95": condition}


def results(report, cache, ours=(-1.0, -2.0, -3.0)):
    """Returns results on one table, whose log p of three test rows are in the cache."""
    rows = {"kappaflow": ours, BEST: (-1.5, -3.5, -3.0), "mixture": (-2.0, -2.0, -6.5)}
    lines = []
    for model, log_p in rows.items():
        line = result_of(model, -float(np.mean(log_p)), condition=5.0 * len(lines))
        np.savez(report.npz_of(cache, line), log_p=np.asarray(log_p, np.float32))
        lines.append(line)
    return lines


def test_a_paired_difference_is_that_of_a_hand_computation(report, tmp_path):
    """Differences 0.5, 1.5, 0; a second seed that is one nat better raises them by half a nat.

    It counts once all models have it.
    """
    lines = results(report, tmp_path)
    (line,) = report.summary(lines, tmp_path, 60.0, every=True)["against"][BEST]
    assert report.summary(lines, tmp_path, 60.0)["best_peers"][0] == line | {
        "peer": BEST,
        "chosen": "",
    }
    assert line["difference"] == pytest.approx(2 / 3)
    assert line["error"] == pytest.approx(np.sqrt(7 / 12 / 3))
    second = result_of("kappaflow", 1.0, seed=1)
    np.savez(report.npz_of(tmp_path, second), log_p=np.array([0.0, -1.0, -2.0], np.float32))
    early = report.summary([*lines, second], tmp_path, 60.0)
    assert early["best_peers"][0] == line | {"peer": BEST, "chosen": ""}
    others = [one | {"seed": 1} for one in lines[1:]]
    for one, other in zip(lines[1:], others, strict=True):
        shutil.copy(report.npz_of(tmp_path, one), report.npz_of(tmp_path, other))
    summary = report.summary([*lines, second, *others], tmp_path, 60.0)
    assert summary["best_peers"][0]["difference"] == pytest.approx(2 / 3 + 0.5)
    assert summary["nll"]["magic: kappaflow"] == pytest.approx(1.5)


def test_goals_hold_and_fail_where_they_should(report, tmp_path):
    """A model that is better everywhere reaches all three; one that is worse reaches none."""
    summary = report.summary(results(report, tmp_path), tmp_path, 60.0)
    assert [goal["holds"] for goal in summary["goals"].values()] == [True] * 3
    worse = results(report, tmp_path, ours=(-7.0, -7.0, -7.1))
    worse[0]["condition_p95"] = 1e6
    summary = report.summary(worse, tmp_path, 60.0)
    assert [goal["holds"] for goal in summary["goals"].values()] == [False] * 3


def test_a_result_that_is_not_finite_ranks_last(report, tmp_path):
    """Its NLL is None in the file; without log p of the rows errors add up as independent ones."""
    lines = [
        result_of("zuko MAF, fair", None),
        result_of(BEST, 9.0),
        result_of("kappaflow", 3.0),
    ]
    summary = report.summary(lines, tmp_path, 60.0)
    assert summary["best_peers"][0]["peer"] == BEST
    assert summary["best_peers"][0]["error"] == pytest.approx(0.1 * np.sqrt(2))
    assert summary["ranks"] == {"kappaflow": 1.0, BEST: 2.0, "zuko MAF, fair": 3.0}


def test_a_look_at_the_judged_tables_is_logged_first(benchmark, tmp_path):
    """Also where there are no results to print."""
    command = benchmark("tables_suite.command")
    with pytest.raises(SystemExit, match="no results of 60 seconds"):
        command.tables(part="judged", show=True, results=tmp_path, cache=tmp_path)
    with pytest.raises(SystemExit, match="'part' should be among development, judged"):
        command.tables(part="known", show=True, results=tmp_path, cache=tmp_path)
    assert len((tmp_path / "judged-looks.jsonl").read_text().splitlines()) == 1


def test_a_table_never_changes_sides(benchmark):
    """The hash of a name decides; rows are split the same way in every call."""
    data = benchmark("tables_suite.data")
    assert data.names("development") == DEVELOPMENT
    assert set(data.names()) == {*DEVELOPMENT, *data.names("judged")}
    parts = data.load("magic")
    rows = np.concatenate([parts.train, parts.validation, parts.test])
    assert len(np.unique(rows, axis=0)) == len(rows) == 15124 + 1890 + 1891
    digest = hashlib.sha256(np.round(parts.test, 4).tobytes()).hexdigest()
    assert digest[:16] == "a3cbd954bf78d2a0"


def test_our_density_is_that_of_standardized_rows(benchmark, monkeypatch):
    """Means, deviations and the log-determinant of the change of units are right."""
    ours, fitted = benchmark("tables_suite.ours"), benchmark("tables_suite.fitted")
    mean, deviation = np.array([5.0, -300.0]), np.array([0.1, 40.0])
    rows = np.random.default_rng(0).normal(size=(300, 2))
    rows = mean + deviation * (rows - rows.mean(0)) / rows.std(0)
    scale, shift = (-np.log(deviation)).tolist(), (-mean / deviation).tolist()
    affine = kf.bijections.ElementwiseAffine(2, log_scale=scale, shift=shift)
    flow = kf.Flow(kf.StandardNormal(2), affine).double()
    result = fitted.Fitted(lambda x: flow.log_prob(x).detach().numpy(), lambda x: affine(x)[0])
    monkeypatch.setattr(ours, "default_density", lambda *arguments, **options: result)
    parts = benchmark("tables_suite.data").Parts(rows, rows[:100], rows[100:200], ("a", "b"))
    density = ours.kappaflow_default(parts, 1.0, 0)
    z = fitted.standardized(parts).test
    expected = -0.5 * (z**2).sum(1) - np.log(2 * np.pi)
    assert density.log_prob(z) == pytest.approx(expected, abs=1e-3)
    assert fitted.condition_numbers(density, z) == pytest.approx(1.0, abs=1e-5)


DENSITIES = (
    *(
        "line",
        "tails",
        "modes",
        "rings",
        "bent 8",
        "nine modes",
        "line of 3",
        "spirals",
        "squares",
    ),
    *("spike", "mixture 5", "chain 4, 2,000 rows", "wide and moving", "3 widths", "two ways"),
)


@pytest.mark.parametrize("name", DENSITIES)
def test_a_density_integrates_to_one_and_is_that_of_the_samples(benchmark, name):
    """By importance sampling from a Student t around the samples, within five standard errors."""
    table, rng = benchmark("known_tables").TABLES[name], np.random.default_rng(0)
    truth, k = table.density.sample(40_000, rng), table.context
    mean, covariance = truth[:, k:].mean(0), np.atleast_2d(np.cov(truth[:, k:].T))
    proposal = scipy.stats.multivariate_t(mean, covariance, df=5)
    x = proposal.rvs(40_000, random_state=rng).reshape(len(truth), -1)
    log_p = table.density.log_prob(np.hstack([truth[:, :k], x]))
    weights = np.exp(log_p - proposal.logpdf(x))
    assert abs(weights.mean() - 1) < 5 * weights.std() / math.sqrt(len(weights))
    units = np.linalg.inv(np.linalg.cholesky(covariance)).T
    for direction in (*units.T, units.sum(1)):
        for wave in (np.sin, np.cos):
            ours = weights * wave((x - mean) @ direction)
            theirs = wave((truth[:, k:] - mean) @ direction)
            error = math.hypot(ours.std(), theirs.std()) / math.sqrt(len(x))
            assert abs(ours.mean() - theirs.mean()) < 5 * error


def test_simulators_agree_with_their_reference_posteriors(benchmark):
    """Observations have uniform ranks among simulations from the reference posteriors."""
    if importlib.util.find_spec("sbibm") is None:
        pytest.skip("pip install --no-deps sbibm")
    for name, task in benchmark("posterior_tasks").TASKS.items():
        ranks = []
        for number in range(1, 11):
            x, observed = task.simulate(task.reference(number)[:200]), task.observation(number)
            ranks.append(((x < observed).double() + (x <= observed).double()).mean(0) / 2)
        ranks = torch.stack(ranks)
        assert abs(ranks.mean() - 0.5) < 0.05, name
        assert ((ranks - 0.5).abs() > 0.49).double().mean() < 0.06, name


def test_shares_and_widths_of_the_truth_are_right(benchmark):
    """Lines have the mass they are made of; widths are one, and twice as large for twice them."""
    tables, known = benchmark("known_tables"), benchmark("known")
    for name, expected in {"line": [0.05], "line of 3": [0.04], "cluster": [0.01]}.items():
        rows = known.rows_of(name, "test", 100_000)
        assert tables.shares(name, rows) == pytest.approx(expected, rel=0.1)
    for name, step in tables.WIDTHS.items():
        rows, k = known.rows_of(name, "test", 50_000), tables.TABLES[name].context
        assert tables.widths(name, rows) == pytest.approx(1, abs=0.06)
        rows[:, k] = 2 * rows[:, k] - step(rows[:, :k])[1]
        assert tables.widths(name, rows) == pytest.approx(2, abs=0.12)


@pytest.mark.parametrize("model", ["mixture, validated", "boosted"])
def test_a_peer_is_a_density_given_the_context(benchmark, model):
    """It integrates to one over a grid, and its samples have the mean of the truth there."""
    tables, models = benchmark("known_tables"), benchmark("known_models")
    table, grid = tables.TABLES["branches"], np.linspace(-4, 4, 4001)
    rows = table.density.sample(1000, np.random.default_rng(0))
    fitted = models.fit(model, table, rows, 0.5, 0)
    at = np.stack([np.full_like(grid, 0.5), grid], 1)
    mass = np.exp(fitted.log_prob(at))
    assert np.trapezoid(mass, grid) == pytest.approx(1, abs=0.01)
    mean = np.trapezoid(mass * grid, grid)
    assert fitted.sample is None or abs(fitted.sample(at).mean() - mean) < 0.1


@pytest.mark.parametrize("name", ["8 couplings", "8 couplings, an LU layer of 1e6"])
def test_extended_precision_agrees_with_autograd_in_float64(benchmark, name):
    """Layer by layer, at a condition number that float64 can hold."""
    make = benchmark("sigma_min").CASES[name][0]
    core, x = make(4, 0.3, 0).double().eval(), torch.randn(1, 4).double()
    h, jacobian, inverse = x, torch.eye(4).double(), torch.eye(4).double()
    for layer in layers_of(core):
        jacobian = dense_jacobian(layer.bijection.forward, h, None)[0] @ jacobian
        h = layer.bijection(h)[0].detach()
        inverse = inverse @ dense_jacobian(layer.bijection.inverse, h, None)[0]
    expected = (
        torch.linalg.svdvals(jacobian)[0].item(),
        1 / torch.linalg.svdvals(inverse)[0].item(),
    )
    assert benchmark("exact_jacobians").exact_extremes(core, x[0]) == pytest.approx(
        expected, rel=1e-9
    )


def test_the_references_of_energies_are_right(benchmark):
    """The free field by its Hessian at zero, in float64; the ring by a sum over a fine grid."""
    energies = benchmark("energies")
    log_density, zero = energies.lattice(0.7, 0.0, side=3), torch.zeros(9, dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(lambda x: -log_density(x[None])[0], zero)
    expected = 4.5 * math.log(2 * math.pi) - 0.5 * torch.logdet(hessian).item()
    assert energies.free_log_normalizer(0.7, side=3) == pytest.approx(expected, rel=1e-12)
    axis = torch.linspace(-7, 7, 281, dtype=torch.float64)
    mass = energies.ring()[0](torch.cartesian_prod(axis, axis)).exp().sum().item()
    assert mass * (14 / 280) ** 2 == pytest.approx(1, abs=1e-6)


def test_an_error_of_the_product_is_seen_through_the_inverse(benchmark):
    """In units of the smallest singular value of the map."""
    matrix = np.diag([1e3, 1e3, 1e-3, 1e-3])
    factors = kf.factor_linear(matrix, couplings=6)
    error = benchmark("factoring").error_by_inverse
    assert error(factors, matrix) < 1e-8
    matrix[3, 3] += 1e-6
    assert error(factors, matrix) == pytest.approx(1e-3, rel=0.01)


def test_factors_of_each_kind_have_the_map_as_product(benchmark):
    """Up to rounding; an error of one factor is seen, in units of the roundoff."""
    errors = benchmark("backward_errors")
    matrix = np.random.default_rng(0).standard_normal((6, 6))
    matrix[0] *= np.sign(np.linalg.det(matrix))
    counts = {}
    for kind, factor in errors.KINDS.items():
        factors = factor(matrix)
        line = errors.measured(matrix, factors)
        assert max(line["residual"], line["application"], line["inverse"]) < 1000
        factors[0] = factors[0] + 1e-9 * np.eye(6)
        assert errors.measured(matrix, factors)["residual"] > 1e-10 / errors.ROUNDOFF
        counts[kind] = len(factors)
    assert list(counts.values()) == [6, 11, 4, 6, 51]  # 3 n (n - 1) / 2 + n shears


def test_rounding_errors_reach_the_table(benchmark, monkeypatch, tmp_path):
    """A row for each kind of factors, with the worst map in brackets."""
    errors = benchmark("backward_errors")
    monkeypatch.setattr(errors, "ENSEMBLES", ["orthogonal"])
    monkeypatch.setattr(errors, "SIZES", [2, 4])
    errors.backward_errors(draws=1, results=tmp_path, table=tmp_path / "table.tex")
    rows = (tmp_path / "table.tex").read_text("utf-8").splitlines()[1:]
    assert [row.split(" & ")[1] for row in rows] == list(errors.KINDS)
    assert all(row.count("&") == 7 for row in rows)
    assert " 1 & " in rows[3]  # reflectors


@pytest.mark.parametrize(
    ("row", "draws", "holds"),
    [
        ("rotations", [{"condition_numbers": [9.0] * 6}], "yes"),
        ("rotations", [{"condition_numbers": [14.0]}], "not: condition number"),
        ("descent", [{"condition_numbers": [3.0]}] * 2 + [{"residual": 1.0}], "yes"),
        ("descent", [{"residual": 1.0}], "not: residual, condition number"),
    ],
)
def test_a_goal_for_every_draw_holds_for_the_worst(benchmark, row, draws, holds):
    """And one for the median does not."""
    goal = next(goal for goal in benchmark("goals").GOALS if goal.row == row)
    line = {"row": row, "ensemble": goal.ensemble, "n": goal.n, "couplings": goal.couplings}
    line |= {"residual": 1e-15, "time_s": 0.01, "of_the_map": 30.0}
    line["condition_numbers"] = [2.0] * 9 + [50.0, 90.0]
    lines = [{**line, "draw": i, **draw} for i, draw in enumerate(draws)]
    text = benchmark("factor_tables").goals_table(benchmark("factor").summary(lines))
    (shown,) = [line for line in text.splitlines() if line.startswith(f"| {goal.ensemble} ")]
    assert shown.strip("| ").split(" | ")[-1] == holds


class UniformPixels(torch.nn.Module):
    """The density of pixels between -1/2 and 1/2, a constant."""

    def log_prob(self, x):
        """Returns zeros where x is inside."""
        assert (x.abs() <= 0.5).all()
        return torch.zeros(len(x))


def test_bits_per_dimension_are_those_of_whole_numbers(benchmark):
    """A uniform density has log2 17 bits for each of 17 values."""
    digits, uniform = benchmark("images_digits"), UniformPixels()
    model = benchmark("row").Model(uniform, uniform.log_prob, None, None, None)
    test = digits.digits()[2]
    bits = digits.bits_per_dimension(model, test, draws=2)
    assert bits == pytest.approx(math.log2(17), abs=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_row_of_images_is_a_density_of_about_as_many_parameters(benchmark):
    """Its log_prob is that of its latent and of the dense Jacobian, and it inverts itself."""
    shape = benchmark("row").ImageShape(batch=2, image=(1, 4, 4), levels=2, steps=1, hidden=3)
    reference, counts = benchmark("images_digits").SHAPE, {}
    for row in filter(lambda row: row.installed, benchmark("images_rows").image_rows()):
        torch.manual_seed(0)
        module = row.build(reference).module
        counts[row.name] = sum(p.numel() for p in module.parameters() if p.requires_grad)
        model, x = row.build(shape), shape.data()
        model.log_prob(x)  # layers that start from data
        model.module.eval().double()
        move(model.module)
        x = x[:1].double()
        jacobian = torch.autograd.functional.jacobian(lambda v, m=model: flat(m.encode(v)), x)
        log_det = torch.linalg.slogdet(jacobian.reshape(16, 16))[1]
        z = flat(model.encode(x))
        exact = log_det - 0.5 * z.square().sum() - 8 * math.log(2 * math.pi)
        assert model.log_prob(x).item() == pytest.approx(exact.item(), abs=1e-4), row.name
        assert (model.decode(model.encode(x)) - x).abs().max().item() < 1e-5, row.name
    assert max(counts.values()) < 1.05 * min(counts.values())


def flat(z):
    """Returns a latent as one row for each image."""
    return torch.cat([part.flatten(1) for part in ([z] if torch.is_tensor(z) else z)], 1)


def move(module):
    """Moves parameters off their start, which is nearly the identity."""
    with torch.no_grad():
        for p in filter(lambda p: p.requires_grad, module.parameters()):
            p.add_(0.1 * torch.randn_like(p))
