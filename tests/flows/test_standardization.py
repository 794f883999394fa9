"""A flow's standardization: fitted by hand, and a warning for a loop that has forgotten it."""

import copy

import pytest
import torch
from packaging.version import Version

import kappaflow as kf
from kappaflow.errors import DataWarning
from kappaflow.flows.recipe import from_options


def raw(n=256, features=3):
    """Returns rows in raw units: means of 1000 and deviations from 0.01 to 1000."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.tensor([1e-2, 1.0, 1e3])[:features]
    return 1000 + torch.randn(n, features, generator=generator) * scales


def flow_of(features=3, **options):
    """Returns a small flow in training mode."""
    return from_options(kf.real_nvp, features, **{"depth": 2, "hidden": (4,), **options})


def losses(flow, x, context=None):
    """Returns the losses of the first two batches of a user's own loop."""
    contexts = [None, None] if context is None else context.split(64)
    results = []
    for rows, part in zip(x.split(64)[:2], contexts, strict=False):
        loss = -flow.log_prob(rows, part).mean()
        loss.backward()
        results.append(loss.item())
    return results


def test_a_forgotten_standardization_is_warned_of_once_with_the_way_out():
    """The warning names column, mean and call at the user's line; the next batch is quiet."""
    flow, x = flow_of(), raw()
    with pytest.warns(DataWarning) as caught:
        losses(flow, x)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert str(caught[0].message) == (
        "the standardization of this flow is not fitted, and column 0 (counted from 0) of the "
        "first training batch has mean 1e+03 and standard deviation "
        f"{x[:64, 0].double().std(correction=0):.3g}: call flow.standardization.fit(x) with the "
        "training rows before the first step, or train with kappaflow.fit."
    )


def test_a_loop_after_fit_is_quiet_and_starts_at_the_loss_of_a_gaussian():
    """The way out of the warning works: the start is that of standardized data."""
    flow, x = flow_of(), raw()
    assert not flow.standardization.fitted
    flow.standardization.fit(x)
    assert flow.standardization.fitted
    z = flow.standardization(x)[0].detach().double()
    torch.testing.assert_close(z.mean(0), torch.zeros(3).double(), atol=1e-2, rtol=0)
    torch.testing.assert_close(z.std(0), torch.ones(3).double(), atol=1e-2, rtol=0)
    assert losses(flow, x)[0] < 10


def test_other_rows_fitted_again_replace_the_first_ones():
    """`fit` is explicit, so that a second call counts; `kf.fit` keeps what is fitted."""
    flow, x = flow_of(1), torch.tensor([[40.0]])
    flow.standardization.fit(torch.tensor([[0.0], [2.0]]))
    flow.standardization.fit(torch.tensor([[10.0], [30.0]]))
    assert flow.standardization(x)[0].item() == 2.0
    kf.fit(flow, 20 + torch.randn(64, 1), max_epochs=1)
    assert flow.standardization(x)[0].item() == 2.0


@pytest.mark.parametrize(
    "options",
    [
        {"padding": kf.flows.CopyPad(3, 2)},
        {"bounds": ["positive", None, "-1e5,1e5"]},
        {"start": "whiten", "padding": 2},
    ],
)
def test_every_kind_of_start_warns_until_it_is_fitted(options):
    """Padding, domains and whitening are fitted by the same call."""
    flow, x = flow_of(**options), raw()
    other = copy.deepcopy(flow)
    with pytest.warns(DataWarning, match=r"standardization.fit\(x\)"):
        losses(flow, x)
    other.standardization.fit(x)
    assert all(bool(part.fitted) for part in other.modules() if hasattr(part, "fitted"))
    assert losses(other, x)[0] < 15


def test_the_context_is_part_of_it():
    """Rows that are standardized with a context that is not: the call has both arguments."""
    x, context = torch.randn(256, 2), 1e4 + torch.randn(256, 1)
    flow = flow_of(2, context_features=1)
    fitted = copy.deepcopy(flow)
    with pytest.warns(DataWarning, match=r"context column 0 .*\.fit\(x, context\)"):
        losses(flow, x, context)
    fitted.standardization.fit(x, context)
    losses(fitted, x, context)
    with pytest.raises(kf.errors.ArgumentError, match="'context' should be given, with 1 column"):
        fitted.standardization.fit(x)


def test_nothing_is_warned_of_where_there_is_no_training():
    """Scoring, evaluation mode, and standardized data are quiet; so are constant columns."""
    flow = flow_of()
    with torch.no_grad():
        flow.log_prob(raw())
    flow.eval().log_prob(raw())
    flow.train()
    losses(flow, torch.cat((torch.randn(64, 2), torch.zeros(64, 1)), 1))
    assert not flow.unchecked
    flow_of().log_prob(torch.zeros(0, 3)).sum().backward()


def test_functional_transforms_leave_the_batch_alone():
    """Values under `torch.func` cannot be looked at."""
    flow = flow_of()
    parameters = dict(flow.named_parameters())

    def loss(values, row):
        return torch.func.functional_call(
            Scored(flow), {f"flow.{k}": v for k, v in values.items()}, row
        )

    grads = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, raw(8))
    assert all(grad.shape[0] == 8 for grad in grads.values())


class Scored(torch.nn.Module):
    """The negative log_prob of one row, as a module."""

    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self, row):
        return -self.flow.log_prob(row[None])[0]


@pytest.mark.skipif(
    Version(torch.__version__) < Version("2.7"),
    reason="torch 2.6 cannot trace iterators over layers",
)
def test_a_compiled_or_exported_log_prob_has_no_check():
    """The check branches on values, which no graph can do."""
    couplings = [kf.AffineCoupling(kf.Partition.half(3), kf.nets.MLP(1, 4, (4,)))]
    flow = kf.Flow(kf.StandardNormal(3), kf.Chain([kf.bijections.Standardize(3), *couplings]))
    program = torch.export.export(Scored(flow), (torch.randn(3),))
    assert program.module()(torch.zeros(3)).shape == ()
    compiled = torch.compile(flow.log_prob, backend="eager", fullgraph=True)
    compiled(raw(8)).sum().backward()
    assert flow.unchecked


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.zeros(0, 3), "at least one row, got none"),
        (torch.tensor([[0.0, 1.0, torch.inf]]), "finite numbers, .* in 1 of 1 rows"),
        (torch.zeros(4, 2), r"shape \(..., 3\), got \(4, 2\)"),
        (-torch.ones(2, 3), "domain of its columns, got 2 of 2 rows outside"),
    ],
)
def test_rows_without_mean_and_deviation_are_refused(rows, message):
    """Each with one sentence, and the flow stays as it was."""
    flow = flow_of(bounds=["positive", None, None])
    with pytest.raises(kf.KappaflowError, match=message):
        flow.standardization.fit(rows)
    assert not flow.standardization.fitted


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (lambda x: 0 * x[:, 0] + 7, "column 'c' is constant: every row holds 7; exclude="),
        (lambda x: x[:, 0] + 2 * x[:, 1], r"c = 1.00\*a \+ 2.00\*b: leave out 'c'; exclude="),
        (lambda x: x[:, 0] + 1.2e-6 * x[:, 1] ** 2, "of the columns 'a', 'c' has .*exclude="),
    ],
)
def test_rows_that_cannot_be_whitened_name_the_columns_and_a_way_out(column, message):
    """Also where columns nearly depend on each other, without an exact relation."""
    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.cat([x, column(x)[:, None]], dim=1)
    flow = kf.real_nvp(3, depth=2, hidden=(8,), start="whiten").double()
    flow.columns = ("a", "b", "c")
    with pytest.raises(kf.errors.DataError, match=message):
        flow.standardization.fit(x)


def lognormal_context(rows=2000):
    """Returns x, which follows the logarithm of its context, and the context with a label."""
    generator = torch.Generator().manual_seed(0)
    logarithm = 1.5 * torch.randn(rows, 1, generator=generator)
    x = logarithm + 0.1 * torch.randn(rows, 1, generator=generator)
    label = (torch.rand(rows, 1, generator=generator) < 0.3).float()
    return x, torch.cat([logarithm.exp(), label], 1)


def test_a_gaussianized_context_is_read_standardized_and_normal():
    """A skewed column is followed by one that is normal; a label needs no second form."""
    x, context = lognormal_context()
    flow = flow_of(1, context_features=2, start={"gaussianize_context": True})
    flow.standardization.fit(x, context)
    skewed, label, normal, none = flow.bijection.embedding(context).T
    expected = (context - context.mean(0)) / context.std(0, correction=0)
    torch.testing.assert_close(torch.stack([skewed, label], 1), expected)
    assert (none == 0).all()
    assert not [*flow.bijection.embedding.parameters()]
    levels = torch.special.ndtr(normal.sort().values)
    assert (levels - torch.linspace(0, 1, len(x))).abs().max() < 0.02  # Kolmogorov's distance


def test_a_line_in_a_normal_context_is_learned_at_once():
    """The same training is 0.5 nats behind where conditioners see the skewed context alone."""
    x, context = lognormal_context()
    losses_of = {}
    for gaussianized in (False, True):
        torch.manual_seed(0)
        start = {"gaussianize_context": gaussianized}
        flow = flow_of(1, context_features=2, hidden=(16,), start=start)
        fit = kf.fit(flow, (x, context), max_epochs=15, seed=0, progress=False)
        losses_of[gaussianized] = -fit.flow.log_prob(x, context).mean().item()
    assert losses_of[True] < losses_of[False] - 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "'gaussianize_context' should be left out without a context."),
        (
            {"context_features": 2, "embedding": torch.nn.Linear(2, 2)},
            "'gaussianize_context' should be left out with an embedding.",
        ),
    ],
)
def test_a_gaussianized_context_needs_a_context_of_its_own(arguments, message):
    """There is nothing to make normal, or the network of the user decides what is read."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        flow_of(gaussianize_context=True, **arguments)
