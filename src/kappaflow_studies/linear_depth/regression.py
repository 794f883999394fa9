"""Couplings as free matrices, and the fit of their product to a map by gradient descent."""

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

START = 0.3  # deviation of what the couplings start from, times 1 / sqrt(d)
LARGEST_LOG = 12.0  # of a diagonal entry: no float64 product of 48 overflows


class Regression:
    """Alternating couplings [[I, 0], [A, diag(exp s)]] and [[diag(exp s), B], [0, I]].

    Args:
        targets: Maps T, (B, n, n), float64, n even; each is fitted on its own.
        depth: Number of couplings, the first of which changes the second half.
        generator: Draws the starts.
    """

    def __init__(self, targets: Tensor, depth: int, generator: torch.Generator) -> None:
        self.targets, self.depth = targets, depth
        count, n, _ = targets.shape
        self.half = n // 2
        self.norms = targets.flatten(1).norm(dim=1)
        self.shape = (count, depth, self.half, self.half + 1)
        drawn = torch.randn(self.shape, generator=generator, dtype=torch.float64)
        self.start = START / self.half**0.5 * drawn

    def factors(self, numbers: Tensor) -> list[Tensor]:
        """Returns the couplings as matrices (B, n, n), in the order of the product."""
        found = []
        logs = numbers[..., -1].clamp(-LARGEST_LOG, LARGEST_LOG)
        eye = torch.eye(self.half, dtype=numbers.dtype).expand(len(numbers), -1, -1)
        none = torch.zeros_like(eye)
        for layer in range(self.depth):
            block = numbers[:, layer, :, :-1]
            scale = torch.diag_embed(logs[:, layer].exp())
            lower, upper = ((eye, none), (block, scale)), ((scale, block), (none, eye))
            rows = lower if layer % 2 == 0 else upper
            found.append(torch.cat([torch.cat(row, 2) for row in rows], 1))
        return found

    def residuals(self, numbers: Tensor) -> Tensor:
        """Returns |product - T| / |T| of each, in the norm of Frobenius.

        The product is built from the left, as its two halves of columns: a coupling scales one of
        them, and adds a multiple of it to the other.
        """
        eye = torch.eye(2 * self.half, dtype=numbers.dtype).expand(len(numbers), -1, -1)
        first, second = eye.split(self.half, 2)
        blocks = numbers[..., :-1].unbind(1)
        scales = numbers[..., None, :, -1].clamp(-LARGEST_LOG, LARGEST_LOG).exp().unbind(1)
        for layer, (block, scale) in enumerate(zip(blocks, scales, strict=True)):
            if layer % 2 == 0:
                first, second = torch.baddbmm(first, second, block), second * scale
            else:
                first, second = first * scale, torch.baddbmm(second, first, block)
        product = torch.cat((first, second), 2)
        return (product - self.targets).flatten(1).norm(dim=1) / self.norms


def by_adam(problem: Regression, steps: int, rate: float) -> Tensor:
    """Returns the numbers that Adam ends at; all maps side by side, each as if on its own."""
    numbers = problem.start.clone().requires_grad_()
    optimizer = torch.optim.Adam([numbers], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        (problem.residuals(numbers) ** 2).sum().backward()
        optimizer.step()
        schedule.step()
    return numbers.detach()


def by_lbfgs(problem: Regression, steps: int) -> Tensor:
    """Returns the numbers that L-BFGS ends at, map by map."""
    found = []
    for number, target in enumerate(problem.targets):
        one = Regression(target[None], problem.depth, torch.Generator())

        def loss(flat: np.ndarray, one: Regression = one) -> tuple[float, np.ndarray]:
            numbers = torch.from_numpy(flat).reshape(one.shape).requires_grad_()
            value = (one.residuals(numbers) ** 2).sum()
            (slope,) = torch.autograd.grad(value, numbers)
            return value.item(), slope.flatten().numpy()

        options = {"maxiter": steps, "maxfun": 2 * steps, "maxcor": 30, "ftol": 0.0, "gtol": 1e-14}
        start = problem.start[number].flatten().numpy()
        done = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
        found.append(torch.from_numpy(done.x).reshape(one.shape[1:]))
    return torch.stack(found)
