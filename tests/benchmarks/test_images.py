"""Glows of images are what their rows say, learn alike, and have their section of the page."""

import json
import math
import subprocess
import sys

import pytest
import torch

from abacus import MACHINE, ROOT

TINY = {"batch": 2, "image": [1, 4, 4], "levels": 2, "steps": 1, "hidden": 3}
OURS = "kappaflow glow, {}".format


def figures(to_floor, **others):
    """Returns the figures of one quantity."""
    return {"median_ms": 100 * to_floor, "to_floor": to_floor, "repetitions": 7, **others}


def timed(to_floor, to_store):
    """Returns a row whose ratios to the floor are all the same."""
    found = {name: figures(to_floor) for name in ("log_prob", "sample")}
    found["forward_backward"] = figures(to_floor, to_store=to_store)
    return {"parameters": 1000, "finite_share": 1.0, **found}


def learned(row, seed, test):
    """Returns a line of a training."""
    bits = {"train": test - 0.1, "validation": test, "test": test, "final_test": test + 0.1}
    shape = {**TINY, "hidden": 5}
    told = {"part": "digits", "row": row, "seed": seed, "seconds": 60.0, "shape": shape}
    return {**told, "parameters": 90, "steps": 10 + seed, **bits}


RESULTS = {
    "preset": "minutes",
    "machine": MACHINE,
    "rows": {OURS("store"): "ours", "nflows Glow": "theirs"},
    "lines": [
        {
            "part": "speed",
            "shape": TINY,
            "rows": {
                "conditioners alone (floor)": timed(1.0, 0.9),
                OURS("store"): timed(1.04, 1.0),
                OURS("recompute"): timed(1.2, 1.15),
                "nflows Glow": timed(1.34, 1.3),
                "FrEIA Glow": {"error": "ValueError: no such block"},
            },
        },
        {"part": "memory", "row": OURS("recompute"), "shape": TINY, "peak_bytes": 17e6},
        {"part": "memory", "row": "nflows Glow", "shape": TINY, "peak_bytes": 66e6},
        *(learned(OURS("store"), seed, 2.0 + seed / 10) for seed in range(3)),
        *(learned("nflows Glow", seed, 3.0) for seed in range(3)),
    ],
}


def cells(text, start):
    """Returns the cells of each line of a table that starts with a name."""
    lines = [line.split(" | ") for line in text.splitlines()]
    found = [line for line in lines if line[0].startswith(f"| {start}")]
    return [[cell.strip("| ") for cell in line] for line in found]


def test_the_section_sets_what_was_reached_beside_what_was_aimed_at(benchmark):
    """Every figure of the table comes from the results."""
    text = benchmark("page").images_page({"images": RESULTS})
    reached = {line[0]: line[2] for line in cells(text, "") if len(line) == 3}
    assert reached["log_prob, against the floor's forward"] == "1.20 (nflows 1.34)"
    assert reached["memory of a step in recompute"] == "17 MB at 1.15 (nflows 66)"
    step, digits = cells(text, "forward + backward")[-1], cells(text, "bits per dimension")[0]
    assert step[1:] == ["<= 1.05", "1.04 in store, 1.20 in recompute (nflows 1.34)"]
    assert digits[2] == (
        "kappaflow glow, store 2.100 (2.000 to 2.200); nflows 3.000 (3.000 to 3.000)"
    )


def test_the_tables_have_every_row_and_name_what_did_not_run(benchmark):
    """With the shape of the flows, the seconds and the seeds."""
    text = benchmark("page").images_page({"images": RESULTS})
    times, digits = cells(text, OURS("recompute"))[0], cells(text, OURS("store"))[1]
    assert times[1:] == ["1,000", "120", "1.20", "1.15", "120", "1.20", "120", "1.20", "17"]
    assert digits[1:4] == ["90", "11", "2.000 (1.900 to 2.100)"]
    assert digits[4] == digits[5] == "2.100 (2.000 to 2.200)"
    assert "FrEIA Glow did not run: ValueError: no such block" in text
    assert "images of 1 x 4 x 4, batch 2, float32, 2 levels of 1 steps" in text
    assert "after 60 seconds" in text and "over 3 seeds" in text
    assert "| nflows Glow | theirs |" in text


def test_parts_that_were_not_measured_leave_their_tables_out(benchmark):
    """And the first table says so."""
    only = {**RESULTS, "lines": [learned("nflows Glow", 0, 3.0)]}
    text = benchmark("page").images_page({"images": only})
    assert cells(text, "forward + backward, against the floor")[-1][2] == "not measured"
    assert "take turns in one process" not in text
    assert "over 1 seed and ranges" in text


def test_the_floor_is_the_networks_of_the_flow(benchmark):
    """As many parameters as all of them have, and a gradient for each."""
    shape = benchmark("row").ImageShape(**{**TINY, "image": (3, 8, 8), "steps": 2})
    row = benchmark("images_rows").image_rows()[0]
    floor, flow = benchmark("floor").image_floor(shape), row.build(shape).module
    networks = [part for part in flow.modules() if type(part).__name__ == "ConvNet"]
    assert len(networks) == len(floor.module) == 5
    wanted = sum(p.numel() for network in networks for p in network.parameters())
    assert sum(p.numel() for p in floor.module.parameters()) == wanted
    floor.forward_backward()
    assert all(p.grad.abs().sum() > 0 for p in floor.module[-1].parameters())
    floor.zero_grad()
    assert all(p.grad is None for p in floor.module.parameters())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_row_is_a_density_of_about_as_many_parameters(benchmark):
    """Its log_prob is that of its latent and of the dense Jacobian, and it inverts itself."""
    shape = benchmark("row").ImageShape(**TINY)
    reference = benchmark("images_digits").SHAPE
    counts = {}
    for row in filter(lambda row: row.installed, benchmark("images_rows").image_rows()):
        torch.manual_seed(0)
        counts[row.name] = parameters_of(row.build(reference).module)
        model, x = row.build(shape), shape.data()
        model.log_prob(x)  # what starts from data
        model.module.eval().double()
        moved(model.module)
        x = x[:1].double()
        jacobian = torch.autograd.functional.jacobian(lambda v, m=model: flat(m.encode(v)), x)
        _, log_det = torch.linalg.slogdet(jacobian.reshape(16, 16))
        z = flat(model.encode(x))
        exact = log_det - 0.5 * z.square().sum() - 8 * math.log(2 * math.pi)
        assert model.log_prob(x).item() == pytest.approx(exact.item(), abs=1e-4), row.name
        error = (model.decode(model.encode(x)) - x).abs().max().item()
        assert error < 1e-5, row.name
    assert max(counts.values()) < 1.05 * min(counts.values())


def flat(z):
    """Returns a latent in one piece."""
    return torch.cat([part.flatten(1) for part in ([z] if torch.is_tensor(z) else z)], 1)


def parameters_of(module):
    """Returns the number of learned numbers."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def moved(module):
    """Moves parameters off their start, which is nearly the identity."""
    with torch.no_grad():
        for p in filter(lambda p: p.requires_grad, module.parameters()):
            p.add_(0.1 * torch.randn_like(p))


class Uniform(torch.nn.Module):
    """The density of the pixels between -1/2 and 1/2, a constant."""

    def log_prob(self, x):
        """Returns zeros where x is inside."""
        assert (x.abs() <= 0.5).all()
        return torch.zeros(len(x))


def test_bits_per_dimension_are_those_of_whole_numbers(benchmark):
    """A uniform density says nothing: log2 17 for each of 17 values."""
    digits, uniform = benchmark("images_digits"), Uniform()
    model = benchmark("row").Model(uniform, uniform.log_prob, None, None, None)
    _, validation, test = digits.digits()
    assert (len(validation), len(test)) == (240, 360)
    assert test.max() == 16 and torch.equal(test, test.floor())
    found = digits.bits_per_dimension(model, test, draws=2)
    assert found == pytest.approx(math.log2(17), abs=1e-6)


@pytest.mark.slow
def test_a_training_keeps_to_its_time_and_learns(benchmark):
    """Batches are the same for the same seed, and other images are held out."""
    digits = benchmark("images_digits")
    train, _, test = digits.digits()
    assert not (train[:, None] == test[None, :20]).all(dim=(2, 3, 4)).any()
    one, other = (next(digits.batches(train, 8, seed=3)) for _ in range(2))
    assert torch.equal(one, other)
    shape = benchmark("row").ImageShape(batch=32, image=(1, 8, 8), levels=2, steps=1, hidden=8)
    row = next(row for row in benchmark("images_rows").image_rows() if "digits" in row.measures)
    torch.manual_seed(0)
    model = row.build(shape)
    training = digits.Training(model, digits.batches(train, shape.batch, seed=0))
    before = digits.bits_per_dimension(model, test, draws=1)
    training.go_on(1e-9, 1.0)
    assert training.steps == 1 and training.spent > 0
    training.go_on(1e-9, 1.0)
    assert training.steps == 1
    for _ in range(40):
        training.one_step(2e-3)
    assert digits.bits_per_dimension(model, test, draws=1) < before - 0.3


@pytest.mark.slow
def test_a_job_is_all_that_a_worker_needs(benchmark, tmp_path):
    """It passes through JSON; its line says what was trained, and for how long."""
    images = benchmark("images")
    rows = [row for row in benchmark("images_rows").image_rows() if row.package == "kappaflow"]
    shape = benchmark("row").ImageShape(batch=16, image=(1, 8, 8), levels=1, steps=1, hidden=4)
    (job,) = images._digits(rows, shape, 0.05, 1)
    arguments = json.loads(json.dumps(job.arguments))
    done = {"result": benchmark("worker").TASKS[job.task](**arguments)}
    (line,) = images._lines("digits", [job], [done])
    assert (line["part"], line["row"], line["seed"]) == ("digits", OURS("store"), 0)
    assert line["seconds"] == 0.05 and line["steps"] > 0
    assert line["shape"]["hidden"] == 4


def test_a_file_keeps_what_is_not_measured_again(benchmark, tmp_path):
    """Lines of other rows and parts stay if the machine is the same one."""
    images, file = benchmark("images"), tmp_path / "images.json"
    file.write_text(json.dumps(RESULTS))
    again, machine = learned(OURS("store"), 1, 1.5), {**MACHINE, "environment": {"OMP": 1}}
    images._write(file, "full", [], [again], [{"machine": machine}])
    found = json.loads(file.read_text())
    assert found["preset"] is None and found["rows"] == RESULTS["rows"]
    assert len(found["lines"]) == len(RESULTS["lines"])
    assert [line for line in found["lines"] if line not in RESULTS["lines"]] == [again]
    images._write(file, "full", [], [again], [{"machine": {**MACHINE, "processor": "A slate"}}])
    assert json.loads(file.read_text())["lines"] == [again]


@pytest.mark.slow
def test_a_tiny_benchmark_of_our_rows_runs_end_to_end(benchmark, tmp_path):
    """Two repetitions; then the page."""
    file = tmp_path / "images.json"
    rows = [f"--rows={OURS(mode)}" for mode in ("store", "recompute")]
    tiny = "--parts=speed --batch=2 --steps=1 --hidden=4 --threads=1 --repetitions=2".split()
    command = [sys.executable, "-m", "benchmarks", "images", *tiny, *rows, f"--json={file}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    results = json.loads(file.read_text())
    row = results["lines"][0]["rows"][OURS("recompute")]
    assert results["preset"] is None
    assert row["forward_backward"]["repetitions"] == 2
    assert row["forward_backward"]["to_store"] > 0
    benchmark("page").write_page(folder=tmp_path, docs=tmp_path)
    assert "in store" in (tmp_path / "benchmarks-images.md").read_text()
