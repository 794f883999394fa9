"""`check_bijection`: the laws of a bijection, one function per law."""

import copy
import math
import tempfile
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
    LogDetGradients,
    Map,
    ReferenceJacobian,
    fingerprint,
    gradient,
    jittered,
    reference_jacobian,
    require,
    require_close,
)


def check_bijection(bijection: Bijection, x: Tensor, context: Tensor | None = None) -> None:
    r"""Raises an error unless a bijection obeys every law of `Bijection` at the rows x.

    Checks round trips in both directions (from x, and from samples of N(0, I) as latents), log_det
    against dense Jacobians, dtypes and shapes, independence of rows, hidden state, the declared
    width of the context, the four products of `linearize`, gradients to every parameter, gradients
    of log_det with respect to inputs and parameters, and saving. The tolerance follows the
    conditioning: with s the singular values and :math:`\kappa` their ratio, round trips must be
    within :math:`10 \epsilon \kappa |x|` and log_det within
    :math:`10 \epsilon \kappa (1 + \sum |\log s|)`. If a shift maps x to a distant z, the former
    is :math:`10 \epsilon |z| / \sigma_{\min}`.

    Args:
        bijection: A bijection onto all of R^n. It is copied and stays unchanged.
        x: At least two rows (B, *event) of its domain, in its dtype.
        context: Context rows (B, C), if the bijection is conditional.

    Raises:
        ContractError: A law is broken, or the rows are too ill-conditioned for a test.
        ArgumentError: The arguments are not a bijection and a batch.

    Note:
        Runs n backward passes in each direction, so use a small n. Saving is not checked if a part
        is not registered.

    Example:
        >>> import kappaflow as kf
        >>> x = torch.tensor([[0.5, -1.0, 2.0], [1.0, 0.25, -0.5]])
        >>> kf.testing.check_bijection(kf.bijections.Permutation((2, 0, 1)), x)
    """
    if not isinstance(bijection, Bijection):
        raise ArgumentError(f"'bijection' should be a Bijection, got {type(bijection).__name__}.")
    if len(batch("x", x)) < 2:
        raise ArgumentError(f"'x' should have at least two rows, got {len(x)}.")
    if context is None and bijection.context_features:
        raise ArgumentError(
            f"'context' should be given, with {bijection.context_features} columns: "
            "this bijection is conditional."
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
    """Returns the shape of one latent, after checking that data_shape inverts latent_shape."""
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
    """Checks dtype, shape and device of the outputs, and that the inputs are unchanged."""
    copies = x.clone(), None if context is None else context.clone()
    with torch.no_grad():
        result = function(*copies)
    require(
        isinstance(result, tuple) and len(result) == 2 and all(map(torch.is_tensor, result)),
        f"{name} should return (value, log_det), got {type(result).__name__}",
    )
    value, log_det = result
    for what, before, after in zip(("input", "context"), (x, context), copies, strict=True):
        unchanged = before is None or after is None or torch.equal(before, after)
        require(unchanged, f"{name} should not change its {what} in place, but it did")
    for what, got, expected in (
        ("shape of the value", tuple(value.shape), tuple(shape)),
        ("dtype of the value", value.dtype, x.dtype),
        ("device of the value", value.device, x.device),
        ("shape of the log_det", tuple(log_det.shape), (len(x),)),
    ):
        require(got == expected, f"the {what} of {name} should be {expected}, got {got}")
    require(
        log_det.is_floating_point()
        and torch.promote_types(log_det.dtype, log_det_dtype(x.dtype)) == log_det.dtype,
        f"the dtype of the log_det of {name} should be {log_det_dtype(x.dtype)} or wider, "
        f"got {log_det.dtype}",
    )


def check_repeatable(name: str, function: Map, x: Tensor, context: Tensor | None) -> None:
    """Checks that two calls give identical results."""
    with torch.no_grad():
        first, second = function(x, context), function(x, context)
    require(
        equal(first, second),
        f"{name} should give the same result each time, but a second call differs",
    )


def equal(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> bool:
    """Returns whether results are the same to the bit; nan counts as zero."""
    pairs = zip(first, second, strict=True)
    return all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs)


def check_width(twin: Bijection, x: Tensor, context: Tensor | None) -> None:
    """Checks the declared width of the context; 0 means that the context has no effect."""
    if context is None:
        return
    declared, width = twin.context_features, context.shape[1]
    if not declared:
        moved = jittered(copy.deepcopy(twin))  # zero initialization would hide an effect
        with torch.no_grad():
            if equal(moved(x, context), moved(x, context.flip(0))):
                return
    require(
        declared == width,
        f"context_features should be {width}, the width of the context that changes the result, "
        f"got {declared}",
    )


def check_start(bijection: Bijection, x: Tensor, context: Tensor | None) -> None:
    """Checks that only the first call in training mode initializes, and that the repr shows it."""
    twin = copy.deepcopy(bijection).train()
    before, shown = fingerprint(twin), repr(twin)
    twin(x, context)
    initialized = fingerprint(twin)
    require(
        initialized == before or repr(twin) != shown,
        "forward in training mode should change no state that the repr does not show, but it did",
    )
    latent = twin(x.flip(0), context)[0]
    twin.inverse(latent, context)
    require(
        fingerprint(twin) == initialized,
        "only the first call may initialize from data, but a later one did",
    )


def check_directions(twin: Bijection, x: Tensor, z: Tensor, context: Tensor | None) -> None:
    """Checks round trips, log_det, rows and products, from the rows x and the latents z."""
    for name, first, second, points in (
        ("data", ("forward", twin.forward), ("inverse", twin.inverse), x),
        ("latent", ("inverse", twin.inverse), ("forward", twin.forward), z),
    ):
        start = reference_jacobian(*first, points, context)
        check_rows(*first, start, context)
        returned = reference_jacobian(*second, start.value, context)
        for law, at in ((first[0], start), (second[0], returned)):
            require_close(
                f"the log_det of {law} should be log|det| of its Jacobian, from the {name} side",
                at.log_det,
                at.true_log_det,
                at.log_det_tolerance,
            )
        require_close(
            f"the round trip from the {name} side should return its input",
            returned.value,
            points,
            start.round_trip_tolerance,
        )
        require_close(
            f"the log_dets of both directions should sum to zero, from the {name} side",
            start.log_det.double() + returned.log_det.double(),
            torch.zeros_like(start.log_det),
            start.log_det_tolerance,
        )
        if name == "data":
            check_products(twin, start, returned, context)


def check_rows(name: str, function: Map, at: ReferenceJacobian, context: Tensor | None) -> None:
    """Checks that the result of a row does not depend on the other rows."""
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
    twin: Bijection, forward: ReferenceJacobian, inverse: ReferenceJacobian, context: Tensor | None
) -> None:
    """Checks the products of `linearize` against dense Jacobians."""
    x = forward.points
    generator = torch.Generator().manual_seed(1)
    vectors, images = (
        torch.randn((2, *like.shape), generator=generator, dtype=torch.float64).to(x)
        for like in (x, forward.value)
    )
    with torch.no_grad():
        linearization = twin.linearize(x, context)
    require_close(
        "the value of linearize should be that of forward",
        linearization.value,
        forward.value,
        forward.value_tolerance,
    )
    require_close(
        "the log_det of linearize should be that of forward",
        linearization.log_det,
        forward.log_det,
        forward.log_det_tolerance,
    )
    for name, matrix, at, tangents in (
        ("jv", forward.jacobian, forward, vectors),
        ("vjp", forward.jacobian.mT, forward, images),
        ("inverse_jv", inverse.jacobian, inverse, images),
        ("inverse_vjp", inverse.jacobian.mT, inverse, vectors),
    ):
        product = getattr(linearization, name)
        with torch.no_grad():
            single, several = product(tangents[0]), product(tangents)
        expected = torch.einsum("bij,kbj->kbi", matrix, tangents.flatten(2).double())
        size = tangents.flatten(2).double().norm(dim=2) * at.singular_values[:, 0]
        tolerance = 10 * at.eps * at.condition_number * size
        law = f"the product {name} of linearize should be that of the dense Jacobian"
        require_close(law, single.flatten(1), expected[0], tolerance[0])
        require_close(
            f"{law} for several vectors",
            several.flatten(2).flatten(0, 1),
            expected.flatten(0, 1),
            tolerance.flatten(),
        )


def check_measuring(twin: Bijection, x: Tensor, context: Tensor | None) -> None:
    """Checks that spectrum and round_trip leave state and mode unchanged."""
    flow = Flow(StandardNormal(twin.latent_shape(x.shape[1:])), twin).to(x)
    before = fingerprint(flow)
    spectrum(twin, x, context=context)
    round_trip(flow, x, context=context if flow.context_features else None)
    require(fingerprint(flow) == before, "measuring should change no state and no mode, but does")


def check_gradients(twin: Bijection, x: Tensor, z: Tensor, context: Tensor | None) -> None:
    """Checks that each parameter gets a gradient in both directions, on perturbed copies."""
    for name, points in (("forward", x), ("inverse", z)):
        missing = {key for key, parameter in twin.named_parameters() if parameter.requires_grad}
        for seed in range(3):  # a small network may be dead for one of them
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
    parameters = {key: value for key, value in module.named_parameters() if value.requires_grad}
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {
        key
        for key, grad in zip(parameters, gradients, strict=True)
        if grad is not None and torch.isfinite(grad).all() and grad.any()
    }


def check_log_det_gradients(twin: Bijection, x: Tensor, context: Tensor | None) -> None:
    """Checks that log_det has the gradient of log|det J|, so that it is not detached.

    A direction computed by a search may have no second derivatives, so one dense Jacobian must
    agree if there is any, and each log_det with minus that of the other direction.
    """
    moved, x, context = in_float64(jittered(copy.deepcopy(twin)), x, context)
    forward = LogDetGradients(moved, "forward", "inverse", x, context)
    inverse = LogDetGradients(moved, "inverse", "forward", forward.value.detach(), context)
    values = torch.linalg.svdvals(forward.jacobian.detach())
    kappa = (values[:, 0] / values[:, -1]).nan_to_num(torch.inf).max().item()
    allowed = kappa * torch.finfo(x.dtype).eps ** 0.5
    both = (forward, inverse)
    mismatches = [breach for way in both if (breach := way.breach(way.by_other, allowed))]
    if not mismatches and forward.dense and not forward.breach(forward.dense, allowed):
        return
    dense = [way.breach(way.dense, allowed) for way in both if way.dense]
    breaches = [breach for breach in dense if breach]
    if mismatches and not breaches:
        smaller = min(both, key=lambda way: way.own["x"].norm())
        breaches = [smaller.breach(smaller.by_other, allowed) or mismatches[0]]
    agrees = not mismatches and len(breaches) < len(dense)
    require(agrees or not breaches, "".join(breaches[:1]))


def in_float64(
    bijection: Bijection, x: Tensor, context: Tensor | None
) -> tuple[Bijection, Tensor, Tensor | None]:
    """Returns the arguments in float64, or unchanged if the bijection does not support it."""
    twin, rows = copy.deepcopy(bijection).double(), x.double()
    contexts = None if context is None else context.double()
    try:
        with torch.no_grad():
            z, _ = twin(rows, contexts)
            back, _ = twin.inverse(z, contexts)
    except RuntimeError:  # a constant of another dtype
        return bijection, x, context
    supported = z.dtype == back.dtype == torch.float64
    return (twin, rows, contexts) if supported else (bijection, x, context)


def check_files(flow: Flow, x: Tensor, context: Tensor | None) -> None:
    """Checks that a saved and loaded flow is the same function, bit for bit."""
    try:
        describe(flow)
    except ArgumentError:
        return  # a part is not registered, so there is no model file
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        try:
            save(flow, Path(folder))
            loaded = load(Path(folder))
        except KappaflowError as error:
            raise ContractError(f"saving and loading should work, but: {error}") from error
        flows = (flow, loaded.to(x.device))
        same = all(map(torch.equal, *(results(each, x, context) for each in flows)))
    require(same, "a saved and loaded flow should be the same function, bit for bit, but is not")


def results(flow: Flow, x: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
    """Returns value and log_det, and log_prob if the flow accepts this context."""
    value, log_det = flow.bijection(x, context)
    if bool(flow.context_features) != (context is not None):
        return value, log_det
    return value, log_det, flow.log_prob(x, context)
