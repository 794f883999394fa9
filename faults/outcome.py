"""The results of faults of one kind."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """The results of faults of one kind: a row of the table.

    Attributes:
        fault: A short description: "SIGKILL at a random moment of a training".
        unit: What is counted: "kills", "files", "rows", "ranks".
        tried: Number of faults.
        survived: Number of faults after which everything was correct.
        lost: Number of steps, rows or files that were lost beyond the promise; should be 0.
        recovery_s: Longest time until work resumed, or until the process ended with its message;
            None if there is nothing to wait for.
    """

    fault: str
    unit: str
    tried: int
    survived: int
    lost: int = 0
    recovery_s: float | None = None
