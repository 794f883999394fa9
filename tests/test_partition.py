"""Partitions: which features a coupling keeps, and which it changes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import kappaflow as kf
from kappaflow.partition import shuffled


@st.composite
def partitions(draw):
    """Any partition of up to 9 features that leaves something to change."""
    features = draw(st.integers(1, 9))
    kept = draw(st.sets(st.integers(0, features - 1), max_size=features - 1))
    return kf.Partition(features, tuple(kept))


@given(partitions(), st.booleans())
def test_merge_undoes_split_for_any_partition(partition, image):
    """Splitting and merging gives the tensor back, for tables and for images."""
    x = torch.arange(2.0 * partition.features * 6).reshape(2, partition.features, 3, 2)
    x = x if image else x[..., 0, 0]
    kept, changed = partition.split(x)
    assert torch.equal(kept, x[:, list(partition.kept)])
    assert torch.equal(changed, x[:, list(partition.changed)])
    assert torch.equal(partition.merge(kept, changed), x)


@given(partitions())
def test_kept_and_changed_features_are_all_of_them_once(partition):
    """No feature is lost or counted twice."""
    assert sorted(partition.kept + partition.changed) == list(range(partition.features))


@pytest.mark.parametrize("partition", [kf.Partition.half(5), kf.Partition.half(5).swapped()])
def test_contiguous_parts_are_views(partition):
    """Halves share memory with the tensor that they are parts of."""
    x = torch.zeros(2, 5)
    for part in partition.split(x):
        part.fill_(3)
    assert (x == 3).all()


@pytest.mark.parametrize(
    ("partition", "kept"),
    [
        (kf.Partition.half(1), ()),
        (kf.Partition.half(5), (0, 1)),
        (kf.Partition.alternating(5), (0, 2, 4)),
        (kf.Partition.alternating(5).swapped(), (1, 3)),
        (kf.Partition(4, (2, 0)), (0, 2)),
    ],
)
def test_what_named_partitions_keep(partition, kept):
    """Half keeps floor(n/2) features, and swapping exchanges the roles."""
    assert partition.kept == kept


def test_repr_shortens_long_lists():
    """A partition of many scattered features names the first and their number."""
    assert repr(kf.Partition.alternating(40)).count(",") < 20
    assert "(20)" in repr(kf.Partition.alternating(40))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kf.Partition(3, (0, 0)), "different indices from 0 to 2, got \\(0, 0\\)"),
        (lambda: kf.Partition(3, (-1,)), "'kept' should be at least 0, got -1"),
        (lambda: kf.Partition(3, (0, 1, 2)), "at most 2 of 3 features unchanged"),
        (lambda: kf.Partition(2.0, (0,)), "'features' should be a whole number"),
        (lambda: kf.Partition.half(0), "'features' should be at least 1"),
        (lambda: kf.Partition(2, ()).swapped(), "a coupling must change something"),
        (lambda: kf.SpatialPartition(1, "stripes"), "'pattern' should be one of 'checkerboard'"),
    ],
)
def test_a_partition_that_cannot_be_is_refused(make, message):
    """The message names the argument, what it should be, and what it was."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        make()


def test_orders_that_model_files_name_by_a_seed_never_change():
    """Pinned: a model file with this seed must be read by the same function in every version."""
    assert shuffled(8, 0) == [3, 7, 5, 2, 4, 1, 6, 0]
    assert shuffled(8, 1) == [0, 3, 5, 4, 6, 2, 7, 1]
    assert kf.Partition.random_half(8, seed=0).kept == (2, 3, 5, 7)


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("pattern", ["checkerboard", "rows", "columns"])
def test_places_are_split_and_merged(pattern, odd):
    """The kept image is zero where it is changed; merging takes each place from its side."""
    partition = kf.SpatialPartition(2, pattern, odd=odd)
    x = torch.randn(3, 2, 3, 4)
    kept, changed = partition.split(x)
    for i in range(3):
        for j in range(4):
            number = {"checkerboard": i + j, "rows": i, "columns": j}[pattern]
            is_kept = (number % 2 == 0) != odd
            assert torch.equal(kept[..., i, j], x[..., i, j] if is_kept else 0 * x[..., i, j])
    assert torch.equal(partition.merge(kept, changed), x)
    ones = torch.ones_like(x)
    assert torch.equal(partition.merge(0 * ones, ones), partition.answer(ones))
    other = partition.swapped().split(x)[0]
    assert torch.equal(kept + other, x)


def test_a_number_that_is_not_finite_stays_on_its_side():
    """Nothing of a changed place reaches the network, not even nan times zero."""
    x = torch.ones(1, 1, 2, 2)
    x[..., 0, 1] = torch.nan
    assert torch.isfinite(kf.SpatialPartition(1).split(x)[0]).all()
