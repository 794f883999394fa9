"""Mirroring: half of the images, whole images, and nothing else."""

import pytest
import torch

from kappaflow.errors import ArgumentError
from kappaflow.images import flipped


def test_each_image_is_kept_or_mirrored_left_to_right() -> None:
    """All channels and rows of it, each image by its own draw."""
    batch = torch.randint(0, 256, (200, 3, 4, 5), dtype=torch.uint8)
    before = batch.clone()
    found = flipped(batch, generator=torch.Generator().manual_seed(1))
    kept = (found == batch).flatten(1).all(1)
    mirrored = (found == batch[..., [4, 3, 2, 1, 0]]).flatten(1).all(1)
    assert (kept ^ mirrored).all()
    assert found.dtype == torch.uint8
    assert torch.equal(batch, before)


def test_half_of_the_images_are_mirrored() -> None:
    """A share of 1/2 within 4 standard errors of 10,000 draws; 0.48 and 0.52 would be seen."""
    batch = torch.arange(2.0).expand(10_000, 1, 1, 2)
    found = flipped(batch, generator=torch.Generator().manual_seed(2))
    share = found[:, 0, 0, 0].mean().item()
    assert abs(share - 0.5) < 4 * 0.5 / 100


def test_the_generator_decides_and_moves_on() -> None:
    """The same state makes the same choice; the next batch makes another."""
    batch = torch.arange(2.0).expand(100, 1, 1, 2)
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    first = [flipped(batch, generator=generator) for generator in generators]
    assert torch.equal(*first)
    assert not torch.equal(first[0], flipped(batch, generator=generators[0]))


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (1, 1, 1, 1, 1)])
def test_other_axes_are_refused(refused, shape: tuple[int, ...]) -> None:
    """One image has to become a batch first."""
    with refused(ArgumentError, "'batch' should have shape (batch, channels, height, width)"):
        flipped(torch.zeros(shape), generator=torch.Generator())


def test_no_images_are_no_images() -> None:
    """An empty batch stays one."""
    assert flipped(torch.zeros(0, 1, 2, 2), generator=torch.Generator()).shape == (0, 1, 2, 2)
