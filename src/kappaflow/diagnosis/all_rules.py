"""The rules in the order in which they are asked; each is a function of what was measured."""

from collections.abc import Callable, Iterator

from kappaflow.diagnosis.finding import Finding
from kappaflow.diagnosis.measured import Measured
from kappaflow.diagnosis.rules.contexts import context_ignored, context_ill_conditioned
from kappaflow.diagnosis.rules.draws import draws_do_not_follow, draws_not_repeatable
from kappaflow.diagnosis.rules.energies import modes_missed, weights_heavy
from kappaflow.diagnosis.rules.gradient import gradient_wrong
from kappaflow.diagnosis.rules.integral import not_normalised
from kappaflow.diagnosis.rules.likelihood import worse_than_a_reference
from kappaflow.diagnosis.rules.log_dets import log_det_wrong
from kappaflow.diagnosis.rules.outliers import other_units, tail_explodes
from kappaflow.diagnosis.rules.paths import (
    drawn_log_prob_differs,
    own_log_prob_differs,
    random_answers,
    rows_depend,
)
from kappaflow.diagnosis.rules.precision import autocast_leaks, log_det_narrow, type_lost
from kappaflow.diagnosis.rules.state import (
    calls_change,
    not_started,
    state_incomplete,
    values_stale,
)
from kappaflow.diagnosis.rules.tails import tails_lost
from kappaflow.diagnosis.rules.values import (
    ill_conditioned,
    not_finite,
    one_layer_carries,
    round_trip_lost,
    round_trip_not_finite,
)
from kappaflow.diagnosis.rules.volume import linear_singular, volume_collapses

Rule = Callable[[Measured], Iterator[Finding]]

RULES: tuple[Rule, ...] = (
    not_finite,
    random_answers,
    other_units,
    round_trip_not_finite,
    round_trip_lost,
    log_det_wrong,
    rows_depend,
    own_log_prob_differs,
    drawn_log_prob_differs,
    not_normalised,
    draws_do_not_follow,
    gradient_wrong,
    context_ignored,
    values_stale,
    state_incomplete,
    ill_conditioned,
    one_layer_carries,
    tails_lost,
    volume_collapses,
    linear_singular,
    context_ill_conditioned,
    not_started,
    calls_change,
    tail_explodes,
    log_det_narrow,
    type_lost,
    autocast_leaks,
    draws_not_repeatable,
    modes_missed,
    weights_heavy,
    worse_than_a_reference,
)


def checks_of(m: Measured) -> list[str]:
    """Returns the names of the checks that could be made of what was measured."""
    made = {
        "finite values": True,
        "round trips": True,
        "log_dets": True,
        "log_prob by other ways": True,
        "the integral of the density": m.integral is not None,
        "samples against the density": m.draws is not None,
        "gradients": m.gradient is not None,
        "parameters and state": True,
        "conditioning": True,
        "latents far out": True,
        "contexts": m.contexts is not None,
        "float types": True,
        "units of the data": m.outliers is not None,
        "an unnormalized density": m.energy is not None,
    }
    names = [name for name, was_made in made.items() if was_made]
    return names + [f"the likelihood of {one.name}" for one in m.comparisons]
