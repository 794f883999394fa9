"""Splitting images: a partition, fixed by its seed, with copies on one side."""

from pathlib import Path

import numpy as np
import pytest

from kappaflow.data import load_table, split
from kappaflow.errors import ArgumentError, DataError
from kappaflow.images import load_images, split_images
from kappaflow.images.decode import FormRequest
from kappaflow.images.images import Images, images_from_array


def numbered(numbers: list[int]) -> Images:
    """Returns images that are distinguished by one pixel, labeled by their place."""
    pixels = np.array(numbers, dtype=np.uint8)[:, None, None, None]
    labels = np.arange(len(numbers))
    return images_from_array(pixels, FormRequest(), source="numbers", labels=labels)


def places_of(part: Images) -> list[int]:
    """Returns which images of `numbered` a part holds."""
    assert part.labels is not None
    return part.labels.tolist()


@pytest.mark.parametrize("fractions", [(0.8, 0.1, 0.1), (0.5, 0.5), (0.4, 0.3, 0.2, 0.1)])
def test_images_without_copies_are_split_as_rows_are(fractions: tuple[float, ...]) -> None:
    """Every image is in one part, and it is the part of the same row of a table."""
    images = numbered(list(range(100)))
    table = load_table(np.arange(100)[:, None] + 0.5)
    for seed in (0, 3):
        parts = split_images(images, fractions=fractions, seed=seed)
        rows = split(table, fractions=fractions, seed=seed)
        assert [places_of(part) for part in parts] == [(part.rows - 1).tolist() for part in rows]
        for part in parts:
            assert part.batch(range(len(part)))[:, 0, 0, 0].tolist() == places_of(part)


def test_copies_go_to_one_side() -> None:
    """All of them, whatever the seed; no image is lost."""
    numbers = [*range(30), *range(30), *range(10)]
    images = numbered(numbers)
    for seed in range(10):
        parts = split_images(images, seed=seed)
        numbers_of = [{numbers[position] for position in places_of(part)} for part in parts]
        assert sum(len(part) for part in numbers_of) == 30
        assert [len(part) for part in numbers_of] == [24, 3, 3]
        assert sorted(sum(map(places_of, parts), [])) == list(range(70))


def test_files_of_the_same_pixels_are_copies(draw, tmp_path: Path) -> None:
    """Whatever they are called, and whatever kind of file they are."""
    for number in range(6):
        pixels = np.full((2, 2), number, dtype=np.uint8)
        draw(f"{number}.png", pixels)
        draw(f"copy of {number}.bmp", pixels)
    parts = split_images(load_images(tmp_path), fractions=(0.5, 0.5))
    assert [len(part) for part in parts] == [6, 6]
    values = [{*part.batch(range(6))[:, 0, 0, 0].tolist()} for part in parts]
    assert not values[0] & values[1]


def test_fewer_different_images_than_parts_are_refused(refused) -> None:
    """Copies count once."""
    with refused(DataError, "2 different images cannot be split into 3 parts", "at least 3"):
        split_images(numbered([1, 2, 1, 2]))


@pytest.mark.parametrize("fractions", [(0.8, 0.1), (1.0,), (), (0.5, 0.6), (1.1, -0.1)])
def test_fractions_are_positive_shares_of_one(refused, fractions) -> None:
    """As for tables."""
    with refused(ArgumentError, "'fractions' should be two or more positive numbers"):
        split_images(numbered(list(range(9))), fractions=fractions)
