"""KF405: features that no network changes, and networks that read nothing."""

import pytest
import torch
from torch import nn

import kappaflow as kf
from diagnosis import truth
from diagnosis.faulty import alone, findings
from kappaflow.bijections import ElementwiseAffine

FEATURES = truth.FEATURES


class SameHalf(truth.Plain):
    """All couplings change the same half; the networks may read zeros instead of the other."""

    changes_other, reads = False, 1.0

    def encode(self, x):
        log_det = x.new_zeros(len(x))
        for net in self.nets:
            kept, changed = x.chunk(2, 1)
            scale, shift = net(self.reads * kept).chunk(2, 1)
            parts = (kept, changed * scale.exp() + shift)
            x = torch.cat(parts[::-1] if self.changes_other else parts, 1)
            log_det = log_det + scale.sum(1)
        return x, log_det

    def decode(self, z):
        log_det = z.new_zeros(len(z))
        for net in reversed(self.nets):
            kept, changed = z.chunk(2, 1)[:: -1 if self.changes_other else 1]
            scale, shift = net(self.reads * kept).chunk(2, 1)
            z = torch.cat((kept, (changed - shift) * (-scale).exp()), 1)
            log_det = log_det - scale.sum(1)
        return z, log_det


def same_half(changes_other, reads=1.0):
    """Three such couplings."""
    torch.manual_seed(0)
    flow = SameHalf()
    flow.changes_other, flow.reads = changes_other, reads
    return flow


def test_features_that_no_coupling_changes_are_named():
    """Half of them: a warning. Alternating couplings have no such feature."""
    finding = findings(same_half(changes_other=False))["KF405"]
    assert finding.severity == "warning" and finding.evidence["fixed"] == 2
    assert "2 of 4 features" in finding.message and "0, 1, counted" in finding.message
    assert "KF405" not in findings(same_half(changes_other=True))


def test_networks_that_read_nothing_are_found():
    """Although they change every feature."""
    finding = findings(same_half(changes_other=True, reads=0.0))["KF405"]
    assert finding.severity == "warning" and "the networks read none" in finding.message


def test_masks_of_another_library_are_found():
    """Of ones, which change nothing and are no stale cache, and the same in each layer."""
    flows = pytest.importorskip("normflows").flows
    base = pytest.importorskip("normflows").distributions.DiagGaussian(FEATURES, trainable=False)

    def flow(mask):
        nets = [nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4)) for _ in range(6)]
        pairs = zip(nets[::2], nets[1::2], strict=True)
        layers = [flows.MaskedAffineFlow(torch.tensor(mask), *pair) for pair in pairs]
        return pytest.importorskip("normflows").NormalizingFlow(base, layers).eval()

    torch.manual_seed(0)
    same = findings(flow([1.0, 1.0, 0.0, 0.0]))
    assert same["KF405"].evidence["fixed"] == 2
    nothing = findings(flow([1.0] * 4))
    assert "networks read none" in nothing["KF405"].message and "KF211" not in nothing


def test_what_is_built_that_way_is_a_note_or_nothing():
    """An elementwise map, one coupling, and couplings that are the identity at first."""
    assert "KF405" not in findings(alone(ElementwiseAffine(FEATURES)))
    single, pair = (kf.real_nvp(FEATURES, depth=depth, hidden=(8,)) for depth in (1, 2))
    assert findings(single)["KF405"].severity == "note" and "KF405" not in findings(pair)
