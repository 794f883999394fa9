"""Pictures: what is written is what another reader reads."""

import io

import numpy as np
import pytest
from PIL import Image

from kappaflow.images.samples import enlarged, grid, shown
from kappaflow.report.pictures import png, size_of


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_pillow_reads_the_pixels_that_were_written(channels, mode):
    """Gray and color, of odd sizes, higher than wide and wider than high."""
    for height, width in ((1, 1), (5, 3), (4, 17)):
        pixels = np.random.default_rng(0).integers(0, 256, (channels, height, width), np.uint8)
        image = Image.open(io.BytesIO(png(pixels)))
        image.load()
        assert image.mode == mode and image.size == (width, height)
        assert np.array_equal(
            np.asarray(image).reshape(height, width, channels), pixels.transpose(1, 2, 0)
        )
        assert size_of(png(pixels)) == (width, height)


def test_what_is_no_picture_is_refused():
    """Too short, or other bytes."""
    for content in (b"", b"\x89PNG\r\n\x1a\n", b"x" * 40):
        with pytest.raises(ValueError, match="PNG"):
            size_of(content)


def test_a_grid_puts_each_image_in_its_place():
    """Row by row, with lines between and none around; missing places are gray."""
    images = np.arange(5, dtype=np.uint8)[:, None, None, None].repeat(2, 2).repeat(3, 3)
    complete = grid(images, 3, gap=1, ground=99)
    assert complete.shape == (1, 5, 11)
    expected = np.array([
        [0, 0, 0, 99, 1, 1, 1, 99, 2, 2, 2],
        [0, 0, 0, 99, 1, 1, 1, 99, 2, 2, 2],
        [99] * 11,
        [3, 3, 3, 99, 4, 4, 4, 99, 99, 99, 99],
        [3, 3, 3, 99, 4, 4, 4, 99, 99, 99, 99],
    ])
    assert np.array_equal(complete[0], expected)


def test_enlarging_makes_squares_and_smooths_nothing():
    """By the smallest whole factor that is wide enough; never smaller."""
    pixels = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    large = enlarged(pixels, 7)
    assert large.shape == (1, 6, 9)
    assert np.array_equal(large[:, ::3, ::3], pixels)
    assert np.array_equal(large[:, 2::3, 2::3], pixels)
    assert enlarged(pixels, 1).shape == pixels.shape
    assert enlarged(np.zeros((1, 1, 71), np.uint8)).shape[2] == 568


def test_few_values_are_spread_over_the_scale_of_a_picture():
    """The least is black and the greatest white; 256 values stay."""
    assert shown(np.array([0, 1, 16], np.uint8), 17).tolist() == [0, 16, 255]
    assert shown(np.array([0, 1], np.uint8), 2).tolist() == [0, 255]
    assert shown(np.array([0, 7, 255], np.uint8), 256).tolist() == [0, 7, 255]
