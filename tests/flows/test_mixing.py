"""RealNVP with learned linear maps between its couplings."""

import pytest
import torch

import kappaflow as kf
from kappaflow.bijections import LULinear, QRLinear, SVDLinear
from kappaflow.bijections.conv1x1 import FORMS
from kappaflow.bijections.linear import Linear
from kappaflow.flows.recipe import from_options

KINDS = {"lu": LULinear, "plain": Linear, "qr": QRLinear}
every_form = pytest.mark.parametrize("form", FORMS)


def parts(flow):
    """Returns maps and couplings behind the units, in turns."""
    (run,) = flow.core
    return list(run)[::2], list(run)[1::2]


@every_form
@pytest.mark.parametrize("features", [2, 5])
def test_a_rotation_stands_in_front_of_each_coupling(form, features):
    """Of the form asked for, with a shift that is learned; a new flow turns and does no more."""
    flow = kf.real_nvp(features, depth=3, hidden=(4,), couplings={"mixing": form})
    maps, couplings = parts(flow)
    assert {type(each) for each in maps} == {KINDS.get(form, SVDLinear)}
    assert {type(each) for each in couplings} == {kf.AffineCoupling}
    assert len(maps) == len(couplings) == 3
    for each in maps:
        turn = each.matrix()
        torch.testing.assert_close(turn @ turn.mT, torch.eye(features), rtol=0, atol=1e-5)
        assert (turn - torch.eye(features)).abs().max() > 0.01
        assert each.shift.requires_grad
    turns = torch.stack([each.matrix() for each in maps])
    assert not torch.equal(turns[0], turns[1])
    for seed, same in ((0, True), (2, False)):
        options = {"mixing": form, "seed": seed}
        again, _ = parts(kf.real_nvp(features, depth=3, hidden=(4,), couplings=options))
        assert torch.equal(torch.stack([each.matrix() for each in again]), turns) == same
    x = torch.randn(20, features)
    z, log_det = flow.bijection(x)
    torch.testing.assert_close(z.norm(dim=1), x.norm(dim=1))
    torch.testing.assert_close(log_det, torch.zeros(20), rtol=0, atol=1e-5)


@pytest.mark.parametrize("partition", ["half", "alternating", kf.Partition(5, (0, 1, 2, 3))])
def test_the_partition_does_not_take_turns(partition):
    """All couplings keep the same: of a `Partition`, what it keeps."""
    kept = {
        "half": (0, 1),
        "alternating": (0, 2, 4),
    }.get(partition, (0, 1, 2, 3))
    _, couplings = parts(kf.real_nvp(5, depth=3, partition=partition, couplings={"mixing": "lu"}))
    assert [coupling.partition.kept for coupling in couplings] == [kept] * 3


def test_orthogonal_maps_stay_rotations_and_bounded_ones_bounded():
    """Wherever their parameters go."""
    for settings, most in (
        ({"mixing": "orthogonal"}, 1.0),
        ({"mixing": "svd", "condition_bound": 3.0}, 3.0),
    ):
        flow = kf.real_nvp(5, depth=2, hidden=(4,), couplings=settings).double()
        with torch.no_grad():
            for parameter in flow.parameters():
                parameter += 5 * torch.randn_like(parameter)
        assert max(each.condition_number for each in parts(flow)[0]) <= most * (1 + 1e-9)


def test_one_feature_has_nothing_to_mix():
    """The flow is what it is without: an affine map, of a context if there is one."""
    mixing = {"mixing": "lu"}
    alone = kf.real_nvp(1, couplings=mixing)
    conditional = kf.real_nvp(1, hidden=(4,), context_features=2, couplings=mixing)
    assert [type(part) for part in alone.core] == [kf.bijections.ElementwiseAffine]
    assert [type(part) for part in conditional.core] == [kf.CouplingStack]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mixing": "cholesky"}, "'mixing' should be one of None, 'lu', 'plain', .* got 'chol"),
        ({"condition_bound": 2.0}, "'condition_bound' should be left out for mixing=None"),
        ({"mixing": "lu", "condition_bound": 2.0}, "left out for mixing='lu': only \"svd\" has"),
        ({"mixing": "svd", "condition_bound": 0.5}, "'condition_bound' should be at least 1"),
        (
            {"mixing": "lu", "partition": "random"},
            "'partition' should be 'half', 'alternating' or a Partition with mixing='lu'",
        ),
        ({"mixing": "lu", "partition": "random-half"}, "got 'random-half': the linear maps"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, message):
    """One sentence names the argument, what it should be, and what it was."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        from_options(kf.real_nvp, 4, **arguments)
