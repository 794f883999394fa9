"""The laws of a bijection, one function a law."""

import copy
import functools
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from kappaflow._checks import batch
from kappaflow.bijection import Bijection, log_det_dtype
from kappaflow.conditioning import round_trip, spectrum
from kappaflow.errors import ArgumentError, KappaflowError
from kappaflow.files import load, save
from kappaflow.flows import Flow, StandardNormal
from kappaflow.registry import describe
from kappaflow.testing.contract import (
    ContractError,
    Map,
    Reference,
    fingerprint,
    gradient,
    jacobian_of,
    jittered,
    reference,
    require,
    require_close,
)


def check_bijection(bijection: Bijection, x: Tensor, context: Tensor | None = None) -> None:
    r"""Raises an error unless a bijection keeps every law of `Bijection` at points x.

    Round trips on both sides (from x, and from draws of N(0, I) as latents), log_det against the
    dense Jacobian in both directions, types and shapes, rows that do not depend on each other, no
    hidden state, the declared width of the context, the four products of `linearize`, gradients to
    every parameter, the gradient of log_det by the points and the parameters, and saving. The
    tolerance follows the conditioning: with s the singular values and :math:`\kappa` their ratio,
    round trips hold within :math:`10 \epsilon \kappa |x|` and log_det within
    :math:`10 \epsilon \kappa (1 + \sum |\log s|)`; where a shift takes x to a far z, the former
    is :math:`10 \epsilon |z| / \sigma_{\min}`.

    Args:
        bijection: Onto the whole of R^n. It is copied, and not touched itself.
        x: Points of its domain, (B, *event), of the bijection's type; at least two.
        context: (B, C), where the bijection is conditional.

    Raises:
        ContractError: A law is broken, or the points are too ill-conditioned to tell.
        ArgumentError: The arguments are not a bijection and a batch.

    Note:
        n backward passes in each direction: meant for small n. A bijection whose parts are not all
        registered is not saved.

    Example:
        >>> import kappaflow as kf
        >>> x = torch.tensor([[0.5, -1.0, 2.0], [1.0, 0.25, -0.5]])
        >>> kf.testing.check_bijection(kf.Permutation((2, 0, 1)), x)
    """
    if not isinstance(bijection, Bijection):
        raise ArgumentError(f"'bijection' should be a Bijection, got {type(bijection).__name__}.")
    if len(batch("x", x)) < 2:
        raise ArgumentError(f"'x' should hold at least two points, got {len(x)}.")
    if context is None and bijection.context_features:
        raise ArgumentError(
            f"'context' should be given, with {bijection.context_features} columns: "
            "this bijection reads one."
        )
    x = x.detach()
    shape = (len(x), *latent_shape_of(bijection, x))
    z = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(x)
    twin = copy.deepcopy(bijection).eval()
    before = fingerprint(twin)
    for name, function, points, image in (
        ("forward", twin.forward, x, z),
        ("inverse", twin.inverse, z, x),
    ):
        check_form(name, function, points, context, image.shape)
        require(fingerprint(twin) == before, f"{name} should change no state, but it did")
        check_repeatable(name, function, points, context)
    check_width(twin, x, context)
    check_start(bijection, x, context)
    check_measuring(twin, x, context)
    check_directions(twin, x, z, context)
    check_gradients(twin, x, z, context)
    check_log_det_gradients(twin, x, context)
    check_files(Flow(StandardNormal(twin.latent_shape(x.shape[1:])), twin).to(x), x, context)


def latent_shape_of(bijection: Bijection, x: Tensor) -> tuple[int, ...]:
    """Returns the shape that one latent should have, seen to lead back to that of x."""
    event = tuple(x.shape[1:])
    shape = bijection.latent_shape(event)
    require(
        math.prod(shape) == math.prod(event) and bijection.data_shape(shape) == event,
        f"data_shape of latent_shape should be the shape of x, {event}, got {shape} and "
        f"{bijection.data_shape(shape)}",
    )
    return shape


def check_form(
    name: str, function: Map, x: Tensor, context: Tensor | None, shape: torch.Size
) -> None:
    """Types, shapes and device of what comes back; what went in stays as it was."""
    x_copy, context_copy = x.clone(), None if context is None else context.clone()
    with torch.no_grad():
        result = function(x_copy, context_copy)
    require(
        isinstance(result, tuple) and len(result) == 2 and all(map(torch.is_tensor, result)),
        f"{name} should return (value, log_det), got {type(result).__name__}",
    )
    value, log_det = result
    require(torch.equal(x_copy, x), f"{name} should not change its input in place, but it did")
    if context is not None and context_copy is not None:
        require(
            torch.equal(context_copy, context), f"{name} should not change its context in place"
        )
    for what, got, wanted in (
        ("shape of the value", tuple(value.shape), tuple(shape)),
        ("dtype of the value", value.dtype, x.dtype),
        ("device of the value", value.device, x.device),
        ("shape of the log_det", tuple(log_det.shape), (len(x),)),
    ):
        require(got == wanted, f"the {what} of {name} should be {wanted}, got {got}")
    require(
        log_det.is_floating_point()
        and torch.promote_types(log_det.dtype, log_det_dtype(x.dtype)) == log_det.dtype,
        f"the dtype of the log_det of {name} should be {log_det_dtype(x.dtype)} or wider, "
        f"got {log_det.dtype}",
    )


def check_repeatable(name: str, function: Map, x: Tensor, context: Tensor | None) -> None:
    """The same call gives the same bits."""
    with torch.no_grad():
        first, second = function(x, context), function(x, context)
    same = all(
        torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(first, second, strict=True)
    )
    require(same, f"{name} should give the same result each time, but a second call differs")


def check_width(twin: Bijection, x: Tensor, context: Tensor | None) -> None:
    """The declared width is that of the context; 0 is for those on which no context acts."""
    if context is None:
        return
    declared, width = twin.context_features, context.shape[1]
    if not declared:
        moved = jittered(copy.deepcopy(twin))  # a start at zero would hide what is read
        with torch.no_grad():
            pairs = zip(moved(x, context), moved(x, context.flip(0)), strict=True)
            if all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs):
                return
    require(
        declared == width,
        f"context_features should be {width}, the width of the context that is read, "
        f"got {declared}",
    )


def check_start(bijection: Bijection, x: Tensor, context: Tensor | None) -> None:
    """In training mode only the first call may start from data, and the repr shows it."""
    twin = copy.deepcopy(bijection).train()
    before, shown = fingerprint(twin), repr(twin)
    twin(x, context)
    started = fingerprint(twin)
    require(
        started == before or repr(twin) != shown,
        "forward in training mode should change no state that the repr does not show, but it did",
    )
    latent = twin(x.flip(0), context)[0]
    twin.inverse(latent, context)
    require(
        fingerprint(twin) == started,
        "only a first call may start from the data, but a later one did",
    )


def check_directions(twin: Bijection, x: Tensor, z: Tensor, context: Tensor | None) -> None:
    """Round trips, log_det, rows and products, from the data x and from the latents z."""
    for name, there, back, points in (
        ("data", ("forward", twin.forward), ("inverse", twin.inverse), x),
        ("latent", ("inverse", twin.inverse), ("forward", twin.forward), z),
    ):
        outward = reference(*there, points, context)
        homeward = reference(*back, outward.value, context)
        for law, found in ((there[0], outward), (back[0], homeward)):
            require_close(
                f"the log_det of {law} should be log|det| of its Jacobian, from the {name} side",
                found.log_det,
                found.true_log_det,
                found.log_det_tolerance,
            )
        require_close(
            f"the round trip from the {name} side should come back",
            homeward.value,
            points,
            outward.round_trip_tolerance,
        )
        require_close(
            f"the log_dets of both directions should add up to zero, from the {name} side",
            outward.log_det.double() + homeward.log_det.double(),
            torch.zeros_like(outward.log_det),
            outward.log_det_tolerance,
        )
        check_rows(*there, outward, context)
        if name == "data":
            check_products(twin, outward, homeward, context)


def check_rows(name: str, function: Map, at: Reference, context: Tensor | None) -> None:
    """A row's result is its own: others may move, change or be left out."""
    law = f"a row of {name} should not depend on the other rows"
    flipped = None if context is None else context.flip(0)
    first = None if context is None else context[:1]
    with torch.no_grad():
        moved, alone = function(at.points.flip(0), flipped), function(at.points[:1], first)
    tolerances = (at.value_tolerance, at.log_det_tolerance)
    for i, (all_rows, tolerance) in enumerate(
        zip((at.value, at.log_det), tolerances, strict=True)
    ):
        require_close(law, moved[i].flip(0), all_rows, tolerance)
        require_close(law, alone[i], all_rows[:1], tolerance[:1])
    with torch.enable_grad():
        x = at.points.clone().requires_grad_()
        value, log_det = function(x, context)
        for output in (value[0].sum(), log_det[0]):
            across = gradient(output, x)[1:].abs().max().item()
            require(across == 0, f"{law}, but its derivative by another is {across:.3g}")


def check_products(
    twin: Bijection, there: Reference, back: Reference, context: Tensor | None
) -> None:
    """The products of `linearize`, for one and several vectors a point, against dense ones."""
    x = there.points
    generator = torch.Generator().manual_seed(1)
    vectors, images = (
        torch.randn((2, *like.shape), generator=generator, dtype=torch.float64).to(x)
        for like in (x, there.value)
    )
    with torch.no_grad():
        linearization = twin.linearize(x, context)
    require_close(
        "the value of linearize should be that of forward",
        linearization.value,
        there.value,
        there.value_tolerance,
    )
    require_close(
        "the log_det of linearize should be that of forward",
        linearization.log_det,
        there.log_det,
        there.log_det_tolerance,
    )
    for name, matrix, at, given in (
        ("jv", there.jacobian, there, vectors),
        ("vjp", there.jacobian.mT, there, images),
        ("inverse_jv", back.jacobian, back, images),
        ("inverse_vjp", back.jacobian.mT, back, vectors),
    ):
        product = getattr(linearization, name)
        with torch.no_grad():
            one, several = product(given[0]), product(given)
        wanted = torch.einsum("bij,kbj->kbi", matrix, given.flatten(2).double())
        size = given.flatten(2).double().norm(dim=2) * at.singular_values[:, 0]
        tolerance = 10 * at.eps * at.condition_number * size
        law = f"the product {name} of linearize should be that of the dense Jacobian"
        require_close(law, one.flatten(1), wanted[0], tolerance[0])
        require_close(
            f"{law} for several vectors",
            several.flatten(2).flatten(0, 1),
            wanted.flatten(0, 1),
            tolerance.flatten(),
        )


def check_measuring(twin: Bijection, x: Tensor, context: Tensor | None) -> None:
    """Spectrum and round trip leave state and mode as they were."""
    flow = Flow(StandardNormal(twin.latent_shape(x.shape[1:])), twin).to(x)
    before = fingerprint(flow)
    spectrum(twin, x, context=context)
    round_trip(flow, x, context=context if flow.context_features else None)
    require(fingerprint(flow) == before, "measuring should change no state and no mode, but does")


def check_gradients(twin: Bijection, x: Tensor, z: Tensor, context: Tensor | None) -> None:
    """Each parameter gets a gradient in both directions, on a copy off its start."""
    for name, points in (("forward", x), ("inverse", z)):
        missing = {key for key, parameter in twin.named_parameters() if parameter.requires_grad}
        for seed in range(3):  # a small network may be dead at one of them
            moved = jittered(copy.deepcopy(twin), seed=seed)
            value, log_det = getattr(moved, name)(points, context)
            loss = value.square().sum() + log_det.sum()
            if missing and loss.requires_grad:
                missing -= reached(moved, loss)
        require(
            not missing,
            f"gradients through {name} should reach every parameter, but none reach "
            f"{sorted(missing)}",
        )


def reached(module: nn.Module, loss: Tensor) -> set[str]:
    """Returns the names of the parameters whose gradient is finite and not zero."""
    wanted = {key: value for key, value in module.named_parameters() if value.requires_grad}
    found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    return {
        key
        for key, grad in zip(wanted, found, strict=True)
        if grad is not None and torch.isfinite(grad).all() and grad.any()
    }


def check_log_det_gradients(twin: Bijection, x: Tensor, context: Tensor | None) -> None:
    """A log_det has the gradient of log|det J| by points and parameters: it is not detached.

    The log_det of each direction is compared with minus that of the other one, and with the dense
    Jacobian. A direction that is computed by a search may have no second derivatives: the dense
    Jacobian of one direction has to agree, where there is any.
    """
    moved, x, context = widened(jittered(copy.deepcopy(twin)), x, context)
    forward = LogDetGradients(moved, "forward", "inverse", x, context)
    inverse = LogDetGradients(moved, "inverse", "forward", forward.value.detach(), context)
    values = torch.linalg.svdvals(forward.jacobian.detach())
    kappa = (values[:, 0] / values[:, -1]).nan_to_num(torch.inf).max().item()
    allowed = kappa * torch.finfo(x.dtype).eps ** 0.5
    both = (forward, inverse)
    unlike = [breach for one in both if (breach := one.breach(one.by_other, allowed))]
    if not unlike and forward.dense and not forward.breach(forward.dense, allowed):
        return
    dense = [one.breach(one.dense, allowed) for one in both if one.dense]
    breaches = [breach for breach in dense if breach]
    if unlike and not breaches:
        less = min(both, key=lambda one: one.own["x"].norm())
        breaches = [less.breach(less.by_other, allowed) or unlike[0]]
    agrees = not unlike and len(breaches) < len(dense)
    require(agrees or not breaches, "".join(breaches[:1]))


def widened(
    bijection: Bijection, x: Tensor, context: Tensor | None
) -> tuple[Bijection, Tensor, Tensor | None]:
    """Returns the arguments in float64, or as given if the bijection cannot compute in it."""
    wide, wide_x = copy.deepcopy(bijection).double(), x.double()
    wide_context = None if context is None else context.double()
    try:
        with torch.no_grad():
            z, _ = wide(wide_x, wide_context)
            back, _ = wide.inverse(z, wide_context)
    except RuntimeError:  # a constant of the given type
        return bijection, x, context
    if z.dtype != torch.float64 or back.dtype != torch.float64:
        return bijection, x, context
    return wide, wide_x, wide_context


class LogDetGradients:
    """The gradients of the log_det of one direction, and two references for them.

    Attributes:
        value: What the direction returns, (B, *event), with its graph.
        own: Gradients by name, of the points "x" and of each parameter.
        by_other: The same of minus the log_det of the other direction, at the value.

    Args:
        bijection: Off its start.
        name: "forward" or "inverse".
        other: The other one.
        points: (B, *event).
        context: (B, C), or None.
    """

    @torch.enable_grad()
    def __init__(
        self, bijection: Bijection, name: str, other: str, points: Tensor, context: Tensor | None
    ) -> None:
        self._name, self._x = name, points.detach().clone().requires_grad_()
        parameters = {k: v for k, v in bijection.named_parameters() if v.requires_grad}
        self._leaves = {"x": self._x, **parameters}
        self.value, log_det = getattr(bijection, name)(self._x, context)
        self.own = gradients_by(self._leaves, log_det)
        back_log_det = getattr(bijection, other)(self.value, context)[1]
        self.by_other = gradients_by(self._leaves, -back_log_det)

    @functools.cached_property
    def jacobian(self) -> Tensor:
        """The dense Jacobian (B, n, n), with its graph where there is one."""
        with torch.enable_grad():
            return jacobian_of(self.value, self._x, differentiable=True)

    @functools.cached_property
    def dense(self) -> dict[str, Tensor] | None:
        """Gradients of log|det| of the dense Jacobian; None if it has no derivative."""
        if not self.jacobian.requires_grad:
            return None
        try:
            with torch.enable_grad():
                log_det = torch.linalg.slogdet(self.jacobian).logabsdet
                return gradients_by(self._leaves, log_det)
        except RuntimeError:  # a function that is differentiable once
            return None

    def breach(self, reference: dict[str, Tensor], allowed: float) -> str:
        """Returns how the gradients differ from a reference; empty if they do not."""
        for leaf, expected in reference.items():
            error = (self.own[leaf] - expected).double().norm().item()
            limit = allowed * (1 + expected.double().norm().item())
            if not error <= limit:
                return (
                    f"the log_det of {self._name} should have the gradient of log|det| of its "
                    f"Jacobian with respect to {leaf}: off by {error:.3g}, where {limit:.3g} is "
                    "allowed. A log_det that is detached, or computed under no_grad, has none"
                )
        return ""


def gradients_by(leaves: dict[str, Tensor], output: Tensor) -> dict[str, Tensor]:
    """Returns the gradients of the sum of an output, zero where there is no path."""
    found: Sequence[Tensor | None] = [None] * len(leaves)
    if output.requires_grad:
        found = torch.autograd.grad(
            output.sum(), list(leaves.values()), retain_graph=True, allow_unused=True
        )
    return {
        name: torch.zeros_like(leaf) if grad is None else grad
        for (name, leaf), grad in zip(leaves.items(), found, strict=True)
    }


def check_files(flow: Flow, x: Tensor, context: Tensor | None) -> None:
    """What is saved and loaded again is the same function, bit for bit."""
    try:
        describe(flow)
    except ArgumentError:
        return  # a part is not registered: no model file can speak of it
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        try:
            save(flow, Path(folder))
            loaded = load(Path(folder))
        except KappaflowError as error:
            raise ContractError(f"saving and loading should work, but: {error}") from error
        pairs = zip(
            results(flow, x, context), results(loaded.to(x.device), x, context), strict=True
        )
        same = all(torch.equal(kept, found) for kept, found in pairs)
    require(same, "what is saved and loaded should be the same function, bit for bit, but is not")


def results(flow: Flow, x: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
    """Returns value and log_det, and log_prob where the flow takes this context."""
    value, log_det = flow.bijection(x, context)
    if bool(flow.context_features) != (context is not None):
        return value, log_det
    return value, log_det, flow.log_prob(x, context)
