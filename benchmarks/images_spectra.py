"""Extreme singular values of Glows without a matrix, and the time of profiles over depth."""

import time
from collections.abc import Sequence

import torch
from torch import Tensor

import kappaflow as kf
from benchmarks.lines import Line, write_results
from benchmarks.machine import machine
from benchmarks.spectra import dense_columns, free_line
from benchmarks.suite import KEPT, JsonFile

Numbers = Sequence[int]
NOISE = 0.02, 0.04  # standard deviations of noise added to all parameters
LEVELS, STEPS, HIDDEN = 2, 4, 64
PROFILED, NARROW = (8, 16), 16  # image sides of profiled Glows, and channels of their networks


def image_spectra(
    *,
    sides: Numbers = (8, 32),
    matrix_free: Numbers = (64,),
    profiled: Numbers = (1, 2, 4),
    hidden: int = HIDDEN,
    file: JsonFile = KEPT / "image-spectra.json",
) -> None:
    """Measure both ends of the spectrum of Glows at one image in float32: times, errors, profiles.

    As in `spectra` for couplings, reference values come from dense Jacobians in float64, with
    sigma_min from the inverse map. Times are processor times on one thread.

    Parameters
    ----------
    sides
        Sides of images of 3 channels, for the dense and the matrix-free way; 32 takes ten minutes.
    matrix_free
        Sides of images for the matrix-free way alone.
    profiled
        Steps in each level of the Glows of 3 x 8 x 8 and 3 x 16 x 16 whose profile is timed.
    hidden
        Channels of the couplings' networks.
    file
        File of results.
    """
    torch.set_num_threads(1)
    lines: list[Line] = []
    for noise in NOISE:
        for side in (*sides, *matrix_free):
            flow, x = image_case(side, STEPS, hidden, noise)
            line = {
                "part": "spectrum",
                "shape": [3, side, side],
                **free_line(flow.core, x),
            }
            if side in sides:
                line |= dense_columns(flow.core, x)
                line["time_ratio"] = line["dense_s"] / line["time_s"]
            lines.append(line)
    lines += [profile_line(steps, NARROW) for steps in profiled]
    results = {"machine": machine(), "steps": STEPS, "hidden": hidden, "lines": lines}
    write_results(file, results)


def image_case(side: int, steps: int, hidden: int, noise: float) -> tuple[kf.Flow, Tensor]:
    """Returns a Glow of 3 x side x side images with noise on its weights, and an image."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape = (3, side, side)
        flow = kf.glow(
            shape, levels=LEVELS, steps=steps, hidden=hidden, couplings={"memory": "store"}
        )
        with torch.no_grad():
            flow.log_prob(torch.randn(16, *shape))  # initializes the activation norms
            for parameter in flow.parameters():
                parameter += noise * torch.randn_like(parameter)
        return flow.eval(), torch.randn(1, *shape)


def profile_line(steps: int, hidden: int) -> Line:
    """Returns the processor time of profiles over depth at one image, and the number of layers."""
    found: Line = {"part": "profile"}
    for side in PROFILED:
        flow, x = image_case(side, steps, hidden, NOISE[0])
        start = time.process_time()
        profile = kf.profile(flow, x)
        found |= {"layers": len(profile.layers), f"time_{side}_s": time.process_time() - start}
    return found
