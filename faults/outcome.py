"""What came of faults of one kind."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What came of faults of one kind: a row of the table.

    Attributes:
        fault: What was done, in a few words: "SIGKILL at a random moment of a training".
        unit: What is counted: "kills", "files", "rows", "ranks".
        tried: How many.
        survived: After how many of them all was as it should be.
        lost: Of how many more was lost than is promised (steps, rows, files); 0 is what is asked.
        recovery_s: The longest until work went on, or until it had ended with its message; None
            where there is nothing to wait for.
    """

    fault: str
    unit: str
    tried: int
    survived: int
    lost: int = 0
    recovery_s: float | None = None
