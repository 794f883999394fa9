"""`Family`: tests that share the probability of a false alarm."""

from kappaflow.goodness.deviation import FAMILY, LEVELS, Deviation


class Family:
    """The tests of one comparison; a right flow fails any of them with a probability of 1 %."""

    def __init__(self, groups: int) -> None:
        self.groups = groups
        self.deviations: list[Deviation] = []

    def add(self, deviation: Deviation, tests: int) -> Deviation:
        """Returns one of several tests of a group as the worst of all; significant ones are kept.

        The groups have equal shares of the probability, and so have the tests of a group.
        """
        deviation = deviation.among(tests * self.groups)
        if deviation.p_value <= FAMILY:
            self.deviations.append(deviation)
        return deviation

    def sorted(self) -> tuple[Deviation, ...]:
        """Returns the significant deviations, the worst first."""
        return tuple(sorted(self.deviations, key=lambda e: (-LEVELS.index(e.level), -e.nats)))
