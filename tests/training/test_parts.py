"""The small parts of a training, each against its definition."""

import pytest
import torch

import kappaflow as kf
from kappaflow.summary import LEVELS, sparkline
from kappaflow.training.checkpoint import FILE, read_checkpoint, write_checkpoint
from kappaflow.training.loop import epoch_seed
from kappaflow.training.optimizer import WeightEMA
from kappaflow.training.progress import curve_facts
from kappaflow.training.progress import describe_likelihood as describe


def test_the_average_is_the_one_computed_by_hand():
    """Decay min(d, k / (k + 10)) at the k-th update, from the start on."""
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(layer.weight, 0.0)
    average, expected = WeightEMA(layer, 0.5), 0.0
    for k in range(1, 30):
        torch.nn.init.constant_(layer.weight, float(k))
        average.update(k)
        decay = min(0.5, k / (k + 10))
        expected = decay * expected + (1 - decay) * k
    assert average.state()["weight"].item() == pytest.approx(expected, rel=1e-5)
    assert abs(expected - 29) > 0.5


def test_the_average_takes_the_module_s_place_and_gives_it_back():
    """Inside, the module computes with averages; outside, with its own weights."""
    layer = torch.nn.Linear(1, 1, bias=False)
    average = WeightEMA(layer, 0.9)
    torch.nn.init.constant_(layer.weight, 7.0)
    stored = average.state()["weight"].clone()
    with average.in_place():
        assert torch.equal(layer.weight.data, stored)
    assert layer.weight.item() == 7.0


def test_a_flipped_bit_in_a_checkpoint_is_noticed(tmp_path):
    """A wrong number is worse than a stop."""
    write_checkpoint(tmp_path, {"flow": {"w": torch.arange(100.0)}}, {"epoch": 3})
    groups, progress = read_checkpoint(tmp_path)
    assert torch.equal(groups["flow"]["w"], torch.arange(100.0)) and progress == {"epoch": 3}
    content = bytearray((tmp_path / FILE).read_bytes())
    content[-7] ^= 1
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(kf.errors.FileError, match="digest"):
        read_checkpoint(tmp_path)


def test_a_write_that_fails_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    """Also where it fails after the first bytes are on the disk."""
    import os

    write_checkpoint(tmp_path, {"flow": {"w": torch.zeros(3)}}, {"epoch": 1})

    def broken(descriptor):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(kf.errors.FileError, match="Input/output error"):
        write_checkpoint(tmp_path, {"flow": {"w": torch.ones(3)}}, {"epoch": 2})
    monkeypatch.undo()
    groups, progress = read_checkpoint(tmp_path)
    assert progress == {"epoch": 1} and groups["flow"]["w"].sum() == 0
    assert [path.name for path in (tmp_path / FILE).parent.iterdir()] == [FILE.name]


def test_seeds_of_epochs_differ_and_fit_in_63_bits():
    """Neighboring seeds and epochs do not share one."""
    seeds = {epoch_seed(seed, epoch) for seed in range(20) for epoch in range(200)}
    assert len(seeds) == 4000 and max(seeds) < 2**63


@pytest.mark.parametrize(("setting", "moves"), [("clip_norm", 1e-12), ("weight_decay", 1e3)])
def test_the_gradient_is_clipped_and_weights_decay(setting, moves):
    """Another clip or decay than usual leads to other weights."""
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0)) * 3 + 1
    norms = {}
    for value in (5.0 if setting == "clip_norm" else 0.0, moves):
        torch.manual_seed(0)
        flow = kf.real_nvp(2, depth=2, hidden=(8,))
        with torch.no_grad():
            for parameter in flow.parameters():
                parameter.add_(0.3)
        result = kf.fit(flow, x, max_epochs=1, average=0.0, **{setting: value})
        norms[value] = sum(p.norm().item() for p in result.flow.parameters())
    assert len({round(norm, 4) for norm in norms.values()}) == 2


def test_a_held_out_row_beyond_the_float_type_does_not_stop_the_measuring():
    """It is left out of the conditioning figures; where no row is left they are nan."""
    from kappaflow.data.batches import Batch
    from kappaflow.training.measure import conditioning_figures

    flow = kf.real_nvp(2, depth=2, hidden=(4,))
    flow.standardization.bijections[0].deviation.fill_(1e-20)
    x = torch.tensor([[1e-20, 0.0], [1e30, 0.0]])
    assert conditioning_figures(flow, Batch(x, None))["condition_number_median"] == 1
    figures = conditioning_figures(flow, Batch(x[1:], None))
    assert all(value != value for value in figures.values())


def test_condition_numbers_that_are_measured_already_are_not_measured_again(monkeypatch):
    """A budget asks for them at more rows; the round trips are measured all the same."""
    from kappaflow.data.batches import Batch
    from kappaflow.training import measure

    monkeypatch.delattr(measure, "spectrum")
    flow = kf.Flow(kf.StandardNormal(2), kf.bijections.ElementwiseAffine(2))
    known = {"condition_number_median": 3.0, "condition_number_p95": 4.0}
    x = torch.randn(9, 2)
    figures = measure.conditioning_figures(flow, Batch(x, None), known)
    assert figures == {**known, "round_trip_data": 0.0, "round_trip_latent": 0.0}
    lost = measure.conditioning_figures(flow, Batch(x * float("nan"), None), known)
    assert lost.items() >= known.items() and lost["round_trip_data"] != lost["round_trip_data"]


def test_the_line_of_progress_is_in_bits_per_dimension_for_images():
    """Training and held-out figures in one unit; nats on standardized columns for tables."""
    figures = {"train_nll": 80.0, "validation_nll": 100.0, "condition_number_p95": 12.0}
    figures |= {"train_nll_standardized": 3.0, "validation_nll_standardized": 4.0}
    assert describe(figures) == "nll 3 train 4 held out, cond 12"
    assert describe(figures, "joint nll").startswith("joint nll 3 train")
    figures["validation_bits_per_dimension"] = 2.5
    assert describe(figures) == "bits/dim 2 train 2.5 held out, cond 12"
    figures |= {"train_nll": None}
    assert describe(figures).startswith("nll 3 train")
    figures |= {"condition_number_p95": None}  # not measured after each epoch
    assert describe(figures) == "nll 3 train 4 held out"


def test_a_sparkline_rises_and_falls_with_its_values():
    """The least is the lowest block, the largest the highest, gaps are gaps."""
    assert sparkline([0.0, 7.0, float("nan"), None, 3.5], 9) == "▁█  ▅"
    assert sparkline([1.0, 10.0, 100.0, 0.0], 9, log=True) == "▁▅█ "
    assert sparkline([2.0, 2.0], 9) == "▁▁" and sparkline([None], 9) == ""
    long = sparkline([float(i) for i in range(100)], 20)
    assert len(long) == 20 and long[-1] == LEVELS[-1] and sorted(long) == list(long)


def test_curves_of_a_training_show_likelihood_and_conditioning():
    """With the first and the last value; a curve of one number is left out."""
    epochs = [
        {"validation_nll_standardized": n, "condition_number_p95": c}
        for n, c in ((6.5, 10.0), (5.5, None), (4.5, 1000.0))
    ]
    assert curve_facts(epochs[:1]) == []
    assert curve_facts(epochs) == [("held out", "6.5 █▅▁ 4.5"), ("condition 95 %", "10 ▁ █ 1e+03")]
    images = [
        {"validation_bits_per_dimension": b, "condition_number_p95": 2.0} for b in (3.0, 2.0)
    ]
    assert curve_facts(images)[0] == ("held out", "3 █▁ 2")
