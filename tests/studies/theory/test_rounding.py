"""Theorem 5.1 of the paper on couplings: rounding errors of products and of solutions."""

from fractions import Fraction

import numpy as np
import pytest
from mpmath import iv

from studies.theory.exact import LEFT, RIGHT, condition, coupling, exact, interval, product

COUNT = 6  # couplings of four features
UNIT = Fraction(1, 2**53)
GAMMA = 4 * UNIT / (1 - 4 * UNIT)


def factors(rng):
    """Returns blocks and scales of couplings, from well to badly conditioned, in float64."""
    spread = rng.uniform(0, 3)
    blocks = [np.exp(rng.normal(0, spread)) * rng.standard_normal((2, 2)) for _ in range(COUNT)]
    return blocks, np.exp(rng.normal(0, spread / 2, COUNT))


def applied(blocks, scales, x, *, back):
    """Returns the product of all couplings with x, or with their inverses, as computed."""
    x = x.copy()
    steps = list(enumerate(zip(blocks, scales, strict=True)))
    for position, (block, g) in steps if back else steps[::-1]:
        own, kept = (RIGHT, LEFT) if position % 2 == 0 else (LEFT, RIGHT)
        x[own] = (x[own] - block @ x[kept]) / g if back else g * x[own] + block @ x[kept]
    return x


def growth(blocks, scales, *, back):
    """Returns an interval around the product of the norms of all couplings, or of inverses."""
    result = iv.mpf(1)
    for block, g in zip(blocks, scales, strict=True):
        kappa, scale = condition(exact(block.tolist()), Fraction(g)), interval(Fraction(g))
        result *= iv.sqrt(kappa / scale if back else kappa * scale)
    return result


def share(rng, dtype):
    """Returns the errors of a product and of a solution, over their bounds."""
    blocks, scales = factors(rng)
    x, shares = rng.standard_normal(4), []
    pairs = [
        coupling(i % 2 == 0, exact(block.tolist()), Fraction(g))
        for i, (block, g) in enumerate(zip(blocks, scales.tolist(), strict=True))
    ]
    eta = (iv.sqrt(2) + 1) * interval(GAMMA)
    for back in (False, True):
        matrices = [pair[back] for pair in pairs][:: -1 if back else 1]
        computed = applied([b.astype(dtype) for b in blocks], scales.astype(dtype),
                           x.astype(dtype), back=back)  # fmt: skip
        error = exact(computed.tolist()) - product([*matrices, exact(x.tolist())])
        length = iv.sqrt(interval(exact(x.tolist()) @ exact(x.tolist())))
        bound = growth(blocks, scales.tolist(), back=back) * ((1 + eta) ** COUNT - 1) * length
        shares.append((iv.sqrt(interval(error @ error)) / bound).b)
    return shares


@pytest.mark.parametrize("number", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_rounding_errors_are_within_the_bound_of_the_theorem(number):
    """Float64 keeps to the bound of its roundoff, exactly computed; float32 does not."""
    rng = np.random.default_rng(0)
    assert max(max(share(rng, np.float64)) for _ in range(number)) <= 1
    assert min(max(share(rng, np.float32)) for _ in range(5)) > 1e3
