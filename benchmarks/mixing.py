"""The command that compares the forms of 1x1 convolutions in a Glow."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from benchmarks.lines import Line, write_results
from benchmarks.presets import PresetName
from benchmarks.processes import Job, run
from benchmarks.suite import KEPT, JsonFile

if TYPE_CHECKING:
    from benchmarks.row import ImageShape

SEEDS = 3
STEPS: dict[PresetName, int] = {"minutes": 200, "full": 6000}
REPETITIONS: dict[PresetName, int] = {"minutes": 11, "full": 51}


def mixing(
    *,
    preset: PresetName = "minutes",
    steps: int | None = None,
    seeds: int = SEEDS,
    hidden: int | None = None,
    repetitions: int | None = None,
    file: JsonFile = KEPT / "mixing.json",
) -> None:
    """Train the same Glow on the digits with each form of 1x1 convolution, and time its steps.

    Trainings and times have separate processes, with one thread of torch.

    Parameters
    ----------
    preset
        "minutes" (200 steps per training, 8 minutes in total) or "full" (6,000).
    steps
        Number of steps of a training, instead of the preset's.
    seeds
        Trainings of each form.
    hidden
        Channels of the couplings' networks, instead of 32 in training and 128 for the times.
    repetitions
        Number of repetitions of each time, instead of the preset's.
    file
        File of results.
    """
    from benchmarks.mixing_training import TIMED, TRAINED

    own = {} if hidden is None else {"hidden": hidden}
    count, repeats = steps or STEPS[preset], repetitions or REPETITIONS[preset]
    trainings = _trainings(count, seeds, replace(TRAINED, **own))
    times = Job(
        "mixing_times",
        {"repetitions": repeats, "shape": asdict(replace(TIMED, **own))},
        "all forms in turn",
    )
    *trained, timed = run([*trainings, times], threads=1)
    lines: list[Line] = [
        {"part": "training", **job.arguments, **done["result"]}
        for job, done in zip(trainings, trained, strict=True)
        if done
    ]
    if timed:
        lines.append({"part": "times", **times.arguments, "forms": timed["result"]})
    found: list[dict[str, Any]] = [done for done in (*trained, timed) if done]
    whole = not (own or steps or repetitions) and seeds == SEEDS
    results = {
        "preset": preset if whole else None,
        "machine": found[0]["machine"] if found else None,
        "lines": lines,
    }
    write_results(file, results)


def _trainings(steps: int, seeds: int, shape: "ImageShape") -> list[Job]:
    """Returns the trainings, the forms in turn."""
    from benchmarks.mixing_training import FORMS

    return [
        Job(
            "mixing_training",
            {"form": form, "seed": seed, "steps": steps, "shape": asdict(shape)},
            f"{form}, seed {seed}",
        )
        for seed in range(seeds)
        for form in FORMS
    ]
