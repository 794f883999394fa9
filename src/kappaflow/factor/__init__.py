"""Any invertible linear map as a few couplings of a fixed partition.

`linear.py` is what is called, `problem.py` what it works on, `routes.py` the ways to go: closed
forms in `direct.py`, `rotation.py` and `eleven.py`; searches in `tracking.py`.
"""

from kappaflow.factor.coupling import LinearCoupling
from kappaflow.factor.couplings_file import load_couplings, save_couplings
from kappaflow.factor.factorization import Factorization
from kappaflow.factor.linear import factor_linear
from kappaflow.factor.whiten import Whiten

__all__ = [
    "Factorization",
    "LinearCoupling",
    "Whiten",
    "factor_linear",
    "load_couplings",
    "save_couplings",
]
