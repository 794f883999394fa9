"""`kappaflow native`."""


def native() -> None:
    """Build the native player of coupling stacks, once: training becomes about a third quicker.

    It needs a C++ compiler, ninja and setuptools (pip install 'kappaflow[native]'), and half a
    minute. From then on it is used wherever this torch is; KAPPAFLOW_NATIVE=0 turns it off.
    """
    from kappaflow.stack.native import build

    print(build())
