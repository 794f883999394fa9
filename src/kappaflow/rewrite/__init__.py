"""Rewriting flows without changing the function they compute.

fixed_partition  rewrites a flow of couplings to use a single fixed partition
plan             plans its layers: reordered couplings, with linear maps between them
reordered        couplings of reordered features, and their networks
merge            merges neighboring layers; `fuse` merges linear layers
sandwich         `SandwichCoupling`, a coupling with a linear coupling at one or both ends
layers           lists and classifies the layers of a flow
certificate      summary of a rewrite, with the difference between the two functions
"""

from kappaflow.rewrite.certificate import Certificate
from kappaflow.rewrite.fixed_partition import rewrite_fixed_partition
from kappaflow.rewrite.merge import fuse
from kappaflow.rewrite.sandwich import SandwichCoupling

__all__ = ["Certificate", "SandwichCoupling", "fuse", "rewrite_fixed_partition"]
