"""Linear maps of other libraries as kappaflow's linear layers, factored where these are."""

import torch
from torch import Tensor

from kappaflow.bijections import InvertibleConv1x1, Linear, LULinear, QRLinear, SVDLinear
from kappaflow.bijections.linear import LinearMap
from kappaflow.interop.blueprint import OtherPart, Unsupported


def dense(matrix: Tensor, shift: Tensor | None = None, *, trained: bool = True) -> OtherPart:
    """Returns the map z = M x + shift."""
    matrix = matrix.detach().clone()
    shift = None if shift is None else shift.detach().clone()
    if not torch.isfinite(matrix).all():
        raise Unsupported("its matrix has values that are not finite")
    values = torch.linalg.svdvals(matrix.double())
    if values[-1] <= len(matrix) * torch.finfo(matrix.dtype).eps * values[0]:
        raise Unsupported("its matrix is singular to the precision of its dtype")
    return OtherPart(lambda: Linear.of(matrix, shift).requires_grad_(trained))


def lu_linear(lower: Tensor, upper: Tensor, order: Tensor, shift: Tensor | None) -> OtherPart:
    """Returns the map z = P L U x + shift, with (P y)_i = y_order[i]."""
    diagonal = upper.diagonal()
    if not (diagonal > 0).all():
        return dense((lower @ upper)[order], shift)
    triangles = lower.tril(-1) + upper.triu(1) + diagonal.log().diag()

    def make() -> LULinear:
        linear = LULinear(len(lower)).to(lower)
        linear.load_state_dict({
            "triangles": triangles.detach(),
            "permutation.index": order.detach(),
            "shift": diagonal.new_zeros(len(lower)) if shift is None else shift.detach(),
        })
        return linear

    return OtherPart(make)


def convolution(part: OtherPart) -> OtherPart:
    """Returns a linear map as an invertible 1x1 convolution, which has no shift."""

    def make() -> InvertibleConv1x1:
        linear = part.make()
        if not isinstance(linear, LinearMap):
            raise TypeError(type(linear).__name__)
        form = "lu" if isinstance(linear, LULinear) else "plain"
        convolution = InvertibleConv1x1(linear.features, form=form).to(linear.shift)
        state = {k: v for k, v in linear.state_dict().items() if k != "shift"}
        convolution.linear.load_state_dict(state)
        return convolution

    return OtherPart(make)


def householder(vectors: Tensor, shift: Tensor | None = None) -> OtherPart:
    """Returns z = H_1 ... H_k x + shift, for reflections along v_1 to v_k (k, n)."""
    if len(vectors) % 2 or vectors.shape[1] < 2:
        return dense(_reflect(vectors, torch.eye(vectors.shape[1]).to(vectors)), shift)
    return _singular(vectors, vectors.new_zeros(vectors.shape[1]), None, shift, bound=1.0)


def svd_linear(left: Tensor, log_scale: Tensor, right: Tensor, shift: Tensor) -> OtherPart:
    """Returns z = Q_1 D Q_2 x + shift, with Q_1 and Q_2 as vectors of reflections."""
    if len(left) % 2 or len(left) != len(right):
        raise Unsupported("it has an odd number of reflections")
    return _singular(left, log_scale, right, shift, bound=None)


def qr_linear(vectors: Tensor, upper: Tensor, shift: Tensor) -> OtherPart:
    """Returns z = Q R x + shift, with Q as vectors of reflections, R with positive diagonal."""
    n = len(upper)
    if len(vectors) % 2:
        return dense(_reflect(vectors, upper), shift)
    packed = upper.triu(1) + upper.diagonal().log().diag()
    row, column = torch.triu_indices(n, n, device=upper.device)

    def make() -> QRLinear:
        linear = QRLinear(n, reflections=len(vectors)).to(upper)
        linear.load_state_dict({
            "reflections": vectors.detach(),
            "triangle": packed[row, column].detach(),
            "shift": shift.detach(),
        })
        return linear

    return OtherPart(make)


def rotation(matrix: Tensor) -> OtherPart:
    """Returns z = R x for an orthogonal R, as reflections (Golub, Van Loan, section 5.1)."""
    rest = matrix.detach().double().clone()
    unit = torch.eye(len(rest)).to(rest)
    if (rest @ rest.mT - unit).abs().max() > 1e2 * torch.finfo(matrix.dtype).eps:
        raise Unsupported(
            "its matrix is not orthogonal to the precision of its dtype, so its log_det is not 0"
        )
    vectors = []
    for i in range(len(rest) - 1):
        column = rest[:, i].clone()
        others = column.square().sum() - column[i].square()
        if others.sqrt() <= torch.finfo(torch.float64).eps and column[i] > 0:
            continue
        column[i] = -others / (1 + column[i]) if column[i] > 0 else column[i] - 1
        vectors.append(column)
        rest = _reflect(column[None], rest)
    if len(vectors) % 2:
        return dense(matrix)
    if not vectors:
        vectors = [unit[0], unit[0]]
    return householder(torch.stack(vectors).to(matrix))


def _reflect(vectors: Tensor, matrix: Tensor) -> Tensor:
    """Returns H_1 ... H_k M, for reflections along v_1 to v_k (k, n)."""
    for vector in vectors.flip(0):
        matrix = matrix - 2 * torch.outer(vector, vector @ matrix) / vector.square().sum()
    return matrix


def _singular(
    left: Tensor,
    log_scale: Tensor,
    right: Tensor | None,
    shift: Tensor | None,
    *,
    bound: float | None,
) -> OtherPart:
    def make() -> SVDLinear:
        linear = SVDLinear(left.shape[1], reflections=len(left), condition_bound=bound).to(left)
        state = linear.state_dict()
        state |= {"left": left.detach(), "log_scale": log_scale.detach()}
        state |= {} if right is None else {"right": right.detach()}
        state |= {} if shift is None else {"shift": shift.detach()}
        linear.load_state_dict(state)
        return linear

    return OtherPart(make)
