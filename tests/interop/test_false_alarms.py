"""The doctor reports nothing on healthy flows of other libraries, at a few seeds each."""

import pytest
import torch

import kappaflow as kf
from interop import foreign

FAULTY = "torchflows RealNVP"  # the density of its samples is wrong
FLOWS = {name: make for name, make in foreign.VECTORS.items() if name != FAULTY}
FLOWS["normflows Glow"] = foreign.normflows_glow
NOISE = 0.05  # standard deviation of the noise on weights


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", FLOWS)
def test_a_healthy_flow_has_no_finding_above_a_note(name):
    """In float32, where the library allows it."""
    for seed in range(4):
        torch.manual_seed(seed)
        flow = FLOWS[name]()
        module = isinstance(flow, torch.nn.Module)
        if module:
            with torch.no_grad():
                for parameter in flow.parameters():
                    if parameter.requires_grad:
                        parameter.add_(NOISE * torch.randn_like(parameter))
            flow = flow.float()
        shape = (2, 4, 4) if name == "normflows Glow" else (4,)
        x = torch.randn(64, *shape, dtype=torch.float32 if module else torch.float64)
        x = x.abs() if name == "torch" else x  # its samples are positive
        findings = [one for one in kf.doctor(flow, x).findings if one.severity != "note"]
        assert findings == [], f"seed {seed}"


def test_a_bounded_base_of_zuko_has_no_density_outside_of_its_support():
    """Also where another library has switched on the validation of torch's distributions."""
    zuko = pytest.importorskip("zuko")
    torch.manual_seed(0)
    flow = zuko.flows.NCSF(2, transforms=1, hidden_features=(8,))
    before = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(True)
    try:
        base = kf.wrap(flow, torch.zeros(2, 2)).base
        found = base.log_prob(torch.tensor([[0.0, 0.0], [9.0, 0.0]]))
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)
    assert found[0].isfinite() and found[1] == -torch.inf
