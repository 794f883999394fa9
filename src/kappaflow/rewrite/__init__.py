"""Flows written anew as others of the same function.

opened            the layers of a flow, and what is known of them
affine            linear layers as a matrix and a shift
mixed             a coupling with linear couplings of its own partition at its ends
reordered         a coupling in coordinates that stand in another order
items             what a flow on one partition consists of
plan              a flow in the coordinates of one partition: couplings, and linear maps between
merge             neighbours that change the same half become one
certificate       what was done, and how equal the function is
fixed_partition   any coupling flow as one on a fixed partition
fuse              the other way: runs of linear maps become one
"""

from kappaflow.rewrite.certificate import Certificate
from kappaflow.rewrite.fixed_partition import rewrite_fixed_partition
from kappaflow.rewrite.fuse import fuse
from kappaflow.rewrite.mixed import SandwichCoupling

__all__ = ["Certificate", "SandwichCoupling", "fuse", "rewrite_fixed_partition"]
