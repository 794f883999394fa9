"""Derivatives that are a multiple of the identity and a matrix of rank one."""

from torch import Tensor

from kappaflow.linearization import Linearization


class RankOneLinearization(Linearization):
    """Of a map whose Jacobian is J = a 1 + l r^T at each point; J^-1 by Sherman and Morrison.

    Args:
        value: z = f(x), (B, n).
        log_det: (B,).
        scale: a, (B, 1).
        left: l, (B, n) or (n,).
        right: r, (B, n) or (n,).
        scale_along: a + r.l, the eigenvalue of l, (B, 1); the caller may know it without
            cancellation.
    """

    def __init__(
        self,
        value: Tensor,
        log_det: Tensor,
        *,
        scale: Tensor,
        left: Tensor,
        right: Tensor,
        scale_along: Tensor,
    ) -> None:
        self.value, self.log_det = value, log_det
        self._scale, self._left, self._right = scale, left, right
        self._scale_along = scale_along

    def jv(self, v: Tensor) -> Tensor:
        return self._times(v, self._left, self._right)

    def vjp(self, u: Tensor) -> Tensor:
        return self._times(u, self._right, self._left)

    def inverse_jv(self, w: Tensor) -> Tensor:
        return self._solve(w, self._left, self._right)

    def inverse_vjp(self, y: Tensor) -> Tensor:
        return self._solve(y, self._right, self._left)

    def _times(self, v: Tensor, left: Tensor, right: Tensor) -> Tensor:
        return (self._scale * v + left * _dot(right, v)).to(v.dtype)

    def _solve(self, v: Tensor, left: Tensor, right: Tensor) -> Tensor:
        along = left * (_dot(right, v) / self._scale_along)
        return ((v - along) / self._scale).to(v.dtype)


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(-1, keepdim=True)
