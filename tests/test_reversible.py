"""Memory modes of chains: any layer and network runs again exactly, or is named."""

import copy
import gc
import itertools
import warnings
import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import kappaflow as kf
from cases import BIJECTIONS, affine, alternating, started
from kappaflow import registry
from kappaflow.autograd.checkpoint import MEMORY_MODES
from kappaflow.autograd.fingerprints import direction_for, error_text, fingerprint, relative_error
from kappaflow.autograd.segment import Segment
from kappaflow.autograd.trace import gradients as trace_gradients
from kappaflow.errors import NumericalWarning
from kappaflow.testing.contract import jittered
from stack.examples import (
    WAYS,
    Noisy,
    chain_of,
    gradients,
    half,
    largest_difference,
    rows_of,
    same_bits,
    second_order,
    silu,
    weighted_loss,
)


class Remembering(nn.Module):
    """A recurrent network over the features, which keeps a list of its own of its weights."""

    def __init__(self):
        super().__init__()
        self.net, self.last = nn.LSTM(1, 4, batch_first=True), nn.Linear(4, 4)

    def forward(self, x):
        return self.last(self.net(x[..., None])[0][:, -1])


def spectral():
    """Returns a network with a weight divided by its norm, known better after each step."""
    first = nn.utils.parametrizations.spectral_norm(nn.Linear(2, 8))
    return nn.Sequential(first, nn.SiLU(), nn.Linear(8, 4))


CONDITIONERS = {
    "silu": silu,
    "dropout": Noisy,
    "batch norm": lambda: nn.Sequential(
        nn.Linear(2, 8), nn.BatchNorm1d(8), nn.SiLU(), nn.Linear(8, 4)
    ),
    "spectral norm": spectral,
    "recurrent": Remembering,
}


def in_mode(bijection, memory):
    """Returns a chain of a copy of one bijection."""
    return kf.Chain([copy.deepcopy(bijection)], memory=memory)


JOINED = {"ImageChain"}  # runs layers together without a mode: equal up to rounding


@pytest.mark.parametrize(
    ("name", "setting"),
    alternating(BIJECTIONS, *itertools.product((torch.float64, torch.float32), WAYS)),
)
def test_every_bijection_has_the_same_gradients_in_each_mode(name, setting):
    """Bit for bit when stored or recomputed, up to the rounding of the inverse otherwise."""
    dtype, direction = setting
    bijection, x, context = BIJECTIONS[name].build(dtype)
    if context is not None:
        context.requires_grad_()
    if direction == "inverse":
        x = bijection(x, context)[0].detach()
    plain = in_mode(bijection, None)
    expected = gradients(plain, x, context, direction)
    for memory in MEMORY_MODES:
        chain = in_mode(bijection, memory)
        for actual, reference in zip(
            getattr(chain, direction)(x, context),
            getattr(plain, direction)(x, context),
            strict=True,
        ):
            if name in JOINED:
                torch.testing.assert_close(actual, reference)
            else:
                assert torch.equal(actual, reference)
        actual = gradients(chain, x, context, direction)
        if memory == "invert" or name in JOINED:
            assert largest_difference(actual, expected) < 1e4 * torch.finfo(dtype).eps
        else:
            assert same_bits(actual, expected)


@pytest.mark.parametrize(
    ("case", "direction"),
    alternating(itertools.product(["recompute", "invert"], CONDITIONERS), *WAYS),
)
def test_any_network_can_be_run_again(case, direction):
    """Random numbers, batch statistics and power iterations are those of the one forward pass."""
    memory, name = case
    chains = [chain_of(35, m, CONDITIONERS[name]).double() for m in ("store", memory)]
    (expected, stored), (actual, again) = (
        (gradients(chain, rows_of(), direction=direction), torch.get_rng_state())
        for chain in chains
    )
    if memory == "recompute":
        assert same_bits(actual, expected)
    assert largest_difference(actual, expected) < 1e-9
    assert torch.equal(stored, again)
    for first, second in zip(*(chain.buffers() for chain in chains), strict=True):
        assert torch.equal(first, second)


def with_context(memory):
    """Returns 40 parts, some of which read the context, some behind an embedding of it."""
    torch.manual_seed(2)
    parts = [affine(half(3), context=2, scale_bound=0.5) for _ in range(20)]
    parts += [started(3), kf.bijections.Permutation((2, 0, 1)), affine(half(3).swapped())]
    inner = kf.Chain(
        [affine(half(3), context=4) for _ in range(17)],
        embedding=nn.Linear(2, 4),
        context_features=2,
    )
    chain = kf.Chain(
        [*parts, inner, kf.Chain([])],
        embedding=nn.Sequential(nn.Linear(3, 2), nn.Tanh()),
        context_features=3,
        memory=memory,
    )
    return jittered(chain).double().train()


@pytest.mark.slow
@pytest.mark.parametrize("wanted_by", ["context", "embedding", "nothing"])
@pytest.mark.parametrize("direction", WAYS)
@pytest.mark.parametrize("memory", ["recompute", "invert"])
def test_contexts_and_embeddings_get_their_gradients(memory, direction, wanted_by):
    """In nested chains too, and nothing where nothing is wanted."""
    context = rows_of(features=3, seed=1).requires_grad_(wanted_by == "context")
    both = [with_context(m) for m in (None, memory)]
    for chain in both:
        chain.embedding.requires_grad_(wanted_by == "embedding")
    expected, actual = (gradients(c, rows_of(features=3), context, direction) for c in both)
    assert largest_difference(actual, expected) < 1e-10


@pytest.mark.parametrize("memory", MEMORY_MODES)
def test_a_start_from_data_happens_once(memory):
    """The first batch starts an ActNorm, and the backward pass does not start it again."""

    def fresh(memory):
        parts = [*chain_of(2, None), kf.bijections.ActNorm(4), *chain_of(2, None, seed=1)]
        return kf.Chain(parts, memory=memory).double().train()

    both = [fresh(m) for m in (None, memory)]
    for _ in range(2):
        expected, actual = (gradients(chain, 3 + 2 * rows_of()) for chain in both)
        assert largest_difference(actual, expected) < 1e-12
    for first, second in zip(*(chain.state_dict().values() for chain in both), strict=True):
        assert torch.equal(first, second)


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["recompute", "invert"])
@pytest.mark.parametrize("name", ["dropout", "batch norm"])
def test_gradients_can_be_differentiated(memory, name):
    """Of 35 couplings, two runs."""
    expected, actual = (
        second_order(chain_of(35, m, CONDITIONERS[name]).double(), rows_of())
        for m in (None, memory)
    )
    assert largest_difference(actual, expected) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["recompute", "invert"])
def test_second_derivatives_count_each_path_once(memory):
    """Where a parameter acts directly, through x and through the context."""

    def entangled(memory):
        torch.manual_seed(4)
        layer = affine(half(3), context=2, scale_bound=0.2)
        parts = [layer, affine(half(3).swapped(), scale_bound=0.2)] * 17
        embedding = nn.Linear(2, 2)
        layer.conditioner.layers[0].bias = nn.Parameter(torch.randn(8))
        chain = kf.Chain([*parts, layer], embedding=embedding, context_features=2, memory=memory)
        chain.embedding.weight = nn.Parameter(torch.randn(2, 2))
        layer.conditioner.tied = chain.embedding  # the embedding's parameters are the part's too
        return jittered(chain).double()

    context = rows_of(features=2, seed=3).requires_grad_()
    both = [entangled(m) for m in (None, memory)]
    own = list(both[1].parameters())
    expected, actual = (second_order(chain, rows_of(features=3), context) for chain in both)
    assert all(now is then for now, then in zip(both[1].parameters(), own, strict=True))
    assert largest_difference(actual, expected) < 1e-9


class Box:
    """Holds a tensor for the graph, and can be watched."""

    def __init__(self, tensor):
        self.tensor = tensor


@pytest.mark.slow
def test_nothing_is_kept_after_the_backward_pass():
    """The node lets go of all tensors, also while its output lives on."""
    boxes = weakref.WeakSet()

    def pack(tensor):
        box = Box(tensor)
        boxes.add(box)
        return box

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.tensor):
        value, _ = chain_of(40, "invert").double()(rows_of())
    assert len(boxes) > 6
    value.sum().backward()
    gc.collect()
    assert not boxes


def ill_conditioned(memory, depth=40, *, bad=36):
    """Returns couplings one of which squeezes a feature by e^-20, counted from 1."""
    chain = chain_of(depth, memory)
    coupling = chain.bijections[bad - 1]
    coupling.scale_bound = 40.0
    with torch.no_grad():
        coupling.conditioner[2].bias[0] = -22.0
        coupling.conditioner[2].weight.mul_(0.01)
    return chain


@pytest.mark.slow
def test_an_ill_conditioned_layer_is_named_and_the_gradients_are_exact():
    """Once for its run, which keeps its inputs from then on; the others go on inverting."""
    x = rows_of(dtype=torch.float32)
    expected = gradients(ill_conditioned("store"), x)
    chain = ill_conditioned("invert")
    assert repr(chain).startswith("Chain(\n  memory='invert'\n")
    with pytest.warns(
        NumericalWarning, match="memory='invert': the input of layer 36 Affine"
    ) as w:
        actual = gradients(chain, x)
    assert len(w) == 1
    assert "so layers 33 to 40 keep their inputs from now on" in str(w[0].message)
    assert chain.extra_repr() == "memory='invert', recomputing layers 33-40"
    own = len(list(chain[:32].parameters())) + 1
    assert same_bits(actual[own:], expected[own:])
    assert largest_difference(actual, expected) < 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = gradients(chain, x)
    assert same_bits(again[own:], expected[own:])


def test_a_run_that_failed_in_one_backward_pass_is_exact_in_the_next():
    """Graphs made before the warning and retained ones do not warn again."""
    x = rows_of(dtype=torch.float32)
    chain = ill_conditioned("invert", 3, bad=2)
    expected = gradients(ill_conditioned("store", 3, bad=2), x)[1:]
    losses = [weighted_loss(chain, x) for _ in range(2)]
    with pytest.warns(NumericalWarning) as w:
        actual = [
            torch.autograd.grad(losses[i], list(chain.parameters()), retain_graph=True)
            for i in (0, 0, 1)
        ]
    assert len(w) == 1
    assert all(same_bits(each, expected) for each in actual)


def test_a_value_that_is_not_finite_is_no_failure_of_the_mode():
    """Gradients are nan where plain autograd's are, and the mode stays as it is."""
    x = rows_of()
    x[2, 1] = float("nan")
    expected = gradients(chain_of(3, "store").double(), x)
    chain = chain_of(3, "invert").double()
    actual = gradients(chain, x)
    torch.testing.assert_close(actual, expected, equal_nan=True, rtol=0, atol=0)
    assert "recomputing" not in repr(chain)


class Wrong(kf.Bijection):
    """Doubles, with an inverse that is off, in a single row or where no fingerprint looks."""

    def __init__(self, by=1e-3, row=None, *, sideways=False):
        super().__init__()
        self.by, self.row, self.sideways = by, row, sideways
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x, context=None):
        return x * (1 + self.weight), (1 + self.weight).log().sum().expand(len(x)) + 0 * x[:, 0]

    def inverse(self, z, context=None):
        x = z / (1 + self.weight)
        wrong = x * (1 + self.by)
        if self.sideways:
            direction, across = direction_for(x), torch.linspace(-1, 1, 4, dtype=x.dtype)
            across -= (across @ direction) / (direction @ direction) * direction
            wrong = x + self.by * across
        if self.row is not None:
            wrong = torch.where(torch.arange(len(x))[:, None] == self.row, wrong, x)
        return wrong, -(1 + self.weight).log().sum().expand(len(x))


@pytest.mark.parametrize(
    ("part", "direction", "text"),
    [
        (Wrong(), "forward", "the input of layer 3 Wrong"),
        (Wrong(2e-4, row=3), "forward", "the input of layer 3 Wrong"),
        (Wrong(float("nan"), row=3), "forward", "the input of layer [123] "),
        (Wrong(1e30), "forward", "the input of layer [123] "),
        (kf.Inverse(Wrong()), "inverse", "input of the inverse of layer 3 Inverse was"),
        (Wrong(sideways=True), "forward", "the input of layer 1 Wrong"),
    ],
)
def test_a_wrong_reconstruction_is_found_and_never_handed_out(part, direction, text):
    """In all rows or one, also next to a distant row; each direction has its own record."""
    first = getattr(part, "sideways", False)  # only the input of a segment is compared as it is
    others, x = list(chain_of(2, None)), rows_of()
    x[0] *= 1e6 if direction == "forward" and not first else 1.0
    parts = [part, *others] if first else [*others, part]
    both = [kf.Chain(copy.deepcopy(parts), memory=m).double() for m in ("store", "invert")]
    expected = gradients(both[0], x, direction=direction)
    with pytest.warns(NumericalWarning, match=text):
        actual = gradients(both[1], x, direction=direction)
    assert same_bits(actual, expected)
    suffix = " of the inverse" if direction == "inverse" else ""
    assert both[1].extra_repr() == f"memory='invert', recomputing layers 1-3{suffix}"


class Forgetful(nn.Module):
    """A network with a source of random numbers that nobody knows of."""

    def __init__(self):
        super().__init__()
        self.net, self.generator = nn.Linear(2, 4), torch.Generator().manual_seed(0)

    def forward(self, x):
        return self.net(x) + torch.randn(4, generator=self.generator, dtype=x.dtype)


@pytest.mark.filterwarnings("ignore::kappaflow.errors.NumericalWarning")
def test_a_layer_that_cannot_be_repeated_is_refused():
    """An error, since there is no exact way either."""
    chain = chain_of(3, "invert", Forgetful).double()
    with pytest.raises(kf.errors.NumericalError, match="layers 1 to 3 returns a different value"):
        weighted_loss(chain, rows_of()).backward()


class Borrowing(nn.Module):
    """A network that reads a tensor which is no parameter of it."""

    def __init__(self):
        super().__init__()
        self.net, self.loan = nn.Linear(2, 4), [torch.ones(4, requires_grad=True)]

    def forward(self, x):
        return self.net(x) * self.loan[0].to(x)


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_tensor_that_would_get_no_gradient_is_refused(create_graph):
    """A hidden input is named with its layer; recomputing serves it."""
    with pytest.raises(
        kf.errors.ArgumentError, match="layer [12] AffineCoupling reads a tensor that"
    ):
        weighted_loss(chain_of(2, "invert", Borrowing).double(), rows_of()).backward(
            create_graph=create_graph
        )
    chain = chain_of(2, "recompute", Borrowing).double()
    weighted_loss(chain, rows_of()).backward()
    assert chain.bijections[0].conditioner.loan[0].grad is not None


def test_a_functional_call_keeps_its_parameters_until_the_backward_pass():
    """The layers run once, also where one of them reads a tensor from outside of the chain."""
    results = []
    for memory in ("store", "recompute"):
        chain = chain_of(2, memory, Borrowing).double()
        twice = {n: (2 * p).detach().requires_grad_() for n, p in chain.named_parameters()}
        leaves = [*twice.values(), *(part.conditioner.loan[0] for part in chain)]
        z, log_det = torch.func.functional_call(chain, twice, (rows_of(),))
        results.append(torch.autograd.grad(z.square().sum() - log_det.sum(), leaves))
    assert largest_difference(*results) < 1e-12


def test_a_tensor_that_is_read_only_later_is_refused():
    """An earlier call has shown that the chain reads nothing else, so no call looks again."""
    chain = chain_of(6, "recompute", Borrowing).double()
    loans = [part.conditioner.loan[0] for part in chain]
    for loan in loans:
        loan.requires_grad_(False)
    weighted_loss(chain, rows_of()).backward()
    loans[5].requires_grad_()
    message = "layer 5 AffineCoupling or 6 AffineCoupling reads a tensor .* use memory='store'"
    with pytest.raises(kf.errors.ArgumentError, match=message):
        weighted_loss(chain, rows_of()).backward()


def test_a_part_with_a_mode_of_its_own_runs_again_alone():
    """It may have many layers; others run again four at a time."""
    parts = list(chain_of(8, None))
    parts[2].memory = parts[3].memory = "store"
    steps, contexts = kf.Chain(parts)._steps(None, inverse=False)
    pieces = Segment(steps, contexts).pieces(4)
    assert [list(piece) for piece in pieces] == [[0, 1], [2], [3], [4, 5, 6, 7]]
    assert [len(piece) for piece in Segment(steps, contexts).pieces(1)] == [1] * 8


class Checkpointed(nn.Module):
    """A network with a checkpoint, which runs a flow again in the backward pass."""

    def __init__(self):
        super().__init__()
        self.flow, self.net = chain_of(2, "recompute"), nn.Linear(4, 4)

    def forward(self, x):
        z = torch.cat((x, x), 1)
        return self.net(checkpoint(lambda z: self.flow(z)[0], z, use_reentrant=False))


@pytest.mark.parametrize("memory", ["recompute", "invert"])
def test_a_checkpoint_in_a_network_runs_a_flow_as_it_ran_before(memory):
    """The flow inside ran by plain autograd, so it must do so again."""
    expected, actual = (
        gradients(chain_of(3, m, Checkpointed).double(), rows_of()) for m in (None, memory)
    )
    assert largest_difference(actual, expected) < 1e-12


class Lending(Noisy):
    """Leaves out units, and reads tensors made outside, one of which has a graph of its own."""

    def __init__(self, *loans):
        super().__init__()
        self.loans = loans

    def forward(self, x):
        return sum(loan.to(x) for loan in self.loans) * super().forward(x)


@pytest.mark.slow
@pytest.mark.parametrize("indices", [(0,), (3, 33), (1, 2), (39,)])
@pytest.mark.parametrize("direction", WAYS)
def test_recomputing_gives_gradients_to_tensors_from_outside(direction, indices):
    """Wherever they are read, also by two layers, with the same random numbers and bits."""
    results, calls = [], []
    for memory in (None, "recompute"):
        leaf = torch.linspace(0.5, 1.5, 4).requires_grad_()
        loan, other = leaf.square(), torch.ones(4, requires_grad=True)
        chain = chain_of(40, memory, Noisy).double()
        for index in indices:
            net = Lending(loan, other)
            net.load_state_dict(chain.bijections[index].conditioner.state_dict())
            chain.bijections[index].conditioner = net.double()
        loss = weighted_loss(chain, rows_of(), direction=direction)
        results.append(torch.autograd.grad(loss, [leaf, other, *chain.parameters()]))
        calls.append(torch.get_rng_state())
    assert same_bits(*results)
    assert torch.equal(*calls)


@pytest.mark.parametrize("memory", ["recompute", "invert"])
def test_a_hook_of_a_layer_acts_in_the_backward_pass(memory):
    """One that doubles the cotangent of a value does so in each mode."""

    def doubled(memory):
        chain = chain_of(3, memory).double()
        chain.bijections[1].register_full_backward_pre_hook(lambda _, of: (2 * of[0], of[1]))
        return chain

    expected, actual = (gradients(doubled(m), rows_of()) for m in (None, memory))
    assert largest_difference(actual, gradients(chain_of(3, None).double(), rows_of())) > 1e-3
    assert largest_difference(actual, expected) < 1e-12


@pytest.mark.parametrize("name", BIJECTIONS)
def test_rewinding_is_the_inverse_and_then_the_map(name):
    """A trace is at the inverse of its point, and so is what is pulled back."""
    bijection, x, context = BIJECTIONS[name].build(torch.float64)
    z = bijection(x, context)[0].detach()
    trace = bijection.trace_from_output(z, context)
    torch.testing.assert_close(trace.x, x)
    weight, ones = torch.randn_like(z), torch.ones_like(bijection(x, context)[1])
    seeds = trace.seeds(weight, ones)
    gradient = trace.cotangent(trace_gradients(trace.outputs, [trace.leaf], seeds)[0])
    twin = trace.x.requires_grad_()
    value, log_det = bijection(twin, context)
    expected = torch.autograd.grad((value * weight).sum() + log_det.sum(), twin)[0]
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.boundary
@pytest.mark.parametrize("memory", ["inverse", 3, ""])
def test_a_mode_that_there_is_not_is_refused(memory):
    """The message lists those that there are."""
    with pytest.raises(
        kf.errors.ArgumentError, match="'memory' should be one of 'recompute', 'store', "
    ):
        kf.Chain([], memory=memory)


def test_the_mode_is_described_sliced_and_copied():
    """Files name it, and those that do not are of a time before it: each part has its own."""
    chain = chain_of(2, "invert", lambda: kf.nets.MLP(2, 4, (8,)))
    assert registry.build(registry.describe(chain)).memory == "invert"
    assert chain[1:].memory == copy.deepcopy(chain).memory == "invert"
    old = {"bijections": [], "embedding": None, "context_features": None}
    assert registry.build({"name": "Chain", "arguments": old}).memory is None
    assert "memory" not in repr(kf.Chain([]))


def test_a_flow_is_saved_after_a_warning_too(tmp_path):
    """Which runs keep their inputs is of the object, not of the model."""
    coupling = affine(half(4), scale_bound=40.0)
    with torch.no_grad():
        coupling.conditioner.layers[-1].bias.copy_(torch.tensor([-22.0, 0.0, 1.0, 0.0]))
    flow = kf.Flow(kf.StandardNormal(4), kf.Chain([coupling], memory="invert"))
    with pytest.warns(NumericalWarning):
        flow.log_prob(rows_of(dtype=torch.float32)).mean().backward()
    assert "recomputing layers 1-1" in repr(flow)
    kf.save(flow, tmp_path / "flow")
    loaded = kf.load(tmp_path / "flow")
    assert loaded.bijection.extra_repr() == "memory='invert'"


def test_a_relative_error_is_that_of_the_worst_row():
    """Small rows are measured against the median; what is not finite is larger than anything."""
    kept = torch.tensor([[3.0, 0.0], [1.0, -1.0], [0.0, 0.0]])
    actual = kept + torch.tensor([[0.0, 0.03], [0.0, 0.0], [0.02, 0.0]])
    assert relative_error(actual, kept).item() == pytest.approx(0.02)
    actual[0, 0] = 3.3
    assert relative_error(actual, kept).item() == pytest.approx(0.1)
    for bad in (float("nan"), float("inf")):
        actual[1, 1] = bad
        assert not relative_error(actual, kept).item() <= 1e30
    assert relative_error(kept[:0], kept[:0]).item() == 0
    assert relative_error(0 * kept, 0 * kept).item() == 0


def test_fingerprints_are_the_same_each_time_and_in_at_least_single_precision():
    """One product a row, with a direction that a seed fixes."""
    x = rows_of(5, 6).view(5, 2, 3)
    direction = direction_for(x)
    assert torch.equal(direction, direction_for(x.clone()))
    torch.testing.assert_close(fingerprint(x, direction), x.flatten(1) @ direction)
    assert fingerprint(x.bfloat16(), direction_for(x.bfloat16())).dtype == torch.float32
    assert not torch.equal(direction, direction_for(x.flatten(1)[:, :5]))


def test_the_warning_names_the_layer_the_error_and_the_way_out():
    """A sentence on what happened, and one on what to do."""
    text = error_text("37 AffineCoupling", 3e-4, 33, 64)
    assert text.startswith(
        "memory='invert': the input of layer 37 AffineCoupling was recovered with a relative "
        "error of 0.0003 (limit 1e-04), so layers 33 to 64 keep their inputs from now on, as with "
        "memory='recompute'."
    )
    assert "the inverse of layer 5 keeps its inputs" in error_text(
        "5 Logit", 1.0, 5, 5, inverse=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("direction", WAYS)
@pytest.mark.parametrize("training", [True, False])
def test_mixed_precision_is_the_same_in_each_mode(training, direction):
    """Networks round in a training step only, in each mode: value, log_det and gradients agree."""
    x, results = rows_of(dtype=torch.float32), []
    for memory in (None, "recompute", "invert"):
        chain = chain_of(6, memory).train(training)
        with torch.autocast("cpu", torch.bfloat16):
            value, log_det = getattr(chain, direction)(x)
        with warnings.catch_warnings():  # a rounding that flips is found, and done again exactly
            warnings.simplefilter("ignore", NumericalWarning)
            (value.square().mean() + log_det.mean()).backward()
        results.append([value, log_det, *(p.grad for p in chain.parameters())])
    assert same_bits(results[1], results[0])
    assert same_bits(results[2][:2], results[0][:2])
    assert largest_difference(results[2], results[0]) < 1e-5


def test_mixed_precision_runs_a_network_once_more_and_no_more():
    """The inverse takes the numbers of the rounded network, as the forward pass did."""
    chain = kf.Chain([affine(half(4))], memory="invert").train()
    jittered(chain)
    with torch.autocast("cpu", torch.bfloat16):
        value, _ = chain(rows_of(dtype=torch.float32))
    value.sum().backward()
    assert repr(chain).count("recomputing") == 0


class Watching(nn.Linear):
    """An embedding that lets its answer be watched."""

    def forward(self, context):
        answer = super().forward(context)
        self.answer = weakref.ref(answer)
        return answer


@pytest.mark.slow
def test_a_context_is_let_go_of_after_the_backward_pass():
    """And with it the graph that made it."""
    embedding = Watching(2, 2)
    parts = [affine(half(3), context=2)]
    chain = kf.Chain(parts, embedding=embedding, context_features=2, memory="invert").double()
    value, _ = chain(rows_of(features=3), rows_of(features=2))
    assert embedding.answer() is not None
    value.sum().backward()
    gc.collect()
    assert embedding.answer() is None
