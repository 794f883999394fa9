"""The command line of the benchmarks."""

from cyclopts import App, Parameter

COMMANDS = {
    "all": ("suite:everything", "Run all measurements of the suite."),
    "speed": ("suite:speed", "Time training steps, log_prob and sampling of all rows."),
    "ablation": (
        "ablation:ablation",
        "Train deep flows with each start of the last layers and each bound on log-scales.",
    ),
    "growth": (
        "growth:growth",
        "Time training steps over depth, width, batch size and features.",
    ),
    "reaching": (
        "reaching:reaching",
        "Train flows of each library on real tables, and compare times to a likelihood.",
    ),
    "memory": ("suite:memory", "Measure the resident memory of a training step."),
    "numerics": (
        "suite:numerics",
        "Measure new flows: finite outputs, round trips, condition numbers.",
    ),
    "gradients": ("suite:gradients", "Compare float32 gradients with float64, by memory mode."),
    "spectra": ("suite:spectra", "Compare singular values with those of dense Jacobians."),
    "sigma-min": (
        "sigma_min:sigma_min",
        "Compare both ends of spectra in float32 with extended precision, over condition numbers.",
    ),
    "write-page": ("page:write_page", "Write the pages docs/benchmarks*.md from the results."),
    "factor": (
        "factor:factor",
        "Factor matrices of all kinds, and compare the results with the goals.",
    ),
    "backward-errors": (
        "backward_errors:backward_errors",
        "Measure rounding errors of linear maps as couplings and as other factors.",
    ),
    "images": (
        "images:images",
        "Measure Glows of images: time and memory of a step, bits per dimension of digits.",
    ),
    "image-spectra": (
        "images_spectra:image_spectra",
        "Compare singular values of Glows with those of dense Jacobians, and time profiles.",
    ),
    "doctor": ("doctor:doctor", "Time the doctor on large flows, its page included."),
    "splines": (
        "splines:splines",
        "Time spline couplings of several libraries, and measure their memory.",
    ),
    "verdict": (
        "verdict:verdict",
        "Fit tables of known density badly, moderately and well; compare verdicts and truth.",
    ),
    "tables": (
        "tables_suite.command:tables",
        "Compare kappaflow's default, flows of zuko and mixtures on real tables at equal time.",
    ),
    "posteriors": (
        "posteriors:posteriors",
        "Compare posteriors of kappaflow and sbi with the references of the package sbibm.",
    ),
    "known": (
        "known:known",
        "Compare kappaflow's default and its peers with tables of known density at equal time.",
    ),
    "mixed": (
        "mixed:mixed",
        "Measure models of mixed columns and of quantiles, and what encodings of columns cost.",
    ),
    "energies": (
        "energies:energies",
        "Train flows on energies: gradients, annealing, and a lattice field.",
    ),
    "activations": (
        "activations:activations",
        "Train autoregressive layers with several activations and weight decays.",
    ),
    "columns": (
        "columns:columns",
        "Measure the curves of single columns against the densities of the columns.",
    ),
    "depth-on-real-data": (
        "depth_on_real_data:depth_on_real_data",
        "Train flows of 2 to 32 couplings on real tables, for each way of mixing the columns.",
    ),
    "pruning": (
        "pruning:pruning",
        "Prune flows of real tables, and measure the loss on test rows, time and conditioning.",
    ),
    "score-stream": (
        "score_stream:score_stream",
        "Compare `kappaflow score` of a large table with zuko and scikit-learn: time and memory.",
    ),
}

app = App(
    name="python -m benchmarks",
    help=__doc__,
    result_action="return_value",
    default_parameter=Parameter(consume_multiple=True, negative=()),  # --only magic cities
)
for name, (home, summary) in COMMANDS.items():
    app.command(f"benchmarks.{home}", name=name, help=summary)  # imported when it is called

if __name__ == "__main__":
    app()
