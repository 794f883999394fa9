"""The rules in the order in which they are asked; each is a function of what was measured."""

from collections.abc import Callable, Iterator

from kappaflow.diagnosis.finding import Finding
from kappaflow.diagnosis.integral_rules import not_normalised
from kappaflow.diagnosis.log_det_rules import log_det_wrong
from kappaflow.diagnosis.measured import Measured
from kappaflow.diagnosis.path_rules import (
    drawn_log_prob_differs,
    own_log_prob_differs,
    random_answers,
    rows_depend,
)
from kappaflow.diagnosis.rules import (
    ill_conditioned,
    not_finite,
    not_started,
    one_layer_carries,
    round_trip_lost,
    round_trip_not_finite,
)
from kappaflow.diagnosis.tail_rules import tails_lost

Rule = Callable[[Measured], Iterator[Finding]]

RULES: tuple[Rule, ...] = (
    not_finite,
    random_answers,
    round_trip_not_finite,
    round_trip_lost,
    log_det_wrong,
    rows_depend,
    own_log_prob_differs,
    drawn_log_prob_differs,
    not_normalised,
    ill_conditioned,
    one_layer_carries,
    tails_lost,
    not_started,
)
