"""Runs of couplings with stacked weights, executed as few autograd nodes.

The plain couplings of `kappaflow.bijections` remain the definition, and the reference in tests.
From the inside out:

    route        in which order, and where the halves are moved
    shape        what a block looks like, without its weights
    weights      stacked tensors, and their slices as products want them
    prepared     weights as a pass wants them
    operations   what a chunk consists of
    network      a conditioner on columns: products and gradients
    arithmetic   what a coupling does with the answer: affine, additive
    marks        fingerprints of states that are not kept
    threads      chunks at the same time
    programs     operations executed at once, or recorded and played
    native       a player of programs, if it has been built
    chunk        a block on a chunk of rows, there and back
    buffers      memory that is kept from step to step
    execution    a batch through a block
    plain        the readable couplings that read stacked weights
    block        a module: at most 32 couplings
    node         its autograd node
    state        names of the plain chain in state dictionaries
    origin       plain couplings read as arguments of a stack
    couplings    `CouplingStack`
"""

from kappaflow.stack.couplings import CouplingStack

__all__ = ["CouplingStack"]
