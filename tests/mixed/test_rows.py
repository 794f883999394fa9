"""Rows with gaps: noise in cells, draws of missing numbers in a training, and their posterior."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from tests.mixed.exact import conditional, exact_model, normal_flow

import kappaflow as kf
from kappaflow.data import Table
from kappaflow.domains import Interval
from kappaflow.mixed.prepared import prepared
from kappaflow.mixed.proposals import Proposals
from kappaflow.mixed.rows import Gaps, IncompleteRows, blurred, filled_rows, gaps_of
from kappaflow.mixed.saved import new_parts
from kappaflow.training import Settings, fit_split

ROOT = np.array([[1.0, 0.0], [1.2, 0.5]])
ROWS = 2000


def incomplete_rows(missing, shift=0.0, known=0.7, domain=None, **more):
    """Returns equal rows of two numbers, the second of which is missing in some.

    Proposals are fitted to rows that are off by `shift`, so that they are not the posterior.
    """
    sample = np.random.default_rng(0).normal(size=(1000, 2)) @ ROOT.T + [0, shift]
    values = np.full((len(missing), 2), known)
    if domain is not None:
        sample[:, 1], values[:, 1] = np.exp(sample[:, 1]), 1.0
    proposals = Proposals((None, domain), 0).fit(sample, np.zeros((1000, 0)))
    table = Table(values, ("x", "y"), np.arange(1, len(missing) + 1), "rows", **more)
    gone = torch.zeros(values.shape, dtype=torch.bool)
    gone[:, 1] = torch.as_tensor(missing)
    numbers = torch.from_numpy(values).masked_fill(gone, torch.nan)
    gaps = Gaps(gone, torch.zeros_like(gone), torch.zeros(2, dtype=torch.float64))
    return IncompleteRows(table, numbers, gaps, proposals)


def test_noise_stays_in_cells_and_its_density_is_that_returned():
    """Uniform over the width of the cell; missing numbers stay, exact ones too."""
    exact = exact_model()
    encoding, proposals = exact.model.encoding, exact.model.proposals
    numbers = torch.tensor([[0.5, 0.7, 14.0, 30.0]]).double().repeat(4000, 1)
    numbers[::2, 0] = torch.nan
    codes = torch.tensor([[0, 0]]).repeat(4000, 1)
    codes[::4, 1] = 1
    numbers[::4, 3] = torch.nan
    gaps = gaps_of(numbers, codes, encoding)
    assert (gaps.any.sum(), gaps.missing.sum(), gaps.replaced.sum()) == (4000, 2000, 1000)
    gaps = replace(gaps, steps=torch.tensor([0, 0, 0.25, 0], dtype=torch.float64))
    values, log_q = blurred(numbers, gaps, proposals, torch.Generator().manual_seed(0))
    assert values[::2, 0].isnan().all() and (values[1::2, 0] == 0.5).all()
    assert (values[:, 1] == numbers[:, 1]).all() and values[:, 3].isfinite().all()
    noise = values[:, 2] - 14
    assert noise.abs().max() <= 0.125 and abs(noise.mean()) < 4 * 0.25 / 12**0.5 / 4000**0.5
    assert abs(noise.var() - 0.25**2 / 12) < 5 * 0.25**2 / 12 * (0.8 / 4000) ** 0.5
    np.testing.assert_allclose(log_q[1::4], np.log(4), rtol=1e-12)
    filler = values[::4, 3]
    square, line, _ = np.polyfit(filler, log_q[::4], 2)
    normal = torch.distributions.Normal(-line / (2 * square), (-2 * square) ** -0.5)
    np.testing.assert_allclose(log_q[::4], np.log(4) + normal.log_prob(filler), atol=1e-6)
    assert abs(filler.std() / normal.scale - 1) < 0.1


def test_the_same_batch_has_the_same_numbers_and_others_have_new_ones():
    """So that a resumed training repeats them: noise follows from the rows of the batch."""
    model, frame = exact_model().model, exact_model().frame.head(200)
    encoded = model.encoding.encode(read(frame))
    table = Table(np.zeros((200, 0)), (), np.arange(1, 201), "rows")
    rows = filled_rows(model.encoding, encoded, model.labels, model.proposals, table)
    batches = rows.batches(model.flow)
    index = torch.arange(0, 200, 3)
    first, again = batches.at(index), batches.at(index)
    torch.testing.assert_close(first.x, again.x, atol=0, rtol=1e-12)
    assert (first.context == again.context).all()
    other = batches.at(torch.arange(0, 200, 2))
    shared = first.x[::2][: len(other.x[::3])], other.x[::3]
    assert (shared[0][:, :2] == shared[1][: len(shared[0]), :2]).all()
    assert (shared[0][:, 2] != shared[1][: len(shared[0]), 2]).all()
    zero = frame["gain"].to_numpy()[::3] == 0
    assert (first.x[~zero, 3] == torch.from_numpy(frame["gain"].to_numpy()[::3][~zero])).all()
    assert (batches.at(slice(0, 20)).x[:, 2].round() == torch.tensor(frame["n"][:20])).all()


def read(frame):
    """Returns the columns of a frame."""
    from kappaflow.data.load import read_source
    from kappaflow.data.raw import READ_ALL

    return read_source(frame, READ_ALL)


def test_steps_leave_the_posterior_of_missing_numbers_invariant():
    """2,000 rows after 25 steps, from proposals that are off by 0.8: mean and variance.

    4 standard errors are 0.09 deviations of the mean and 13 % of the variance. Accepting each
    draw, or leaving the density of the draws out of the ratio, is off by more.
    """
    rows = incomplete_rows(np.ones(ROWS, dtype=bool), shift=0.8)
    batches = rows.batches(normal_flow(ROOT, np.zeros((0, 2))))
    start = batches.at(slice(None)).x[:, 1]
    for step in range(25):
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(step))
        for index in order.split(500):
            batches.at(index)
    final = batches.at(slice(None)).x
    assert (final[:, 0] == 0.7).all()
    z = (final[:, 1] - 1.2 * 0.7) / 0.5
    assert abs(z.mean()) < 4 / ROWS**0.5 and abs(z.var() - 1) < 4 * (2 / ROWS) ** 0.5
    assert abs((start - 1.2 * 0.7).mean() / 0.5) > 1  # the first draws are those of the proposals
    moved = batches.at(torch.arange(ROWS - 1, -1, -1)).x.flip(0)[:, 1] != final[:, 1]
    assert 0.1 < moved.double().mean() < 0.9


def test_the_posterior_of_a_mixed_table_is_that_of_its_labels():
    """1,200 rows of one label, with a number in a cell and a missing one: mean and variance."""
    exact = exact_model()
    model = exact.model
    row = {"group": "b", "x": None, "y": 0.2, "n": 13, "gain": 0.0}
    frame = pl.DataFrame([row] * 1200, schema=exact.frame.schema)
    encoded = model.encoding.encode(read(frame), completes=True)
    table = Table(np.zeros((1200, 0)), (), np.arange(1, 1201), "rows")
    rows = filled_rows(model.encoding, encoded, model.labels, model.proposals, table)
    batches = rows.batches(model.flow)
    for step in range(25):
        batch = batches.at(torch.roll(torch.arange(1200), step))
    one_hot = next(h for group, zero, h, _ in exact.label_shares() if group == "b" and zero)
    others = batch.x[:, 1:].numpy()  # given these, noise in the cell and the draw for gain
    z = [
        (value - center[0]) / variance[0, 0] ** 0.5
        for value, given in zip(batch.x[:, 0].tolist(), others, strict=True)
        for center, variance in [conditional(["y", "n", "gain"], given, ["x"], one_hot)]
    ]
    # a step follows new noise, so that the chain lags behind it by less than a tenth
    assert abs(np.mean(z)) < 0.2 and abs(np.var(z) - 1) < 0.35


def test_draws_without_a_density_are_never_taken():
    """Not in the first step either: the row keeps the numbers that it was filled with."""
    rows = incomplete_rows([True] * 50 + [False] * 50)
    flow = normal_flow(ROOT, np.zeros((0, 2)))

    class Bounded(type(flow)):
        def log_prob(self, x, context=None):
            return torch.where(x[:, 1] == 0.7, super().log_prob(x, context), -torch.inf)

    flow.__class__ = Bounded
    batches = rows.batches(flow)
    for _ in range(3):
        batch = batches.at(slice(None))
        assert (batch.x == 0.7).all() and flow.log_prob(batch.x).isfinite().all()


def test_missing_numbers_move_and_stay_in_their_domain():
    """A positive column, in the float32 of the flow."""
    rows = incomplete_rows([True, False] * 100, domain=Interval(0.0, None))
    flow = kf.real_nvp(2, depth=1, hidden=(4,), bounds=(None, "positive"))
    batches = rows.batches(flow)
    first = batches.at(slice(None)).x
    second = batches.at(torch.arange(199, -1, -1)).x.flip(0)
    assert (first[1::2] == second[1::2]).all() and first.dtype == torch.float32
    assert (first[::2, 1] != second[::2, 1]).any() and (first[::2, 0] == second[::2, 0]).all()
    assert (first[:, 1] > 0).all() and (second[:, 1] > 0).all()


def test_rows_are_first_filled_inside_of_their_domains():
    """The first draws are rounded to 20 binary digits, which no end of a domain survives."""
    generator = np.random.default_rng(0)
    share = 1 - 10 ** generator.uniform(-6, -1, 400)
    frame = pl.DataFrame({"share": share, "x": generator.normal(size=400)})
    raw = read(frame.with_columns(share=pl.when(pl.int_range(400) % 3 > 0).then(pl.col("share"))))
    from kappaflow.mixed import Encoding, detect_kinds

    kinds = detect_kinds(raw, {"share": "continuous"})
    encoding = Encoding.fit(raw, kinds)
    domain = Interval(0.0, 1.0)
    columns = [
        c.model_copy(update={"domain": domain if c.name == "share" else None})
        for c in encoding.columns
    ]
    encoding = Encoding(columns=tuple(columns))
    labels, proposals = new_parts(encoding)
    encoded = encoding.encode(raw)
    proposals.fit(encoded.numbers, np.zeros((400, 0)))
    table = Table(np.zeros((400, 0)), (), np.arange(1, 401), "rows")
    rows = filled_rows(encoding, encoded, labels, proposals, table)
    filled = rows.table.values[:, 0].astype(np.float32)
    assert (filled[rows.gaps.missing[:, 0].numpy()] > 0.999).any()
    assert (filled > 0).all() and (filled < 1).all()


def test_weights_context_and_description_pass_through():
    """Those of the table of filled rows."""
    weights, context = np.linspace(0.5, 1.5, 60), np.eye(2)[np.arange(60) % 2]
    names = ("k=a", "k=b")
    rows = incomplete_rows([True] * 60, weights=weights, context=context, context_columns=names)
    rows = replace(rows, proposals=Proposals((None, None), 2).fit(rows.table.values, context))
    batches = rows.batches(normal_flow(ROOT, np.zeros((2, 2))))
    index = torch.tensor([5, 2, 40])
    batch = batches.at(index)
    np.testing.assert_allclose(batch.weights, weights[index], rtol=1e-12)
    assert (batch.context == torch.from_numpy(context[index])).all()
    np.testing.assert_allclose(batches.weights, weights, rtol=1e-12)
    assert len(batches) == len(rows) == 60
    assert rows.fingerprint() == rows.table.fingerprint() and rows.source == "rows"
    assert rows.describe() == rows.table.describe() and rows.warnings == ()


@pytest.fixture(scope="module")
def parts():
    """A mixed table with gaps in numbers and labels, split."""
    frame = exact_model().frame.head(400)
    gone = np.random.default_rng(4).random((3, 400)) < 0.25
    names = ("group", "x", "n")
    frame = frame.with_columns(
        pl.when(pl.Series(mask)).then(None).otherwise(pl.col(name)).alias(name)
        for name, mask in zip(names, gone, strict=True)
    )
    return prepared(read(frame), {}, (0.8, 0.1, 0.1), 0)


def train(parts, out, epochs):
    """Returns the losses of a training with checkpoints."""
    torch.manual_seed(0)
    context = len(parts.train.table.context_columns)
    features = len(parts.train.table.columns)
    flow = kf.real_nvp(features, depth=2, hidden=(8,), context_features=context)
    settings = Settings(max_epochs=epochs, batch_size=64, seed=1)
    return fit_split(flow, parts.train, parts.tables[1], settings, out=out, progress=False)


def test_a_training_of_rows_with_gaps_resumes_to_the_same_losses(parts, tmp_path, monkeypatch):
    """Bit by bit: a checkpoint has the draws of the missing numbers."""
    whole = train(parts, tmp_path / "whole", 6)

    class Killed(Exception):
        pass

    from kappaflow.training import loop

    calls, original = [], loop.Training._epoch

    def failing(self, *arguments):
        calls.append(1)
        if len(calls) == 4:
            raise Killed
        return original(self, *arguments)

    monkeypatch.setattr(loop.Training, "_epoch", failing)
    with pytest.raises(Killed):
        train(parts, tmp_path / "killed", 6)
    resumed = train(parts, tmp_path / "killed", 6)
    losses = [[line["train_nll"] for line in fit.history] for fit in (whole, resumed)]
    assert losses[0] == losses[1] and len(losses[0]) == 6
