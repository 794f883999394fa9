"""`Family`: tests that share the probability of a false alarm."""

from kappaflow.goodness.deviation import FAMILY, LEVELS, Deviation


class Family:
    """The tests of one comparison; a right flow fails any of them with a probability of 1 %."""

    def __init__(self, groups: int) -> None:
        self.groups = groups
        self.deviations: list[Deviation] = []

    def add(self, deviation: Deviation, tests: int) -> None:
        """Adds one of several tests of a group; the groups have equal shares, and their tests."""
        deviation = deviation.among(tests * self.groups)
        if deviation.p_value <= FAMILY:
            self.deviations.append(deviation)

    def sorted(self) -> tuple[Deviation, ...]:
        """Returns the significant deviations, the worst first."""
        key = lambda one: (-LEVELS.index(one.level), -one.nats)  # noqa: E731
        return tuple(sorted(self.deviations, key=key))
