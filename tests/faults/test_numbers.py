"""Numbers that are not finite, planted on purpose: each is survived, and the suite would tell."""

import dataclasses
import math

import pytest
import torch

import kappaflow as kf

FAULTS = ("NaN in the middle", "infinite from a call on")  # `make faults-short` plants all


@pytest.mark.parametrize("fault", FAULTS)
def test_a_training_with_a_fault_ends_with_its_best_weights(part, fault):
    """A skipped step that is counted, or a stop that names the layer and the likely causes."""
    numbers = part("numbers")
    (planted,) = [one for one in numbers.PLANTED if fault in one.fault]
    assert numbers.survives(planted, 0)


@pytest.mark.slow
def test_a_step_that_was_not_skipped_would_be_seen(part):
    """So would a training that stops where it should not, and another layer that is blamed."""
    numbers = part("numbers")
    fine, stops = numbers.PLANTED[0], numbers.PLANTED[2]
    assert not numbers.survives(dataclasses.replace(fine, skips=0), 0)
    assert not numbers.survives(dataclasses.replace(stops, stops=None), 0)
    assert not numbers.survives(dataclasses.replace(stops, stops="layer 0 "), 0)


def test_weights_that_are_not_the_best_would_be_seen(part):
    """One number of one parameter is enough, and so is one that is not finite."""
    flow = kf.real_nvp(2, depth=2, hidden=(4,))
    kept = part("numbers").Kept()
    kept.on_best(flow, {})
    assert kept.are_of(flow)
    parameter = next(flow.parameters())
    with torch.no_grad():
        parameter.view(-1)[0] += 1
    assert not kept.are_of(flow)
    with torch.no_grad():
        parameter.view(-1)[0] = math.nan
    kept.on_best(flow, {})
    assert not kept.are_of(flow)


@pytest.mark.slow
def test_float16_and_an_infinite_row_are_refused_first(part, tmp_path):
    """A flow that overflows at 65,504 by its type, a row in the middle of a file by its number."""
    numbers = part("numbers")
    assert numbers.refuses_float16()
    assert numbers.leaves_infinite_row_empty(tmp_path, 0)


def test_an_answer_that_was_infinite_once_is_not_blamed_on_the_batch(part):
    """When it is asked for again all is finite: the blame says so."""
    numbers = part("numbers")
    flow = kf.real_nvp(2, depth=2, hidden=(4,))
    layer = numbers.Faulty(lambda call: math.inf if call == 3 else 0.0)
    flow = kf.Flow(flow.base, kf.Chain([*flow.bijection, layer]))
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    result = kf.fit(flow, x, max_epochs=2, batch_size=50)
    assert result.history[-1]["blamed"] == "a value that is finite when computed again"


def test_latents_whose_density_overflows_are_named(part):
    """Z is finite in float32, and its square is not."""
    numbers = part("numbers")
    flow = kf.real_nvp(2, depth=2, hidden=(4,))
    layer = numbers.Faulty(lambda call: 1e25)
    layer.forward = lambda x, context=None: (x + 1e25, x.new_zeros(len(x)))
    flow = kf.Flow(flow.base, kf.Chain([*flow.bijection, layer]))
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(kf.errors.NumericalError, match="at the log-density of the latents"):
        kf.fit(flow, x, max_epochs=9, batch_size=50, most_skipped=4)
