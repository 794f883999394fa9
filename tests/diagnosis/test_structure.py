"""KF405 and KF406: features that no network changes, and layers that do nothing."""

import pytest
import torch
from torch import nn

import kappaflow as kf
from diagnosis import truth
from diagnosis.faulty import alone, doctor, findings
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


def coupled(*nets):
    """Returns a flow of affine couplings on two features that take turns, with these networks."""
    half = kf.Partition.half(2)
    parts = [half, half.swapped()] * len(nets)
    couplings = [kf.AffineCoupling(part, net) for part, net in zip(parts, nets, strict=False)]
    return kf.Flow(kf.StandardNormal(2), kf.Chain(couplings))


def net(scale):
    """Returns a network with random parameters of a scale; 0 makes a coupling the identity."""
    torch.manual_seed(3)
    result = kf.nets.MLP(1, 2, (8,))
    for parameter in result.parameters():
        torch.nn.init.normal_(parameter, std=scale)
    return result


def found(flow, code="KF406"):
    """Returns the messages of a check at samples of a flow."""
    findings = doctor(flow, flow.sample(64).detach()).findings
    return [finding.message for finding in findings if finding.code == code]


def test_layers_that_do_nothing_are_named():
    """Of a flow in which others do something; a flow of the identity alone has no such layer."""
    (message,) = found(coupled(net(0.7), net(0.0), net(0.7)))
    assert message == "1 of 3 trained layers change no likelihood: 2 AffineCoupling."
    assert found(coupled(net(0.0), net(0.0))) == found(coupled(net(0.7), net(0.7))) == []


def test_a_pair_that_undoes_itself_is_named():
    """A coupling and its inverse, next to one that is needed."""
    chain = coupled(net(0.7), net(0.7)).bijection
    flow = kf.Flow(kf.StandardNormal(2), kf.Chain([chain[0], kf.Inverse(chain[0]), chain[1]]))
    (message,) = found(flow)
    assert message.startswith("Layers 1 AffineCoupling, 2 Inverse undo each other")
