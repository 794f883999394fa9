"""Every bijection and every recipe keeps the public contract, in float64 and in float32.

Of several cases of one name the first runs in float32; all others run in float64, where the
tolerance is smallest. The slow tests run each case in its other dtype, and long ones.
"""

import pytest
import torch

import kappaflow as kf
from cases import AUGMENTATIONS, BIJECTIONS, FLOWS, public_classes
from kappaflow import flows, registry
from kappaflow.testing import check_bijection, check_flow

# Shorter cases are alike.
LONG = ("autoregressive, context", "glow", "jet", "real_nvp_image", "spline, bounds, circles")
DTYPES = {"float64": torch.float64, "float32": torch.float32}


def in_each_dtype(cases):
    """Returns a parameter for each case and dtype."""
    kinds = [name.partition(",")[0] for name in cases]
    for i, name in enumerate(cases):
        is_first = kinds.index(kinds[i]) == i and kinds.count(kinds[i]) > 1
        quick = None if name in LONG else "float32" if is_first else "float64"
        for dtype in DTYPES:
            yield pytest.param(name, dtype, marks=() if dtype == quick else pytest.mark.slow)


@pytest.mark.parametrize(("name", "dtype"), [*in_each_dtype(BIJECTIONS)])
def test_every_bijection_keeps_the_contract(name, dtype):
    """Each case of a bijection passes each law, at the tolerance of its conditioning."""
    check_bijection(*BIJECTIONS[name].build(DTYPES[dtype]))


@pytest.mark.parametrize(("name", "dtype"), [*in_each_dtype(FLOWS)])
def test_every_flow_keeps_the_contract(name, dtype):
    """Each case of a flow passes each law, at the tolerance of its conditioning."""
    check_flow(*FLOWS[name].build(DTYPES[dtype]))


def test_every_exported_bijection_has_a_case():
    """A bijection that is exported cannot be left out of the contract."""
    exported = public_classes(kf.Bijection) - {kf.Bijection}
    tested = {type(part) for case in BIJECTIONS.values() for part in case.make().modules()}
    assert exported - tested == set()


def test_every_exported_recipe_has_a_case():
    """A recipe that is exported cannot be left out of the contract."""
    functions = {name for name in flows.__all__ if not isinstance(getattr(flows, name), type)}
    recipes = functions & set(registry.registered_names())
    tested = {registry.describe(case.make())["name"] for case in FLOWS.values()}
    assert recipes - tested == set()


def test_every_exported_augmentation_has_a_case():
    """One that is exported cannot be left out of the laws, which tests/flows holds them to."""
    exported = public_classes(kf.flows.Augmentation)
    tested = {type(case.make()) for case in AUGMENTATIONS.values()}
    assert exported - tested == {kf.flows.Augmentation, kf.flows.Padding}


@pytest.mark.parametrize("name", BIJECTIONS)
def test_every_bijection_keeps_half_precision(name):
    """Value and products have the dtype of x; the log_det is in float32."""
    bijection, x, context = BIJECTIONS[name].build(torch.bfloat16)
    with torch.no_grad():
        z, log_det = bijection(x, context)
        back, inverse_log_det = bijection.inverse(z, context)
        product = bijection.linearize(x, context).jv(x)
    assert z.dtype == back.dtype == product.dtype == torch.bfloat16
    assert log_det.dtype == inverse_log_det.dtype == torch.float32


@pytest.mark.parametrize("name", BIJECTIONS)
def test_autocast_rounds_no_score_and_no_sample(name):
    """Both directions have the numbers of float32, so that they stay each other's inverse."""
    bijection, x, context = BIJECTIONS[name].build(torch.float32)
    with torch.no_grad():
        z = bijection(x, context)[0]
        expected = (*bijection(x, context), *bijection.inverse(z, context))
        with torch.autocast("cpu", torch.bfloat16):
            actual = (*bijection(x, context), *bijection.inverse(z, context))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
