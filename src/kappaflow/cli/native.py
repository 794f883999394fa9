"""`kappaflow native`."""

from kappaflow.cli.printable import tell


def native() -> None:
    """Build the native player of coupling stacks, for more from several threads.

    It needs a C++ compiler, ninja and setuptools (pip install 'kappaflow[native]'), and half a
    minute. From then on it is used with this torch; KAPPAFLOW_NATIVE=0 turns it off.
    """
    from kappaflow.stack.native import build

    tell(build())
