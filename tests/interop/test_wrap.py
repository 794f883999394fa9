"""Wrapped flows of other libraries, compared with the libraries and dense Jacobians."""

import copy
import math
import sys

import pytest
import torch

import kappaflow as kf
from interop import foreign
from kappaflow.diagnosis.doctor import diagnose_rows
from kappaflow.errors import ArgumentError
from kappaflow.foreign.layers import ForeignLayer, Parts

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # torch deprecations

CONDITIONAL = {
    "zuko NSF": lambda: foreign.zuko_flow("NSF", foreign.CONTEXT),
    "nflows MAF": lambda: foreign.nflows_flow("MAF", foreign.CONTEXT),
    "normflows": foreign.normflows_conditional,
    "FrEIA AllInOne": lambda: foreign.freia_flow("AllInOne", foreign.CONTEXT),
    "Pyro autoregressive": lambda: foreign.pyro_flow(conditional=True),
}
LAYERS = {"zuko RealNVP": 3, "nflows RealNVP": 6, "normflows RealNVP": 6, "FrEIA AllInOne": 3}


def rows(n=6, features=foreign.FEATURES):
    """Returns rows where all of these flows are defined."""
    x = torch.randn(n, features, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return x.abs() + 0.1


def contexts(n=6):
    """Returns context rows."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(n, foreign.CONTEXT, generator=generator, dtype=torch.float64)


def check(flow, x, context=None):
    """Compares a wrapped flow with its library, its inverse and a dense Jacobian."""
    wrapped = kf.wrap(flow, x, context)
    assert wrapped.event_shape == tuple(x.shape[1:]) and wrapped.dtype == torch.float64
    with torch.no_grad():
        z, log_det = wrapped.bijection(x, context)
        back, inverse = wrapped.bijection.inverse(z, context)
        own = wrapped.own_log_prob(x, context)
    assert torch.allclose(back, x, atol=1e-6) and torch.allclose(inverse, -log_det, atol=1e-6)
    dense = torch.autograd.functional.jacobian(
        lambda batch: wrapped.bijection(batch, context)[0].flatten(1).sum(0), x
    )
    size = x[0].numel()
    matrices = dense.reshape(size, len(x), size).transpose(0, 1)
    assert torch.allclose(torch.linalg.slogdet(matrices)[1], log_det, atol=1e-5)
    if own is not None:
        assert torch.allclose(wrapped.log_prob(x, context), own, atol=1e-6)
    return wrapped


@pytest.mark.parametrize("name", foreign.VECTORS)
def test_a_flow_on_vectors_is_the_same_function(name):
    """log_prob is that of the library, log_det that of a dense Jacobian."""
    wrapped = check(foreign.VECTORS[name](), rows())
    assert len(wrapped.bijection) == LAYERS.get(name, len(wrapped.bijection))


@pytest.mark.parametrize("name", CONDITIONAL)
def test_a_conditional_flow_is_the_same_function(name):
    """With one context per row; another context gives another density."""
    flow = CONDITIONAL[name]()
    wrapped = check(flow, rows(), contexts())
    assert wrapped.context_features == foreign.CONTEXT
    other = wrapped.log_prob(rows(), 2 * contexts())
    assert (other - wrapped.log_prob(rows(), contexts())).abs().max() > 1e-3


@pytest.mark.parametrize("classes", [0, 3])
def test_a_multi_scale_flow_is_one_layer_with_a_flat_latent(classes):
    """The context is the class of each row, if it has classes."""
    flow = foreign.normflows_glow(classes)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 2, 4, 4, generator=generator, dtype=torch.float64)
    context = torch.tensor([[0], [1], [2], [0], [1]]).double() if classes else None
    wrapped = check(flow, x, context)
    assert wrapped.base.event_shape == (32,)
    assert wrapped.sample(2, context).shape[-3:] == (2, 4, 4)


@pytest.mark.parametrize("name", foreign.VECTORS)
def test_samples_have_the_density_that_the_library_returns(name):
    """Except in torchflows 1.2.1, whose sample adds the log_det instead of subtracting it."""
    wrapped = kf.wrap(foreign.VECTORS[name](), rows())
    samples = wrapped.own_sample(5, generator=torch.Generator().manual_seed(0))
    if samples is None:
        assert name.startswith("FrEIA")
        return
    x, log_prob = samples
    again = wrapped.own_sample(5, generator=torch.Generator().manual_seed(0))
    assert again is not None and torch.equal(x, again[0])
    if log_prob is None:
        assert name in {"torch", "Pyro spline coupling"}
        return
    off = (log_prob - wrapped.log_prob(x)).abs().max().item()
    assert off > 0.5 if name.startswith("torchflows") else off < 1e-5


@pytest.mark.parametrize("name", CONDITIONAL)
def test_there_is_one_sample_per_context(name):
    """Sampling leaves torch's generator unchanged."""
    wrapped = kf.wrap(CONDITIONAL[name](), rows(), contexts())
    torch.manual_seed(5)
    state = torch.get_rng_state()
    samples = wrapped.own_sample(6, contexts(), generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), state)
    if samples is not None:
        assert samples[0].shape == (6, foreign.FEATURES)
        if samples[1] is not None:
            log_prob = wrapped.log_prob(samples[0], contexts())
            assert torch.allclose(samples[1], log_prob, atol=1e-5)
    assert wrapped.sample(2, contexts()).shape == (2, 6, foreign.FEATURES)


QUICK = ("FrEIA AllInOne", "nflows RealNVP", "torch", "torchflows RealNVP")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in foreign.VECTORS],
)
def test_the_doctor_changes_nothing(name):
    """No finding on a healthy flow; mode and state are unchanged.

    In torchflows 1.2.1 the density of samples is wrong, and only that is found.
    """
    flow, x = foreign.VECTORS[name](), rows(32)
    module = isinstance(flow, torch.nn.Module)
    before = copy.deepcopy(flow.state_dict()) if module else None
    if module:
        flow.train()
    diagnosis = kf.doctor(flow, x)
    codes = {finding.code for finding in diagnosis.findings if finding.severity != "note"}
    assert codes - {"KF509"} == ({"KF206"} if name.startswith("torchflows") else set())
    if module:
        assert flow.training
        # torchflows has a buffer of uninitialized memory, which can hold NaN.
        after = flow.state_dict()
        torch.testing.assert_close(after, before, rtol=0, atol=0, equal_nan=True)


def test_the_dtype_of_a_distribution_without_parameters_is_that_of_a_sample():
    """No rows have to be given; torch's generator is unchanged."""
    flow, state = foreign.torch_distribution(), torch.get_rng_state()
    assert kf.wrap(flow).dtype == torch.float64
    assert kf.doctor(flow).ok and torch.equal(torch.get_rng_state(), state)


def test_the_doctor_initializes_nothing_in_a_wrapped_flow():
    """It copies the original: a norm that waits for its first batch still waits."""
    nf = pytest.importorskip("normflows")
    base = nf.distributions.DiagGaussian(4)
    flow = nf.NormalizingFlow(base, [nf.flows.ActNorm(4)]).double()
    kf.doctor(kf.wrap(flow), rows())
    assert not flow.flows[0].data_dep_init_done


def test_a_flow_that_cannot_be_copied_is_restored():
    """A layer that keeps its last output keeps a graph, which cannot be copied."""

    class Counting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 4)
            self.register_buffer("calls", torch.zeros(()))
            self.last = self.linear(torch.zeros(1, 4))

        def encode(self, x):
            self.calls += 1
            return x, 0.0

        def decode(self, z):
            return z, 0.0

    flow = Counting()
    with pytest.raises(RuntimeError):
        copy.deepcopy(flow)
    assert kf.doctor(flow, rows().float()).ok and flow.calls == 0


def test_layers_have_the_names_of_the_library():
    """From data to latent."""
    profile = kf.profile(kf.wrap(foreign.VECTORS["nflows RealNVP"](), rows()), rows())
    assert profile.layers[:2] == ("1 AffineCouplingTransform", "2 LULinear")
    profile = kf.profile(kf.wrap(foreign.VECTORS["Pyro spline coupling"](), rows()), rows())
    assert profile.layers == ("1 SplineCoupling", "2 Permute", "3 SplineCoupling")


def test_functions_and_objects_with_encode_and_decode_are_flows():
    """With a standard normal base."""

    class Doubling(torch.nn.Module):
        def encode(self, x):
            return 2 * x, 2 * torch.log(torch.tensor(2.0))

        def decode(self, z):
            return z / 2, -2 * torch.log(torch.tensor(2.0))

    x = torch.tensor([[0.5, -1.0]])
    wrapped = kf.wrap(Doubling(), x)
    expected = torch.distributions.Normal(0, 0.5).log_prob(x).sum(1)
    assert torch.allclose(wrapped.log_prob(x), expected)
    pair = kf.wrap((Doubling().encode, Doubling().decode), x)
    assert torch.equal(pair.log_prob(x), wrapped.log_prob(x))


def test_functions_that_change_their_input_get_copies():
    """The rows stay unchanged."""

    def encode(x):
        x *= 2
        return x, torch.full((len(x),), 2.0).log() * x.shape[1]

    x = torch.ones(2, 3)
    wrapped = kf.wrap((encode, lambda z: (z / 2, torch.zeros(len(z)))), x)
    assert wrapped.bijection(x)[0].max() == 2 and x.max() == 1


@pytest.mark.parametrize(
    ("log_det", "expected"),
    [
        (0.5, [0.5, 0.5]),
        (torch.tensor(0.5), [0.5, 0.5]),
        (torch.tensor([[1.0], [2.0]]), [1.0, 2.0]),
        (torch.tensor([[1.0, 1.0], [2.0, 0.5]]), [2.0, 2.5]),
    ],
)
def test_a_log_det_of_any_shape_becomes_one_per_row(log_det, expected):
    """A number, a scalar, a column, one value per feature."""
    wrapped = kf.wrap((lambda x: (x, log_det), lambda z: (z, log_det)), torch.zeros(2, 2))
    assert wrapped.bijection(torch.zeros(2, 2))[1].tolist() == expected


@pytest.mark.parametrize(
    ("flow", "x", "why"),
    [
        (3, None, "'flow' should be a Flow, a flow of zuko.* got int"),
        ((1, 2), None, "two functions, encode and decode"),
        ((abs, abs), None, "'x' should be given as a few rows"),
        ((abs, abs), torch.zeros(3), r"'x' should be a tensor of rows, got \(3,\)"),
        ((lambda x: x, abs), torch.zeros(2, 2), "should return a value and a log_det, got Tensor"),
        ((lambda x: (x[:, :1], 0), abs), torch.zeros(2, 2), r"of shape \(2, 2\), got \(2, 1\)"),
        ((lambda x: ([x], 0), abs), torch.zeros(2, 2), "got list"),
        (
            (lambda x: (x, torch.zeros(3)), abs),
            torch.zeros(2, 2),
            r"log_det of forward should have shape \(2,\), got \(3,\)",
        ),
        (kf.bijections.Permutation((1, 0)), None, "Permutation does not know their shape"),
    ],
)
def test_an_object_that_is_not_a_flow_is_refused(flow, x, why):
    """When it is wrapped or first called."""
    with pytest.raises(ArgumentError, match=why):
        kf.wrap(flow, x).log_prob(x)


class Halving:
    """A flow of a library that kappaflow does not know."""


def parts_of(flow, x, context):
    """Returns one layer, z = x / 2: the adapter that the library of `Halving` registers."""
    layer = ForeignLayer(
        "Halving",
        lambda x, _: (x / 2, -x.shape[1] * math.log(2)),
        lambda z, _: (z * 2, z.shape[1] * math.log(2)),
        ((2,), (2,)),
    )
    return Parts("halving", [layer], kf.StandardNormal(2))


def test_a_library_is_registered_from_outside(monkeypatch):
    """Its flows are wrapped and diagnosed like those of the libraries that kappaflow knows."""
    with pytest.raises(ArgumentError, match="'flow' should be a Flow"):
        kf.wrap(Halving())
    monkeypatch.setattr("kappaflow.foreign.wrapped._LIBRARIES", {})
    monkeypatch.setitem(sys.modules, "their_adapter", sys.modules[__name__])
    kf.interop.register_library(__name__, "their_adapter")
    flow = kf.wrap(Halving())
    assert flow.library == "halving" and kf.doctor(flow, 2 * torch.randn(64, 2)).ok


def test_kappaflow_flows_need_no_wrapping():
    """A flow is returned unchanged, a bijection with a standard normal."""
    flow = kf.real_nvp(2, depth=2, hidden=(4,))
    assert kf.wrap(flow) is flow
    flow = kf.wrap(kf.bijections.Permutation((1, 0)), torch.zeros(1, 2))
    assert flow.log_prob(torch.zeros(1, 2)).item() == pytest.approx(-1.8379, abs=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        lambda: foreign.zuko_flow("NSF").transform,
        lambda: foreign.nflows_flow("MAF")._transform,
        lambda: foreign.normflows_flow("NSF").flows[0],
        lambda: foreign.freia_flow("AllInOne").module_list[0],
        lambda: foreign.torchflows_flow().bijection,
        lambda: foreign.pyro_flow().transforms[0],
        lambda: torch.distributions.Normal(0, 1),
    ],
)
def test_a_part_of_a_flow_is_refused(make):
    """A transform, a layer, a base: one sentence each."""
    part = make()
    for look in (kf.wrap, kf.doctor):
        with pytest.raises(ArgumentError, match="'flow' should be a"):
            look(part, rows())


@pytest.mark.slow
def test_an_error_of_a_library_becomes_one_sentence():
    """A missing context, above all."""
    flow = foreign.zuko_flow("MAF", foreign.CONTEXT)
    with pytest.raises(ArgumentError, match="flow of zuko.* RuntimeError .* pass its 'context'"):
        kf.doctor(flow, rows())
    assert kf.doctor(flow, rows(), contexts()).ok


def test_a_wrapped_flow_cannot_be_copied_or_saved(tmp_path):
    """The message says to copy the original."""
    wrapped = kf.wrap(foreign.zuko_flow("MAF"))
    with pytest.raises(ArgumentError, match="copy the flow of zuko, and wrap the copy"):
        copy.deepcopy(wrapped)
    with pytest.raises(ArgumentError, match="Wrapped cannot be written"):
        kf.save(wrapped, tmp_path / "flow.safetensors")
    with pytest.raises(ArgumentError, match="got MAF: use kappaflow.wrap"):
        kf.profile(foreign.zuko_flow("MAF"), rows())


@pytest.mark.slow
def test_wrapping_imports_no_library():
    """Adapters are found by module names; importing zuko would patch torch."""
    import subprocess
    import sys

    code = (
        "import sys, torch, kappaflow as kf; kf.wrap((abs, abs), torch.zeros(1, 2));"
        "print({'zuko', 'nflows', 'normflows', 'FrEIA', 'sbi', 'pyro'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("conditional", [False, True])
def test_a_batch_of_numbers_is_a_vector(conditional):
    """As in Pyro's tutorial on flows: a base of two numbers, and a spline for each."""
    dist = pytest.importorskip("pyro.distributions")
    transforms = pytest.importorskip("pyro.distributions.transforms")
    torch.manual_seed(0)
    base = dist.Normal(torch.zeros(2).double(), torch.ones(2).double())
    context = torch.randn(32, 3).double() if conditional else None
    if conditional:
        spline = transforms.conditional_spline(2, context_dim=3).double()
        flow = dist.ConditionalTransformedDistribution(base, [spline])
        conditioned = flow.condition(context)
    else:
        spline = transforms.Spline(2, count_bins=8).double()
        conditioned = flow = dist.TransformedDistribution(base, [spline])
    with torch.no_grad():
        for parameter in spline.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
    x = torch.randn(32, 2).double()
    wrapped = kf.wrap(flow, x, context)
    expected = conditioned.log_prob(x).sum(-1)
    torch.testing.assert_close(wrapped.log_prob(x, context), expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(wrapped.own_log_prob(x, context), expected)
    if not conditional:  # Pyro cannot sample it
        assert wrapped.own_sample(32)[0].shape == (32, 2)
    findings = diagnose_rows(flow, x, context, compares_samples=False).findings
    assert not [finding for finding in findings if finding.severity != "note"]


def test_a_bounded_base_of_zuko_has_no_density_outside_of_its_support():
    """Also where another library has switched on the validation of torch's distributions."""
    zuko = pytest.importorskip("zuko")
    torch.manual_seed(0)
    flow = zuko.flows.NCSF(2, transforms=1, hidden_features=(8,))
    before = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(True)
    try:
        base = kf.wrap(flow, torch.zeros(2, 2)).base
        log_prob = base.log_prob(torch.tensor([[0.0, 0.0], [9.0, 0.0]]))
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)
    assert log_prob[0].isfinite() and log_prob[1] == -torch.inf
