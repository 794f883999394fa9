"""Training on images."""

import dataclasses
import json

import pytest
import torch
from tests.training.examples import digits, small_glow

import kappaflow as kf
from kappaflow.images.batches import ImageBatches

SETTINGS = {"max_epochs": 2, "batch_size": 64, "learning_rate": 2e-3}


@pytest.mark.slow
def test_bits_per_dimension_fall_below_those_of_a_code_of_equal_lengths():
    """log2 17 = 4.09 bits for each pixel would take no model at all."""
    settings = {"max_epochs": 6, "batch_size": 32, "learning_rate": 5e-3}
    result = kf.fit(small_glow(steps=2, hidden=16), digits(600), **settings)
    bits = [line["validation_bits_per_dimension"] for line in result.history]
    assert bits[-1] < bits[0] < 6
    assert bits[-1] < 4.09
    nats = result.history[-1]["validation_nll"]
    assert bits[-1] == pytest.approx(nats / (64 * 0.6931471805599453))


def test_units_and_activation_norms_start_from_training_images():
    """Before the first step, so that averages of the weights begin there."""
    flow = small_glow()
    result = kf.fit(flow, digits(), **SETTINGS | {"max_epochs": 1})
    assert (len(result.train), len(result.validation)) == (0.9 * len(digits()), len(digits()) / 10)
    units = flow.standardization.bijections[0]
    assert units.fitted
    assert 3 < units.mean.item() - 0.5 < 7
    assert all(
        part.initialized for part in flow.modules() if isinstance(part, kf.bijections.ActNorm)
    )


@pytest.mark.slow
def test_the_conditioning_is_measured_as_seldom_as_asked_for():
    """After the first epoch, each n-th and the last; it changes nothing else."""
    settings = SETTINGS | {"max_epochs": 5}
    often = kf.fit(small_glow(), digits(), **settings).history
    seldom = kf.fit(small_glow(), digits(), **settings, conditioning_every=2).history
    for key in ("condition_number_median", "condition_number_p95", "round_trip_data"):
        kept = [line[key] for line in often]
        assert [line[key] for line in seldom] == [*kept[:2], None, *kept[3:]]
        assert None not in kept
    assert [a["train_nll"] for a in often] == [b["train_nll"] for b in seldom]


def test_classes_are_contexts():
    """One-hot, in the order of the classes."""
    flow = small_glow(context_features=10)
    rows = ImageBatches(digits(), flow).at(torch.tensor([3, 0]))
    assert rows.context.shape == (2, 10)
    assert rows.context.argmax(1).tolist() == [3, 0]
    assert rows.context.sum(1).tolist() == [1, 1]
    result = kf.fit(flow, digits(), **SETTINGS)
    assert result.flow.sample(2, torch.eye(10)).shape == (2, 10, 1, 8, 8)


def test_flipped_images_are_mirror_images():
    """Of some, and only where asked for."""
    flow, images = small_glow(), digits(50)
    plain = ImageBatches(images, flow).at(slice(0, 50)).x
    torch.manual_seed(0)
    flipped = ImageBatches(dataclasses.replace(images, flip=True), flow).at(slice(0, 50)).x
    same = (flipped == plain).flatten(1).all(1)
    mirrored = (flipped == plain.flip(-1)).flatten(1).all(1)
    assert (same | mirrored).all()
    assert 10 < mirrored.sum() < 40


def test_a_folder_is_resized_to_the_flow(tmp_path):
    """And made gray where the flow has one channel."""
    from PIL import Image

    for number in range(40):
        Image.new("RGB", (10, 12), (number * 6, 0, 255 - number)).save(tmp_path / f"{number}.png")
    result = kf.fit(small_glow(values=256), tmp_path, **SETTINGS)
    assert result.flow.event_shape == (1, 8, 8)


def test_a_run_folder_says_what_it_was(tmp_path):
    """Fingerprints of the images, and whether they were mirrored."""
    kf.fit(small_glow(), digits(), out=tmp_path, **SETTINGS)
    run = json.loads((tmp_path / "config.json").read_text())["run"]
    assert run["flip"] is False
    assert set(run["fingerprints"]) == {"train", "validation"}
    with pytest.raises(kf.errors.ArgumentError, match="made with other train rows"):
        kf.fit(small_glow(), digits(150), out=tmp_path, **SETTINGS)


@pytest.mark.slow
@pytest.mark.parametrize("dequantize", ["uniform", "variational"])
def test_bf16_narrows_the_convolutions_of_training_steps_only(dequantize):
    """Validation, weights and log_dets are not narrower, and the likelihood hardly moves."""
    images = kf.load_images("digits").subset(range(100))
    actual = {}
    for precision, narrow in (("full", torch.float32), ("bf16", torch.bfloat16)):
        torch.manual_seed(0)
        flow = kf.glow(
            (1, 8, 8), levels=2, steps=1, hidden=4, pixels={"dequantize": dequantize, "values": 17}
        )
        products, log_dets = set(), set()
        for part in flow.modules():
            if isinstance(part, kf.nets.ConvNet):
                part.last.register_forward_hook(
                    lambda layer, _, y, seen=products: seen.add((
                        y.dtype,
                        layer.training and torch.is_grad_enabled(),
                    ))
                )
        flow.bijection.register_forward_hook(lambda *a, seen=log_dets: seen.add(a[2][1].dtype))
        result = kf.fit(flow, images, max_epochs=2, precision=precision, progress=False)
        # A copy in float64 measures the conditioning.
        assert products == {(narrow, True), (torch.float32, False), (torch.float64, False)}
        assert log_dets == {torch.float32}
        assert {p.dtype for p in flow.parameters()} == {torch.float32}
        assert result.history[-1]["skipped_steps"] == 0
        actual[precision] = result.validation_nll
    assert actual["bf16"] != actual["full"]
    assert actual["bf16"] == pytest.approx(actual["full"], rel=1e-3)
