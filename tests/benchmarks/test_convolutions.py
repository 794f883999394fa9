"""The forms of convolutional networks that are timed are the same network."""


def test_all_forms_of_a_tiny_network_answer_the_same(benchmark, capsys):
    """Up to rounding; a ratio is printed for each but the reference, which has milliseconds."""
    module = benchmark("convolutions")
    module.convolutions(channels=(2, 3), sides=(3, 1), batch=2, hidden=4, repetitions=2)
    said = capsys.readouterr().out
    for title in ("ConvNet, 2 x 2 x 3 x 3", "ResidualConvNet, 2 x 3 x 1 x 1"):
        assert title in said.splitlines()
    lines = [line for line in said.splitlines() if line[-4:-2] in {"e-", "e+"}]
    assert len(lines) == 2 * (9 + 4)
    for line in lines:
        assert float(line.split()[-1]) < 1e-5
        assert (" ms " in line) == line.startswith("  NCHW  ")
