"""Formulas for functions of torch that ONNX lacks, in float64 too: each calls what ONNX has."""

import math
from collections.abc import Callable
from typing import Any

import torch
from numpy.polynomial.chebyshev import chebinterpolate
from scipy.special import erfcx, ndtri_exp
from torch import Tensor

ERFCX_DEGREE, ERFCX_MIDDLE = 26, 3.75  # relative error 2e-15
NDTRI_DEGREE, NDTRI_MIDDLE = 25, 10.0  # error 3e-10, before a Newton step
NDTRI_ENDS = math.sqrt(2 * math.log(2)), 38.7  # sqrt(-2 log p) for p = 1/2 and below float64


def _log1p(x: Tensor) -> Tensor:
    """Returns log(1 + x) accurately for small x, without log1p, which ONNX lacks (Kahan)."""
    shifted = 1 + x
    rounded = shifted - 1
    safe = torch.where(rounded == 0, 1, rounded)
    return torch.where(rounded == 0, x, shifted.log() * (x / safe))


def _expm1(x: Tensor) -> Tensor:
    """Returns exp(x) - 1 accurately for small x, without expm1, which ONNX lacks (Kahan)."""
    exponential = x.exp()
    rounded = exponential - 1
    plain = torch.logical_or(x.abs() > 0.5, rounded == 0)
    safe = torch.where(plain, 1, exponential.log())
    return torch.where(rounded == 0, x, torch.where(plain, rounded, rounded * (x / safe)))


def _substituted(
    a: Tensor, b: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """Returns `torch.linalg.solve_triangular(a, b)` by operations that ONNX has."""
    if not left:
        return _substituted(a.mT, b.mT, upper=not upper, unitriangular=unitriangular).mT
    count = a.shape[-1]
    solved: Tensor | None = None
    for i in reversed(range(count)) if upper else range(count):
        row = b[..., i : i + 1, :]
        if solved is not None:
            row = (
                row - a[..., i : i + 1, i + 1 :] @ solved
                if upper
                else (row - a[..., i : i + 1, :i] @ solved)
            )
        if not unitriangular:
            row = row / a[..., i : i + 1, i : i + 1]
        parts = [row] if solved is None else [row, solved] if upper else [solved, row]
        solved = torch.cat(parts, -2)
    return b if solved is None else solved


def _log_ndtr(z: Tensor) -> Tensor:
    """Returns the log of P(Z <= z) of a standard normal Z."""
    wide = z.double()
    x = wide.abs() * math.sqrt(0.5)
    scaled = _erfcx(x)
    upper = _log1p(-0.5 * (-x * x).exp() * scaled)
    return torch.where(wide < 0, (0.5 * scaled).log() - x * x, upper).to(z.dtype)


def _ndtri(p: Tensor) -> Tensor:
    """Returns the normal quantile: a Chebyshev series in sqrt(-2 log p), and a Newton step."""
    wide = p.double()
    share = torch.minimum(wide, 1 + -wide)  # of the nearer tail
    log_share = share.log()
    low, high = (_ratio(end, NDTRI_MIDDLE) for end in NDTRI_ENDS)
    root = (-2 * log_share).sqrt().clamp(*NDTRI_ENDS)
    t = 2 * (_ratio(root, NDTRI_MIDDLE) - low) / (high - low) - 1

    def distance(t: Any) -> Any:
        root = _inverse_ratio(low + (t + 1) / 2 * (high - low), NDTRI_MIDDLE)
        return -ndtri_exp(-(root**2) / 2)

    x = _series(distance, NDTRI_DEGREE, t) * math.sqrt(0.5)
    scaled = _erfcx(x)
    x = x + ((0.5 * scaled).log() - x * x - log_share) * scaled * (math.sqrt(math.pi) / 2)
    z = torch.where(share == 0, math.inf, x * math.sqrt(2))
    return torch.where(wide < 0.5, -z, z).to(p.dtype)


def _erfcx(x: Tensor) -> Tensor:
    """Returns exp(x^2) erfc(x) for x >= 0, by a Chebyshev series as in Schonfelder 1978.

    The series begins at x = -1, because its rounding errors are largest at its ends.
    """

    def smooth(t: Any) -> Any:
        x = _inverse_ratio(t, ERFCX_MIDDLE) - 1
        return (3 + 2 * x) * erfcx(x)

    x = x.clamp_max(1e100)
    return _series(smooth, ERFCX_DEGREE, _ratio(x + 1, ERFCX_MIDDLE)) / (3 + 2 * x)


def _ratio(x: Any, middle: float) -> Any:
    """Returns a number from -1 at x = 0 to 1 at infinity."""
    return (x - middle) / (x + middle)


def _inverse_ratio(t: Any, middle: float) -> Any:
    return middle * (1 + t) / (1 - t)


def _series(function: Callable[[Any], Any], degree: int, t: Tensor) -> Tensor:
    """Returns a smooth function of t in [-1, 1] by its Chebyshev series."""
    coefficients = torch.tensor(chebinterpolate(function, degree).tolist(), dtype=t.dtype)
    last = t[..., None]
    polynomials = torch.cat((torch.ones_like(last), last), -1)
    while polynomials.shape[-1] <= degree:  # T(m + j) = 2 T(m) T(j) - T(m - j)
        more = 2 * last * polynomials[..., 1:] - polynomials[..., :-1].flip(-1)
        polynomials, last = torch.cat((polynomials, more), -1), more[..., -1:]
    return polynomials[..., : degree + 1] @ coefficients


def _diff(x: Tensor, n: int = 1, dim: int = -1) -> Tensor:
    """Returns the differences of neighbors."""
    for _ in range(n):
        rest = x.shape[dim] - 1
        x = x.narrow(dim, 1, rest) - x.narrow(dim, 0, rest)
    return x


def _movedim(x: Tensor, source: int, destination: int) -> Tensor:
    order = [*range(x.dim())]
    order.insert(destination % x.dim(), order.pop(source % x.dim()))
    return x.permute(order)


def _index_copy(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """Returns x with the entries of the source at an index of different numbers."""
    positions = torch.arange(x.shape[dim])
    from_source = x.shape[dim] + torch.arange(source.shape[dim]) - positions[:, None]
    places = positions + (from_source * (positions[:, None] == index)).sum(1)
    return torch.cat((x, source), dim).index_select(dim, places)


def _eye(n: int, **options: Any) -> Tensor:  # noqa: ANN401
    positions = torch.arange(n)
    return (positions[:, None] == positions).to(options.get("dtype") or torch.get_default_dtype())


def _diag(x: Tensor) -> Tensor:
    """Returns the matrix with a diagonal, or the diagonal of a matrix."""
    unit = _eye(x.shape[-1], dtype=x.dtype)
    return x[:, None] * unit if x.dim() == 1 else (x * unit).sum(1)


def _argsort(x: Tensor, dim: int = -1, descending: bool = False) -> Tensor:  # noqa: FBT001, FBT002
    return torch.sort(x, dim=dim, descending=descending)[1]


FORMULAS: dict[Callable[..., Any], Callable[..., Tensor]] = {
    torch.linalg.solve_triangular: _substituted,
    **dict.fromkeys((torch.log1p, Tensor.log1p, torch.special.log1p), _log1p),
    **dict.fromkeys((torch.expm1, Tensor.expm1, torch.special.expm1), _expm1),
    torch.special.ndtri: _ndtri,
    torch.special.log_ndtr: _log_ndtr,
    # ONNX has the following, but the exporter would trace all again for them.
    **dict.fromkeys((torch.square, Tensor.square), lambda x: x * x),
    **dict.fromkeys((torch.diff, Tensor.diff), _diff),
    **dict.fromkeys((torch.movedim, Tensor.movedim), _movedim),
    **dict.fromkeys((torch.index_copy, Tensor.index_copy), _index_copy),
    **dict.fromkeys((torch.diag, Tensor.diag), _diag),
    **dict.fromkeys((torch.argsort, Tensor.argsort), _argsort),
    torch.eye: _eye,
    Tensor.T.__get__: Tensor.t,  # pyright: ignore[reportAttributeAccessIssue]
    **dict.fromkeys((torch.rsub, Tensor.__rsub__), lambda x, y: y + -x),
    **dict.fromkeys((Tensor.__and__, Tensor.__rand__), torch.bitwise_and),
    **dict.fromkeys((Tensor.__or__, Tensor.__ror__), torch.bitwise_or),
}
