"""The rules on a flow that was to fit an energy: modes that it misses, and heavy weights."""

from collections.abc import Iterator

from kappaflow.diagnosis.finding import Finding
from kappaflow.diagnosis.measured import Measured
from kappaflow.diagnosis.measures.energies import Energy

SHARE = 0.01  # of the mass, or of the points
HEAVY = 0.7  # shape of a tail above which means of weights cannot be relied on
NEARLY_ALL = 0.9  # effective draws, as a share, from which on a tail changes no mean
FEW = 0.01  # effective draws, as a share, that are too few whatever the tail
COORDINATES = 6  # of a place that a message names


def modes_missed(m: Measured) -> Iterator[Finding]:
    """KF801: mass lies where the flow has no draws."""
    found = m.energy
    if found is None:
        return
    by_points = found.points_missed > SHARE * found.points
    if found.missed_mass < SHARE and not by_points:
        return
    yield Finding(
        code="KF801",
        severity="warning",
        layer=None,
        message=_missed(found) if found.missed_mass >= SHARE else _points_missed(found),
        cause=(
            "The reverse divergence asks for nothing where a flow has no draws, and importance "
            "weights of its draws do not show it: by these the effective sample size is "
            f"{found.samples.effective_sample_size:.2g} of the draws."
        ),
        cure=(
            "Train with a longer annealing from a lower inverse_temperature "
            "(kappaflow.fit_energy), or start from a flow that kappaflow.fit trained on points "
            "of all modes."
        ),
        evidence={
            "missed_mass": found.missed_mass,
            "missed_by_nats": found.missed_by,
            "missed_at": None if found.missed_at is None else _in_words(found),
            "points": found.points,
            "points_missed": found.points_missed,
            "worst_point": found.worst_point if found.points else None,
            "worst_point_by_nats": found.worst_by if found.points else None,
            "effective_sample_size": found.samples.effective_sample_size,
            "log_normalizer": found.samples.log_normalizer,
        },
    )


def _missed(found: Energy) -> str:
    return (
        f"At least {found.missed_mass:.2g} or so of the mass lies where the flow has no draws, "
        f"some around ({_in_words(found)}): weights are larger by {found.missed_by:.3g} nats "
        f"than at any of {len(found.samples)} draws."
    )


def _points_missed(found: Energy) -> str:
    return (
        f"{found.points_missed} of {found.points} points lie where the flow has no draws, the "
        f"worst is row {found.worst_point}: its weight is larger by {found.worst_by:.3g} nats "
        f"than that of any of {len(found.samples)} draws."
    )


def _in_words(found: Energy) -> str:
    place = [] if found.missed_at is None else found.missed_at.tolist()
    more = ", ..." if len(place) > COORDINATES else ""
    return ", ".join(f"{value:.3g}" for value in place[:COORDINATES]) + more


def weights_heavy(m: Measured) -> Iterator[Finding]:
    """KF802: a few draws decide what importance weights say."""
    found = m.energy
    if found is None:
        return
    samples, lost = found.samples, found.not_a_number
    effective = samples.effective_sample_size
    heavy = effective < FEW or (samples.pareto_k > HEAVY and effective < NEARLY_ALL)
    if not (lost or heavy):
        return
    yield Finding(
        code="KF802",
        severity="warning",
        layer=None,
        message=(
            f"log_density is no number at {lost} of {len(samples)} draws."
            if lost
            else f"A few of {len(samples)} draws decide what importance weights say: the "
            f"effective sample size is {samples.effective_sample_size:.2g} of the draws, and the "
            f"tail of the weights has a Pareto k of {samples.pareto_k:.2f}."
        ),
        cause=(
            "The energy is not defined where the flow puts draws."
            if lost
            else "The density has more mass than the flow where the flow has little: heavier "
            "tails, or a shape that it did not learn. From 0.7 on, estimates of log Z and of "
            "means have no error that could be believed."
        ),
        cure=(
            "Let log_density return -inf, or a finite number, outside of its domain."
            if lost
            else "Train longer, take a deeper flow, or use the draws as proposals of a Markov "
            "chain instead of weighting them."
        ),
        evidence={
            "not_a_number": lost,
            "effective_sample_size": samples.effective_sample_size,
            "pareto_k": samples.pareto_k,
            "log_normalizer": samples.log_normalizer,
            "log_normalizer_error": samples.log_normalizer_error,
        },
    )
