"""Datasets and loaders of torch as the data of `fit`."""

import pytest
import torch
from tests.training.examples import small
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import kappaflow as kf
from kappaflow.errors import ArgumentError, DataError

X = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
CONTEXT = X[:, :1] + 1
QUICK = {"max_epochs": 2, "progress": False}


class Rows(Dataset):
    """Rows by their number, as a list of numbers."""

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i].tolist()


class Stream(IterableDataset):
    """Rows one after the other."""

    def __iter__(self):
        return iter(X)


class Noisy(Rows):
    """Adds noise each time that a row is read."""

    def __getitem__(self, i):
        return X[i] + torch.randn(2)


ROWS = {
    "dataset": lambda: TensorDataset(X),
    "lists": Rows,
    "stream": Stream,
    "subset": lambda: Subset(TensorDataset(torch.cat((X, X + 9))), range(300)),
    "loader": lambda: DataLoader(TensorDataset(X), batch_size=7),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_those_of_a_tensor(name):
    """The training is the same, bit for bit."""
    expected = kf.fit(small(2), X, **QUICK)
    result = kf.fit(small(2), ROWS[name](), **QUICK)
    assert result.validation_nll == expected.validation_nll


def test_rows_are_read_wherever_a_table_is(tmp_path):
    """By fit_auto and in reports too."""
    result = kf.fit_auto(TensorDataset(X), search_time=0, max_epochs=1, progress=False)
    expected = kf.fit_auto(X, search_time=0, max_epochs=1, progress=False)
    assert result.validation_nll == expected.validation_nll
    assert result.report(tmp_path / "page.html", DataLoader(TensorDataset(X))).exists()


def test_pairs_have_a_context():
    """Of one column, too."""
    data, pair = TensorDataset(X, CONTEXT), (X, CONTEXT)

    def nll(rows, **more):
        flow = small(2, context_features=1)
        return kf.fit(flow, rows, **QUICK, **more).validation_nll

    assert nll(data) == nll(pair)
    expected = nll(pair, validation=pair)
    for rows in (data, DataLoader(data, batch_size=50), TensorDataset(X, CONTEXT[:, 0])):
        assert nll(rows, validation=data) == expected


def test_shuffled_and_random_data_are_the_same_when_resumed(tmp_path):
    """Random numbers of samplers and transforms start from one seed; the global one stays."""
    state = torch.random.get_rng_state()
    for i, make in enumerate((Noisy, lambda: DataLoader(Noisy(), batch_size=32, shuffle=True))):
        out = tmp_path / str(i)
        first = kf.fit(small(2), make(), out=out, **QUICK)
        torch.rand(5)
        assert kf.fit(small(2), make(), out=out, **QUICK).history == first.history
    torch.random.set_rng_state(state)
    kf.fit(small(2), DataLoader(X, shuffle=True, batch_size=100), **QUICK)


def test_a_sampler_chooses_the_rows():
    sampler = SubsetRandomSampler(range(100))
    loader = DataLoader(TensorDataset(X), sampler=sampler, batch_size=8)
    result = kf.fit(small(2), loader, **QUICK)
    assert len(result.train) + len(result.validation) == 100
    weighted = DataLoader(X, sampler=WeightedRandomSampler([1.0] * 300, 200), batch_size=10)
    result = kf.fit(small(2), weighted, duplicates="drop", **QUICK)
    assert len(result.train) + len(result.validation) < 200


PIXELS = torch.randint(0, 256, (60, 1, 4, 4), generator=torch.Generator().manual_seed(0))


class Pictures(Dataset):
    """Pictures of Pillow with their class, as torchvision's datasets without a transform."""

    def __len__(self):
        return len(PIXELS)

    def __getitem__(self, i):
        from PIL import Image

        return Image.fromarray(PIXELS[i, 0].byte().numpy()), int(i % 2)


def test_images_are_whole_numbers_or_fractions_of_them():
    """Bytes, fractions of 255 and pictures train alike, with their classes as the context."""

    def result_of(data, context_features=0):
        torch.manual_seed(0)
        flow = kf.glow((1, 4, 4), levels=1, steps=1, hidden=4, context_features=context_features)
        return kf.fit(flow, data, max_epochs=1, progress=False)

    labels = torch.arange(60) % 2
    losses = {
        result_of(data).validation_nll
        for data in (
            TensorDataset(PIXELS.byte(), labels),
            DataLoader(TensorDataset(PIXELS.float() / 255), batch_size=16),
        )
    }
    assert len(losses) == 1
    result = result_of(TensorDataset(PIXELS.byte(), labels), 2)
    assert result.train.classes == ("0", "1")
    pytest.importorskip("PIL")
    assert result_of(Pictures(), 2).validation_nll == result.validation_nll
    with pytest.raises(DataError, match="whole numbers from 0 to 255, or of these divided by 255"):
        result_of(TensorDataset(PIXELS / 127.5 - 1))
    with pytest.raises(ArgumentError, match=r"images of shape \(1, 4, 4\).* got \(1, 2, 4\)"):
        result_of(TensorDataset(PIXELS[:, :, :2]))
