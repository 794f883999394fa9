"""What each layer of a flow gains: the likelihood of the flow cut after it."""

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kappaflow.conditioning.points import Layer, checked_flow, checked_points, layers_of, measuring
from kappaflow.conditioning.profile import Profile, profile_at
from kappaflow.conditioning.round_trip import states_of
from kappaflow.diagnosis.references import references
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow.flows.rows import Data, tensors_for
from kappaflow.goodness.inputs import check_train
from kappaflow.results import Part
from kappaflow.summary import Facts, PlottedSummary, sparkline

FloatArray = NDArray[np.float64]
REMOVED = 512  # rows that are passed without each layer
MEASURED = 64  # rows at which the condition number is measured
NOTHING = 1e-3  # nats; a layer without which the flow loses less gains nothing
UNDONE = 0.1  # share of the smaller loss of two layers that is lost without both


class GainFigures(Part):
    """The numbers of `DepthGains` without its times, means over the rows, for report.json."""

    layers: list[str]
    rows: int
    reference: str
    nats: list[float]
    standard_errors: list[float]
    # Gains on standardized rows before the first layer and after each, (L + 1,)
    reached: list[float]
    reached_errors: list[float]
    base: float
    total: float
    losses: list[float]
    condition_number: list[float]
    idle: list[int]
    pairs: list[tuple[int, int]]
    copies: list[tuple[int, int]]


@dataclass(frozen=True, repr=False)
class DepthGains(PlottedSummary):
    r"""What each of the L layers of a flow gains, at B rows.

    The flow cut after layer l has the density of a Gaussian fitted to its latents there. A gain is
    the difference in log-likelihood to the flow cut one layer earlier. Where latents are not
    normal after a layer, later layers can still use what it did; see the guide.

    Attributes:
        layers: Names of the layers, data side first.
        log_prob: Log-likelihood of each row in nats, standardization included, (L + 2, B): by the
            Gaussian on standardized rows, by the flow cut after each layer, by the whole flow.
        without: Losses without one layer, in nats, for each of the first rows, (L, 512 at most);
            nan for a layer that changes the shape.
        condition_number: 95 % quantile of the cumulative condition number after each layer, (L,).
        seconds: Time of a pass through each layer, for a million rows, (L,).
        idle: Indices of the layers without which less than 0.001 nats are lost, for certain.
        pairs: Indices of consecutive layers that undo each other: without both, next to nothing
            is lost, although a flow without one of them loses much.
        copies: Indices of layers whose parameters are equal, each with the first one.
        reference: The density at a cut: "Gaussian" or "Gaussian mixture".
        shares: Share of each row in all means, (B,); they add up to one.
    """

    layers: tuple[str, ...]
    log_prob: Tensor
    without: Tensor
    condition_number: Tensor
    seconds: Tensor
    idle: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    copies: tuple[tuple[int, int], ...]
    reference: str
    shares: Tensor

    @property
    def nats(self) -> Tensor:
        """Mean gain of each layer in nats, (L,)."""
        return self._steps[:-1] @ self.shares

    @property
    def standard_errors(self) -> Tensor:
        """Standard error of each gain, from the differences row by row, (L,)."""
        return _standard_errors(self._steps[:-1], self.shares)

    @property
    def base(self) -> float:
        """Mean gain of the base of the flow over the fitted Gaussian, in nats; often below 0."""
        return (self._steps[-1] @ self.shares).item()

    @property
    def total(self) -> float:
        """Mean gain of the whole flow over the Gaussian, in nats: all gains and the base's."""
        return ((self.log_prob[-1] - self.log_prob[0]) @ self.shares).item()

    @property
    def losses(self) -> Tensor:
        """Mean loss without each layer in nats, (L,); nothing is trained again."""
        return self.without @ _normalized(self.shares[: self.without.shape[1]])

    @property
    def _steps(self) -> Tensor:
        return self.log_prob.diff(dim=0)

    def figures(self) -> "GainFigures":
        """Returns plain numbers for JSON, reports and charts."""
        reached = self.log_prob[:-1] - self.log_prob[0]
        return GainFigures(
            layers=list(self.layers),
            rows=self.log_prob.shape[1],
            reference=self.reference,
            nats=self.nats.tolist(),
            standard_errors=self.standard_errors.tolist(),
            reached=(reached @ self.shares).tolist(),
            reached_errors=_standard_errors(reached, self.shares).tolist(),
            base=self.base,
            total=self.total,
            losses=self.losses.tolist(),
            condition_number=self.condition_number.tolist(),
            idle=list(self.idle),
            pairs=list(self.pairs),
            copies=list(self.copies),
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain numbers for JSON."""
        return self.figures().model_dump()

    def _facts(self) -> Facts:
        nats, errors = self.nats, self.standard_errors
        best = int(nats.argmax())
        error = _standard_errors(self.log_prob[-1:] - self.log_prob[:1], self.shares)[0]
        facts = [
            ("measured", f"{len(self.layers)} layers at {self.log_prob.shape[1]:,} rows"),
            (f"total over a {self.reference}", f"{self.total:.3f} ± {error:.3f} nats"),
            ("over depth", sparkline((self.log_prob[:-1] @ self.shares).tolist(), 40)),
            ("largest gain", f"{self.layers[best]}: {nats[best]:.3f} ± {errors[best]:.3f} nats"),
            ("base", f"{self.base:+.3f} nats"),
        ]
        named = [
            ("not needed", [self.layers[i] for i in self.idle]),
            ("undo each other", [f"{self.layers[i]} and {self.layers[j]}" for i, j in self.pairs]),
            ("copies", [f"{self.layers[j]} of {self.layers[i]}" for i, j in self.copies]),
        ]
        return facts + [(name, ", ".join(texts)) for name, texts in named if texts]


def depth_gains(
    flow: Flow,
    x: Data,
    *,
    context: Data = None,
    weights: Tensor | None = None,
    train: Data | tuple[Data, Data] = None,
    train_weights: Tensor | None = None,
    mixture: bool = False,
    profile: Profile | None = None,
) -> DepthGains:
    """Measures how many nats each layer of a flow gains, at held-out rows x.

    Args:
        flow: The flow, ours or one that `kappaflow.wrap` returned; it does not change.
        x: Rows that the flow was not trained on, (B, D); some hundred are enough.
        context: Context of each row, (B, C), for a conditional flow.
        weights: Weight of each row, (B,), 0 or more; equal by default.
        train: Other rows, or (rows, context), to which the Gaussian of each cut is fitted. By
            default it is fitted to each half of x and evaluated on the other half.
        train_weights: Weight of each of these rows.
        mixture: Fit a Gaussian mixture to each cut, whose size the BIC chooses. It sees clusters
            that later layers would need to separate, and takes longer.
        profile: The conditioning of the flow over depth, if `kappaflow.profile` has measured it.

    Returns:
        The gains. They add up to the gain of the whole flow over the Gaussian on standardized
        rows. With a context, a linear regression on it takes the place of the mean.

    Raises:
        ArgumentError: x or context does not fit the flow, there are too few rows for a Gaussian,
            or a column is a linear function of others.

    Example:
        >>> import kappaflow as kf
        >>> x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
        >>> flow = kf.real_nvp(2, depth=2, hidden=(8,))
        >>> kf.depth_gains(flow, x).idle  # a new flow is the identity
        (0, 1)
    """
    x, context = checked_points(checked_flow(flow), x, context)
    if len(x) < 2:
        raise ArgumentError("'x' should hold at least two rows, got one.")
    shares = _shares("weights", weights, len(x))
    others = None if train is None else _training_rows(flow, x, context, train, train_weights)
    with measuring(flow):
        layers = layers_of(flow.core, context)
        if not layers:
            raise ArgumentError("'flow' should have a layer after its standardization to measure.")
        start, offset = flow.standardization(x)
        passed = Passed(flow, layers, start)
        rows = _AtDepths(passed.states, context, shares)
        cuts = _cuts(rows, others, mixture=mixture)
        own = passed.log_prob(context=context)
        log_prob = torch.cat([cuts.to(own) + passed.volumes, own[None]]) + offset.double()
        few = None if context is None else context[:REMOVED]
        losses = layer_losses(
            flow, layers_of(flow.core, few), start[:REMOVED], few, shares[:REMOVED]
        )
        seconds = _seconds(layers, passed.states)
        if profile is None:
            some = None if context is None else context[:MEASURED]
            profile = profile_at(flow, x[:MEASURED], some)
    return DepthGains(
        layers=tuple(layer.name for layer in layers),
        log_prob=log_prob.cpu(),
        without=losses.rows,
        idle=tuple(losses.idle),
        condition_number=profile.condition_number.quantile(0.95, dim=1),
        seconds=seconds,
        pairs=losses.pairs(),
        copies=_copies(layers),
        reference="Gaussian mixture" if mixture else "Gaussian",
        shares=shares,
    )


class _AtDepths(NamedTuple):
    """The states of rows at each depth, their contexts and their weights."""

    states: list[Tensor]
    context: Tensor | None
    weights: Tensor


def _training_rows(
    flow: Flow,
    x: Tensor,
    context: Tensor | None,
    train: Data | tuple[Data, Data],
    weights: Tensor | None,
) -> _AtDepths:
    """Returns checked training rows at each depth."""
    pair = train if isinstance(train, tuple) else (train, None)
    rows, contexts = tensors_for(flow, *pair)
    check_train(x, context, (rows, contexts))
    rows, contexts = checked_points(flow, rows, contexts)
    with measuring(flow):
        start = flow.standardization(rows)[0]
        states = states_of(layers_of(flow.core, contexts), start)[0]
    return _AtDepths(states, contexts, _shares("train_weights", weights, len(rows)))


def _shares(name: str, weights: Tensor | None, rows: int) -> Tensor:
    """Returns the share of each row in a mean, (rows,), in float64."""
    if weights is None:
        return torch.full((rows,), 1 / rows, dtype=torch.float64)
    if weights.shape != (rows,) or not (weights >= 0).all() or not weights.sum() > 0:
        raise ArgumentError(f"'{name}' should be {rows:,} numbers of 0 or more, not all 0.")
    return _normalized(weights.double().cpu())


def _normalized(weights: Tensor) -> Tensor:
    return weights / weights.sum()


def _standard_errors(differences: Tensor, shares: Tensor) -> Tensor:
    """Returns the standard error of the mean of each row of differences (L, B), (L,)."""
    off = shares * (differences - (differences @ shares)[:, None])
    rows = differences.shape[1]
    return (off.square().sum(1) * rows / (rows - 1)).sqrt()


def _seconds(layers: Sequence[Layer], states: Sequence[Tensor]) -> Tensor:
    """Returns the time of a pass through each layer, for a million rows, (L,)."""
    times = []
    for layer, state in zip(layers, states, strict=False):
        started = time.perf_counter()
        layer.encode(state)
        times.append((time.perf_counter() - started) * 1e6 / len(state))
    return torch.tensor(times)


def _cuts(rows: _AtDepths, train: _AtDepths | None, *, mixture: bool) -> Tensor:
    """Returns the log-likelihood of rows at each depth by a fitted reference, (L + 1, B)."""
    count, width = len(rows.states[0]), rows.states[0][0].numel()
    if train is None:  # each half is evaluated by what the other one gives
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
        first, second = order[: count // 2], order[count // 2 :]
        train, splits = rows, [(first, second), (second, first)]
    else:
        splits = [(torch.arange(len(train.states[0])), torch.arange(count))]
    if len(splits[0][0]) <= width:
        raise ArgumentError(
            f"a Gaussian of {width} dimensions needs more rows: give at least {2 * width + 2} "
            f"rows as 'x', or {width + 1} as 'train'."
        )
    cuts = torch.empty(len(rows.states), count, dtype=torch.float64)
    for depth, (source, state) in enumerate(zip(train.states, rows.states, strict=True)):
        for fitted, tested in splits:
            densities = references(
                _numpy(source[fitted]),
                _numpy(state[tested]),
                None if train.context is None else _numpy(train.context[fitted]),
                None if rows.context is None else _numpy(rows.context[tested]),
                train.weights[fitted].numpy(),
                mixture=mixture,
            )
            if not densities:
                raise ArgumentError(
                    "no Gaussian can be fitted: a column of 'x', or of what a layer makes of it, "
                    "is constant or a linear function of others."
                )
            cuts[depth, tested] = -torch.from_numpy(densities[-1].nll)
    return cuts


def _numpy(values: Tensor) -> FloatArray:
    return values.flatten(1).double().cpu().numpy()


class Passed:
    """The states of the layers of a flow at standardized rows, and its likelihood without some.

    Attributes:
        states: The L + 1 states, the rows first.
        volumes: The log_det up to each state, (L + 1, B), in float64.
    """

    def __init__(self, flow: Flow, layers: Sequence[Layer], rows: Tensor) -> None:
        self.flow, self.layers = flow, layers
        self.states, log_dets = states_of(layers, rows)
        zero = torch.zeros_like(log_dets[0])
        self.volumes = torch.stack([zero, *log_dets]).double().cumsum(0)

    def log_prob(self, *without: int, context: Tensor | None = None) -> Tensor:
        """Returns log p of the standardized rows without the layers of some indices, (B,).

        It is nan where one of these changes the shape.
        """
        first = min(without, default=len(self.layers))
        state, log_det = self.states[first], self.volumes[first]
        for i in range(first, len(self.layers)):
            if i not in without:
                state, change = self.layers[i].encode(state)
                log_det = log_det + change.double()
            elif self.states[i].shape != self.states[i + 1].shape:
                return torch.full_like(log_det, torch.nan)
        return self.flow.base.log_prob(state, context=context).double() + log_det


@dataclass(frozen=True)
class LayerLosses:
    """What a flow loses without some of its layers, at rows: nothing is trained again."""

    passed: Passed
    context: Tensor | None
    # Log-likelihood of each row minus that without one layer, in nats, (L, B); nan for a layer
    # that changes the shape
    rows: Tensor
    shares: Tensor  # share of each row in all means, (B,); they add up to one

    @property
    def idle(self) -> list[int]:
        """Indices of the layers without which less than 0.001 nats are lost, for certain."""
        most = self.rows @ self.shares + 2 * _standard_errors(self.rows, self.shares)
        return [i for i, loss in enumerate(most.tolist()) if loss < NOTHING]

    @property
    def dead(self) -> list[int]:
        """Indices of the layers that do not change the likelihood of the rows, by 0.001 nats."""
        change = (self.rows.abs() @ self.shares).tolist()
        return [i for i, nats in enumerate(change) if nats < NOTHING]

    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Returns the pairs of trained layers, with none between them, that undo each other."""
        layers = self.passed.layers
        learned = [i for i, layer in enumerate(layers) if [*layer.bijection.parameters()]]
        losses, pairs = (self.rows @ self.shares).tolist(), list[tuple[int, int]]()
        own = self.passed.log_prob(context=self.context)
        for i, j in itertools.pairwise(learned):
            if pairs and i in pairs[-1]:
                continue
            least = min(losses[i], losses[j])
            if least >= NOTHING:
                both = own - self.passed.log_prob(i, j, context=self.context)
                if (both.abs().cpu() @ self.shares).item() < max(NOTHING, UNDONE * least):
                    pairs.append((i, j))
        return tuple(pairs)


def layer_losses(
    flow: Flow,
    layers: Sequence[Layer],
    x: Tensor,
    context: Tensor | None,
    weights: Tensor | None = None,
) -> LayerLosses:
    """Returns what a flow loses without each of its layers, at standardized rows x."""
    passed = Passed(flow, layers, x)
    own = passed.log_prob(context=context)
    without = [passed.log_prob(i, context=context) for i in range(len(layers))]
    shares = _shares("weights", weights, len(x))
    return LayerLosses(passed, context, (own - torch.stack(without)).cpu(), shares)


def _copies(layers: Sequence[Layer]) -> tuple[tuple[int, int], ...]:
    """Returns the pairs of layers with the same parameters, each with the first one."""
    copies: list[tuple[int, int]] = []
    for j, layer in enumerate(layers):
        own = layer.bijection.state_dict()
        for i in range(j):
            other = layers[i].bijection
            learned = type(other) is type(layer.bijection) and [*other.parameters()]
            if learned and _are_equal(other.state_dict(), own):
                copies.append((i, j))
                break
    return tuple(copies)


def _are_equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        value.shape == second[name].shape and torch.equal(value, second[name])
        for name, value in first.items()
    )
