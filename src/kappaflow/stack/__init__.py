"""Stacks: consecutive couplings with stacked weights, executed as few autograd nodes.

The plain couplings of `kappaflow.bijections` are the definition, and the reference in tests. The
modules, from the inside out:

    shape        conditioners and route of a block, without weights
    weights      stacked weights, and their views for matrix products
    operations   the elementary operations on buffers
    network      a conditioner on columns: products and gradients
    arithmetic   the map of the changed features, affine or additive
    tape         operations executed eagerly, or recorded once and executed again
    native       the backend that executes tapes, if it was compiled
    threads      chunks of rows in parallel
    chunk        a block on a chunk of rows, forward and backward
    block_pass   a batch through a block, with buffers kept from step to step
    block        at most 32 couplings as a module and an autograd node
    plain        plain couplings and stacks, converted into each other
    couplings    `CouplingStack`
"""

from kappaflow.stack.couplings import CouplingStack

__all__ = ["CouplingStack"]
