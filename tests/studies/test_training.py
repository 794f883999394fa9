"""The figures by which experiments evaluate flows, against numbers from elsewhere."""

import math

import pytest
import torch

import kappaflow as kf
from kappaflow import images
from kappaflow_studies.data import image_parts, table_parts
from kappaflow_studies.training import held_out, points, train_flow


def test_tables_are_judged_on_standardized_columns():
    """The loss is that of the same flow without units on rows in units of their deviation."""
    parts = table_parts("magic", 300, 0)
    flow = kf.real_nvp(10, depth=1, hidden=(4,))
    flow.standardization.bijections[0].fit(torch.from_numpy(parts.train.values).float())
    rows = torch.from_numpy(parts.test.values).float()
    standardized = flow.standardization(rows)[0]
    normal = 0.5 * standardized.square().sum(1) + 5 * math.log(2 * math.pi)
    message = held_out(flow.eval(), parts)
    assert message["loss"] == pytest.approx(normal.mean().item(), rel=1e-5)
    assert message["loss_error"] == pytest.approx(normal.std().item() / len(rows) ** 0.5, rel=1e-3)
    assert torch.equal(points(flow, parts, 5), rows[:5])


def test_tables_of_known_density_are_judged_by_divergence():
    """Of a flow that is the law itself it is zero; a fresh one has the bends to learn."""
    parts = table_parts("bananas-4", 300, 0)
    flow = kf.real_nvp(4, depth=1, hidden=(4,)).eval()
    rows = torch.from_numpy(parts.test.values).float()
    expected = (parts.log_prob - flow.log_prob(rows).double()).mean().item()
    assert held_out(flow, parts)["loss"] == pytest.approx(expected, abs=1e-5)
    assert expected > 0.5


def test_images_are_judged_in_bits_per_dimension():
    """Of a standard normal, on pixels filled with the noise of seed 0."""
    pytest.importorskip("sklearn")
    parts = image_parts("digits", None, 0)
    normal = kf.Flow(
        kf.StandardNormal((1, 8, 8)),
        kf.bijections.ElementwiseAffine(1),
        images.Dequantize(parts.test.values),
    ).eval()
    x = parts.test.batch(range(len(parts.test))).float()
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    nats = 0.5 * (x + noise).square().sum((1, 2, 3)) + 32 * math.log(2 * math.pi)
    bits = nats.mean().item() / (64 * math.log(2))
    assert held_out(normal, parts)["loss"] == pytest.approx(bits, rel=1e-3)


@pytest.mark.slow
def test_training_is_what_its_seed_says():
    """The same flow twice, and better than at the start."""
    parts, losses = table_parts("bananas-4", 500, 0), []
    for _ in range(2):
        torch.manual_seed(3)
        flow = kf.real_nvp(4, depth=2, hidden=(8,))
        start = held_out(flow.eval(), parts)["loss"]
        settings = {"epochs": 3, "batch_size": 100, "learning_rate": 5e-3, "seed": 1}
        flow = train_flow(flow.train(), parts, settings)
        losses.append(held_out(flow, parts)["loss"])
        assert not flow.training and losses[-1] < start
    assert losses[0] == losses[1]
