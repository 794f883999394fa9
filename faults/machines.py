"""Two virtual machines on one computer, with a cable that can be pulled (Linux, as root).

Each has its own network, host name and processes, by kernel namespaces.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]  # folder of the modules of this suite
ADDRESSES = ("10.77.0.1", "10.77.0.2")
PORT = 29500
ALONE = "unshare --net --uts --mount --pid --fork --kill-child --mount-proc".split()
BEGINS = 'mount --bind "$0" /etc/hosts; hostname "$1"; ip link set lo up; echo; exec sleep 9999'


@dataclass(frozen=True)
class Machine:
    """One of two machines.

    Attributes:
        pid: Process whose end also ends all other processes of the machine.
        cable: Network device of the machine.
        folder: Working folder of its processes.
    """

    pid: int
    cable: str
    folder: Path

    def torchrun(self, words: Sequence[str]) -> "subprocess.Popen[str]":
        """Returns torchrun of a module as one rank, which connects to the other machine."""
        path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        meeting = "--nnodes=2 --nproc-per-node=1 --rdzv-backend=c10d --rdzv-id=1 --rdzv-endpoint"
        return subprocess.Popen(
            [*self.there, sys.executable, "-m", "torch.distributed.run"]
            + [*meeting.split(), f"{ADDRESSES[0]}:{PORT}", "-m", *words],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def pull(self) -> None:
        """Pulls the cable: packets are lost without a message."""
        _run(*self.there, "ip", "link", "set", self.cable, "down")

    @property
    def there(self) -> list[str]:
        """The words before a command that run it on this machine."""
        spaces = "--net --uts --mount --pid".split()
        return ["nsenter", f"--target={self.pid}", *spaces, f"--wdns={self.folder}"]


def can_part(folder: Path) -> bool:
    """Returns whether this process can make machines."""
    try:
        with two_machines(folder):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def two_machines(folder: Path) -> Iterator[tuple[Machine, Machine]]:
    """Makes two machines while the context is active."""
    names, cables = ("one", "other"), [f"kf{os.getpid()}{end}" for end in "ab"]
    places = [(folder / name).resolve() for name in names]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
    hosts = folder / "hosts"
    known = zip(("127.0.0.1", *ADDRESSES), ("localhost", *names), strict=True)
    hosts.write_text("".join(f"{address} {name}\n" for address, name in known))
    with ExitStack() as kept:
        pids = [kept.enter_context(_namespaces(name, hosts)) for name in names]
        _run("ip", "link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
        one, other = map(Machine, pids, cables, places)
        for machine, address in zip((one, other), ADDRESSES, strict=True):
            _run("ip", "link", "set", machine.cable, "netns", str(machine.pid))
            cable = ["dev", machine.cable]
            _run(*machine.there, "ip", "address", "add", f"{address}/24", *cable)
            _run(*machine.there, "ip", "link", "set", *cable, "up")
        yield one, other


@contextmanager
def _namespaces(name: str, hosts: Path) -> Iterator[int]:
    """Makes a machine without a cable."""
    words = [*ALONE, "sh", "-ec", BEGINS, str(hosts), name]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            if process.stdout is None or not process.stdout.readline():
                raise OSError("no machine can be made here")
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            yield int(children)
        finally:
            process.kill()


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)
