"""What a run on images is asked to do, and what follows from it."""

import numpy as np
import pytest
from PIL import Image

import kappaflow as kf
from kappaflow.images.data import ImageConfig, defaults, image_flow, with_classes
from kappaflow.runs import ModelConfig


@pytest.fixture
def folder(tmp_path):
    """Returns a folder of 30 images of 6 x 9 pixels in two classes, and a text file."""
    rng = np.random.default_rng(0)
    for i in range(30):
        folder = tmp_path / "set" / ("cats" if i % 3 else "dogs")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 9, 3), np.uint8)).save(folder / f"{i:02}.png")
    (tmp_path / "set" / "notes.txt").write_text("none")
    return tmp_path / "set"


def test_images_are_split_the_same_way_for_the_same_seed(folder):
    """80, 10 and 10 per cent, no image in two parts; another seed splits otherwise."""
    parts = ImageConfig(str(folder), size=4).load()
    counts = [len(part) for part in (parts.train, parts.validation, parts.test)]
    assert counts == [24, 3, 3]
    index = [set(part.index.tolist()) for part in (parts.train, parts.validation, parts.test)]
    assert not (index[0] & index[1] or index[0] & index[2] or index[1] & index[2])
    again = ImageConfig(str(folder), size=4).load()
    other = ImageConfig(str(folder), size=4, split_seed=1).load()
    assert again.test.index.tolist() == parts.test.index.tolist()
    assert other.test.index.tolist() != parts.test.index.tolist()
    assert parts.train.shape == (3, 4, 4) and parts.train.classes == ("cats", "dogs")
    assert any("1 other file" in note for note in parts.notes)


@pytest.mark.parametrize(
    ("recipe", "shape", "expected"),
    [
        ("glow", (1, 8, 8), {"levels": 2}),
        ("glow", (3, 64, 64), {"levels": 3}),
        ("glow", (1, 112, 92), {"levels": 2}),
        ("glow", (1, 2, 2), {"levels": 1}),
        ("real_nvp_image", (1, 25, 25), {"levels": 1}),
        ("jet", (1, 8, 8), {"patch": 2, "depth": 8, "width": 32}),
        ("jet", (3, 32, 32), {"patch": 4}),
        ("jet", (1, 25, 25), {"patch": 1}),
    ],
)
def test_levels_and_patches_follow_from_the_size_of_the_images(recipe, shape, expected):
    """And a flow can be built with them, unless sides that cannot be halved stand in the way."""
    result = defaults(recipe, shape)
    assert {name: result[name] for name in expected} == expected
    assert result["memory"] == ("store" if max(shape) <= 32 else "recompute")
    if recipe != "jet" and shape[1] < 64:
        assert result["hidden"] == (32 if shape[1] <= 16 else 64)
        small = {"hidden": 2} | ({"steps": 1} if recipe == "glow" else {"blocks": 1})
        assert getattr(kf, recipe)(shape, **small, **expected).event_shape == shape


def test_sides_that_cannot_be_halved_name_a_size_to_ask_for(folder):
    """The sentence has an option that works."""
    images = ImageConfig(str(folder), size=(6, 9)).load().train
    with pytest.raises(kf.errors.ArgumentError, match="should be even to be squeezed, got 6 x 9"):
        image_flow(ModelConfig("glow"), images, by_class=False, seed=0)
    flow = image_flow(ModelConfig("real_nvp_image", {"hidden": 2}), images, by_class=False, seed=0)
    assert flow.event_shape == (3, 6, 9)


def test_the_same_seed_makes_the_same_flow_and_leaves_the_generator_alone(folder):
    """Weights follow from the seed alone."""
    import torch

    images = ImageConfig(str(folder), size=8).load().train
    small = {"levels": 1, "steps": 1, "hidden": 2}
    state = torch.get_rng_state()
    first, same, other = (
        image_flow(ModelConfig("glow", small), images, by_class=True, seed=seed).state_dict()
        for seed in (3, 3, 4)
    )
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_classes_are_matched_by_name_and_not_by_number(folder):
    """Labels count the classes of the run, whatever order the images have."""
    images = kf.load_images(str(folder), size=4)
    matched = with_classes(images, ("dogs", "birds", "cats"))
    assert matched.classes == ("dogs", "birds", "cats")
    expected = [0 if images.classes[label] == "dogs" else 2 for label in images.labels]
    assert matched.labels.tolist() == expected and set(expected) == {0, 2}
    with pytest.raises(kf.errors.ArgumentError, match="has 'dogs'"):
        with_classes(images, ("cats", "birds"))
    with pytest.raises(kf.errors.ArgumentError, match="has none"):
        with_classes(kf.load_images(str(folder / "cats"), size=4), ("cats", "dogs"))


def test_a_density_given_the_class_needs_classes(folder):
    """One class is none."""
    with pytest.raises(kf.errors.ArgumentError, match="'by_class' should be left out"):
        ImageConfig(str(folder / "cats"), size=4, by_class=True).load()
