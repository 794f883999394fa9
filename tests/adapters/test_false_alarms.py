"""The doctor on healthy flows of other libraries: silent, at twenty seeds each."""

import pytest
import torch

import kappaflow as kf
from adapters import foreign

FAULTY = "torchflows RealNVP"  # the density of its draws is wrong
FLOWS = {name: make for name, make in foreign.VECTORS.items() if name != FAULTY}
FLOWS["normflows Glow"] = foreign.normflows_glow
MOVED = 0.05  # deviation by which weights are moved


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", FLOWS)
def test_a_healthy_flow_has_no_finding_above_a_note(name):
    """In float32, where its library allows it."""
    for seed in range(20):
        torch.manual_seed(seed)
        flow = FLOWS[name]()
        module = isinstance(flow, torch.nn.Module)
        if module:
            with torch.no_grad():
                for parameter in flow.parameters():
                    if parameter.requires_grad:
                        parameter.add_(MOVED * torch.randn_like(parameter))
            flow = flow.float()
        shape = (2, 4, 4) if name == "normflows Glow" else (4,)
        x = torch.randn(64, *shape, dtype=torch.float32 if module else torch.float64)
        x = x.abs() if name == "torch" else x  # its draws are above zero
        found = [one for one in kf.doctor(flow, x).findings if one.severity != "note"]
        assert found == [], f"seed {seed}"
