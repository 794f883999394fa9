"""Which processes train together, from the variables of a launcher."""

import pytest

from kappaflow.ranks import launch, rank, ranks

MEETING = {"MASTER_ADDR": "first", "MASTER_PORT": "29500"}
SRUN = {
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "16390",
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NODELIST": "node-[03-05,07],other",
}


@pytest.fixture
def launched(monkeypatch):
    """A function that sets variables, and no others of a launcher, and returns the launch."""

    def result(variables):
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", *MEETING, *SRUN):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return launch()

    return result


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (0, 1, None, "", 0, "")),
        ({**MEETING, "RANK": "2", "WORLD_SIZE": "4"}, (2, 4, None, "first", 29500, "")),
        (
            {**MEETING, "RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0"},
            (2, 4, 0, "first", 29500, ""),
        ),
        (SRUN, (5, 8, 1, "node-03", 12_000 + 6 + 2 * 97, "")),
        ({**SRUN, **MEETING}, (5, 8, 1, "first", 29500, "")),
        ({**SRUN, "WORLD_SIZE": "1"}, (0, 1, None, "", 0, "")),
        ({**SRUN, "WORLD_SIZE": "8"}, (5, 8, 1, "node-03", 12_000 + 6 + 2 * 97, "")),
        ({**SRUN, "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, (0, 1, None, "", 0, "")),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, (0, 1, None, "", 0, "")),
    ],
    ids=[
        "none",
        "env",
        "torchrun",
        "srun",
        "srun with an address",
        "srun of separate trainings",
        "srun that exports WORLD_SIZE",
        "srun of one task",
        "the script of sbatch",
    ],
)
def test_a_launch_is_read_from_the_environment(variables, expected, launched):
    """Rank, size, rank on the machine, address, port."""
    assert launched(variables) == expected
    assert (rank(), ranks()) == expected[:2]


@pytest.mark.parametrize("nodes", ["a-[3,5]", "a-3", "a-3,b", "a-[3-7]", "a-[3]"])
def test_ranks_meet_on_the_first_node(nodes, launched):
    """Of the list that Slurm shortens."""
    assert launched({**SRUN, "SLURM_STEP_NODELIST": nodes}).address == "a-3"


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"RANK": "1"}, "WORLD_SIZE should be set too"),
        ({"WORLD_SIZE": "2"}, "RANK should be set too"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "MASTER_ADDR and MASTER_PORT should be set too"),
        (
            {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"},
            "MASTER_ADDR and MASTER_PORT",
        ),
        ({**MEETING, "RANK": "2", "WORLD_SIZE": "2"}, "'RANK' should be from 0 to one less"),
        ({**MEETING, "RANK": "one", "WORLD_SIZE": "2"}, "got 'one' of '2'"),
        ({**MEETING, "MASTER_PORT": "x", "RANK": "0", "WORLD_SIZE": "2"}, "'MASTER_PORT' should"),
    ],
)
def test_a_launch_that_is_incomplete_has_a_problem(variables, problem, launched):
    """One sentence, which a training raises."""
    assert problem in launched(variables).problem
