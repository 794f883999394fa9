"""Glows of images are what their rows say, learn alike, and have their section of the page."""

import json
import math
import subprocess
import sys

import pytest
import torch

from abacus import ROOT

TINY = {"batch": 2, "image": [1, 4, 4], "levels": 2, "steps": 1, "hidden": 3}
OURS = "kappaflow glow, {}".format


def test_the_floor_is_the_networks_of_the_flow(benchmark):
    """As many parameters as all of them have, and a gradient for each."""
    shape = benchmark("row").ImageShape(**{**TINY, "image": (3, 8, 8), "steps": 2})
    row = benchmark("images_rows").image_rows()[0]
    floor, flow = benchmark("floor").image_floor(shape), row.build(shape).module
    networks = [part for part in flow.modules() if type(part).__name__ == "ConvNet"]
    assert len(networks) == len(floor.module) == 5
    expected = sum(p.numel() for network in networks for p in network.parameters())
    assert sum(p.numel() for p in floor.module.parameters()) == expected
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
    assert OURS("recompute") in (tmp_path / "benchmarks-images.md").read_text()
