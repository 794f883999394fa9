"""Flows whose copies do not work, flows of mixed dtypes, and calls that raise an error."""

import pytest
import torch

import kappaflow as kf
from diagnosis import truth
from diagnosis.faulty import FEATURES, codes, points
from interop import foreign
from kappaflow.errors import ArgumentError

STILL_USES = "a copy still uses the parameters of the original"


class Closure(truth.Plain):
    """Couplings whose networks are called through functions that refer to the flow."""

    def __init__(self):
        super().__init__()
        self.call_all = [lambda h, i=i: self.stored[i](h) for i in range(3)]

    @property
    def stored(self):
        return self._modules["nets"]

    @property
    def nets(self):
        return self.call_all


def hooked_freia():
    """A network of FrEIA with a replaced forward."""
    flow = foreign.freia_flow("AllInOne").float()
    layer = flow.module_list[0]
    forward = layer.forward
    layer.forward = lambda *given, **named: forward(*given, **named)
    return flow


@pytest.mark.parametrize("make", [Closure, hooked_freia])
def test_a_flow_whose_copies_call_the_original_is_diagnosed_itself(make):
    """In its own dtype; the diagnosis names what that leaves out, and the flow is unchanged."""
    torch.manual_seed(0)
    flow = make().train()
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    diagnosis = kf.doctor(flow, points().double())  # rows are converted
    left_out = diagnosis.measured["not_checked"]
    assert STILL_USES in left_out and "gradients" in left_out and "stale" in left_out
    assert {"KF209", "KF211", "KF213"}.isdisjoint(codes(diagnosis))
    assert diagnosis.profile is not None and flow.training
    for name, value in flow.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_a_defect_of_such_a_flow_is_found():
    """The checks that need no copy still run."""

    class Wrong(Closure):
        def decode(self, z):
            x, log_det = super().decode(z)
            return x, log_det + 0.2

    torch.manual_seed(0)
    assert "KF203" in codes(kf.doctor(Wrong(), points()))


def test_a_cache_in_float32_does_not_end_the_diagnosis():
    """Nflows inverts the matrix of its cache by an identity in float32."""
    transforms = pytest.importorskip("nflows.transforms")
    flow = foreign.nflows_flow("RealNVP").float()
    layer = transforms.LULinear(FEATURES, using_cache=True)
    flow._transform._transforms.insert(0, layer)
    diagnosis = kf.doctor(flow.eval(), points())
    assert "a copy in float64 raises RuntimeError" in diagnosis.measured["not_checked"]


@pytest.mark.parametrize("base", [torch.float32, torch.float64])
def test_rows_may_have_any_dtype_of_a_flow_that_mixes_them(base):
    """Normflows' mixture of Gaussians is in float64, its couplings are in float32."""
    flow = foreign.normflows_flow("RealNVP").float()
    mixture = pytest.importorskip("normflows").distributions.GaussianMixture(3, FEATURES)
    flow.q0 = mixture.to(base)
    diagnosis = kf.doctor(flow, points())
    assert diagnosis.measured["dtype"] == "float32"
    raised = "KF105" in codes(diagnosis)
    assert raised == (base == torch.float64)  # its couplings do not take these samples


class NoSolution(truth.Planted):
    """Decode raises an error at some latents."""

    kind = ValueError

    def decode(self, z):
        if (z > 1.5).any():
            raise self.kind("no solution")
        return super().decode(z)


@pytest.mark.parametrize(
    ("kind", "severity"), [(ValueError, "error"), (NotImplementedError, "warning")]
)
def test_an_error_of_a_call_is_a_finding(kind, severity):
    """It does not end the diagnosis: what needs the call is listed as not checked."""
    torch.manual_seed(0)
    flow = NoSolution(truth.Plain(), points())
    flow.kind = kind
    diagnosis = kf.doctor(flow, points())
    (raised,) = [finding for finding in diagnosis.findings if finding.code == "KF105"]
    assert (raised.severity, raised.layer) == (severity, "1 NoSolution")
    assert f"{kind.__name__} (no solution)" in raised.message
    assert f"({kind.__name__} (no solution))" in diagnosis.measured["not_checked"]
    assert diagnosis.to_json() and diagnosis.profile is None


def test_rows_that_cannot_be_encoded_are_refused():
    """There is nothing to diagnose then."""

    class Refusing(truth.Planted):
        def encode(self, x):
            raise ValueError("no rows today")

    with pytest.raises(ArgumentError, match=r"it raised ValueError \(no rows today\)"):
        kf.doctor(Refusing(truth.Plain(), points()), points())


def test_an_error_of_the_progress_stops_the_doctor():
    """It is the caller's, not the flow's."""

    def stop(text):
        if "layer 2" in text:
            raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        kf.doctor(kf.real_nvp(2, depth=2, hidden=(4,)), torch.randn(64, 2), progress=stop)
