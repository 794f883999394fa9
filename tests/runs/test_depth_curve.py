"""`kappaflow depth`: the depth that a table needs."""

import json

import numpy as np
import pytest
import torch

import kappaflow as kf
from cases import bent_rows
from kappaflow.cli.app import main
from kappaflow.errors import ArgumentError
from kappaflow.report.depth import DepthCurve, DepthPoint, Rewritten, depth_chart
from kappaflow.runs.depth_theory import linear_part

QUICK = {"hidden": (16,), "progress": False}


@pytest.fixture(scope="module")
def curve():
    """Returns the curve of a bent table, with two partitions."""
    settings = QUICK | {"max_epochs": 2, "max_depth": 4, "nats": 0.03}
    return kf.depth_curve(
        bent_rows(600), model="real_nvp", partitions=["half", "mixing"], **settings
    )


def test_gains_are_differences_of_the_likelihood_on_held_out_rows(curve):
    """The sum of all gains is the difference between the ends, and errors are paired."""
    for partition in ("half", "mixing"):
        points = curve.of(partition)
        assert [point.depth for point in points] == [2, 4, 8][: len(points)]
        gains = [point.gain for point in points[1:]]
        assert sum(gains) == pytest.approx(points[0].nll - points[-1].nll, abs=1e-4)
        assert all(0 < p.gain_error < p.standard_error for p in points[1:])
        assert all(point.condition_number > 1 for point in points)
    assert curve.rewritten.couplings > curve.rewritten.depth


def test_two_groups_of_rows_need_a_steep_flow():
    """The layers whose constants multiply to the bound are counted, and a sentence says so."""
    x = torch.randn(4_000, 2, generator=torch.Generator().manual_seed(0)) * 0.2
    x[::2, 0] += 2
    curve = kf.depth_curve(x, partitions=["half"], max_depth=2, max_epochs=3, **QUICK)
    modes = curve.modes
    assert modes.shares == pytest.approx((0.5, 0.5), abs=0.05)
    assert modes.lipschitz > 5 and modes.layer_lipschitz <= modes.flow_lipschitz + 1e-9
    assert "Two groups of rows" in curve.describe()[-1]
    least = modes.model_copy(update={"layers": None})
    assert "or is steeper elsewhere" in of_points(point(2, 5.0), modes=least).describe()[-1]


def test_images_have_a_curve_of_the_steps_of_a_glow(tmp_path, capsys):
    """In bits per dimension, with the channels mixed by nothing, at random or by convolutions."""
    command = [
        "depth", "digits", "--out", str(tmp_path / "out"), "--hidden", "2", "--max-depth", "2",
        "--max-epochs", "1",
    ]  # fmt: skip
    assert main([*command, "--quiet", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [p["partition"] for p in report["points"]] == ["half", "random", "mixing"]
    assert all(2 < p["bits_per_dimension"] < 6 for p in report["points"])
    assert report["nats"] == pytest.approx(0.01 * 64 * np.log(2))
    page = (tmp_path / "out" / "index.html").read_text()
    assert "a learned 1x1 convolution" in page and "2 steps in each level" in page
    flows = [repr(kf.load(tmp_path / "out" / f"{name}-2")) for name in ("half", "mixing")]
    assert ["Conv1x1" in flow for flow in flows] == [False, True]


def test_a_run_is_not_a_folder_of_a_curve(tmp_path):
    """Its files would be mixed with those of the curve."""
    kf.fit(
        kf.nice(3, depth=2, hidden=(8,)), bent_rows(90), max_epochs=1, out=tmp_path, progress=False
    )
    with pytest.raises(ArgumentError, match="is one of a run"):
        kf.depth_curve(bent_rows(90), out=tmp_path, progress=False)


def point(depth, nll, gain=None, error=0.01, partition="half", score=1.0):
    return DepthPoint(
        partition=partition, depth=depth, nll=nll, standard_error=0.1, gain=gain,
        gain_error=None if gain is None else error, condition_number=10.0 * depth,
        score_s=score * depth, time_s=1.0, epochs=3,
    )  # fmt: skip


def of_points(*points, **more):
    return DepthCurve(data="a table", model=[], nats=0.01, rows=100, points=list(points), **more)


def test_the_recommended_depth_is_where_doubling_stops_to_pay():
    """At the least gain, significant or not; the sentence has all of the price."""
    found = of_points(point(2, 5.0), point(4, 4.5, 0.5, 0.4), point(8, 4.491, 0.009, 0.009))
    assert (found.recommended_depth, found.recommended_partition) == (4, "half")
    text = "\n".join(found.describe())
    assert "doubling gains 0.0090 ± 0.0090 nats and costs 2.0 times the time" in text
    assert "condition number 40.0 -> 80.0" in text and "more than 0.027 nats" in text
    assert of_points(point(2, 5.0), point(4, 4.5, 0.5)).recommended_depth == 4
    assert of_points(point(2, 5.0), point(4, 5.1, -0.1)).recommended_depth == 2
    assert of_points(point(2, 5.0), point(4, 4.991, 0.009, 0.001)).recommended_depth == 2


def test_of_partitions_that_are_as_good_the_faster_one_is_recommended():
    """A learned linear map has to gain more than the least gain, since it takes time."""
    half, mixing = point(4, 4.5), point(4, 4.495, partition="mixing", score=2)
    assert of_points(half, mixing).recommended_partition == "half"
    better = point(4, 4.4, partition="mixing", score=2)
    assert of_points(half, better).recommended_partition == "mixing"


def test_json_and_chart_have_the_recommended_depth():
    """And a page has every partition."""
    rewritten = Rewritten(depth=2, couplings=18, layer_condition_number=3.0)
    found = of_points(point(2, 5.0), point(4, 5.0, 0.0), rewritten=rewritten)
    assert json.loads(found.to_json())["recommended_depth"] == 2
    series = depth_chart(found).panels[0].series
    assert [s.name for s in series] == ["half", "recommended"] and series[1].x == [2]
    assert "are 18 couplings of one partition" in " ".join(found.describe())
    assert "half" in repr(found) and kf.plot.depth_curve(found, interactive=True).data


def test_the_command_resumes_and_writes_a_page(tmp_path, capsys):
    """A second call trains nothing and gives the same figures."""
    np.savetxt(tmp_path / "a.csv", bent_rows(400), header="a,b,c", comments="", delimiter=",")
    out = tmp_path / "out"
    command = [
        "depth", str(tmp_path / "a.csv"), "--out", str(out), "--partitions", "half", "random",
        "--hidden", "8", "--max-depth", "2", "--max-epochs", "1", "--quiet",
    ]  # fmt: skip
    assert main(command) == 0
    assert f"The page is {out / 'index.html'}" in capsys.readouterr().out
    weights = out / "half-2" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    assert main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert weights.stat().st_mtime_ns == written
    assert {p["partition"] for p in report["points"]} == {"half", "random"}
    assert json.loads((out / "report.json").read_text()) == report
    page = (out / "index.html").read_text()
    assert "How deep a flow of" in page and "a fixed random order of the columns" in page


@pytest.mark.slow
def test_partitions_in_parallel_give_the_same_curve():
    """Each in its own process."""
    settings = QUICK | {"max_epochs": 2, "max_depth": 2, "partitions": ["half", "random"]}
    first, second = (kf.depth_curve(bent_rows(400), processes=n, **settings) for n in (1, 2))
    assert [p.nll for p in first.points] == [p.nll for p in second.points]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": bent_rows(90)[:, :1]}, "at least two columns"),
        ({"model": "nice"}, "'model' should be"),
        ({"partitions": ["quarter"]}, "'partitions' should be"),
        ({"partitions": []}, "should name some of half"),
        ({"max_depth": 1}, "'max_depth' should be at least 2"),
        ({"nats": 0.0}, "'nats' should be"),
        ({"epochs": 3}, "epochs"),
        ({"processes": 0}, "'processes' should be"),
        ({"out": __file__}, "'out' should be a folder"),
        ({"data": "digits", "model": "spline"}, "'model' should be"),
        ({"data": "digits", "bounds": {"x": "positive"}}, "'bounds' should be left out for"),
        ({"data": "digits", "hidden": (8, 8)}, "'hidden' should be one number"),
        ({"data": kf.load_images("digits")}, "'data' should be the path or the name"),
    ],
    ids=[
        "one column",
        "model",
        "partition",
        "no partition",
        "max_depth",
        "nats",
        "setting",
        "processes",
        "file",
        "model of images",
        "bounds of images",
        "widths of images",
        "images in memory",
    ],  # fmt: skip
)
def test_what_has_no_depth_curve_is_refused(arguments, message):
    """Before anything is trained."""
    with pytest.raises(ArgumentError, match=message):
        kf.depth_curve(**{"data": bent_rows(90), "progress": False, **arguments})


@pytest.mark.parametrize("features", [3, 4])
def test_the_correlations_are_a_linear_map_with_a_lower_bound(features):
    """Its condition number is that of the root of the correlation matrix, and the bound holds."""
    x = torch.randn(500, features, generator=torch.Generator().manual_seed(0)).cumsum(1)
    linear = linear_part(kf.load_table(100 * x))
    correlation = np.corrcoef(x.double().numpy().T)
    assert linear.condition_number == pytest.approx(np.linalg.cond(correlation) ** 0.5)
    assert linear.couplings <= 6
    if features % 2:
        assert linear.lower_bound is None
    else:
        assert 1 < linear.lower_bound <= linear.coupling_condition_number
    text = of_points(point(2, 5.0), linear=linear).describe()[-1]
    assert ("no lower bound" in text) == bool(features % 2)


def test_columns_without_an_inverse_of_their_correlations_have_no_linear_part():
    """Such as a constant column, or one that is a multiple of another."""
    x = torch.randn(50, 1)
    assert linear_part(kf.load_table(torch.cat([x, 2 * x], 1))) is None
