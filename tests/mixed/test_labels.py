"""The distribution of labels: sums over all codes, closed forms, weights of completions."""

import itertools
import math

import numpy as np
import pytest
import torch

from kappaflow.mixed import labels as module
from kappaflow.mixed.heads import OFFSET, CountHead, LabelHead
from kappaflow.mixed.labels import Labels

COUNTS = [2, 3, 4]
ALL = torch.tensor(list(itertools.product(*map(range, COUNTS))))


def random_labels(seed=0):
    """Returns labels with random networks, so that no two probabilities are equal."""
    torch.manual_seed(seed)
    labels = Labels(COUNTS)
    for parameter in labels.parameters():
        torch.nn.init.normal_(parameter, std=0.25)
    return labels.eval()


def two_columns(rows=4000, seed=0):
    """Returns codes of two columns, the second of which depends on the first."""
    generator = torch.Generator().manual_seed(seed)
    first = (torch.rand(rows, generator=generator) < 0.3).long()
    share = torch.where(first == 1, 0.8, 0.1)
    second = (torch.rand(rows, generator=generator) < share).long()
    return torch.stack([first, second], dim=1)


@pytest.fixture(scope="module")
def table():
    """Codes of two columns, and labels fitted to them."""
    codes = two_columns()
    return codes, Labels([2, 2]).fit(codes, codes)


@torch.no_grad()
def test_the_probabilities_of_all_codes_sum_to_one():
    """Each is a product of one probability a column."""
    labels = random_labels()
    assert len(ALL) == 24
    np.testing.assert_allclose(labels.log_prob(ALL).exp().sum(), 1.0, rtol=1e-5)
    torch.testing.assert_close(labels.each_log_prob(ALL).sum(1), labels.log_prob(ALL))


@torch.no_grad()
def test_a_column_does_not_read_those_after_it():
    """So that it can be completed in order."""
    labels = random_labels()
    first = labels.each_log_prob(ALL)
    changed = ALL.clone()
    changed[:, 2] = (changed[:, 2] + 1) % 4
    other = labels.each_log_prob(changed)
    assert (first[:, :2] == other[:, :2]).all() and (first[:, 2] != other[:, 2]).all()


@torch.no_grad()
def test_two_fitted_columns_have_their_frequencies(table):
    """The best distribution of a table of two columns: the counts over the rows."""
    codes, labels = table
    cells = torch.tensor(list(itertools.product(range(2), range(2))))
    expected = torch.stack([(codes == cell).all(1).double().mean() for cell in cells])
    np.testing.assert_allclose(labels.log_prob(cells).exp(), expected, atol=0.01)
    first = labels.each_log_prob(cells)[:, 0].exp()
    share = (codes[:, 0].sum() + 0.5) / (len(codes) + 1)  # half a row is added to each label
    np.testing.assert_allclose(first[2:], share, atol=0.003)


def test_a_fit_repeats_by_its_seed_and_leaves_the_global_generator_alone():
    """The order of the rows is drawn from it."""
    codes = two_columns(600)

    def fitted(seed):
        labels = Labels([2, 2])  # its weights are drawn by the global generator
        state = torch.get_rng_state()
        values = labels.fit(codes, codes[:100], seed=seed).log_prob(codes)
        assert (torch.get_rng_state() == state).all()
        return values

    assert (fitted(1) == fitted(1)).all() and (fitted(1) != fitted(2)).any()


@torch.no_grad()
def test_weights_count_like_repeated_rows():
    """A row of weight 3 is three rows, for all columns."""
    codes = two_columns(3000)
    weights = 1.0 + 4 * (codes[:, 1] == 1).double()
    labels = Labels([2, 2]).fit(codes, codes[:0], weights)
    repeated = codes.repeat_interleave(weights.long(), dim=0)
    total = weights.sum()
    expected = (weights[codes[:, 0] == 1].sum() / total).item()
    np.testing.assert_allclose(
        labels.each_log_prob(ALL[12:13, :2])[0, 0].exp(), expected, atol=1e-3
    )
    weighted = Labels([2, 2]).fit(codes, repeated, weights)
    cells = torch.tensor(list(itertools.product(range(2), range(2))))
    expected = [((repeated == cell).all(1)).double().mean() for cell in cells]
    np.testing.assert_allclose(weighted.log_prob(cells).exp(), expected, atol=0.015)


@torch.no_grad()
def test_rare_and_unseen_labels_have_a_finite_score(monkeypatch):
    """Half a row of each label is added to the counts."""
    codes = torch.zeros(500, 2, dtype=torch.long)
    codes[0] = 1
    labels = Labels([3, 3]).fit(codes, codes)
    unseen = torch.tensor([[2, 2], [1, 1], [2, 0]])
    scores = labels.log_prob(unseen)
    assert scores.isfinite().all() and (scores < -4).all()
    expected = math.log(0.5 / 501.5)
    monkeypatch.setattr(module, "EPOCHS", 0)
    start = Labels([3, 3]).fit(codes, codes).each_log_prob(unseen)
    np.testing.assert_allclose(start[0, 0], expected, rtol=1e-4)


@torch.no_grad()
def test_validation_rows_decide_which_epoch_is_kept():
    """Rows in which columns are independent keep the frequencies that training starts from."""
    codes = two_columns(2000)
    shuffled = codes.clone()
    shuffled[:, 1] = codes[torch.randperm(2000, generator=torch.Generator().manual_seed(1)), 1]
    labels = Labels([2, 2]).fit(codes, shuffled)
    given_first = labels.each_log_prob(torch.tensor([[0, 1], [1, 1]]))[:, 1].exp()
    share = (codes[:, 1].sum() + 0.5) / 2001
    np.testing.assert_allclose(given_first, share, rtol=1e-4)
    better = Labels([2, 2]).fit(codes, codes)
    assert better.log_prob(shuffled).mean() < labels.log_prob(shuffled).mean()
    assert better.log_prob(codes).mean() > labels.log_prob(codes).mean() + 0.1


@pytest.mark.parametrize("known", list(itertools.product([False, True], repeat=3)))
def test_weights_of_completions_average_to_the_marginal_of_the_present_labels(known):
    """Compared with the sum over all completions, within 5 standard errors of 20,000 draws.

    An error of 3 % would be seen: weights of one row vary by less than their mean.
    """
    labels, row = random_labels(), torch.tensor([1, 2, 0])
    mask = torch.tensor(known)
    codes = torch.where(mask, row, -1).repeat(20_000, 1)
    filled, log_w = labels.filled(codes, torch.Generator().manual_seed(0))
    assert (filled[:, mask] == row[mask]).all() and (filled >= 0).all()
    agree = (ALL[:, mask] == row[mask]).all(1)
    with torch.no_grad():
        expected = labels.log_prob(ALL[agree]).exp().sum().item()
    weights = log_w.exp().double()
    error = weights.std().item() / len(weights) ** 0.5
    assert abs(weights.mean().item() - expected) <= 5 * error + 1e-6
    assert error < 0.006 * expected


def test_completions_follow_the_conditional_of_those_before_them():
    """Draws weighted by their weights have the frequencies of the posterior, within 5 errors."""
    labels = random_labels()
    codes = torch.tensor([[-1, 2, -1]]).repeat(40_000, 1)
    filled, log_w = labels.filled(codes, torch.Generator().manual_seed(1))
    agree = ALL[ALL[:, 1] == 2]
    with torch.no_grad():
        expected = labels.log_prob(agree).softmax(0).double()
    weights = log_w.double().softmax(0)
    for cell, share in zip(agree, expected, strict=True):
        met = (filled == cell).all(1).double()
        actual = (weights * met).sum()
        error = ((weights * (met - actual)) ** 2).sum().sqrt()
        assert abs(actual - share) < 5 * error


def test_the_label_of_a_missing_value_is_never_drawn_and_its_probability_goes_to_the_others():
    """A complete row cannot have it."""
    torch.manual_seed(0)
    labels = Labels([2, LabelHead(3, has_gaps=True), LabelHead(4, has_gaps=True)])
    for parameter in labels.parameters():
        torch.nn.init.normal_(parameter, std=0.25)
    empty = torch.full((5000, 3), -1)
    filled, log_w = labels.filled(empty, torch.Generator().manual_seed(0))
    assert [column.unique().tolist() for column in filled.T] == [[0, 1], [0, 1], [0, 1, 2]]
    assert (log_w == 0).all()
    codes = torch.tensor([[0, 1, 2]])
    _, log_w = labels.filled(codes, torch.Generator())
    with torch.no_grad():
        gaps = torch.tensor([[0, 2, 2], [0, 1, 3]])
        actual, gone = labels.each_log_prob(codes).exp()[0], labels.each_log_prob(gaps).exp()
    expected = actual[0] * actual[1] / (1 - gone[0, 1]) * actual[2] / (1 - gone[1, 2])
    np.testing.assert_allclose(log_w.exp(), expected, rtol=1e-5)


@pytest.mark.parametrize("ends", [False, True])
@torch.no_grad()
def test_the_probabilities_of_all_counts_sum_to_one_and_samples_follow_them(ends):
    """For an output that differs from that of the fit; 20,000 draws, within 5 standard errors."""
    rows = torch.from_numpy(np.random.default_rng(0).poisson(20, 3000))
    head = CountHead(has_gaps=False, ends=ends)
    output = head.fit(rows + OFFSET, torch.ones(3000))
    output = output + 0.2 * torch.randn(len(output), generator=torch.Generator().manual_seed(0))
    counts = torch.arange(0 if ends else -3000, 3000) + OFFSET
    shares = head.log_prob(output.repeat(len(counts), 1), counts).exp().double()
    assert abs(shares.sum() - 1) < 1e-4
    levels = torch.rand(20_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    drawn = head.sample(output.repeat(20_000, 1), levels)
    for count in range(12, 28):
        share = shares[counts == count + OFFSET].item()
        actual = (drawn == count + OFFSET).double().mean().item()
        assert share > 0.005 and abs(actual - share) < 5 * math.sqrt(share / 20_000)


@torch.no_grad()
def test_a_fitted_column_of_counts_has_about_their_frequencies():
    """Of a Poisson distribution, given a label of two, within a tenth of the entropy."""
    generator = np.random.default_rng(0)
    label = generator.integers(0, 2, 4000)
    count = generator.poisson(8 + 12 * label)
    codes = torch.from_numpy(np.c_[label, count + OFFSET])
    labels = Labels([2, CountHead(has_gaps=False, ends=True)]).fit(codes, codes)
    from scipy.stats import poisson

    expected = poisson(8 + 12 * label).logpmf(count).mean() + math.log(0.5)
    assert abs(labels.log_prob(codes).mean().item() - expected) < 0.05
    far = torch.tensor([[0, 500 + OFFSET], [1, OFFSET]])
    assert labels.log_prob(far).isfinite().all()


@pytest.mark.parametrize(("rows", "epochs"), [(4, 5), (40, 3)])
def test_a_large_table_is_trained_for_few_epochs(rows, epochs, monkeypatch):
    """About as many steps as a small one, but three epochs at least."""
    monkeypatch.setattr(module, "BATCH", 1)
    monkeypatch.setattr(module, "STEPS", 20)
    monkeypatch.setattr(module, "PATIENCE", 100)
    calls, mean = [], Labels._mean
    monkeypatch.setattr(Labels, "_mean", lambda *rows: calls.append(1) or mean(*rows))
    codes = torch.randint(0, 2, (rows, 2), generator=torch.Generator().manual_seed(0))
    Labels([2, 2]).fit(codes, codes)
    assert len(calls) == 1 + epochs
