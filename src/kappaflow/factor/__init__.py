"""An invertible linear map as a few couplings of a fixed partition.

linear         `factor_linear`, which lets the strategies compete
strategies     the table of strategies: counts, methods, conditions, costs
closed_forms   the closed forms of a checked matrix
search         the searches on a checked matrix
assembly       factors as layers, with residuals and a note
budget         the limit of a search, in seconds or in operations
problem        the matrix to factor, checked and put into standard form
factorization  the result: couplings, residual, condition numbers; its file
coupling       `LinearCoupling`, and the same coupling as plain arrays
direct         closed form: maps that one to three couplings make
rotation       closed form: six couplings for a rotation
positive       closed form: six couplings for a positive definite map
svd            closed form: eleven or more couplings for any invertible map
continuation   numerical search: couplings are continued along a path of maps; `paths` defines it
algebra        the equation that the search solves, and Newton's method for it
kronecker      the linear systems of a Newton step
descent        minimizes the condition numbers among the solutions
uneven         the search for parts of different sizes
free_scales    minimizes the condition numbers over all blocks and scales of a small map
rescale        scalar diagonals that balance the condition numbers of given couplings
trade_off      conditioning against the number of couplings
whiten         `Whiten`, a layer that decorrelates data
"""

from kappaflow.factor.coupling import LinearCoupling
from kappaflow.factor.factorization import Factorization, load_couplings, save_couplings
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
