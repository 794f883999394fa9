"""Samples as pixels, and when a training shows them."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import kappaflow as kf
from kappaflow.flows.recipe import from_options
from kappaflow.images.samples import (
    SampleSheets,
    columns_for,
    draw_pixels,
    is_shown,
    sample_sheet,
    write_sheet,
)
from kappaflow.testing.contract import jittered


def small(**more):
    """Returns a small Glow of pixels of 17 values, off its start."""
    options = {"levels": 1, "steps": 2, "hidden": 4, "dequantize": "uniform", "values": 17, **more}
    flow = jittered(from_options(kf.glow, (1, 4, 4), **options)).eval()
    flow.bijection.bijections[0].fit(8 + 4 * torch.randn(50, 1, 4, 4))
    return flow


def test_grids_are_shown_at_1_2_5_and_their_tens_and_at_the_end():
    """Few, and evenly on a log scale."""
    shown = [epoch for epoch in range(1, 1235) if is_shown(epoch, 1234)]
    assert shown == [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 1234]


def test_a_picture_has_a_column_for_each_class_or_is_about_a_square():
    """As many classes as take turns."""
    assert [columns_for(64), columns_for(10), columns_for(30, turns=10)] == [8, 4, 10]


def test_pixels_are_the_samples_of_the_flow():
    """Whole numbers in the units of the data, the same for the same seed."""
    flow = small()
    drawn = draw_pixels(flow, 9, seed=3, temperature=0.7)
    generator = torch.Generator().manual_seed(3)
    expected = flow.sample(9, temperature=0.7, generator=generator)
    assert drawn.dtype == np.uint8 and drawn.max() <= 16 and len(np.unique(drawn)) > 5
    assert np.array_equal(drawn, expected.numpy())
    assert not np.array_equal(draw_pixels(flow, 9, seed=4), drawn)


def test_many_samples_are_drawn_in_parts(monkeypatch):
    """A part at a time, each after the other from one generator."""
    import kappaflow.images.samples as module

    flow = small(context_features=2)
    monkeypatch.setattr(module, "NUMBERS_AT_ONCE", 16 * 4)
    labels = np.array([0, 1, 1, 0, 1, 0, 0, 0, 1, 1])
    drawn = draw_pixels(flow, 10, labels=labels)
    generator = torch.Generator().manual_seed(0)
    context = torch.eye(2)[torch.from_numpy(labels)]
    parts = [flow.sample(1, c, generator=generator)[0] for c in context.split(4)]
    assert np.array_equal(drawn, torch.cat(parts).numpy())


def test_a_sheet_has_a_row_for_each_class():
    """Eight samples of each class, from the same latents each time."""
    flow = small(context_features=3)
    sheet = sample_sheet(flow, ("a", "b", "c"))
    assert sheet.rows == ("a", "b", "c") and len(sheet.images) == 24 and sheet.columns == 8
    assert sheet.picture.shape == (1, 3 * 5 - 1, 8 * 5 - 1)
    assert np.array_equal(sheet.images, sample_sheet(flow, ("a", "b", "c")).images)
    many = sample_sheet(small(context_features=40), tuple(map(str, range(40))))
    assert len(many.rows) == 16 and len(many.images) == 16 * 8
    own = draw_pixels(flow, 24, labels=np.arange(3).repeat(8), temperature=0.8)
    assert np.array_equal(sheet.images, np.rint(own * (255 / 16)).astype(np.uint8))


def test_a_sample_that_is_not_finite_has_no_pixels(tmp_path):
    """It is an error where it was asked for, and no picture while a flow trains."""
    flow = small()
    torch.nn.init.constant_(next(flow.bijection.parameters()), float("nan"))
    with pytest.raises(kf.errors.NumericalError, match="3 of 3 samples are not finite"):
        draw_pixels(flow, 3)
    write_sheet(flow, (), tmp_path, "epoch-0001.png")
    assert list(tmp_path.iterdir()) == []


def test_samples_of_real_numbers_are_rounded_and_cut():
    """A flow without a dequantization has 256 values to a pixel."""
    flow = kf.Flow(
        kf.StandardNormal((1, 2, 2)), kf.bijections.ElementwiseAffine(1, log_scale=[-5.0])
    )
    drawn = draw_pixels(flow, 50)
    exact = flow.sample(50, generator=torch.Generator().manual_seed(0))
    assert drawn.min() == 0 and drawn.max() > 100
    assert np.array_equal(drawn, exact.round().clamp(0, 255).numpy().astype(np.uint8))


def test_watching_writes_a_large_picture_at_the_epochs_that_are_shown(tmp_path):
    """At least 512 pixels wide, by a whole factor, under the number of the epoch."""
    flow, sheets = small(), SampleSheets(tmp_path, (), 4)
    for epoch in range(1, 5):
        sheets.on_epoch(flow, {"epoch": epoch})
    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert names == ["epoch-0001.png", "epoch-0002.png", "epoch-0004.png"]
    image = Image.open(io.BytesIO((tmp_path / "samples" / names[0]).read_bytes()))
    assert image.size == (39 * 14, 39 * 14)
    assert np.array_equal(np.asarray(image)[::14, ::14], sample_sheet(flow, ()).picture[0])
