"""The processes that train one flow together, and the number of this one among them: its rank.

They are those of the process group that the program has initialised, or else of the launch that
the environment describes: RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, which torchrun and other
launchers set, or the variables of Slurm's srun and of mpirun. With WORLD_SIZE=1 a process that
srun or mpirun started trains a flow of its own.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

# Variables of the rank, the number of ranks, and the rank on this machine.
ENV = "RANK", "WORLD_SIZE", "LOCAL_RANK"
SRUN = "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"
OPEN_MPI = "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"
OTHER_MPI = "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"
FIRST_PORT, PORTS = 12_000, 16_384  # for srun: below the ports that systems give out themselves

_working_alone = False


class Launch(NamedTuple):
    """The processes of a launch, from 0 to `size` - 1, which meet at the address of rank 0."""

    rank: int = 0
    size: int = 1
    rank_here: int | None = None  # on this machine
    address: str = ""
    port: int = 0
    problem: str = ""  # why the processes cannot meet


@contextmanager
def alone() -> Iterator[None]:
    """A context in which this process behaves as if it had been started alone."""
    global _working_alone
    before, _working_alone = _working_alone, True
    try:
        yield
    finally:
        _working_alone = before


def launch() -> Launch:
    """Returns the launch that the environment describes."""
    found = os.environ
    if found.get("WORLD_SIZE") == "1":
        return Launch()
    complete = [n for n in (ENV, SRUN, OPEN_MPI, OTHER_MPI) if {n[0], n[1]} <= found.keys()]
    if not complete:
        missing = {"RANK", "WORLD_SIZE"} - found.keys()
        return Launch(problem=_missing(*missing) if len(missing) == 1 else "")
    names = complete[0]
    numbers = [found.get(name, "") for name in names]
    if not all(number.isdecimal() for number in numbers[:2]) or int(numbers[0]) >= int(numbers[1]):
        return Launch(
            problem=f"'{names[0]}' should be from 0 to one less than '{names[1]}', got "
            f"{numbers[0]!r} of {numbers[1]!r}."
        )
    rank, size = map(int, numbers[:2])
    if size == 1:
        return Launch()
    rank_here = int(numbers[2]) if numbers[2].isdecimal() else None
    address, port = found.get("MASTER_ADDR", ""), found.get("MASTER_PORT", "")
    if names == SRUN:
        address, port = address or _first_host(found), port or _port_of_step(found)
    problem = ""
    if not address or not port:
        problem = _missing(*(n for n in ("MASTER_ADDR", "MASTER_PORT") if not found.get(n)))
    elif not port.isdecimal():
        problem = f"'MASTER_PORT' should be the number of a port, got {port!r}."
    return Launch(rank, size, rank_here, address, int(port) if not problem else 0, problem)


def ranks() -> int:
    """Returns the number of processes, on all machines, that train together."""
    if _working_alone:
        return 1
    group = own_group()
    return launch().size if group is None else group.get_world_size()


def rank() -> int:
    """Returns the number of this rank, from 0."""
    if _working_alone:
        return 0
    group = own_group()
    return launch().rank if group is None else group.get_rank()


def is_first() -> bool:
    """Returns whether this rank writes files and messages for all ranks."""
    return rank() == 0


def own_group() -> Any:
    """Returns torch.distributed if a process group is initialised in this process, or None."""
    distributed = sys.modules.get("torch.distributed")  # to import torch takes a second
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed


def _missing(*names: str) -> str:
    return (
        f"{' and '.join(sorted(names))} should be set too: several processes that train one flow "
        "need RANK, WORLD_SIZE, and the MASTER_ADDR and MASTER_PORT of the first one, where they "
        "meet. With WORLD_SIZE=1 this process trains alone."
    )


def _first_host(found: Any) -> str:
    """Returns the first of Slurm's hosts: node-03 of 'node-[03-05,07],other'."""
    hosts = found.get("SLURM_STEP_NODELIST") or found.get("SLURM_JOB_NODELIST", "")
    return re.sub(r"\[(\w+)[^]]*\]", r"\1", hosts).split(",")[0]


def _port_of_step(found: Any) -> str:
    """Returns a port that the tasks of a step of Slurm agree on, and other steps hardly share."""
    job, step = (found.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    number = int(job) + 97 * int(step) if job.isdecimal() and step.isdecimal() else 0
    return str(FIRST_PORT + number % PORTS)
