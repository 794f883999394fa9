"""Training on energies: closed forms, modes, what is skipped, reported, repeated and refused."""

import math

import pytest
import torch

import kappaflow as kf
from kappaflow.errors import ArgumentError, NumericalError
from kappaflow.training.fit_energy import _fit_start
from kappaflow.training.settings import checked_energy_settings

MEAN, DEVIATION = torch.tensor([1.0, -0.5]), torch.tensor([0.5, 2.0])
LOG_Z = math.log(2 * math.pi) + DEVIATION.log().sum().item()
AWAY, WIDTH = 6.0, 0.5  # of two modes
LOG_Z_OF_MODES = math.log(2 * math.pi * WIDTH**2)


def gaussian(x):
    """N(MEAN, DEVIATION^2), without its constant."""
    return -0.5 * ((x - MEAN.to(x)) / DEVIATION.to(x)).square().sum(1)


def modes(x):
    """Two Gaussians, an equal share of the mass each."""
    away = torch.tensor([AWAY, 0.0]).to(x)
    right, left = (-0.5 * ((x + sign * away) / WIDTH).square().sum(1) for sign in (1, -1))
    return torch.logaddexp(right, left) - math.log(2)


def lattice(side, mass_squared):
    """The free scalar field on a periodic square lattice, and its log Z in closed form."""

    def log_density(x):
        field = x.reshape(-1, side, side)
        action = 0.5 * mass_squared * field.square()
        for axis in (1, 2):
            action = action + 0.5 * (field.roll(1, axis) - field).square()
        return -action.flatten(1).sum(1)

    wave = (2 * torch.sin(math.pi * torch.arange(side, dtype=torch.float64) / side)).square()
    eigenvalues = mass_squared + wave[:, None] + wave
    log_z = 0.5 * side**2 * math.log(2 * math.pi) - 0.5 * eigenvalues.log().sum().item()
    return log_density, log_z


def small(seed=0, features=2, hidden=16):
    torch.manual_seed(seed)
    return kf.real_nvp(features, depth=4, hidden=(hidden,), couplings={"memory": "store"})


def fitted(log_density=gaussian, flow=None, **more):
    """Returns the result of a short training."""
    settings = {"steps": 40, "measure_every": 20, "batch_size": 64, "progress": False}
    return kf.fit_energy(flow or small(), log_density, **{**settings, **more})


@pytest.mark.slow
def test_a_gaussian_is_fitted_and_its_log_z_found():
    result = fitted(steps=250, measure_every=50, learning_rate=0.02)
    samples = result.samples
    assert samples.reverse_kl < 0.01 and samples.effective_sample_size > 0.98
    assert abs(samples.log_normalizer - LOG_Z) < 5 * samples.log_normalizer_error < 0.02
    assert samples.free_energy == pytest.approx(-LOG_Z, abs=0.02)
    first, last = result.history[0], result.history[-1]
    assert last["free_energy"] < first["free_energy"]
    assert last["gradient_norm"] < first["gradient_norm"]
    assert last["condition_number_median"] == pytest.approx(4, rel=0.3)  # 2 / 0.5
    assert len(result.history) == 5 and last["step"] == 250 and last["skipped_steps"] == 0
    assert result.stopped_because == "steps" and not result.flow.training


@pytest.mark.slow
def test_the_free_field_has_its_log_z():
    """On 3 x 3 places, by a flow that mixes them: exact to five standard errors."""
    log_density, log_z = lattice(3, 1.0)
    torch.manual_seed(0)
    flow = kf.real_nvp(9, depth=6, hidden=(16,), couplings={"memory": "store"})
    samples = fitted(log_density, flow, steps=250, learning_rate=0.01, annealing=0.0).samples
    assert samples.effective_sample_size > 0.7
    assert abs(samples.log_normalizer - log_z) < 5 * samples.log_normalizer_error < 0.05


@pytest.mark.slow
def test_annealing_reaches_both_modes_where_none_drops_one():
    """What is dropped is not seen by the draws, and log Z is short of a mode."""
    how = {"steps": 400, "learning_rate": 0.003, "batch_size": 256, "measure_every": 200}
    how["seed"] = 1
    flows = [small(1, hidden=32) for _ in range(2)]
    dropped = fitted(modes, flows[0], annealing=0.0, **how).samples
    annealed = fitted(modes, flows[1], annealing=0.8, inverse_temperature=0.05, **how).samples
    share = (dropped.x[:, 0] > 0).double().mean().item()
    assert min(share, 1 - share) < 0.001 and dropped.effective_sample_size > 0.9
    assert dropped.log_normalizer == pytest.approx(LOG_Z_OF_MODES - math.log(2), abs=0.02)
    assert 0.1 < (annealed.x[:, 0] > 0).double().mean().item() < 0.9
    assert annealed.log_normalizer == pytest.approx(LOG_Z_OF_MODES, abs=0.3)


@pytest.mark.slow
def test_a_seed_repeats_a_training_and_another_one_does_not():
    """To the last bit; the generator of torch continues as if nothing had happened."""
    torch.manual_seed(7)
    drawn = torch.rand(2)
    flows = [small(3) for _ in range(3)]
    torch.manual_seed(7)
    results = [fitted(flow=flow, seed=seed) for flow, seed in zip(flows, (1, 1, 2), strict=True)]
    assert torch.equal(torch.rand(2), drawn)
    timeless = [
        [{k: v for k, v in line.items() if k != "time_s"} for line in item.history]
        for item in results
    ]
    assert timeless[0] == timeless[1] != timeless[2]
    assert torch.equal(results[0].samples.x, results[1].samples.x)
    first, other = (next(item.flow.parameters()) for item in results[1:])
    assert not torch.allclose(first, other, atol=1e-4)


@pytest.mark.slow
def test_the_weights_are_those_that_are_measured_as_best():
    """Of the cold intervals."""

    class Listener(kf.training.Callback):
        states = {}

        def on_epoch(self, flow, figures):
            self.states[figures["epoch"]] = {k: v.clone() for k, v in flow.state_dict().items()}

    listener = Listener()
    result = fitted(steps=80, callbacks=[listener], learning_rate=0.05, annealing=0.5)
    cold = [line for line in result.history if line["inverse_temperature"] == 1]
    assert [line["epoch"] for line in cold] == [3, 4]
    best = min(cold, key=lambda line: line["free_energy"])
    assert result.best_epoch == best["epoch"]
    for name, value in listener.states[result.best_epoch].items():
        assert torch.equal(value, result.flow.state_dict()[name])


@pytest.mark.slow
def test_weights_of_a_flattened_target_are_not_kept_where_others_are():
    """The flow is the target at first, and noise and heat lead away: the first is the best."""
    how = {"steps": 8, "measure_every": 1, "learning_rate": 1e-3, "average": 0.0, "warmup": 0.0}
    result = fitted(lambda x: -0.5 * x.square().sum(1), annealing=0.5, **how)
    energy = [line["free_energy"] for line in result.history]
    assert min(energy[:4]) < min(energy[4:])
    assert result.best_epoch == 5 + energy[4:].index(min(energy[4:]))


@pytest.mark.slow
@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_steps_that_are_not_finite_are_skipped_and_counted(value):
    """Batches whose first draw lies in a hole are no step; the rest trains.

    The gradient is finite there, since a hole is constant.
    """

    def holes(x):
        if len(x) != 64 or x[0, 0] < 1.5:
            return gaussian(x)
        return torch.cat((x.new_full((1,), value), gaussian(x[1:])))

    result = fitted(holes, steps=40)
    last = result.history[-1]
    assert 1 <= last["skipped_steps"] <= 30 and last["blamed"] == "log_density"
    assert math.isfinite(result.samples.free_energy)


@pytest.mark.parametrize(
    ("spoiled", "blamed"),
    [
        (
            lambda x: gaussian(x) * math.nan if len(x) == 64 else gaussian(x),
            "starting at log_density",
        ),
        (
            lambda x: gaussian(x) + (0 * x[:, 0].abs()).sqrt() if len(x) == 64 else gaussian(x),
            "starting at the gradient of log_density",
        ),
    ],
)
def test_many_in_a_row_end_the_training_with_a_diagnosis(spoiled, blamed):
    flow = small()
    before = [p.clone() for p in flow.parameters()]
    with pytest.raises(NumericalError, match=f"20 steps in a row were not finite, {blamed}"):
        fitted(spoiled, flow)
    assert all(map(torch.equal, before, flow.parameters()))


def test_a_flow_that_overflows_is_blamed_by_its_layer():
    flow = kf.Flow(
        kf.StandardNormal(2), kf.bijections.ElementwiseAffine(2, log_scale=[-100.0, -100.0])
    )
    with pytest.raises(NumericalError, match="should be finite where training starts"):
        fitted(lambda x: -x.square().sum(1), flow)
    with pytest.raises(NumericalError, match="starting at layer 1 ElementwiseAffine"):
        fitted(lambda x: -(x.square().sum(1).clamp_max(1e30)), flow)


def test_time_ends_a_training_before_its_steps():
    result = fitted(max_time_s=1e-6)
    assert result.stopped_because == "max_time_s" and len(result.history) == 1
    assert result.best_epoch == 1  # at a temperature, for want of another


def test_a_standardization_that_waits_for_data_is_the_identity():
    """The scale of an energy is its own: the start has mean 0 and deviation 1."""
    flow = small()
    _fit_start(flow, flow.base.sample(256))
    standardize = flow.bijection.bijections[0]
    assert standardize.fitted and standardize.deviation.tolist() == pytest.approx([1, 1])
    assert standardize.mean.tolist() == pytest.approx([0, 0], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("make", [kf.real_nvp, kf.spline])
def test_an_energy_on_a_domain_is_fitted(make):
    """Of a gamma law, a uniform one and an angle; the flow starts normal behind the domain."""

    def log_density(x):
        return 3 * x[:, 0].log() - x[:, 0] + x[:, 2].cos()

    torch.manual_seed(0)
    bounds = ["positive", (0, 1), "circular" if make is kf.spline else (-math.pi, math.pi)]
    result = fitted(log_density, make(3, depth=4, hidden=(16,), bounds=bounds), steps=150)
    samples = result.samples
    assert samples.effective_sample_size > 0.3
    bessel = torch.special.i0(torch.ones(())).item()
    log_z = math.lgamma(4) + math.log(2 * math.pi * bessel)
    assert samples.log_normalizer == pytest.approx(log_z, abs=4 * samples.log_normalizer_error)


def test_progress_is_shown_when_asked_for(capsys):
    from kappaflow.training.fit_energy import describe_energy

    fitted(progress=True)
    assert "epoch 1" in capsys.readouterr().err
    line = {"condition_number_p95": 3.0, "effective_sample_size": 0.5, "free_energy": -1.2}
    assert describe_energy(line) == "free energy -1.2, effective 50%, cond 3"
    lost = dict.fromkeys(line)
    assert describe_energy(lost) == "free energy not finite, effective not finite"


def test_the_temperature_falls_by_equal_factors_and_ends_at_one():
    settings = checked_energy_settings(steps=10, annealing=0.4, inverse_temperature=0.0625)
    betas = [settings.inverse_temperature_at(step) for step in range(10)]
    assert betas == pytest.approx([0.0625, 0.125, 0.25, 0.5, *[1.0] * 6])
    none = checked_energy_settings(annealing=0.0)
    assert none.inverse_temperature_at(0) == 1


@pytest.mark.parametrize(
    ("log_density", "more", "message"),
    [
        (lambda x: x.detach().sum(1), {}, "should be differentiable with respect to its argument"),
        (lambda x: torch.ones(len(x), requires_grad=True), {}, "should be differentiable with"),
        (lambda x: x, {}, r"shape \(256,\), one number for each"),
        (3.0, {}, "should be a function of points"),
        (gaussian, {"flow": kf.real_nvp(2, context_features=1)}, "should have no context"),
        (
            gaussian,
            {"flow": kf.Flow(kf.StandardNormal(2), kf.bijections.Permutation((1, 0)))},
            "should have trainable parameters",
        ),
        (gaussian, {"steps": 0}, "'steps' should be greater than or equal to 1, got 0"),
        (gaussian, {"inverse_temperature": 0.0}, "'inverse_temperature' should be greater than 0"),
        (gaussian, {"max_epochs": 3}, "'max_epochs' is not a setting of a training on an energy"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_a_sentence(log_density, more, message):
    with pytest.raises(ArgumentError, match=message):
        fitted(log_density, **more)


def test_an_energy_that_is_no_number_at_the_start_is_refused():
    with pytest.raises(NumericalError, match="nan or other non-finite numbers at all 256 samples"):
        fitted(lambda x: (x.square().sum(1) * -1 - 1).log())
