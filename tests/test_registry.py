"""The names that a model file may mention."""

import json

import pytest
import torch

import kappaflow as kf
from kappaflow import registry
from kappaflow.bijection import zero_log_det


@kf.register("test.Stretch")
class Stretch(kf.Bijection):
    """A user's own bijection."""

    def __init__(self, factor, *, label="none"):
        super().__init__()
        self.factor, self.label = factor, label

    def forward(self, x, context=None):
        return x * self.factor, zero_log_det(x) + x.shape[1] * torch.tensor(self.factor).log()

    def inverse(self, z, context=None):
        return z / self.factor, zero_log_det(z) - z.shape[1] * torch.tensor(self.factor).log()


class NotRegistered(Stretch):
    """A subclass that nobody registered."""


@kf.register("test.Keywords")
class Keywords(Stretch):
    """A constructor with open keywords."""

    def __init__(self, **settings):
        super().__init__(**settings)


def test_an_object_is_described_by_its_name_and_all_its_arguments():
    """Positional arguments get their names, defaults are written out, and all of it is JSON."""
    described = registry.describe(Stretch(2.0))
    assert described == {"name": "test.Stretch", "arguments": {"factor": 2.0, "label": "none"}}
    assert json.loads(json.dumps(described)) == described


def test_build_undoes_describe():
    """A description makes an object of the same class and arguments, nested ones included."""
    chain = kf.Chain([
        Stretch(3.0, label="a"),
        kf.Chain([]),
        kf.Inverse(kf.bijections.Permutation((1, 0))),
    ])
    built = registry.build(json.loads(json.dumps(registry.describe(chain))))
    assert registry.describe(built) == registry.describe(chain)
    assert list(built)[0].label == "a"


def test_a_recipe_is_described_as_one():
    """Not its parts are written, but its name and arguments, a partition among them."""
    flow = kf.real_nvp(4, depth=2, hidden=(8,), partition=kf.Partition(4, (1, 2)))
    described = registry.describe(flow)
    assert described["name"] == "real_nvp"
    assert described["arguments"]["partition"]["arguments"]["kept"] == [1, 2]
    assert repr(registry.build(described)) == repr(flow)


def test_arrays_and_numpy_numbers_are_described_by_their_values():
    """Starts given as tensors or read off an array are written as lists and numbers."""
    affine = kf.bijections.ElementwiseAffine(
        2, log_scale=torch.tensor([1.0, 2.0]), shift=[0.5, 0.5]
    )
    assert registry.describe(affine)["arguments"]["log_scale"] == [1.0, 2.0]


def test_a_range_is_described_by_its_numbers():
    """Autoregressive flows reverse the order of their columns by one."""
    reversed_columns = kf.bijections.Permutation(range(3)[::-1])
    assert registry.describe(reversed_columns)["arguments"] == {"index": [2, 1, 0]}


def test_parts_given_by_a_generator_are_described():
    """What can be read once only is remembered all the same."""
    chain = kf.Chain(Stretch(float(i)) for i in (1, 2))
    assert len(chain) == 2
    assert len(registry.describe(chain)["arguments"]["bijections"]) == 2


def test_open_keywords_are_described_by_their_names():
    """A constructor that takes **settings is called with them again."""
    built = registry.build(registry.describe(Keywords(factor=2.0, label="b")))
    assert (built.factor, built.label) == (2.0, "b")


def test_the_description_follows_a_copy():
    """A deep copy is described by its own parts."""
    import copy

    chain = kf.Chain([Stretch(2.0)])
    assert registry.describe(copy.deepcopy(chain)) == registry.describe(chain)


def test_an_unregistered_class_cannot_be_described():
    """A subclass does not inherit its parent's name: it may be another function."""
    with pytest.raises(
        kf.errors.ArgumentError, match="a NotRegistered cannot be written .* register"
    ):
        registry.describe(kf.Chain([NotRegistered(2.0)]))


def test_a_name_can_be_given_once():
    """Another class under the same name is refused; the same one again is not."""
    with pytest.raises(kf.errors.ArgumentError, match="'Chain' is already registered for Chain"):
        kf.register("Chain")(NotRegistered)
    assert kf.register("test.Stretch")(Stretch) is Stretch
    assert Stretch(2.0).factor == 2.0


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"name": "test.Nothing", "arguments": {}}, "'test.Nothing' is not registered: import"),
        ({"name": "Chain"}, "should have a name and arguments, got the keys \\['name'\\]"),
        (
            {"name": "Chain", "arguments": {"bijection": []}},
            "'Chain' cannot be built.*'bijection'",
        ),
        ({"name": "Chain", "arguments": {"bijections": [1]}}, "'Chain' cannot be built"),
        ({"name": "Permutation", "arguments": {"index": "ab"}}, "'Permutation' cannot be built"),
        ({"name": ["Chain"], "arguments": {}}, "is not registered"),
    ],
)
def test_a_description_that_cannot_be_built_is_a_file_error(description, message):
    """The message names the object and what is wrong with it."""
    with pytest.raises(kf.errors.FileError, match=message):
        registry.build(description)
